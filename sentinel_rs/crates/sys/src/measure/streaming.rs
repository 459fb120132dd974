//! Bandwidth by streaming over memory, latency by chasing pointers through it.

use super::mapping::{Mapping, PageSize};
use super::{gbps, pin};
use crate::Error;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

/// Passes over the memory; the best counts.
const PASSES: usize = 5;

/// Words in a cache line.
const LINE_WORDS: usize = 8;

/// Hops of one chase: at 100 ns each, a tenth of a second.
const HOPS: usize = 1 << 20;

/// Streaming bandwidth of a node, in 10^9 bytes per second that the program reads or writes. What the caches fetch on top,
/// such as lines that are about to be overwritten, is not counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bandwidth {
    /// Of reading.
    pub read_gbps: f64,
    /// Of writing.
    pub write_gbps: f64,
    /// Bytes streamed over in each pass, all threads together.
    pub bytes: usize,
    /// Threads, each on a CPU of its own.
    pub threads: usize,
}

/// Streams over at least `len_bytes` on `node` from one thread on each of `cpus`.
///
/// # Errors
/// [`Error::Reserve`], [`Error::Advise`] or [`Error::Bind`] when there is no such memory.
pub fn bandwidth(node: Option<u32>, cpus: &[u32], len_bytes: usize) -> Result<Bandwidth, Error> {
    let mut mapping = Mapping::new(len_bytes, PageSize::Huge, node)?;
    let bytes = mapping.len_bytes();
    let threads = cpus.len().max(1);
    let words = mapping.words();
    // Each thread touches its part first, so that no pass pays for page faults.
    let write_gbps = best_pass(words, cpus, |part, pass| part.fill(pass as u64 + 1));
    let read_gbps = best_pass(words, cpus, |part, _| {
        black_box(sum(part));
    });
    Ok(Bandwidth { read_gbps, write_gbps, bytes, threads })
}

/// Runs `work` on a part of `words` for each CPU, all parts at the same time, several times. The first pass is not counted.
fn best_pass(words: &mut [u64], cpus: &[u32], work: impl Fn(&mut [u64], usize) + Sync) -> f64 {
    let bytes = size_of_val(words);
    let part_words = words.len().div_ceil(cpus.len().max(1));
    let parts: Vec<&mut [u64]> = words.chunks_mut(part_words).collect();
    let barrier = Barrier::new(parts.len());
    let spans: Vec<Vec<(Instant, Instant)>> = std::thread::scope(|scope| {
        let (barrier, work) = (&barrier, &work);
        let run = |(index, part): (usize, &mut [u64])| {
            if let Some(&cpu) = cpus.get(index) {
                pin(cpu);
            }
            let mut spans = Vec::with_capacity(PASSES);
            for pass in 0..=PASSES {
                barrier.wait();
                let began = Instant::now();
                work(black_box(&mut *part), pass);
                spans.push((began, Instant::now()));
            }
            spans.split_off(1)
        };
        let handles: Vec<_> = parts.into_iter().enumerate().map(|part| scope.spawn(move || run(part))).collect();
        handles.into_iter().filter_map(|handle| handle.join().ok()).collect()
    });
    let rate = |pass: usize| {
        let began = spans.iter().map(|of_thread| of_thread[pass].0).min()?;
        let ended = spans.iter().map(|of_thread| of_thread[pass].1).max()?;
        Some(gbps(bytes, ended - began))
    };
    (0..PASSES).filter_map(rate).fold(0.0, f64::max)
}

/// Sum of the words, in eight lanes so that the processor's vector units can take part.
fn sum(words: &[u64]) -> u64 {
    let mut lanes = [0_u64; LINE_WORDS];
    for line in words.chunks_exact(LINE_WORDS) {
        for (lane, &word) in lanes.iter_mut().zip(line) {
            *lane = lane.wrapping_add(word);
        }
    }
    lanes.iter().fold(0, |sum, &lane| sum.wrapping_add(lane))
}

/// Nanoseconds of one read that waits for the one before, from `cpu`, over at least `len_bytes` on `node` in an order that no
/// prefetcher knows; with what the page tables cost where the kernel has no huge pages.
///
/// # Errors
/// [`Error::Reserve`], [`Error::Advise`] or [`Error::Bind`] when there is no such memory.
pub fn latency_ns(node: Option<u32>, cpu: Option<u32>, len_bytes: usize) -> Result<f64, Error> {
    let mut mapping = Mapping::new(len_bytes, PageSize::Huge, node)?;
    let words = mapping.words();
    link_lines(words);
    // A thread of its own, because the pin must not outlive the measurement.
    let chase = || {
        if let Some(cpu) = cpu {
            pin(cpu);
        }
        let mut at = 0;
        let mut best = f64::INFINITY;
        for _ in 0..PASSES {
            let began = Instant::now();
            for _ in 0..HOPS {
                at = usize::try_from(words[at]).unwrap_or(0);
            }
            at = black_box(at);
            best = best.min(1.0 / gbps(HOPS, began.elapsed()));
        }
        best
    };
    std::thread::scope(|scope| scope.spawn(chase).join()).map_err(|_| Error::Reserve { len_bytes, errno: libc::EAGAIN })
}

/// Makes one cycle through the first words of all lines, in random order (Sattolo's algorithm): each holds the next one's
/// index.
fn link_lines(words: &mut [u64]) {
    let lines = words.len() / LINE_WORDS;
    for line in 0..lines {
        words[line * LINE_WORDS] = (line * LINE_WORDS) as u64;
    }
    let mut random = XorShift(0x9e37_79b9_7f4a_7c15);
    for line in (1..lines).rev() {
        words.swap(line * LINE_WORDS, random.below(line) * LINE_WORDS);
    }
}

/// Marsaglia's xorshift: all that is wanted of it is an order that a prefetcher cannot guess.
pub(super) struct XorShift(pub u64);

impl XorShift {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_one_cycle_through_all_lines() {
        let mut words = vec![0; 1000 * LINE_WORDS];
        link_lines(&mut words);
        let (mut at, mut hops) = (0, 0);
        loop {
            at = usize::try_from(words[at]).unwrap();
            hops += 1;
            if at == 0 {
                break;
            }
        }
        assert_eq!(hops, 1000);
    }

    #[test]
    fn sums_are_right() {
        assert_eq!(sum(&(0..64).collect::<Vec<u64>>()), 64 * 63 / 2);
    }

    #[test]
    fn memory_has_a_bandwidth_and_a_latency() {
        let cpus = crate::measure::allowed_cpus();
        assert!(!cpus.is_empty());
        let found = bandwidth(None, &cpus, 16 << 20).unwrap();
        assert_eq!((found.bytes, found.threads), (16 << 20, cpus.len()));
        assert!(found.read_gbps > 0.05 && found.write_gbps > 0.05, "{found:?}");
        let latency = latency_ns(None, cpus.first().copied(), 16 << 20).unwrap();
        assert!(latency > 0.2 && latency < 1e5, "{latency}");
    }
}
