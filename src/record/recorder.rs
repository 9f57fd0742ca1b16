//! [`Recorder`]: a coordinator that records.

use super::Recordable;
use super::beginning::Beginning;
use super::format::{CALL, CONSTRUCTION, END, FORMAT, GAP, MAGIC, OPEN, PREFIX, hash, prefix, write};
use crate::coordinator::{Config, Coordinator, Inbound, Outbound};
use crate::error::ConfigError;
use crate::key::Key;
use crate::machine::{Batch, Machine, Stamped};
use crate::time::Instant;
use core::fmt;
use std::collections::VecDeque;
use std::io::Write;

/// How much of a recording is kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keep {
    /// Everything, until it is [taken](Recorder::take).
    All,
    /// The latest calls, in at most so many bytes, beside the construction. Once a call has been dropped, the recording can be
    /// read, and not be replayed.
    Last {
        /// The bytes of the calls.
        bytes: usize,
    },
}

/// A coordinator that records its construction and every call: see the [module](super). It is a machine with the events of the
/// [`Coordinator`], so that a driver changes one line.
#[derive(Clone)]
pub struct Recorder<F: Recordable> {
    coordinator: Coordinator<F>,
    tape: Tape,
}

impl<F: Recordable> Recorder<F> {
    /// A node whose own key is `local`, recorded from its construction on.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(local: F::Key, config: Config, keep: Keep) -> Result<Self, ConfigError> {
        Self::begin(&Beginning::new(local, config), keep)
    }

    pub(super) fn begin(beginning: &Beginning<F>, keep: Keep) -> Result<Self, ConfigError> {
        let coordinator = beginning.coordinator(beginning.config.clone())?;
        Ok(Self { coordinator, tape: Tape::new(beginning, keep, false) })
    }

    /// The same, which records what comes out as a text as well (by `Debug`), so that a difference can be shown in full. It takes
    /// several times the space and the time; without it there is a digest.
    #[must_use]
    pub const fn with_text(mut self) -> Self {
        self.tape.text = true;
        self
    }

    /// The coordinator.
    pub const fn coordinator(&self) -> &Coordinator<F> {
        &self.coordinator
    }

    /// How many calls were recorded, those since dropped or taken included: all there were, unless a node id or a message [refused to
    /// be serialized](super::ReplayError::Unrecorded).
    pub const fn calls(&self) -> u64 {
        self.tape.log.calls
    }

    /// The recording as it stands, closed: what a file is made of. Where parts of it have been [taken](Recorder::take), they come
    /// before. A call that has not returned, as something of the caller's has panicked in it, is the last one.
    pub fn bytes(&self) -> Vec<u8> {
        self.tape.bytes()
    }

    /// Takes what is in memory away, to be appended to a file as the program runs. The pieces one after the other, and
    /// [`bytes`](Recorder::bytes) as the last of them, are the recording; without that it is
    /// [cut short](super::ReplayError::Truncated), and replayed all the same as far as it goes.
    #[must_use = "what is taken is recorded no more"]
    pub fn take(&mut self) -> Vec<u8> {
        let bytes = self.tape.log.piece();
        self.tape.log.taken();
        bytes
    }
}

impl<F: Recordable> AsRef<Coordinator<F>> for Recorder<F> {
    fn as_ref(&self) -> &Coordinator<F> {
        &self.coordinator
    }
}

impl<F: Recordable> fmt::Debug for Recorder<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("coordinator", &self.coordinator).finish_non_exhaustive()
    }
}

impl<F: Recordable> Machine for Recorder<F> {
    type Inbound = Inbound<F>;
    type Outbound = Outbound<F>;

    fn handle_into(&mut self, now: Instant, event: Stamped<Inbound<F>>, out: &mut Batch<Outbound<F>>) {
        self.tape.handle_into(&mut self.coordinator, now, event, out);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.coordinator.poll_timeout()
    }
}

/// What records the calls of a coordinator that it does not hold.
#[derive(Clone)]
pub(crate) struct Tape {
    text: bool,
    log: Log,
}

impl Tape {
    /// For a coordinator that began so, and was told nothing yet.
    pub(crate) fn new<F: Recordable>(beginning: &Beginning<F>, keep: Keep, text: bool) -> Self {
        let head = (CONSTRUCTION, env!("CARGO_PKG_VERSION"), F::Key::BITS, beginning);
        Self { text, log: Log::new(keep, |to| write(&head, to)) }
    }

    /// Makes the next call.
    pub(crate) fn handle_into<F: Recordable>(
        &mut self,
        coordinator: &mut Coordinator<F>,
        now: Instant,
        event: Stamped<Inbound<F>>,
        out: &mut Batch<Outbound<F>>,
    ) {
        let Self { text, log } = self;
        let said = out.len();
        log.begin(|to| write(&(CALL, now, &event), to));
        coordinator.handle_into(now, event, out);
        let said = Said { events: out.get(said..).unwrap_or_default(), wake: coordinator.poll_timeout() };
        log.end(|to| said.append(*text, to));
    }

    /// The recording as it stands, closed.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.log.piece();
        self.log.close(&mut bytes);
        bytes
    }
}

/// What came of a call.
pub(super) struct Said<'a, F: Recordable> {
    pub(super) events: &'a [Stamped<Outbound<F>>],
    pub(super) wake: Option<Instant>,
}

impl<F: Recordable> Said<'_, F> {
    /// A number that something else would not have; `None` where a type of the caller's cannot be written. Bytes after those
    /// that are there already are used, and given back.
    pub(super) fn digest(&self, spare: &mut Vec<u8>) -> Option<u64> {
        let from = spare.len();
        let written = write(&(self.events, self.wake), spare);
        let digest = hash(spare.get(from..).unwrap_or_default());
        spare.truncate(from);
        written.then_some(digest)
    }

    /// Appends the digest, and the text where it is wanted.
    fn append(&self, text: bool, to: &mut Vec<u8>) -> bool {
        let Some(digest) = self.digest(to) else { return false };
        to.extend_from_slice(&digest.to_le_bytes());
        // A vector takes whatever is written.
        !text || write!(to, "{self}").is_ok()
    }
}

/// A line for each event, and one that says when the machine wants to be woken.
impl<F: Recordable> fmt::Display for Said<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.events.iter().try_for_each(|event| writeln!(f, "{event:?}"))?;
        write!(f, "wakes at {:?}", self.wake)
    }
}

/// The frames, and what they are made in.
#[derive(Clone)]
struct Log {
    keep: Keep,
    /// What a recording begins with; empty once it has been taken.
    head: Vec<u8>,
    frames: VecDeque<u8>,
    /// The payload of the call that goes on.
    payload: Vec<u8>,
    calls: u64,
    /// How many bytes of the payload are what the call was told, until it has returned.
    open: Option<usize>,
    /// Calls before those in `frames` that are not there, since something was taken.
    lost: u64,
    /// All could be written so far.
    whole: bool,
}

impl Log {
    fn new(keep: Keep, construction: impl FnOnce(&mut Vec<u8>) -> bool) -> Self {
        let mut payload = Vec::new();
        let whole = construction(&mut payload);
        let mut head = [&MAGIC[..], &[FORMAT]].concat();
        append(&payload, &mut head);
        Self { keep, head, frames: VecDeque::new(), payload, calls: 0, open: None, lost: 0, whole }
    }

    fn begin(&mut self, call: impl FnOnce(&mut Vec<u8>) -> bool) {
        self.payload.clear();
        self.whole = self.whole && call(&mut self.payload);
        self.open = Some(self.payload.len());
    }

    fn end(&mut self, said: impl FnOnce(&mut Vec<u8>) -> bool) {
        self.whole = self.whole && said(&mut self.payload);
        self.open = None;
        if !self.whole {
            return;
        }
        let Some(prefix) = prefix(&self.payload) else {
            self.whole = false;
            return;
        };
        self.calls += 1;
        if let Keep::Last { bytes } = self.keep {
            let size = PREFIX + self.payload.len();
            while !self.frames.is_empty() && self.frames.len().saturating_add(size) > bytes {
                self.drop_first();
            }
            if size > bytes {
                self.lost += 1;
                return;
            }
        }
        self.frames.extend(&prefix);
        self.frames.extend(&self.payload);
    }

    fn drop_first(&mut self) {
        let mut length = [0; 4];
        for (to, byte) in length.iter_mut().zip(&self.frames) {
            *to = *byte;
        }
        let size = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        self.frames.drain(..size.saturating_add(PREFIX).min(self.frames.len()));
        self.lost += 1;
    }

    /// What is in memory.
    fn piece(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.head.len() + self.frames.len() + 64);
        bytes.extend_from_slice(&self.head);
        if self.lost > 0 {
            let mut payload = Vec::new();
            write(&(GAP, self.lost), &mut payload);
            append(&payload, &mut bytes);
        }
        let (first, second) = self.frames.as_slices();
        bytes.extend_from_slice(first);
        bytes.extend_from_slice(second);
        bytes
    }

    fn taken(&mut self) {
        self.head.clear();
        self.frames.clear();
        self.lost = 0;
    }

    fn close(&self, bytes: &mut Vec<u8>) {
        let told = self.open.filter(|_| self.whole).and_then(|length| self.payload.get(1..length));
        if let Some(told) = told {
            append(&[&[OPEN], told].concat(), bytes);
        }
        let mut payload = Vec::new();
        write(&(END, self.calls + u64::from(told.is_some()), self.whole), &mut payload);
        append(&payload, bytes);
    }
}

fn append(payload: &[u8], to: &mut Vec<u8>) {
    to.extend(prefix(payload).into_iter().flatten());
    to.extend_from_slice(payload);
}
