//! [`Recording`]: recorded bytes, read and replayed.

use super::Recordable;
use super::beginning::Beginning;
use super::format::{CALL, CONSTRUCTION, END, FORMAT, GAP, MAGIC, NoFrame, OPEN, frame};
use super::recorder::{Keep, Recorder, Said};
use crate::coordinator::{Config, Coordinator, Inbound, Outbound};
use crate::error::ConfigError;
use crate::key::Key;
use crate::machine::{Batch, Machine, Stamped};
use crate::time::Instant;
use core::fmt;
use core::marker::PhantomData;
use serde::de::DeserializeOwned;

/// Feeds a recording to a fresh coordinator, and compares what comes out.
///
/// # Errors
/// [`ReplayError`] where the bytes are no recording that can be replayed to its end. Where there is a difference before it comes
/// to that, it is shown instead.
pub fn replay<F: Recordable>(bytes: &[u8]) -> Result<Replayed<F>, ReplayError> {
    Recording::open(bytes)?.replay()
}

/// Why bytes cannot be read or replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayError {
    /// Nobody recorded this.
    NotARecording,
    /// Another version of the crate, most likely a newer one, has recorded it in a format of its own.
    Format {
        /// Its number.
        found: u8,
        /// That of this version.
        known: u8,
    },
    /// It is of a network with keys of another length.
    KeyBits {
        /// Bits of its keys.
        found: u32,
        /// Bits of the keys of this network.
        expected: u32,
    },
    /// Its configuration cannot be used.
    Config(ConfigError),
    /// It lacks calls, which a [bounded recorder](Keep::Last) has dropped: it can be read, not replayed.
    Partial {
        /// Calls before those that are lacking.
        calls: u64,
        /// How many are lacking.
        lost: u64,
    },
    /// It is cut short.
    Truncated {
        /// Calls before that.
        calls: u64,
    },
    /// Bytes of it have changed.
    Damaged {
        /// Calls before that.
        calls: u64,
    },
    /// It has other types than this network.
    Unreadable {
        /// Calls before that.
        calls: u64,
    },
    /// The recorder stopped here, as a node id or a message refused to be serialized.
    Unrecorded {
        /// Calls before that.
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

/// Recorded bytes, of which the construction has been read.
#[derive(Clone, Debug)]
pub struct Recording<'a, F: Recordable> {
    version: &'a str,
    beginning: Beginning<F>,
    frames: &'a [u8],
    sums: bool,
}

impl<'a, F: Recordable> Recording<'a, F> {
    /// Reads what these bytes begin with.
    ///
    /// # Errors
    /// [`ReplayError`] where they are no recording of this network.
    pub fn open(bytes: &'a [u8]) -> Result<Self, ReplayError> {
        Self::read(bytes, true)
    }

    /// The same, of bytes that somebody has changed on purpose: their check sums are not looked at. For fuzzers.
    ///
    /// # Errors
    /// As above.
    pub fn mutated(bytes: &'a [u8]) -> Result<Self, ReplayError> {
        Self::read(bytes, false)
    }

    fn read(bytes: &'a [u8], sums: bool) -> Result<Self, ReplayError> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(ReplayError::NotARecording)?;
        let (format, rest) = rest.split_first().ok_or(ReplayError::Truncated { calls: 0 })?;
        if *format != FORMAT {
            return Err(ReplayError::Format { found: *format, known: FORMAT });
        }
        let (kind, body, frames) = frame(rest, sums).map_err(|error| broken(&error, 0))?;
        let unreadable = ReplayError::Unreadable { calls: 0 };
        if kind != CONSTRUCTION {
            return Err(unreadable);
        }
        // These two can be read whatever the family.
        let (version, body) = postcard::take_from_bytes::<&str>(body).map_err(|_| unreadable)?;
        let (found, body) = postcard::take_from_bytes::<u32>(body).map_err(|_| unreadable)?;
        let expected = F::Key::BITS;
        if found != expected {
            return Err(ReplayError::KeyBits { found, expected });
        }
        let (beginning, rest) = postcard::take_from_bytes(body).map_err(|_| unreadable)?;
        if !rest.is_empty() {
            return Err(unreadable);
        }
        Ok(Self { version, beginning, frames, sums })
    }

    /// The version of the crate that recorded it.
    pub const fn version(&self) -> &'a str {
        self.version
    }

    /// The node's own key.
    pub const fn local(&self) -> F::Key {
        self.beginning.local
    }

    /// The node's configuration.
    pub const fn config(&self) -> &Config {
        &self.beginning.config
    }

    /// A coordinator as the recorded one was in the beginning, but with this configuration: for [`replay_on`](Self::replay_on). It
    /// differs from [`Coordinator::new`] where the recorded one began with a filled table, as nodes of the simulator do.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn coordinator(&self, config: Config) -> Result<Coordinator<F>, ConfigError> {
        self.beginning.coordinator(config)
    }

    /// The calls that are there, in order; an error, where there is one, is the last item.
    pub const fn calls(&self) -> Calls<'a, F> {
        Calls { frames: self.frames, sums: self.sums, number: 0, over: false, family: PhantomData }
    }

    /// Feeds the recording to a fresh coordinator, and compares what comes out. Stops at the first difference.
    ///
    /// # Errors
    /// See [`replay`].
    pub fn replay(&self) -> Result<Replayed<F>, ReplayError> {
        self.replay_on(self.coordinator(self.config().clone()).map_err(ReplayError::Config)?)
    }

    /// The same with a machine of the caller's: a coordinator of another configuration, say.
    ///
    /// # Errors
    /// See [`replay`].
    pub fn replay_on(
        &self,
        mut machine: impl Machine<Inbound = Inbound<F>, Outbound = Outbound<F>>,
    ) -> Result<Replayed<F>, ReplayError> {
        let (mut out, mut spare) = (Batch::new(), Vec::new());
        let mut calls = self.calls();
        while let Some(item) = calls.next_item() {
            let Call { number, now, event, said, digest } = match item? {
                Item::Call(call) => call,
                Item::Gap { calls, lost } => return Err(ReplayError::Partial { calls, lost }),
            };
            machine.handle_into(now, event.clone(), &mut out);
            let came = Said { events: &out, wake: machine.poll_timeout() };
            // A call that had not returned has nothing to be compared with.
            if digest.is_some_and(|digest| came.digest(&mut spare) != Some(digest)) {
                let difference =
                    Difference { call: number, now, event, came: came.to_string(), had_come: said };
                return Ok(Replayed { calls: number, difference: Some(difference) });
            }
            out.clear();
        }
        Ok(Replayed { calls: calls.number, difference: None })
    }

    /// Records the same calls anew, with what comes out today: where a change of the engine is meant to change that.
    ///
    /// # Errors
    /// See [`replay`].
    pub fn again(&self) -> Result<Vec<u8>, ReplayError> {
        let mut recorder = Recorder::begin(&self.beginning, Keep::All).map_err(ReplayError::Config)?;
        let mut out = Batch::new();
        let mut calls = self.calls();
        while let Some(item) = calls.next_item() {
            match item? {
                Item::Call(call) => {
                    if call.said.is_some() {
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

const fn broken(error: &NoFrame, calls: u64) -> ReplayError {
    match error {
        NoFrame::Short => ReplayError::Truncated { calls },
        NoFrame::Damaged => ReplayError::Damaged { calls },
    }
}

/// One call of a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Call<F: Recordable> {
    /// Which; the first is 1.
    pub number: u64,
    /// When.
    pub now: Instant,
    /// What the machine was told.
    pub event: Stamped<Inbound<F>>,
    /// What came out, where its [text](Recorder::with_text) was recorded.
    pub said: Option<String>,
    /// None where it had not returned.
    digest: Option<u64>,
}

impl<F: Recordable> fmt::Display for Call<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {} at {}: {:?}", self.number, self.now, self.event)?;
        self.said.iter().flat_map(|said| said.lines()).try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// The [calls](Recording::calls) of a recording.
#[derive(Clone, Debug)]
pub struct Calls<'a, F: Recordable> {
    frames: &'a [u8],
    sums: bool,
    /// Of the latest call.
    number: u64,
    over: bool,
    family: PhantomData<F>,
}

#[allow(clippy::large_enum_variant)] // lives for a moment, and there is one of it
enum Item<F: Recordable> {
    Call(Call<F>),
    Gap { calls: u64, lost: u64 },
}

impl<F: Recordable> Calls<'_, F> {
    fn next_item(&mut self) -> Option<Result<Item<F>, ReplayError>> {
        if self.over {
            return None;
        }
        let item = self.read().transpose();
        self.over = !matches!(item, Some(Ok(_)));
        item
    }

    /// The next item; `None` at the end.
    fn read(&mut self) -> Result<Option<Item<F>>, ReplayError> {
        let calls = self.number;
        let (kind, body, rest) = frame(self.frames, self.sums).map_err(|error| broken(&error, calls))?;
        self.frames = rest;
        let unreadable = ReplayError::Unreadable { calls };
        match kind {
            CALL => {
                let ((now, event), body) = taken(body).ok_or(unreadable)?;
                let (digest, text) = body.split_first_chunk().ok_or(unreadable)?;
                let text = core::str::from_utf8(text).map_err(|_| unreadable)?;
                let said = (!text.is_empty()).then(|| text.to_owned());
                self.number = calls.saturating_add(1);
                let digest = Some(u64::from_le_bytes(*digest));
                Ok(Some(Item::Call(Call { number: self.number, now, event, said, digest })))
            }
            OPEN => {
                let (now, event) = all(body).ok_or(unreadable)?;
                self.number = calls.saturating_add(1);
                Ok(Some(Item::Call(Call { number: self.number, now, event, said: None, digest: None })))
            }
            GAP => {
                let lost = all(body).ok_or(unreadable)?;
                self.number = calls.saturating_add(lost);
                Ok(Some(Item::Gap { calls, lost }))
            }
            END => {
                let (total, whole): (u64, bool) = all(body).ok_or(unreadable)?;
                if self.sums && (total != calls || !rest.is_empty()) {
                    Err(ReplayError::Damaged { calls })
                } else if !whole {
                    Err(ReplayError::Unrecorded { calls })
                } else {
                    Ok(None)
                }
            }
            _ => Err(unreadable),
        }
    }
}

/// A value, and the bytes after it.
fn taken<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, &[u8])> {
    postcard::take_from_bytes(bytes).ok()
}

/// A value that takes all of the bytes.
fn all<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    taken(bytes).filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value)
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

/// What a replay came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed<F: Recordable> {
    /// Calls made.
    pub calls: u64,
    /// The first difference, at the last of them; `None` where everything came out as it had.
    pub difference: Option<Difference<F>>,
}

/// Where a replay differs from what was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference<F: Recordable> {
    /// Which call; the first is 1.
    pub call: u64,
    /// When.
    pub now: Instant,
    /// What the machine was told.
    pub event: Stamped<Inbound<F>>,
    /// What came out: a line for each event, and one that says when the machine wants to be woken.
    pub came: String,
    /// What had come out, where its [text](Recorder::with_text) was recorded.
    pub had_come: Option<String>,
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
        let Some(had_come) = &self.had_come else {
            f.write_str("came out, and something else had:")?;
            return self.came.lines().try_for_each(|line| write!(f, "\n    {line}"));
        };
        f.write_str("had come out (-), came out (+):")?;
        let (mut had, mut came) = (had_come.lines(), self.came.lines());
        loop {
            match (had.next(), came.next()) {
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
