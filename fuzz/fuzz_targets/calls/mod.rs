//! Counts the checked calls of machines, and says every million of them and how many there are a second: scenarios of more calls
//! are executed fewer times a second, so executions alone say little.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
static CALLS: AtomicU64 = AtomicU64::new(0);

/// A line is printed for each of so many calls.
const LINE: u64 = 1_000_000;

/// Counts the calls of one scenario.
pub(crate) fn count(tally: &BTreeMap<&'static str, u64>) {
    let seconds = BEGIN.elapsed().as_secs().max(1);
    let calls = tally.get("call").copied().unwrap_or(0);
    let before = CALLS.fetch_add(calls, Ordering::Relaxed);
    let after = before + calls;
    if before / LINE < after / LINE {
        eprintln!("calls: {after} in {seconds} s, {} a second", after / seconds);
    }
}
