//! The C functions that `tf.sentinel` calls through ctypes.

use crate::entry::{guard, panics_caught};
use rt::setup;
use rt::stats::Report;
use std::ffi::{c_char, CStr};

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!("1.13.1+sentinel-", env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a version has no NUL inside"),
    };

/// The library's version, NUL-terminated and never freed.
#[no_mangle]
pub extern "C" fn sentinel_version() -> *const c_char {
    VERSION.as_ptr()
}

fn report() -> String {
    let mut report = match setup::runtime() {
        Some(runtime) => runtime.report(),
        None => Report { state: "off".to_owned(), message: setup::advice(), ..Report::default() },
    };
    report.panics_caught = panics_caught();
    report.to_json()
}

/// The statistics as JSON; an empty object when even telling them fails.
pub fn stats_json() -> String {
    guard(String::from("{}"), report)
}

/// Writes the statistics as JSON with a closing NUL to `out` when `len` bytes suffice; returns the bytes it takes.
///
/// # Safety
/// `out` is null, or points to `len` writable bytes.
#[no_mangle]
pub unsafe extern "C" fn sentinel_stats_json(out: *mut c_char, len: usize) -> usize {
    let json = stats_json();
    let needed = json.len() + 1;
    if !out.is_null() && needed <= len {
        // SAFETY: the caller promises `len` writable bytes at `out`, `needed` fits, and a fresh `String` is elsewhere.
        unsafe {
            std::ptr::copy_nonoverlapping(json.as_ptr().cast::<c_char>(), out, json.len());
            out.add(json.len()).write(0);
        }
    }
    needed
}
