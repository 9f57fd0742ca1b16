//! The flight recorder (feature `record`): records the input of a node, so that it can be replayed.
//!
//! A [`Recorder`] is a coordinator that records its construction, every `(now, event)`, and a digest of each
//! call's output. As equal input gives equal output, that is sufficient: [`replay`] feeds a recording to a fresh
//! coordinator, on any machine and under any debugger, and shows the first call whose output differs.
//!
//! ```
//! use kad_proto::coordinator::Inbound;
//! use kad_proto::record::{Keep, Recorder, Recording, replay};
//! use kad_proto::{Config, Coordinator, Instant, Key8, Machine, Secret, Start};
//!
//! # #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
//! # struct Tiny;
//! # impl kad_proto::Family for Tiny {
//! #     type Key = Key8;
//! #     type Target = Key8;
//! #     type Node = Key8;
//! #     type Message = ();
//! #     fn key(node: &Key8) -> Key8 {
//! #         *node
//! #     }
//! # }
//! // Instead of `Coordinator::<Tiny>::new(local, config, &secret)`:
//! let local = Key8::new([0]);
//! let secret = Secret::from_seed(1); // in a real node: `Secret::new` of random bytes
//! let mut dht = Recorder::<Tiny>::new(local, Config::default(), &secret, Keep::All)?.with_text();
//! let start = Start::find(1, Key8::new([0x42])).with_seeds(vec![Key8::new([0x80])]);
//! let _ = dht.handle(Instant::ORIGIN, Inbound::Start(start).into());
//! let _ = dht.handle(Instant::from_secs(1), Inbound::Tick.into());
//! let file = dht.bytes();
//!
//! // Later, and elsewhere:
//! assert_eq!(replay::<Tiny>(&file)?.difference, None);
//!
//! // Another engine, or one of another configuration:
//! let mut config = Config::default();
//! config.network.request_timeout = std::time::Duration::from_millis(500);
//! let recording = Recording::<Tiny>::open(&file)?;
//! let replayed = recording.replay_on(Coordinator::new(local, config, &secret)?)?;
//! println!("{replayed}"); // which call, its event, the recorded output, and the output of the replay
//! assert_eq!(replayed.difference.map(|difference| difference.call), Some(1), "another deadline");
//!
//! for call in recording.calls() {
//!     println!("{}", call?);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | file | what it holds |
//! | --- | --- |
//! | `recorder.rs` | [`Recorder`]: makes the calls and records them |
//! | `replay.rs` | [`Recording`]: reads a recording, and replays it |
//! | `header.rs`, `format.rs` | the construction of a node as data; the bytes of a recording |
//!
//! The recorder wraps the coordinator. No room of the engine uses it; the simulator does. It must not
//! change the output.
//!
//! # What is recorded
//!
//! A family is [`Recordable`] where its node ids and messages implement serde's [`Serialize`](serde::Serialize)
//! and [`Deserialize`](serde::Deserialize); all keys do. Values are encoded by postcard, in frames with a length
//! and a check sum each. A recording begins with a format number, which changes whenever the types of the engine
//! do; a recording of another format is [refused](ReplayError::Format). Reading never panics, whatever the bytes,
//! and a forged length makes it allocate at most a megabyte in advance (serde's bound for a vector; types of yours
//! should not allocate more). A file that is truncated, damaged, or of another network gives a [`ReplayError`]
//! that says after how many calls.
//!
//! The output of a call is its events and the [wake-up](crate::Machine::poll_timeout) after it. A replay compares
//! a 64-bit digest of it; [with the text](Recorder::with_text), a difference is shown in full.
//!
//! A recording contains everything that peers and the caller sent, including messages and addresses. Treat it as a
//! log of them.
//!
//! # How much is kept
//!
//! [`Keep::All`] keeps everything until it is [taken](Recorder::take), piece by piece if necessary. [`Keep::Last`]
//! is a ring of a configured number of bytes, for a node that runs for months: the calls that led to a crash can
//! be read one by one. Once its beginning is gone, it cannot be replayed, and a replay returns
//! [`ReplayError::Partial`]. A bounded recorder whose pieces are taken before it has dropped anything loses
//! nothing.
//!
//! If a call panics (in code of the caller's types: the engine's own does not) and the program catches the
//! panic, the call is the last one of the recording, and a replay makes it again.
//!
//! # What it costs
//!
//! For an answer that names 20 nodes of 32 bytes: 690 bytes, of which 661 are the nodes; 8,600 instructions, some
//! 1 µs where the coordinator itself takes 0.8 µs. It allocates nothing once the ring has been full; with
//! [`Keep::All`], nothing but the growth of its buffer (`tests/memory.rs`). With the text it takes some 35 µs.
//! (`cargo bench --all-features --bench wrappers`, on a shared 2-core virtual machine.) A span context takes 27
//! bytes and its trace state.
//!
//! # From a recording to a test
//!
//! In the repository of this crate, for what `kad-mainline --record FILE` wrote, for nodes of the simulator, and for the network
//! with 8-bit keys of its own tests:
//!
//! ```sh
//! cp FILE tests/recordings/       # a regression test: `cargo test --all-features` replays it, without a difference
//! cp FILE fuzz/corpus/recording/  # a fuzzer's seed: replayed by that too; `cargo fuzz run recording` mutates it
//! ```
//!
//! A node of the simulator is recorded by `sim::World::record` (feature `sim`), or by
//! `cargo run --release -p kad-simulate -- under-fire --record NODE=FILE`.
//!
//! In your repository, `assert!(replay::<Yours>(include_bytes!("FILE"))?.difference.is_none())` is the whole test.
//! If a change of the engine is meant to change the output, [`Recording::record_anew`] records the same calls
//! with the new output.

mod format;
mod header;
mod recorder;
mod replay;

#[cfg(feature = "sim")]
pub(crate) use header::Header;
#[cfg(feature = "sim")]
pub(crate) use recorder::RecordingWriter;
pub use recorder::{Keep, Recorder};
pub use replay::{Call, Calls, Difference, Recording, ReplayError, Replayed, replay};

pub use crate::vocabulary::family::Recordable;
