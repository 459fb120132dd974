//! The live worlds behind `place::Tiers`.

pub mod emulated;
pub mod numa;
pub mod single;
pub mod swap;
