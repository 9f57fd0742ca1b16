//! The flight recorder (feature `record`): what a node was told, so that it can be told again.
//!
//! A [`Recorder`] is a coordinator that records its construction and every `(now, event)`, and of what came out a digest.
//! As equal input gives equal output, that is all there is to know: [`replay`] feeds a recording to a fresh coordinator, on any
//! machine and under any debugger, and shows the first call of which something else comes out.
//!
//! ```
//! use kad_proto::coordinator::Inbound;
//! use kad_proto::record::{Keep, Recorder, Recording, replay};
//! use kad_proto::{Config, Coordinator, Instant, Key8, Machine, Start};
//!
//! # #[derive(Clone, Debug, PartialEq)]
//! # struct Tiny;
//! # impl kad_proto::Family for Tiny {
//! #     type Key = Key8;
//! #     type Node = Key8;
//! #     type Message = ();
//! #     fn key(node: &Key8) -> Key8 {
//! #         *node
//! #     }
//! # }
//! // Instead of `Coordinator::<Tiny>::new(local, config)`:
//! let local = Key8::new([0]);
//! let mut dht = Recorder::<Tiny>::new(local, Config::default(), Keep::All)?.with_text();
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
//! let replayed = recording.replay_on(Coordinator::new(local, config)?)?;
//! println!("{replayed}"); // which call, what the machine was told, what had come out, and what comes out
//! assert_eq!(replayed.difference.map(|difference| difference.call), Some(1), "another deadline");
//!
//! for call in recording.calls() {
//!     println!("{}", call?);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is recorded
//!
//! Node ids and messages have to be serde's [`Serialize`] and [`Deserialize`](serde::Deserialize): that is what makes a family
//! [`Recordable`]. Keys are. The format is postcard's, within frames with a length and a check sum each; it begins with a number,
//! which changes whenever the types of the engine do, and a recording of another number is [refused](ReplayError::Format).
//! Reading never panics, whatever the bytes, and a forged length takes a megabyte in advance at most (what serde allows a vector;
//! types of yours should not take more). A file that is cut short, damaged, or of another network is a [`ReplayError`] that
//! says after how many calls.
//!
//! What comes out is compared by a digest of its values, 64 bits wide, as is the [wake-up](crate::Machine::poll_timeout) after
//! the call; [with the text](Recorder::with_text) a difference is shown in full.
//!
//! A recording holds all that peers and the caller said, messages and addresses included. Treat it as you would a log of them.
//!
//! # How much is kept
//!
//! [`Keep::All`] keeps everything until it is [taken](Recorder::take), piece by piece if need be. [`Keep::Last`] is a ring of so
//! many bytes, for a node that runs for months: what led to the crash can be read, call by call. It cannot be replayed
//! once its beginning is gone, and [says so](ReplayError::Partial). A bounded recorder whose pieces are taken before it has
//! dropped anything loses nothing.
//!
//! Where a call panics (in the code of the caller's types: the engine's own does not) and the program catches that, the call is
//! the last one of the recording, and a replay makes it again.
//!
//! # What it costs
//!
//! Of an answer that names 20 nodes of 32 bytes: 690 bytes, of which 661 are the nodes; 8,600 instructions, some 1 µs where the
//! coordinator itself takes 0.8 µs; no allocation once the ring has been full, or but for the growth of what keeps everything
//! (`tests/memory.rs`). With the text it takes some 35 µs. (`cargo bench --all-features --bench wrappers`, on a 2-core
//! virtual machine with others at work.) A span context takes 27 bytes and its trace state.
//!
//! # From a recording to a test
//!
//! In the repository of this crate, for what `examples/mainline --record FILE` wrote, for nodes of the simulator, and for the network
//! with 8-bit keys of its own tests:
//!
//! ```sh
//! cp FILE tests/recordings/        # a regression test: replayed by `cargo test --all-features`, no difference allowed
//! cp FILE fuzz/corpus/recording/   # a seed for the fuzzer: replayed by that too, and mutated by `cargo fuzz run recording`
//! ```
//!
//! A node of the simulator is recorded by `sim::World::record` (feature `sim`), or by
//! `cargo run --release --all-features --example simulate -- under-fire --record NODE=FILE`.
//!
//! In yours, `assert!(replay::<Yours>(include_bytes!("FILE"))?.difference.is_none())` is the whole test. Where a change of
//! the engine is meant to change what comes out, [`Recording::again`] records the same calls anew.

mod beginning;
mod format;
mod recorder;
mod replay;
pub(crate) mod span;

#[cfg(feature = "sim")]
pub(crate) use beginning::Beginning;
#[cfg(feature = "sim")]
pub(crate) use recorder::Tape;
pub use recorder::{Keep, Recorder};
pub use replay::{Call, Calls, Difference, Recording, ReplayError, Replayed, replay};

use crate::family::Family;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A family whose types can be recorded: all whose node ids and messages can be serialized and read back.
pub trait Recordable:
    Family<Node: Serialize + DeserializeOwned, Message: Serialize + DeserializeOwned>
{
}

impl<F> Recordable for F where
    F: Family<Node: Serialize + DeserializeOwned, Message: Serialize + DeserializeOwned>
{
}
