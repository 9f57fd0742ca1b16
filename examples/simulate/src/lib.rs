//! The scenarios of the program `kad-simulate`: by name, and as files.

pub mod file;
pub mod presets;
