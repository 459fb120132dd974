//! Equal migration intervals: how many layers (`MIL`) each has.

use super::units::Span;
use crate::machine::bytes_f64;
use crate::Machine;
use profile::LayerFacts;

/// The step cut into intervals of `mil` layers; the last may be shorter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cuts {
    /// Layers of an interval.
    pub(super) mil: u32,
    /// Layers of the step.
    pub(super) layer_count: u32,
    /// Per interval, `RS`: what the short-lived pool needs in it.
    pub(super) pool_bytes: Vec<u64>,
}

impl Cuts {
    /// Intervals of `mil` layers.
    pub(super) fn new(mil: u32, pool_by_layer: &[u64]) -> Cuts {
        let pool_bytes =
            pool_by_layer.chunks(mil as usize).map(|layers| layers.iter().copied().max().unwrap_or(0)).collect();
        Cuts { mil, layer_count: u32::try_from(pool_by_layer.len()).unwrap_or(u32::MAX), pool_bytes }
    }

    /// The published choice: of all `MIL` with `Tensor(MIL) < S - RS(MIL)`, the one with the least
    /// `(S - RS(MIL)) / BW - T(MIL)`; the smaller of equals; 1 when there is none.
    ///
    /// `Tensor` is the long-lived bytes used in an interval, `S` the fast bytes, `RS` the short-lived pool, `BW` the
    /// bandwidth from slow to fast, `T` the time of an interval. The condition must hold in every interval; the
    /// objective takes the means over the intervals, since the paper writes it for one interval that stands for all.
    pub(super) fn choose(
        layers: &[LayerFacts],
        spans: &[Span],
        pool_by_layer: &[u64],
        space: u64,
        machine: &Machine,
    ) -> Cuts {
        let step_ns = bytes_f64(layers.iter().map(|layer| layer.time_ns).sum());
        let mut best: Option<(f64, Cuts)> = None;
        for mil in 1..=u32::try_from(layers.len()).unwrap_or(u32::MAX) {
            let cuts = Cuts::new(mil, pool_by_layer);
            let used = cuts.used_bytes(spans);
            if used.iter().zip(&cuts.pool_bytes).any(|(used, pool)| used + pool >= space) {
                continue;
            }
            let count = bytes_f64(cuts.pool_bytes.len() as u64);
            let room = cuts.pool_bytes.iter().map(|pool| bytes_f64(space - pool)).sum::<f64>() / count;
            let objective = room / machine.promote_gbps - step_ns / count;
            if best.as_ref().is_none_or(|(least, _)| objective < *least) {
                best = Some((objective, cuts));
            }
        }
        best.map_or_else(|| Cuts::new(1, pool_by_layer), |(_, cuts)| cuts)
    }

    /// Long-lived bytes used in each interval.
    fn used_bytes(&self, spans: &[Span]) -> Vec<u64> {
        let mut used = vec![0; self.pool_bytes.len()];
        for span in spans {
            let mut last = None;
            for &layer in &span.layers {
                let interval = layer / self.mil;
                if last != Some(interval) {
                    used[interval as usize] += span.len_bytes;
                    last = Some(interval);
                }
            }
        }
        used
    }

    /// Number of intervals.
    pub(super) fn count(&self) -> u32 {
        self.layer_count.div_ceil(self.mil)
    }

    /// The interval of a layer; a layer of the next step is in an interval of the next step.
    pub(super) fn interval_of(&self, layer: usize) -> u32 {
        let layer = u32::try_from(layer).unwrap_or(u32::MAX);
        layer / self.layer_count * self.count() + layer % self.layer_count / self.mil
    }

    /// First layer of an interval of this step.
    pub(super) fn first_layer(&self, interval: usize) -> u32 {
        u32::try_from(interval).unwrap_or(u32::MAX).saturating_mul(self.mil)
    }

    /// Last layer of an interval of this step.
    pub(super) fn last_layer(&self, interval: usize) -> u32 {
        (self.first_layer(interval) + self.mil - 1).min(self.layer_count - 1)
    }

    /// First layer of an interval of this step or the next.
    pub(super) fn begin_of(&self, interval: u32) -> u32 {
        interval / self.count() * self.layer_count + interval % self.count() * self.mil
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(times_ns: &[u64]) -> Vec<LayerFacts> {
        times_ns.iter().map(|&time_ns| LayerFacts { first_op: 0, last_op: 0, time_ns }).collect()
    }

    fn span(len_bytes: u64, layers: &[u32]) -> Span {
        Span { len_bytes, layers: layers.to_vec(), accesses: 1, persistent: false, death_layer: 3 }
    }

    fn optane() -> Machine {
        Machine::by_name("optane").unwrap()
    }

    /// Four layers of 1000 ns. A unit of 4000 bytes per layer, of which an interval of MIL layers uses MIL; pool of 1000
    /// bytes. S = 14000: MIL = 3 uses 12000 of 13000 and MIL = 4 would use 16000.
    #[test]
    fn the_longest_interval_whose_tensors_fit_has_the_least_objective() {
        let spans: Vec<Span> = (0..4).map(|layer| span(4000, &[layer])).collect();
        let mil = |space| Cuts::choose(&layers(&[1000; 4]), &spans, &[1000; 4], space, &optane()).mil;
        assert_eq!(mil(1 << 20), 4);
        // MIL = 3 leaves two intervals as MIL = 2 does, so the means are equal and the smaller is taken.
        assert_eq!(mil(14_000), 2);
        assert_eq!(mil(9001), 2);
        // Not strictly less: 8000 < 9000 - 1000 is false.
        assert_eq!(mil(9000), 1);
    }

    #[test]
    fn with_no_interval_that_fits_every_layer_is_one() {
        let cuts = Cuts::choose(&layers(&[5; 3]), &[span(8192, &[0, 2])], &[0, 4096, 0], 4096, &optane());
        assert_eq!((cuts.mil, cuts.pool_bytes.as_slice()), (1, [0, 4096, 0].as_slice()));
    }

    /// A pool of 0, 8000, 0, 8000 bytes has a mean of 4000 over intervals of one layer and of 8000 over longer ones. So
    /// `MIL = 1` has more room to fill, and loses even when no interval takes time; among the others, time decides.
    #[test]
    fn less_room_to_fill_and_longer_intervals_lower_the_objective() {
        let choose = |times: &[u64]| Cuts::choose(&layers(times), &[], &[0, 8000, 0, 8000], 16_000, &optane()).mil;
        assert_eq!(choose(&[10; 4]), 4);
        assert_eq!(choose(&[0; 4]), 2);
    }

    #[test]
    fn a_unit_used_twice_in_an_interval_counts_once() {
        let cuts = Cuts::new(2, &[0; 5]);
        assert_eq!(cuts.used_bytes(&[span(10, &[0, 1, 4]), span(1, &[3])]), [10, 1, 10]);
    }

    #[test]
    fn layers_and_intervals_go_on_in_the_next_step() {
        let cuts = Cuts::new(2, &[0; 5]);
        assert_eq!((0..11).map(|layer| cuts.interval_of(layer)).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 6]);
        assert_eq!((0..6).map(|interval| cuts.begin_of(interval)).collect::<Vec<_>>(), [0, 2, 4, 5, 7, 9]);
        assert_eq!((cuts.last_layer(1), cuts.last_layer(2)), (3, 4));
    }
}
