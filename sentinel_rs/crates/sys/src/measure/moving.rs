//! How fast `move_pages` moves pages between two nodes.

use super::gbps;
use super::mapping::{Mapping, PageSize};
use crate::memory::{HUGE_PAGE_BYTES, PAGE_BYTES};
use crate::numa::{self, PageStatus};
use crate::Error;
use std::time::{Duration, Instant};

/// Times that the memory goes there and back; the best counts.
const ROUNDS: usize = 3;

/// Bytes that one call moves.
const BATCH_BYTES: usize = 16 << 20;

/// Speed of moving pages, in 10^9 bytes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MoveSpeed {
    /// From the first node to the second.
    pub there_gbps: f64,
    /// Back.
    pub back_gbps: f64,
    /// Bytes moved each way.
    pub bytes: usize,
    /// Bytes in a page: what was asked for, or base pages where the kernel had no huge ones.
    pub page_bytes: usize,
}

/// Moves `len_bytes` from one node to another and back, in huge pages when `huge` and the kernel has them. `None` when pages
/// stayed behind, so that there is no speed to tell.
///
/// # Errors
/// Those of making the memory on `from`, and [`Error::MovePages`].
pub fn move_speed(from: u32, to: u32, len_bytes: usize, huge: bool) -> Result<Option<MoveSpeed>, Error> {
    let pages = if huge { PageSize::Huge } else { PageSize::Base };
    let mut mapping = Mapping::new(len_bytes, pages, Some(from))?;
    mapping.words().fill(1);
    let bytes = mapping.len_bytes();
    let all_huge = mapping.huge_bytes() == bytes;
    let page_bytes = if huge && all_huge { HUGE_PAGE_BYTES } else { PAGE_BYTES };
    let addresses = mapping.pages(page_bytes);
    let mut speed = MoveSpeed { there_gbps: 0.0, back_gbps: 0.0, bytes, page_bytes };
    for _ in 0..ROUNDS {
        let (Some(there), Some(back)) =
            (move_all(&addresses, page_bytes, to)?, move_all(&addresses, page_bytes, from)?)
        else {
            return Ok(None);
        };
        speed.there_gbps = speed.there_gbps.max(gbps(bytes, there));
        speed.back_gbps = speed.back_gbps.max(gbps(bytes, back));
    }
    Ok(Some(speed))
}

/// Time to move all pages; `None` when one of them did not get there.
fn move_all(addresses: &[usize], page_bytes: usize, node: u32) -> Result<Option<Duration>, Error> {
    let began = Instant::now();
    let mut arrived = true;
    for batch in addresses.chunks(BATCH_BYTES / page_bytes) {
        let statuses = numa::move_pages(batch, node)?;
        arrived &= statuses.iter().all(|&status| status == PageStatus::OnNode(node));
    }
    Ok(arrived.then(|| began.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_does_not_exist_is_an_error() {
        assert!(move_speed(0, crate::numa::MAX_NODE, 2 << 20, false).is_err());
    }
}
