//! What the program `kad-simulate` is made of: its scenarios, by name and as files; many runs at once, with their
//! means; and the weather table.

// Figures: small numbers.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

pub mod csv;
pub mod file;
pub mod presets;
pub mod runner;
pub mod weather;
mod work;
