//! Replays the corpora of the fuzz targets, so that `cargo test` runs every input that a fuzzer has kept.

#![cfg(feature = "testing")]
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod random_world;

use random_world::{MachineKind, check};
use std::path::Path;

fn replay(kind: MachineKind, target: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 20, "{} files in {}", paths.len(), folder.display());
    for path in paths {
        println!("{}", path.display()); // shown where the assertion below fails
        check(kind, &std::fs::read(&path).unwrap());
    }
}

#[test]
fn the_query_corpus_keeps_the_contract() {
    replay(MachineKind::Query, "query");
}

#[test]
fn the_pool_corpus_keeps_the_contract() {
    replay(MachineKind::Pool, "pool");
}

#[test]
fn the_broadcast_corpus_keeps_the_contract() {
    replay(MachineKind::Broadcast, "broadcast");
}

#[test]
fn the_coordinator_corpus_keeps_the_contract() {
    replay(MachineKind::Coordinator, "coordinator");
}

#[test]
fn the_crawl_corpus_keeps_the_contract() {
    replay(MachineKind::Crawl, "crawl");
}
