//! `sentinel bench`: figures by which planning is judged. Each bench prints a table and ends with one JSON object.

mod cells;
mod clock;
pub mod packing;
pub mod planning;
pub mod policies;
mod published;
mod rivals;
mod robustness;
mod step;
