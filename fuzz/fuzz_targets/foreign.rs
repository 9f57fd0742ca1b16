//! The driver of a family from outside: all that a fuzz target of one's own needs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    kad_foreign_family::fuzz(kad_foreign_family::Fault::None, bytes);
});
