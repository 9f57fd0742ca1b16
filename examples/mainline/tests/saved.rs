//! The file that keeps the routing table from one run to the next.

#![allow(clippy::unwrap_used, clippy::panic)]

use kad_mainline::family::Mainline;
use kad_mainline::saved::{self, FEW, Saved};
use kad_proto::Key160;
use kad_proto::routing::table::SavedNode;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A folder of its own, which is gone when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("kad-proto-saved-{:x}", rand::random::<u64>()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn files(&self) -> usize {
        std::fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn nodes(count: u8) -> Vec<SavedNode<Mainline>> {
    let node = |number| (Key160::new([number; 20]), SocketAddrV4::new(Ipv4Addr::LOCALHOST, 6_881));
    let saved = |number| SavedNode { node: node(number), age: Duration::from_secs(1), round_trip: None };
    (1..=count).map(saved).collect()
}

fn held(path: &Path) -> (Key160, usize) {
    let (id, nodes) = saved::read(path).unwrap();
    (id, nodes.len())
}

#[test]
fn a_nearly_empty_table_does_not_replace_a_better_one() {
    let folder = Folder::new();
    let path = folder.0.join("table.json");
    let (first, later) = (Key160::new([1; 20]), Key160::new([2; 20]));
    // Nothing is better than a table of one node, or an empty one.
    assert_eq!(saved::save(&path, first, &nodes(0)).unwrap(), Saved::Written);
    assert_eq!(saved::save(&path, first, &nodes(1)).unwrap(), Saved::Written);
    assert_eq!(saved::save(&path, first, &nodes(40)).unwrap(), Saved::Written);
    for few in 0..4 {
        assert_eq!(saved::save(&path, later, &nodes(few)).unwrap(), Saved::Kept(40));
        assert_eq!(held(&path), (first, 40));
    }
    // A small table is a table.
    assert_eq!((FEW, saved::save(&path, later, &nodes(4)).unwrap()), (4, Saved::Written));
    assert_eq!(held(&path), (later, 4));
    assert_eq!(saved::save(&path, first, &nodes(3)).unwrap(), Saved::Kept(4));
    // What is no table is replaced.
    std::fs::write(&path, "{").unwrap();
    assert_eq!(saved::save(&path, first, &nodes(2)).unwrap(), Saved::Written);
    assert_eq!(saved::save(&path, first, &nodes(2)).unwrap(), Saved::Written);
    assert_eq!((held(&path), folder.files()), ((first, 2), 1));
}

#[test]
fn a_file_that_cannot_be_written_leaves_nothing_behind() {
    let folder = Folder::new();
    // A folder stands where the file is to be: the renaming fails, after all was written.
    let path = folder.0.join("table.json");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("other"), "").unwrap();
    assert!(saved::save(&path, Key160::new([1; 20]), &nodes(8)).is_err());
    assert_eq!(folder.files(), 1);
}
