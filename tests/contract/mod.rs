//! What the scenarios of the property tests, the corpora and the fuzz targets share besides the checker of
//! `kad_proto::testing`: the types of their network, and how each machine is constructed.

#![allow(dead_code)] // each test binary uses a part of it

pub(crate) mod build;
pub(crate) mod test_family;
