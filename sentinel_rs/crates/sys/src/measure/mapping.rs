//! Memory of one measurement.

use crate::memory::{HUGE_PAGE_BYTES, PAGE_BYTES};
use crate::numa::{self, Policy};
use crate::{abi, Error};
use nix::errno::Errno;
use std::ops::Range;

/// Which pages a mapping is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 4 KiB, always.
    Base,
    /// 2 MiB where the kernel has some.
    Huge,
}

/// Private zeroed memory, whole huge pages at a multiple of a huge page, given back when it is dropped.
pub struct Mapping {
    /// What was mapped, with what the alignment left over.
    whole: Range<usize>,
    range: Range<usize>,
}

impl Mapping {
    /// Memory of at least `len_bytes`, untouched, on `node` and no other when one is given.
    pub fn new(len_bytes: usize, pages: PageSize, node: Option<u32>) -> Result<Mapping, Error> {
        let refused = |errno: i32| Error::Reserve { len_bytes, errno };
        let len = len_bytes.max(1).checked_next_multiple_of(HUGE_PAGE_BYTES).ok_or_else(|| refused(libc::ENOMEM))?;
        let whole_len = len.checked_add(HUGE_PAGE_BYTES).ok_or_else(|| refused(libc::ENOMEM))?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: without MAP_FIXED and with a null hint the kernel chooses addresses that nothing uses yet.
        let begin = unsafe { libc::mmap(std::ptr::null_mut(), whole_len, protection, flags, -1, 0) };
        if begin == libc::MAP_FAILED {
            return Err(refused(Errno::last_raw()));
        }
        let begin = begin.expose_provenance();
        let start = begin.next_multiple_of(HUGE_PAGE_BYTES);
        let mapping = Mapping { whole: begin..begin + whole_len, range: start..start + len };
        let advised = match pages {
            PageSize::Base => mapping.advise(abi::MADV_NOHUGEPAGE, "MADV_NOHUGEPAGE"),
            PageSize::Huge => mapping.advise(abi::MADV_HUGEPAGE, "MADV_HUGEPAGE"),
        };
        // A kernel built without huge pages has base pages only, which callers see from `huge_bytes`.
        advised.or_else(|error| if error.errno() == libc::EINVAL { Ok(()) } else { Err(error) })?;
        if let Some(node) = node {
            numa::bind(&mapping.range, Policy::Bind, &[node])?;
        }
        Ok(mapping)
    }

    /// Its words. Reading or writing them touches the pages.
    pub fn words(&mut self) -> &mut [u64] {
        let begin = std::ptr::with_exposed_provenance_mut(self.range.start);
        // SAFETY: the range is mapped readable and writable, aligned, holds zeroes or what was written here, lives as long
        // as `self`, and is reached through `self` alone, which is borrowed.
        unsafe { std::slice::from_raw_parts_mut(begin, self.range.len() / size_of::<u64>()) }
    }

    /// Bytes of it.
    pub fn len_bytes(&self) -> usize {
        self.range.len()
    }

    /// Addresses of its pages of a size, ascending.
    pub fn pages(&self, page_bytes: usize) -> Vec<usize> {
        self.range.clone().step_by(page_bytes.max(PAGE_BYTES)).collect()
    }

    /// Gives advice that never changes contents about all of it.
    pub fn advise(&self, advice: libc::c_int, name: &'static str) -> Result<(), Error> {
        self.advise_part(&self.range, advice, name)
    }

    /// Gives advice that never changes contents about a part of it.
    pub fn advise_part(&self, part: &Range<usize>, advice: libc::c_int, name: &'static str) -> Result<(), Error> {
        let (addr, len_bytes) = (part.start, part.len());
        let inside = self.range.start <= part.start && part.end <= self.range.end;
        if !inside {
            return Err(Error::NotReserved { addr, len_bytes });
        }
        // SAFETY: the part lies in memory that only this value knows, and no such advice is used here that drops contents.
        let result = unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(addr), len_bytes, advice) };
        if result == 0 {
            return Ok(());
        }
        Err(Error::Advise { advice: name, addr, len_bytes, errno: Errno::last_raw() })
    }

    /// The range of its words.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Bytes of it that are in huge pages, from `/proc/self/smaps`; 0 when that cannot be read.
    pub fn huge_bytes(&self) -> usize {
        self.smaps_bytes("AnonHugePages:")
    }

    /// Bytes of it that are in swap and not in memory.
    pub fn swapped_bytes(&self) -> usize {
        self.smaps_bytes("Swap:")
    }

    /// Sum of a field over the parts of this mapping.
    fn smaps_bytes(&self, field: &str) -> usize {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        let (mut inside, mut kibibytes) = (false, 0);
        for line in smaps.lines() {
            if let Some(range) = line.split_whitespace().next().and_then(|word| word.split_once('-')) {
                let number = |text| usize::from_str_radix(text, 16).ok();
                if let (Some(start), Some(end)) = (number(range.0), number(range.1)) {
                    inside = start < self.range.end && self.range.start < end;
                }
            } else if let Some(rest) = line.strip_prefix(field).filter(|_| inside) {
                kibibytes += rest.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(0);
            }
        }
        kibibytes * 1024
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, and nobody has a reference into it: those borrow `self`.
        unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(self.whole.start), self.whole.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_aligned_zeroed_and_of_whole_huge_pages() {
        let mut mapping = Mapping::new(5 << 20, PageSize::Base, None).unwrap();
        assert_eq!((mapping.len_bytes(), mapping.range().start % HUGE_PAGE_BYTES), (6 << 20, 0));
        assert!(mapping.words().iter().all(|&word| word == 0));
        mapping.words().fill(7);
        assert_eq!(mapping.words().iter().sum::<u64>(), 7 * (6 << 20) / 8);
        assert_eq!((mapping.huge_bytes(), mapping.swapped_bytes()), (0, 0));
        assert_eq!(mapping.pages(HUGE_PAGE_BYTES).len(), 3);
    }

    #[test]
    fn advice_outside_of_the_mapping_is_refused() {
        let mapping = Mapping::new(1, PageSize::Base, None).unwrap();
        let outside = mapping.range().start - PAGE_BYTES..mapping.range().end;
        let error = mapping.advise_part(&outside, abi::MADV_WILLNEED, "MADV_WILLNEED").unwrap_err();
        assert!(matches!(error, Error::NotReserved { .. }));
    }
}
