//! Many jobs on a few threads.

use std::any::Any;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// As many threads as there are cores.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Does all jobs, each on the first thread that is free, and calls `each` with every job and its result in the order
/// of the jobs, as soon as those before it are done.
pub(crate) fn in_order<J: Sync, R: Send>(
    jobs: &[J],
    threads: usize,
    work: impl Fn(&J) -> R + Sync,
    mut each: impl FnMut(&J, R),
) {
    let next = AtomicUsize::new(0);
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads.clamp(1, jobs.len().max(1)) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(number) else { return };
                    if sender.send((number, work(job))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let (mut due, mut early) = (jobs.iter().enumerate().peekable(), BTreeMap::new());
        for (number, result) in results {
            early.insert(number, result);
            while let Some((number, job)) = due.peek()
                && let Some(result) = early.remove(number)
            {
                each(job, result);
                due.next();
            }
        }
    });
}

/// Does this work; a panic is an error with its message.
pub(crate) fn caught<R>(work: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(format!("panic: {}", message(&*panic))))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}
