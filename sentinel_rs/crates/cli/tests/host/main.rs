//! The commands that deal with the machine they run on.

#[path = "../common/mod.rs"]
mod common;
mod doctor;
mod running;
