//! `sentinel bench`: figures by which planning is judged. Each bench prints a table and ends with one JSON object.

pub mod packing;
pub mod policies;
mod published;
mod robustness;
