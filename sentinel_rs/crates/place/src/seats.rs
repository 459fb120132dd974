//! Where the slots of a plan begin, found again in a step or two.

/// Bytes of a stretch, whose begins follow each other in the list; most stretches have few.
const STRETCH_BYTES: u64 = 64 << 10;

/// Distinct offsets, ascending.
#[derive(Debug)]
pub(crate) struct Seats {
    begins: Vec<u64>,
    /// By stretch, how many begins lie in the stretches before; one more at the end.
    before: Vec<u32>,
}

impl Seats {
    /// These begins, in any order, each once or several times.
    pub(crate) fn new(mut begins: Vec<u64>) -> Seats {
        begins.sort_unstable();
        begins.dedup();
        let stretches = begins.last().map_or(0, |last| last / STRETCH_BYTES + 1);
        let count = |stretch: u64| begins.partition_point(|&begin| begin < stretch * STRETCH_BYTES);
        let before = (0..=stretches).map(|stretch| u32::try_from(count(stretch)).unwrap_or(u32::MAX)).collect();
        Seats { begins, before }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.begins.len()
    }

    /// The number of the seat that begins at the offset.
    pub(crate) fn find(&self, offset_bytes: u64) -> Option<usize> {
        let stretch = usize::try_from(offset_bytes / STRETCH_BYTES).ok()?;
        let from = *self.before.get(stretch)? as usize;
        let to = *self.before.get(stretch + 1)? as usize;
        Some(from + self.begins[from..to].binary_search(&offset_bytes).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_begin_is_found_and_nothing_else() {
        let begins: Vec<u64> = (0..4000_u64).map(|seat| seat * seat * 64 % (40 << 20)).collect();
        let mut sorted = begins.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let seats = Seats::new(begins);
        assert_eq!(seats.count(), sorted.len());
        for (seat, &begin) in sorted.iter().enumerate() {
            assert_eq!(seats.find(begin), Some(seat));
            assert_eq!(seats.find(begin + 1), None);
        }
        assert_eq!(seats.find(41 << 20), None);
        assert_eq!(Seats::new(Vec::new()).find(0), None);
    }
}
