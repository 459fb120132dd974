//! What is left of each layer: fast bytes, and time in which evictions can be carried out.
//!
//! Layers are counted on beyond the step's end: with `L` layers, layer `L + l` is layer `l` of the next step, and what is
//! taken from one is taken from the other, because a plan repeats.

use super::intervals::Cuts;
use profile::LayerFacts;
use std::ops::Range;

/// Nanoseconds that moving these bytes takes; at least one, so that no move is done before it is issued.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn move_ns(bytes: u64, gbps: f64) -> u64 {
    // A float cast saturates, and the quotient of two numbers that are not negative is not negative.
    let ns = (crate::machine::bytes_f64(bytes) / gbps).ceil() as u64;
    if bytes == 0 {
        0
    } else {
        ns.max(1)
    }
}

/// Fast bytes and eviction time that nobody has taken yet.
pub(super) struct Ledger {
    free_bytes: Vec<u64>,
    free_ns: Vec<u64>,
}

impl Ledger {
    /// Everything that the pool leaves of `space`, and all of each layer's time.
    pub(super) fn new(layers: &[LayerFacts], cuts: &Cuts, space: u64) -> Ledger {
        let free = |layer: usize| space.saturating_sub(cuts.pool_bytes[cuts.interval_of(layer) as usize]);
        Ledger {
            free_bytes: (0..layers.len()).map(free).collect(),
            free_ns: layers.iter().map(|layer| layer.time_ns).collect(),
        }
    }

    fn wrap(&self, layer: u32) -> usize {
        layer as usize % self.free_bytes.len()
    }

    /// The last of these layers that lacks room for `bytes`.
    pub(super) fn last_full(&self, layers: Range<u32>, bytes: u64) -> Option<u32> {
        layers.rev().find(|&layer| self.free_bytes[self.wrap(layer)] < bytes)
    }

    /// Takes `bytes` in each of these layers, which must have them.
    pub(super) fn take(&mut self, layers: Range<u32>, bytes: u64) {
        for layer in layers {
            let layer = self.wrap(layer);
            self.free_bytes[layer] -= bytes;
        }
    }

    /// The layer at whose begin an eviction of `ns` that is issued when `issue` begins is done, when that is not after
    /// `limit`. Evictions share one direction of the link, so each uses what earlier decisions left of the layers' time.
    pub(super) fn eviction_due(&self, issue: u32, ns: u64, limit: u32) -> Option<u32> {
        let mut left = ns;
        for layer in issue..limit {
            left = left.saturating_sub(self.free_ns[self.wrap(layer)]);
            if left == 0 {
                return Some(layer + 1);
            }
        }
        None
    }

    /// Takes the time of an eviction that [`Ledger::eviction_due`] allowed.
    pub(super) fn take_time(&mut self, issue: u32, due: u32, ns: u64) {
        let mut left = ns;
        for layer in issue..due {
            let layer = self.wrap(layer);
            let taken = left.min(self.free_ns[layer]);
            self.free_ns[layer] -= taken;
            left -= taken;
        }
    }
}
