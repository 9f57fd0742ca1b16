//! What a node keeps from one run to the next: its id, and the nodes of its routing table. A file of JSON.

use crate::family::Mainline;
use core::time::Duration;
use kad_proto::Key160;
use kad_proto::routing::table::SavedNode;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::SystemTime;

/// What the file says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    id: String,
    /// When it was written, in seconds since 1970: nodes have aged since.
    written: u64,
    nodes: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    address: SocketAddrV4,
    /// How long ago it last answered; of a seed that has not, 272 years or more.
    age_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trip_us: Option<u64>,
}

/// A table of fewer nodes than this is nearly empty: it may be that of a node that is cut off.
pub const FEW: usize = 4;

/// What became of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// It was written.
    Written,
    /// It holds so many nodes, more than the table, which is nearly empty: it was kept as it was.
    Kept(usize),
}

/// Writes the file: never only half of it, and never so that a nearly empty table replaces a better one that was saved.
///
/// # Errors
/// That of the file system.
pub fn save(path: &Path, id: Key160, nodes: &[SavedNode<Mainline>]) -> io::Result<Saved> {
    if nodes.iter().filter(|saved| saved.age < SavedNode::<Mainline>::NEVER).count() < FEW
        && let Ok((_, saved)) = read(path)
        && saved.len() > nodes.len()
    {
        return Ok(Saved::Kept(saved.len()));
    }
    write(path, id, nodes).map(|()| Saved::Written)
}

/// Writes the file, whatever it holds: first another one beside it, which then takes its place.
///
/// # Errors
/// That of the file system.
pub fn write(path: &Path, id: Key160, nodes: &[SavedNode<Mainline>]) -> io::Result<()> {
    let entry = |saved: &SavedNode<Mainline>| Entry {
        id: saved.node.0.to_string(),
        address: saved.node.1,
        age_ms: number(saved.age.as_millis()),
        round_trip_us: saved.round_trip.map(|time| number(time.as_micros())),
    };
    let nodes = nodes.iter().map(entry).collect();
    let file = File { id: id.to_string(), written: now(), nodes };
    let text = serde_json::to_string_pretty(&file)? + "\n";
    let mut unfinished = path.as_os_str().to_owned();
    // Another process may save to the same file.
    unfinished.push(format!(".{}.new", std::process::id()));
    let written = fs::File::create(&unfinished).and_then(|mut new| {
        new.write_all(text.as_bytes())?;
        // It must not be there in name only, should the system fail after the renaming.
        new.sync_all()
    });
    let done = written.and_then(|()| fs::rename(&unfinished, path));
    if done.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    done
}

/// Reads the file: the id and the nodes.
///
/// # Errors
/// That of the file system; [`InvalidData`](std::io::ErrorKind::InvalidData) where the file is not one of ours.
pub fn read(path: &Path) -> io::Result<(Key160, Vec<SavedNode<Mainline>>)> {
    let key = |text: &str| {
        Key160::from_hex(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    };
    let file: File = serde_json::from_str(&fs::read_to_string(path)?)?;
    let since = Duration::from_secs(now().saturating_sub(file.written));
    let saved = |entry: Entry| {
        Ok(SavedNode {
            node: (key(&entry.id)?, entry.address),
            age: Duration::from_millis(entry.age_ms).saturating_add(since),
            round_trip: entry.round_trip_us.map(Duration::from_micros),
        })
    };
    Ok((key(&file.id)?, file.nodes.into_iter().map(saved).collect::<io::Result<_>>()?))
}

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs())
}

fn number(long: u128) -> u64 {
    u64::try_from(long).unwrap_or(u64::MAX)
}
