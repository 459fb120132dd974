//! Huge pages of this process: how many bytes are in them, and making them again where they were split.

use crate::memory::{advise_huge_pages, HUGE_PAGE_BYTES, PAGE_BYTES};
use crate::{abi, Error};
use nix::errno::Errno;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Bytes that the kernel tells about one page of addresses.
const ENTRY_BYTES: usize = 8;
/// The bit of an entry that says that the page is in memory.
const PRESENT: u64 = 1 << 63;
const PAGES_IN_HUGE: usize = HUGE_PAGE_BYTES / PAGE_BYTES;

/// What became of split huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collapsed {
    /// Bytes that are in huge pages again.
    pub bytes: u64,
    /// The kernel, older than 6.1, cannot do it at once; its own thread was asked to do it by and by.
    pub later: bool,
}

/// Bytes in transparent huge pages of the mappings that any of the ranges lies in.
///
/// # Errors
/// [`Error::ReadFile`] when the kernel does not tell.
pub fn huge_bytes(ranges: &[Range<usize>]) -> Result<u64, Error> {
    let path = "/proc/self/smaps";
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    Ok(huge_bytes_in(&text, ranges))
}

fn huge_bytes_in(smaps: &str, ranges: &[Range<usize>]) -> u64 {
    let mut wanted = false;
    let mut kibibytes = 0;
    for line in smaps.lines() {
        if let Some(mapping) = addresses_of(line) {
            wanted = ranges.iter().any(|range| range.start < mapping.end && mapping.start < range.end);
        } else if let (true, Some(rest)) = (wanted, line.strip_prefix("AnonHugePages:")) {
            kibibytes += rest.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
        }
    }
    kibibytes * 1024
}

/// The addresses of a line that begins a mapping, such as `7f00-7f10 rw-p 00000000 00:00 0`.
fn addresses_of(line: &str) -> Option<Range<usize>> {
    let (begin, end) = line.split_once(' ')?.0.split_once('-')?;
    let number = |text: &str| usize::from_str_radix(text, 16).ok();
    Some(number(begin)?..number(end)?)
}

/// Makes up to `most_bytes` of the ranges huge pages again: only where every small page is in memory, so that memory in use
/// does not grow.
///
/// # Errors
/// [`Error::ReadFile`] when the kernel does not tell which pages are in memory.
pub fn collapse(ranges: &[Range<usize>], most_bytes: u64) -> Result<Collapsed, Error> {
    let mut done = Collapsed::default();
    for range in ranges {
        for begin in whole_chunks(range)? {
            if done.bytes >= most_bytes {
                return Ok(done);
            }
            let chunk = begin..begin + HUGE_PAGE_BYTES;
            match advise_collapse(&chunk) {
                0 => done.bytes += HUGE_PAGE_BYTES as u64,
                libc::EINVAL if !done.later => {
                    // Either the kernel does not know the advice or this chunk cannot be one; advice for later does no harm
                    // in both cases.
                    done.later |= advise_huge_pages(range).is_ok();
                }
                // No free huge page, or a page in use: this one stays small.
                _ => {}
            }
        }
    }
    done.later &= done.bytes == 0;
    Ok(done)
}

/// Returns the error number, 0 for success.
fn advise_collapse(chunk: &Range<usize>) -> i32 {
    let begin = std::ptr::with_exposed_provenance_mut(chunk.start);
    // SAFETY: collapsing changes the size of pages, never their contents or rights; the kernel checks the range.
    let result = unsafe { libc::madvise(begin, chunk.len(), abi::MADV_COLLAPSE) };
    if result == 0 {
        0
    } else {
        Errno::last_raw()
    }
}

/// Begins of the aligned pieces of a huge page's size in which all pages are in memory.
fn whole_chunks(range: &Range<usize>) -> Result<Vec<usize>, Error> {
    let path = "/proc/self/pagemap";
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let first = range.start.next_multiple_of(HUGE_PAGE_BYTES);
    let mut entries = vec![0; PAGES_IN_HUGE * ENTRY_BYTES];
    let mut found = Vec::new();
    for begin in (first..range.end.saturating_sub(HUGE_PAGE_BYTES - 1)).step_by(HUGE_PAGE_BYTES) {
        let at = (begin / PAGE_BYTES * ENTRY_BYTES) as u64;
        file.read_exact_at(&mut entries, at).map_err(|error| unreadable(path, &error))?;
        let mut words = entries.chunks_exact(ENTRY_BYTES).map(|word| word.try_into().map_or(0, u64::from_ne_bytes));
        if words.all(|entry| entry & PRESENT != 0) {
            found.push(begin);
        }
    }
    Ok(found)
}

fn unreadable(path: &str, error: &std::io::Error) -> Error {
    Error::ReadFile { path: path.to_owned(), errno: error.raw_os_error().unwrap_or(0), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    const SMAPS: &str = "\
7f0000000000-7f0000400000 rw-p 00000000 00:00 0
Size:               4096 kB
AnonHugePages:      4096 kB
7f0000400000-7f0000600000 rw-p 00000000 00:00 0
AnonHugePages:      2048 kB
7fff00000000-7fff00001000 r-xp 00000000 00:00 0                          [vdso]
AnonHugePages:         0 kB
";

    #[test]
    fn huge_pages_are_counted_in_the_mappings_asked_for() {
        let whole = 0x7f00_0000_0000..0x7f00_0000_1000;
        assert_eq!(huge_bytes_in(SMAPS, std::slice::from_ref(&whole)), 4 << 20);
        assert_eq!(huge_bytes_in(SMAPS, &[whole, 0x7f00_005f_f000..0x7f00_0060_0000]), 6 << 20);
        let (behind, all) = (0x7f00_0060_0000..0x7f00_0070_0000, 0..usize::MAX);
        assert_eq!(huge_bytes_in(SMAPS, std::slice::from_ref(&behind)), 0);
        assert_eq!(huge_bytes_in("", std::slice::from_ref(&all)), 0);
    }

    #[test]
    fn only_chunks_that_are_all_there_are_whole() {
        let range = memory::reserve(3 * HUGE_PAGE_BYTES).unwrap();
        let touch = |addr: usize| {
            // SAFETY: inside a range that this test reserved for itself.
            unsafe { std::ptr::with_exposed_provenance_mut::<u8>(addr).write_volatile(1) }
        };
        for page in 0..PAGES_IN_HUGE {
            touch(range.start + HUGE_PAGE_BYTES + page * PAGE_BYTES);
        }
        assert!(!memory::is_reserved(&(range.start + 1..range.end)));
        let found = whole_chunks(&(range.start + PAGE_BYTES..range.end)).unwrap();
        assert_eq!(found, [range.start + HUGE_PAGE_BYTES]);
        assert_eq!(whole_chunks(&(range.start + PAGE_BYTES..range.start + HUGE_PAGE_BYTES)).unwrap(), [0_usize; 0]);
        let done = collapse(std::slice::from_ref(&range), u64::MAX).unwrap();
        assert!(done.bytes <= HUGE_PAGE_BYTES as u64, "{done:?}");
        assert_eq!(collapse(&[range], 0).unwrap(), Collapsed::default());
    }
}
