//! The kernel's counts in place of the operations' accesses.
//!
//! An operation that passes over a tensor once touches each of its pages once, so accesses per operation and accesses of an
//! average page are the same unit; what the kernel adds is what operations hide: passing over an operand many times, or
//! over a part of it only. Bytes, and with them all times of the cost model, stay those of the operations: neither a TLB
//! miss nor an instruction says how many bytes went to memory.

use crate::BufferFacts;
use trace::{PageCount, StepTrace};

/// Replaces reads and writes when the kernel counted every buffer that policies place; else leaves all of them alone.
pub(crate) fn replace_accesses(trace: &StepTrace, buffers: &mut [BufferFacts]) {
    let (Some(counts), Some(_)) = (&trace.counts, trace.counted()) else { return };
    for (facts, pages) in buffers.iter_mut().zip(&counts.buffers) {
        if let Some(pages) = pages {
            facts.reads = per_page(pages, |page| page.reads);
            facts.writes = per_page(pages, |page| page.writes);
        }
    }
}

/// Average over the pages, rounded to the nearest; what was accessed at all counts as accessed once at least.
fn per_page(pages: &[PageCount], count: fn(&PageCount) -> u64) -> u64 {
    let sum: u64 = pages.iter().map(count).sum();
    let len = pages.len().max(1) as u64;
    ((sum + len / 2) / len).max(u64::from(sum > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold;
    use trace::{Access, Buffer, CountMode, LayerSource, Op, Origin, PageCounts};

    /// A step with a buffer of two pages that an op writes, and one of one page that it reads.
    fn step(counts: [Option<Vec<PageCount>>; 2]) -> StepTrace {
        let (name, kind) = ("a".to_owned(), "Op".to_owned());
        let op = Op { kernel: 0, name, kind, layer: 0, start_ns: 0, end_ns: 9, predecessors: vec![] };
        let origin = Origin::Step { op: 0, ordinal: 0 };
        let born = Buffer {
            size_bytes: 8192,
            origin,
            death_op: Some(0),
            temporary: false,
            accesses: vec![Access { op: 0, write: true, bytes: 8192 }],
        };
        let old = Buffer {
            size_bytes: 4096,
            origin: Origin::Persistent,
            death_op: None,
            temporary: false,
            accesses: vec![Access { op: 0, write: false, bytes: 4096 }],
        };
        StepTrace {
            tensorflow_version: String::new(),
            step_number: 1,
            intra_op_threads: 1,
            inter_op_threads: 1,
            layer_source: LayerSource::Marked,
            ops: vec![op],
            buffers: vec![born, old],
            counts: Some(PageCounts { mode: CountMode::TlbMiss, buffers: counts.into() }),
        }
    }

    fn accesses(trace: &StepTrace) -> Vec<(u64, u64)> {
        fold(trace).unwrap().buffers.iter().map(|facts| (facts.reads, facts.writes)).collect()
    }

    fn page(reads: u64, writes: u64) -> PageCount {
        PageCount { reads, writes }
    }

    #[test]
    fn counted_pages_become_accesses_of_an_average_page() {
        let counted = step([Some(vec![page(10, 1), page(21, 0)]), Some(vec![page(40, 0)])]);
        assert_eq!(accesses(&counted), [(16, 1), (40, 0)]);
        let profile = fold(&counted).unwrap();
        assert_eq!(profile.buffers[0].written_bytes, 8192, "bytes stay those of the operations");
    }

    #[test]
    fn counts_of_a_part_are_not_mixed_with_operations() {
        assert_eq!(accesses(&step([None, Some(vec![page(40, 0)])])), [(0, 1), (1, 0)]);
    }
}
