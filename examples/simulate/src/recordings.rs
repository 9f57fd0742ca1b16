//! Recordings of single nodes: `--record` and `--replay`.

use crate::single::show;
use kad_proto::record::{Keep, replay as replayed};
use kad_proto::sim::{Net, World};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A node to be recorded.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    /// As events name it, or else as the scenario counts it.
    handle: bool,
    number: u32,
    path: PathBuf,
}

impl Chosen {
    pub(crate) fn read(argument: &str) -> Result<Self, String> {
        let wrong = || format!("--record {argument}: must be NODE=FILE, NODE a number such as 17 or #4711");
        let (node, path) = argument.split_once('=').filter(|(_, path)| !path.is_empty()).ok_or_else(wrong)?;
        let (handle, number) = node.strip_prefix('#').map_or((false, node), |number| (true, number));
        Ok(Self { handle, number: number.parse().map_err(|_| wrong())?, path: path.into() })
    }

    fn index(&self, world: &World) -> Option<u32> {
        let first = if self.handle { world.handle(0).0 } else { 0 };
        self.number.checked_sub(first)
    }

    /// Has the node recorded.
    pub(crate) fn begin(&self, world: &mut World) -> Result<(), String> {
        let index = self.index(world).unwrap_or(u32::MAX);
        world.record(index, Keep::All, true).map_err(|error| {
            let (first, nodes) = (world.handle(0).0, world.scenario().nodes);
            let last = nodes - 1;
            format!(
                "--record {}: {error}: they are 0 to {last}, or #{first} to #{}",
                self.number,
                first + last
            )
        })
    }

    /// Writes the latest life of the node to its file.
    pub(crate) fn write(&self, world: &World) -> Result<(), String> {
        let (path, index) = (self.path.display(), self.index(world).unwrap_or(u32::MAX));
        let lives = world.recordings(index);
        let latest = lives.last().ok_or_else(|| format!("{path}: node {index} was never there"))?;
        std::fs::write(&self.path, latest).map_err(|error| format!("{path}: {error}"))?;
        let (life, node) = (lives.len(), world.handle(index));
        eprintln!("wrote {path}: {} bytes, life {life} of node {index}, {node}", latest.len());
        Ok(())
    }
}

/// Replays a recording, and prints the result.
pub(crate) fn replay(path: &Path) -> Result<ExitCode, Box<dyn Error>> {
    let named = |error: &dyn Error| format!("{}: {error}", path.display());
    let bytes = std::fs::read(path).map_err(|error| named(&error))?;
    let replayed = replayed::<Net>(&bytes).map_err(|error| named(&error))?;
    show(&format!("{replayed}\n"))?;
    Ok(if replayed.difference.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
