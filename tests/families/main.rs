//! The engine on three wires: one like libp2p's, one like discv5's, one of BEP 5, over simulated networks.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `network` | the network: an event queue in virtual time, and nodes that are whole engines or answer from ideal tables |
//! | `figures` | figures over several seeds |
//! | `libp2p`, `discv5`, `bep5` | the families and their wires |
//! | `maintained` | networks that maintain themselves: lookups, broadcasts, crawls |
//! | `large` | lookups among 5,000 nodes, by what the family knows of targets and answers |
//! | `identities` | addresses that move, claimants, clients, nodes that are gone or banned, changes of this node |
//! | `parts` | answers in parts |
//! | `views` | what a driver sees of the table and of the nodes that the engine holds |
//!
//! Sizes are those of a test; without debug assertions (`--release`) they are larger. The figures are printed with
//! `--nocapture`.

#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod bep5;
mod discv5;
mod figures;
mod identities;
mod large;
mod libp2p;
mod maintained;
mod network;
mod parts;
mod views;
