//! [`Recording`]: recorded bytes, which can be read call by call and replayed.

use crate::coordinator::Coordinator;
use crate::coordinator::config::Config;
use crate::coordinator::events::{Inbound, Outbound};
use crate::record::format::{CALL, CONSTRUCTION, END, FORMAT, FrameError, GAP, MAGIC, OPEN, read_frame};
use crate::record::header::Header;
use crate::record::recorder::{CallOutput, Keep, Recorder};
use crate::vocabulary::config_error::ConfigError;
use crate::vocabulary::family::Recordable;
use crate::vocabulary::key::Key;
use crate::vocabulary::machine::{Batch, Machine, Stamped};
use crate::vocabulary::time::Instant;
use core::fmt;
use core::marker::PhantomData;
use serde::de::DeserializeOwned;

/// Feeds a recording to a fresh coordinator, and compares the output with the recorded one. Stops at the first
/// difference.
///
/// # Errors
/// [`ReplayError`] where the bytes are not a recording that can be replayed to its end; if there is a
/// difference before that point, it is returned instead.
pub fn replay<F: Recordable>(bytes: &[u8]) -> Result<Replayed<F>, ReplayError> {
    Recording::open(bytes)?.replay()
}

/// Why bytes cannot be read or replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayError {
    /// The bytes are not a recording.
    NotARecording,
    /// It was recorded by another version of the crate, most likely a newer one, in another format.
    Format {
        /// The number of its format.
        found: u8,
        /// The number of this version's format.
        known: u8,
    },
    /// It is of a network with keys of another length.
    KeyBits {
        /// Bits of its keys.
        found: u32,
        /// Bits of the keys of this network.
        expected: u32,
    },
    /// Its configuration is out of bounds.
    Config(ConfigError),
    /// Calls are missing, which a [bounded recorder](Keep::Last) has dropped: it can be read, but not replayed.
    Partial {
        /// How many calls come before the missing ones.
        calls: u64,
        /// How many are missing.
        lost: u64,
    },
    /// The bytes end before the recording does.
    Truncated {
        /// How many calls come before that.
        calls: u64,
    },
    /// A check sum or a count does not match: bytes have changed.
    Damaged {
        /// How many calls come before that.
        calls: u64,
    },
    /// A value cannot be read: the recording is of a family with other types.
    Unreadable {
        /// How many calls come before that.
        calls: u64,
    },
    /// The recorder stopped here, as a node id or a message could not be serialized.
    Unrecorded {
        /// How many calls come before that.
        calls: u64,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARecording => f.write_str("not a recording"),
            Self::Format { found, known } => {
                write!(f, "recorded in format {found}, where this version knows {known}")
            }
            Self::KeyBits { found, expected } => {
                write!(f, "recorded with keys of {found} bits, where this network has {expected}")
            }
            Self::Config(error) => write!(f, "recorded with a configuration that cannot be used: {error}"),
            Self::Partial { calls, lost } => {
                write!(f, "a partial recording: {lost} calls were dropped after {calls}")
            }
            Self::Truncated { calls } => write!(f, "cut short after {calls} calls"),
            Self::Damaged { calls } => write!(f, "damaged after {calls} calls"),
            Self::Unreadable { calls } => write!(f, "of another family: unreadable after {calls} calls"),
            Self::Unrecorded { calls } => {
                write!(f, "not recorded after {calls} calls, as something could not be serialized")
            }
        }
    }
}

impl core::error::Error for ReplayError {}

/// A recording whose construction has been read.
#[derive(Clone, Debug)]
pub struct Recording<'a, F: Recordable> {
    version: &'a str,
    header: Header<F>,
    frames: &'a [u8],
    verify_sums: bool,
}

impl<'a, F: Recordable> Recording<'a, F> {
    /// Reads the construction, with which these bytes begin.
    ///
    /// # Errors
    /// [`ReplayError`] where they are not a recording of this network.
    pub fn open(bytes: &'a [u8]) -> Result<Self, ReplayError> {
        Self::read(bytes, true)
    }

    /// Like [`open`](Self::open), for bytes that were changed on purpose: their check sums are not verified. For
    /// fuzzers.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn mutated(bytes: &'a [u8]) -> Result<Self, ReplayError> {
        Self::read(bytes, false)
    }

    fn read(bytes: &'a [u8], verify_sums: bool) -> Result<Self, ReplayError> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(ReplayError::NotARecording)?;
        let (format, rest) = rest.split_first().ok_or(ReplayError::Truncated { calls: 0 })?;
        if *format != FORMAT {
            return Err(ReplayError::Format { found: *format, known: FORMAT });
        }
        let (kind, body, frames) = read_frame(rest, verify_sums).map_err(|error| replay_error(&error, 0))?;
        let unreadable = ReplayError::Unreadable { calls: 0 };
        if kind != CONSTRUCTION {
            return Err(unreadable);
        }
        // These two are encoded in the same way for every family.
        let (version, body) = postcard::take_from_bytes::<&str>(body).map_err(|_| unreadable)?;
        let (found, body) = postcard::take_from_bytes::<u32>(body).map_err(|_| unreadable)?;
        let expected = F::Key::BITS;
        if found != expected {
            return Err(ReplayError::KeyBits { found, expected });
        }
        let (header, rest) = postcard::take_from_bytes(body).map_err(|_| unreadable)?;
        if !rest.is_empty() {
            return Err(unreadable);
        }
        Ok(Self { version, header, frames, verify_sums })
    }

    /// The version of the crate that recorded it.
    pub const fn version(&self) -> &'a str {
        self.version
    }

    /// The node's own key.
    pub const fn local(&self) -> &F::Target {
        &self.header.local
    }

    /// The node's configuration.
    pub const fn config(&self) -> &Config {
        &self.header.config
    }

    /// A coordinator as the recorded one was at the beginning, but with this configuration: for
    /// [`replay_on`](Self::replay_on). It differs from [`Coordinator::new`] in that it makes the recorded random
    /// choices, and begins with the recorded table, which nodes of the simulator have.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn coordinator(&self, config: Config) -> Result<Coordinator<F>, ConfigError> {
        self.header.coordinator(config, &self.header.seeds())
    }

    /// The calls of the recording, in order, without those that were dropped. An error, if there is one, is
    /// the last item.
    pub const fn calls(&self) -> Calls<'a, F> {
        Calls {
            frames: self.frames,
            verify_sums: self.verify_sums,
            number: 0,
            is_done: false,
            family: PhantomData,
        }
    }

    /// Feeds the recording to a fresh coordinator, and compares the output with the recorded one. Stops at the
    /// first difference.
    ///
    /// # Errors
    /// See [`replay`].
    pub fn replay(&self) -> Result<Replayed<F>, ReplayError> {
        self.replay_on(self.coordinator(self.config().clone()).map_err(ReplayError::Config)?)
    }

    /// Like [`replay`](Self::replay), with a machine of the caller's: for example, a coordinator of another
    /// configuration.
    ///
    /// # Errors
    /// See [`replay`].
    pub fn replay_on(
        &self,
        mut machine: impl Machine<Inbound = Inbound<F>, Outbound = Outbound<F>>,
    ) -> Result<Replayed<F>, ReplayError> {
        let (mut out, mut buffer) = (Batch::new(), Vec::new());
        let mut calls = self.calls();
        while let Some(item) = calls.next_item() {
            let Call { number, now, event, output: recorded_output, digest } = match item? {
                Item::Call(call) => call,
                Item::Gap { calls, lost } => return Err(ReplayError::Partial { calls, lost }),
            };
            machine.handle_into(now, event.clone(), &mut out);
            let output = CallOutput { events: &out, wake: machine.poll_timeout() };
            // A call that had not returned has no recorded output to compare with.
            if digest.is_some_and(|digest| output.digest(&mut buffer) != Some(digest)) {
                let replayed_output = output.to_string();
                let difference = Difference { call: number, now, event, replayed_output, recorded_output };
                return Ok(Replayed { calls: number, difference: Some(difference) });
            }
            out.clear();
        }
        Ok(Replayed { calls: calls.number, difference: None })
    }

    /// Records the same calls anew, with the output of this version: for a change of the engine that is meant to
    /// change the output.
    ///
    /// # Errors
    /// See [`replay`].
    pub fn record_anew(&self) -> Result<Vec<u8>, ReplayError> {
        let mut recorder = Recorder::from_header(&self.header, &self.header.seeds(), Keep::All)
            .map_err(ReplayError::Config)?;
        let mut out = Batch::new();
        let mut calls = self.calls();
        while let Some(item) = calls.next_item() {
            match item? {
                Item::Call(call) => {
                    if call.output.is_some() {
                        recorder = recorder.with_text();
                    }
                    recorder.handle_into(call.now, call.event, &mut out);
                }
                Item::Gap { calls, lost } => return Err(ReplayError::Partial { calls, lost }),
            }
            out.clear();
        }
        Ok(recorder.bytes())
    }
}

const fn replay_error(error: &FrameError, calls: u64) -> ReplayError {
    match error {
        FrameError::Truncated => ReplayError::Truncated { calls },
        FrameError::Damaged => ReplayError::Damaged { calls },
    }
}

/// One call of a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Call<F: Recordable> {
    /// Its number; the first is 1.
    pub number: u64,
    /// The time that was passed to it.
    pub now: Instant,
    /// The event that was passed to it.
    pub event: Stamped<Inbound<F>>,
    /// Its output as text, if that was [recorded](Recorder::with_text): a line for each event, and one for
    /// the wake-up.
    pub output: Option<String>,
    /// `None` if the call had not returned.
    digest: Option<u64>,
}

impl<F: Recordable> fmt::Display for Call<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {} at {}: {:?}", self.number, self.now, self.event)?;
        self.output.iter().flat_map(|output| output.lines()).try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// Iterates over the [calls](Recording::calls) of a recording.
#[derive(Clone, Debug)]
pub struct Calls<'a, F: Recordable> {
    frames: &'a [u8],
    verify_sums: bool,
    /// The number of the latest call.
    number: u64,
    is_done: bool,
    family: PhantomData<F>,
}

#[allow(clippy::large_enum_variant)] // short-lived, and one at a time
enum Item<F: Recordable> {
    Call(Call<F>),
    Gap { calls: u64, lost: u64 },
}

impl<F: Recordable> Calls<'_, F> {
    fn next_item(&mut self) -> Option<Result<Item<F>, ReplayError>> {
        if self.is_done {
            return None;
        }
        let item = self.read().transpose();
        self.is_done = !matches!(item, Some(Ok(_)));
        item
    }

    /// Reads the next item; `None` at the end.
    fn read(&mut self) -> Result<Option<Item<F>>, ReplayError> {
        let calls = self.number;
        let (kind, body, rest) =
            read_frame(self.frames, self.verify_sums).map_err(|error| replay_error(&error, calls))?;
        self.frames = rest;
        let unreadable = ReplayError::Unreadable { calls };
        match kind {
            CALL => {
                let ((now, event), body) = read_first(body).ok_or(unreadable)?;
                let (digest, text) = body.split_first_chunk().ok_or(unreadable)?;
                let text = core::str::from_utf8(text).map_err(|_| unreadable)?;
                let output = (!text.is_empty()).then(|| text.to_owned());
                self.number = calls.saturating_add(1);
                let digest = Some(u64::from_le_bytes(*digest));
                Ok(Some(Item::Call(Call { number: self.number, now, event, output, digest })))
            }
            OPEN => {
                let (now, event) = read_all(body).ok_or(unreadable)?;
                self.number = calls.saturating_add(1);
                Ok(Some(Item::Call(Call { number: self.number, now, event, output: None, digest: None })))
            }
            GAP => {
                let lost = read_all(body).ok_or(unreadable)?;
                self.number = calls.saturating_add(lost);
                Ok(Some(Item::Gap { calls, lost }))
            }
            END => {
                let (total, is_complete): (u64, bool) = read_all(body).ok_or(unreadable)?;
                if self.verify_sums && (total != calls || !rest.is_empty()) {
                    Err(ReplayError::Damaged { calls })
                } else if !is_complete {
                    Err(ReplayError::Unrecorded { calls })
                } else {
                    Ok(None)
                }
            }
            _ => Err(unreadable),
        }
    }
}

/// Reads a value; returns it and the bytes after it.
fn read_first<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, &[u8])> {
    postcard::take_from_bytes(bytes).ok()
}

/// Reads a value that must use all of the bytes.
fn read_all<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    read_first(bytes).filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value)
}

impl<F: Recordable> Iterator for Calls<'_, F> {
    type Item = Result<Call<F>, ReplayError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_item()? {
                Ok(Item::Call(call)) => return Some(Ok(call)),
                Ok(Item::Gap { .. }) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The result of a replay.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed<F: Recordable> {
    /// How many calls were made.
    pub calls: u64,
    /// The first difference, which is at the last of these calls; `None` if all outputs are as recorded.
    pub difference: Option<Difference<F>>,
}

/// The first call at which a replay differs from the recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference<F: Recordable> {
    /// The number of the call; the first is 1.
    pub call: u64,
    /// The time that was passed to it.
    pub now: Instant,
    /// The event that was passed to it.
    pub event: Stamped<Inbound<F>>,
    /// Its output in the replay: a line for each event, and one for the wake-up.
    pub replayed_output: String,
    /// Its recorded output in the same form, if that was [recorded as text](Recorder::with_text).
    pub recorded_output: Option<String>,
}

impl<F: Recordable> fmt::Display for Replayed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.difference {
            None => write!(f, "{} calls, no difference", self.calls),
            Some(difference) => fmt::Display::fmt(difference, f),
        }
    }
}

impl<F: Recordable> fmt::Display for Difference<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "call {} at {}: {:?}", self.call, self.now, self.event)?;
        let Some(recorded_output) = &self.recorded_output else {
            f.write_str("came out, and something else had:")?;
            return self.replayed_output.lines().try_for_each(|line| write!(f, "\n    {line}"));
        };
        f.write_str("had come out (-), came out (+):")?;
        let (mut recorded, mut replayed) = (recorded_output.lines(), self.replayed_output.lines());
        loop {
            match (recorded.next(), replayed.next()) {
                (None, None) => return Ok(()),
                (Some(one), Some(other)) if one == other => write!(f, "\n    {one}")?,
                (one, other) => {
                    one.iter().try_for_each(|line| write!(f, "\n  - {line}"))?;
                    other.iter().try_for_each(|line| write!(f, "\n  + {line}"))?;
                }
            }
        }
    }
}
