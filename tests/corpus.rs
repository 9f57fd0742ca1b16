//! Replays what the fuzzers found worth keeping, by plain `cargo test`.

#![allow(clippy::pedantic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use model::{Kind, check};
use std::path::Path;

fn replay(kind: Kind, target: &str) {
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
fn of_the_query() {
    replay(Kind::Query, "query");
}

#[test]
fn of_the_pool() {
    replay(Kind::Pool, "pool");
}

#[test]
fn of_broadcasts() {
    replay(Kind::Broadcast, "broadcast");
}

#[test]
fn of_the_coordinator() {
    replay(Kind::Coordinator, "coordinator");
}

#[test]
fn of_the_crawl() {
    replay(Kind::Crawl, "crawl");
}
