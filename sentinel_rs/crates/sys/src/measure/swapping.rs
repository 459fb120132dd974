//! How fast memory goes to swap and comes back.

use super::gbps;
use super::mapping::{Mapping, PageSize};
use super::streaming::XorShift;
use crate::memory::PAGE_BYTES;
use crate::{abi, Error};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Longest wait for pages to be written out.
const PATIENCE: Duration = Duration::from_secs(20);

/// Words in a page.
const PAGE_WORDS: usize = PAGE_BYTES / size_of::<u64>();

/// Speed of swap, in 10^9 bytes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SwapSpeed {
    /// Out, by `MADV_PAGEOUT`.
    pub out_gbps: f64,
    /// Back in, announced by `MADV_WILLNEED`.
    pub in_gbps: f64,
    /// Nanoseconds of one page fault on a page in swap, in random order.
    pub fault_ns: f64,
    /// Bytes swapped out.
    pub bytes: usize,
}

/// Swaps `len_bytes` of incompressible memory out and in again, from huge pages when `huge` and the kernel has them. `None`
/// when it does not leave memory: there is no swap, or a limit on it.
///
/// # Errors
/// Those of making the memory, and [`Error::Advise`], for instance `EINVAL` from Linux before 5.4.
pub fn swap_speed(len_bytes: usize, huge: bool) -> Result<Option<SwapSpeed>, Error> {
    let pages = if huge { PageSize::Huge } else { PageSize::Base };
    let mut mapping = Mapping::new(len_bytes, pages, None)?;
    let mut random = XorShift(0x2545_f491_4f6c_dd1d);
    mapping.words().iter_mut().for_each(|word| *word = random.next());
    let bytes = mapping.len_bytes();
    let began = Instant::now();
    // Nearly all is enough: the kernel leaves pages behind that somebody is looking at.
    while mapping.swapped_bytes() < bytes / 10 * 9 {
        if began.elapsed() > PATIENCE {
            return Ok(None);
        }
        let before = mapping.swapped_bytes();
        mapping.advise(abi::MADV_PAGEOUT, "MADV_PAGEOUT")?;
        if mapping.swapped_bytes() == before {
            return Ok(None);
        }
    }
    let out_gbps = gbps(mapping.swapped_bytes(), began.elapsed());
    let range = mapping.range();
    let half = range.start + bytes / 2;
    let words = mapping.words();
    let faults = 512;
    let began = Instant::now();
    for _ in 0..faults {
        // The first half only: the second is still to come in as a whole.
        black_box(words[random.below(bytes / 2 / PAGE_BYTES) * PAGE_WORDS]);
    }
    let fault_ns = 1.0 / gbps(faults, began.elapsed());
    let began = Instant::now();
    mapping.advise_part(&(half..range.end), abi::MADV_WILLNEED, "MADV_WILLNEED")?;
    let words = mapping.words();
    for page in words[words.len() / 2..].chunks_exact(PAGE_WORDS) {
        black_box(page[0]);
    }
    let in_gbps = gbps(bytes / 2, began.elapsed());
    Ok(Some(SwapSpeed { out_gbps, in_gbps, fault_ns, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_swap_there_is_no_speed() {
        let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
        let speed = swap_speed(4 << 20, false);
        if swaps.lines().count() <= 1 {
            assert_eq!(speed, Ok(None));
        } else if let Ok(Some(speed)) = speed {
            assert!(speed.out_gbps > 0.0 && speed.in_gbps > 0.0 && speed.fault_ns > 0.0, "{speed:?}");
        }
    }
}
