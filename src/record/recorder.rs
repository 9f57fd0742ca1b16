//! [`Recorder`]: a coordinator that records its calls; and [`RecordingWriter`], which records the calls of any
//! coordinator.

use crate::coordinator::Coordinator;
use crate::coordinator::config::Config;
use crate::coordinator::events::{Inbound, Outbound};
use crate::record::format::{CALL, CONSTRUCTION, END, FORMAT, GAP, MAGIC, OPEN, PREFIX, hash, prefix, write};
use crate::record::header::Header;
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Recordable;
use crate::vocabulary::key::Key;
use crate::vocabulary::machine::{Batch, Machine, Stamped};
use crate::vocabulary::secret::{Secret, Seeds};
use crate::vocabulary::time::Instant;
use core::fmt;
use std::collections::VecDeque;
use std::io::Write;

/// How much of a recording is kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keep {
    /// All calls, until they are [taken](Recorder::take).
    All,
    /// The construction, and the latest calls in at most this many bytes. Once a call has been dropped, the
    /// recording can be read, but not replayed.
    Last {
        /// The bound on the calls' frames, in bytes.
        bytes: usize,
    },
}

/// A coordinator that records its construction and every call: see the [module](super). It is a machine with the
/// events of the [`Coordinator`], so a driver needs to change only its construction.
#[derive(Clone)]
pub struct Recorder<F: Recordable> {
    coordinator: Coordinator<F>,
    writer: RecordingWriter,
}

impl<F: Recordable> Recorder<F> {
    /// A node whose own id is `local`, recorded from its construction on. The recording does not contain
    /// `secret`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn new(local: F::Target, config: Config, secret: &Secret, keep: Keep) -> Result<Self, ConfigError> {
        let seeds = secret.seeds();
        Self::from_header(&Header::new(local, config, seeds.choices), &seeds, keep)
    }

    /// The coordinator of this header, recorded from its construction on.
    pub(super) fn from_header(header: &Header<F>, seeds: &Seeds, keep: Keep) -> Result<Self, ConfigError> {
        let coordinator = header.coordinator(header.config.clone(), seeds)?;
        Ok(Self { coordinator, writer: RecordingWriter::new(header, keep, false) })
    }

    /// The same recorder, which also records the output as text (by `Debug`), so that a replay can show a
    /// difference in full. This takes several times the space and the time. Without it, only a digest of the
    /// output is recorded.
    #[must_use]
    pub const fn with_text(mut self) -> Self {
        self.writer.text = true;
        self
    }

    /// The coordinator that is recorded.
    pub const fn coordinator(&self) -> &Coordinator<F> {
        &self.coordinator
    }

    /// How many calls were recorded, including those dropped or taken since. It is the number of all calls, unless
    /// a node id or a message [could not be serialized](super::ReplayError::Unrecorded).
    pub const fn calls(&self) -> u64 {
        self.writer.log.calls
    }

    /// The recording so far, closed: the contents of a file. If pieces of it have been
    /// [taken](Recorder::take), they come before these bytes. A call that has not returned, because code of
    /// the caller's types panicked in it, is the last one.
    pub fn bytes(&self) -> Vec<u8> {
        self.writer.bytes()
    }

    /// Removes what is in memory and returns it, to be appended to a file while the program runs. The recording is
    /// all pieces in order, with [`bytes`](Recorder::bytes) as the last one; without that last piece it is
    /// [truncated](super::ReplayError::Truncated), and can be replayed as far as it goes.
    #[must_use = "what is taken is recorded no more"]
    pub fn take(&mut self) -> Vec<u8> {
        let bytes = self.writer.log.piece();
        self.writer.log.clear();
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
        self.writer.handle_into(&mut self.coordinator, now, event, out);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.coordinator.poll_timeout()
    }
}

/// Records the calls of a coordinator that its user owns.
#[derive(Clone)]
pub(crate) struct RecordingWriter {
    text: bool,
    log: FrameLog,
}

impl RecordingWriter {
    /// For a coordinator that was constructed from `header` and has not been called yet. `text`: as
    /// [`Recorder::with_text`].
    pub(crate) fn new<F: Recordable>(header: &Header<F>, keep: Keep, text: bool) -> Self {
        let head = (CONSTRUCTION, env!("CARGO_PKG_VERSION"), F::Key::BITS, header);
        Self { text, log: FrameLog::new(keep, |to| write(&head, to)) }
    }

    /// Makes a call to the coordinator, and records it.
    pub(crate) fn handle_into<F: Recordable>(
        &mut self,
        coordinator: &mut Coordinator<F>,
        now: Instant,
        event: Stamped<Inbound<F>>,
        out: &mut Batch<Outbound<F>>,
    ) {
        let Self { text, log } = self;
        let before = out.len();
        log.begin_call(|to| write(&(CALL, now, &event), to));
        coordinator.handle_into(now, event, out);
        let events = out.get(before..).unwrap_or_default();
        let output = CallOutput { events, wake: coordinator.poll_timeout() };
        log.end_call(|to| output.append(*text, to));
    }

    /// The recording so far, closed.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.log.piece();
        self.log.close(&mut bytes);
        bytes
    }
}

/// The output of a call: its events, and when the machine wants to be woken after it.
pub(super) struct CallOutput<'a, F: Recordable> {
    pub(super) events: &'a [Stamped<Outbound<F>>],
    pub(super) wake: Option<Instant>,
}

impl<F: Recordable> CallOutput<'_, F> {
    /// A digest of the output; `None` if a type of the caller's cannot be serialized. `buffer` is working
    /// memory: bytes are appended to it, and removed again.
    pub(super) fn digest(&self, buffer: &mut Vec<u8>) -> Option<u64> {
        let from = buffer.len();
        let written = write(&(self.events, self.wake), buffer);
        let digest = hash(buffer.get(from..).unwrap_or_default());
        buffer.truncate(from);
        written.then_some(digest)
    }

    /// Appends the digest, and the text where `text` is set. Returns whether the output could be serialized.
    fn append(&self, text: bool, to: &mut Vec<u8>) -> bool {
        let Some(digest) = self.digest(to) else { return false };
        to.extend_from_slice(&digest.to_le_bytes());
        // Writing to a vector does not fail.
        !text || write!(to, "{self}").is_ok()
    }
}

/// A line for each event, and one for the wake-up.
impl<F: Recordable> fmt::Display for CallOutput<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.events.iter().try_for_each(|event| writeln!(f, "{event:?}"))?;
        write!(f, "wakes at {:?}", self.wake)
    }
}

/// The frames in memory, and the payload of the current call.
#[derive(Clone)]
struct FrameLog {
    keep: Keep,
    /// The magic bytes, the format and the construction's frame; empty once they have been taken.
    head: Vec<u8>,
    frames: VecDeque<u8>,
    /// The payload of the current or latest call.
    payload: Vec<u8>,
    calls: u64,
    /// While a call has not returned: how many bytes of the payload are its kind, time and event.
    input_len: Option<usize>,
    /// How many calls before those in `frames` were dropped since the last piece was taken.
    lost: u64,
    /// Everything could be serialized so far.
    is_complete: bool,
}

impl FrameLog {
    fn new(keep: Keep, construction: impl FnOnce(&mut Vec<u8>) -> bool) -> Self {
        let mut payload = Vec::new();
        let is_complete = construction(&mut payload);
        let mut head = [&MAGIC[..], &[FORMAT]].concat();
        append(&payload, &mut head);
        Self { keep, head, frames: VecDeque::new(), payload, calls: 0, input_len: None, lost: 0, is_complete }
    }

    fn begin_call(&mut self, input: impl FnOnce(&mut Vec<u8>) -> bool) {
        self.payload.clear();
        self.is_complete = self.is_complete && input(&mut self.payload);
        self.input_len = Some(self.payload.len());
    }

    fn end_call(&mut self, output: impl FnOnce(&mut Vec<u8>) -> bool) {
        self.is_complete = self.is_complete && output(&mut self.payload);
        self.input_len = None;
        if !self.is_complete {
            return;
        }
        let Some(prefix) = prefix(&self.payload) else {
            self.is_complete = false;
            return;
        };
        self.calls += 1;
        if let Keep::Last { bytes } = self.keep {
            let size = PREFIX + self.payload.len();
            while !self.frames.is_empty() && self.frames.len().saturating_add(size) > bytes {
                self.drop_first_frame();
            }
            if size > bytes {
                self.lost += 1;
                return;
            }
        }
        self.frames.extend(&prefix);
        self.frames.extend(&self.payload);
    }

    fn drop_first_frame(&mut self) {
        let mut length = [0; 4];
        for (to, byte) in length.iter_mut().zip(&self.frames) {
            *to = *byte;
        }
        let size = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        self.frames.drain(..size.saturating_add(PREFIX).min(self.frames.len()));
        self.lost += 1;
    }

    /// What is in memory, not closed.
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

    /// Forgets what was in the latest piece.
    fn clear(&mut self) {
        self.head.clear();
        self.frames.clear();
        self.lost = 0;
    }

    /// Appends the call that has not returned, if any, and the end.
    fn close(&self, bytes: &mut Vec<u8>) {
        let open_call =
            self.input_len.filter(|_| self.is_complete).and_then(|length| self.payload.get(1..length));
        if let Some(input) = open_call {
            append(&[&[OPEN], input].concat(), bytes);
        }
        let mut payload = Vec::new();
        write(&(END, self.calls + u64::from(open_call.is_some()), self.is_complete), &mut payload);
        append(&payload, bytes);
    }
}

/// Appends a frame.
fn append(payload: &[u8], to: &mut Vec<u8>) {
    to.extend(prefix(payload).into_iter().flatten());
    to.extend_from_slice(payload);
}
