//! The border between TensorFlow and Sentinel: one bridge, one panic guard, the process's one instance.

mod bridge;
mod entry;
mod exports;
