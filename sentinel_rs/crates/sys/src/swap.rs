//! Swap as memory: writing pages out, bringing them back ahead of use, and saying where they are.

use crate::host::{self, Footprint};
use crate::memory::{advise, PAGE_BYTES};
use crate::{abi, Error};
use nix::errno::Errno;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

/// Pages whose state is read, or that are touched, by one system call: the kernel's limit on vectors.
const BATCH_PAGES: usize = 1024;

/// Bytes of one page's entry in `/proc/self/pagemap`.
const ENTRY_BYTES: usize = 8;

/// Bits of such an entry, as Documentation/admin-guide/mm/pagemap.rst has them.
const ENTRY_SWAPPED: u64 = 1 << 62;
const ENTRY_PRESENT: u64 = 1 << 63;

/// Where the touched pages of a range are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// Bytes that an access reaches without a fault on swap.
    pub present_bytes: u64,
    /// Bytes behind a swap entry; the kernel may still have a copy in memory that it has not yet needed to drop.
    pub swapped_bytes: u64,
}

/// Writes the range's pages to swap. Returns when the writes are under way; the kernel drops each page as it needs room.
/// Pages that are written already, and unchanged since, are not written again. Pages may stay: when swap is full, or
/// somebody holds on to them.
///
/// # Errors
/// [`Error::Advise`]: `EINVAL` from Linux before 5.4, or for a range that is not whole pages; `ENOMEM` for addresses that are
/// not mapped.
pub fn page_out(range: &Range<usize>) -> Result<(), Error> {
    // SAFETY: the advice moves contents to swap and back unchanged, wherever the range is.
    unsafe { advise(range, abi::MADV_PAGEOUT, "MADV_PAGEOUT") }
}

/// Brings the range's pages back, and returns when they are there. Contents do not change, not even when other threads
/// write to them meanwhile.
///
/// The reads are announced for the whole range first. Without that, populating reads one page at a time.
///
/// # Errors
/// [`Error::Advise`]: `ENOMEM` for addresses that are not mapped, `EINVAL` for a range that is not whole pages.
pub fn bring_in(range: &Range<usize>) -> Result<(), Error> {
    // SAFETY: this advice reads contents back unchanged, wherever the range is.
    unsafe { advise(range, abi::MADV_WILLNEED, "MADV_WILLNEED")? };
    match populate(range) {
        Err(error) if error.errno() == libc::EINVAL => touch(range),
        result => result,
    }
}

/// Faults the range's pages in as writes would, all in one call, and writes nothing.
///
/// # Errors
/// [`Error::Advise`]: `EINVAL` from Linux before 5.14, `ENOMEM` for addresses that are not mapped.
pub fn populate(range: &Range<usize>) -> Result<(), Error> {
    // SAFETY: this advice never changes contents, wherever the range is.
    unsafe { advise(range, abi::MADV_POPULATE_WRITE, "MADV_POPULATE_WRITE") }
}

/// Faults the pages of a range in by having the kernel read one byte of each: for Linux before 5.14.
///
/// # Errors
/// [`Error::Advise`] with the error number of `process_vm_readv`, such as `EFAULT` for addresses that are not mapped.
pub fn touch(range: &Range<usize>) -> Result<(), Error> {
    let pages: Vec<usize> = range.clone().step_by(PAGE_BYTES).collect();
    for batch in pages.chunks(BATCH_PAGES) {
        let mut bytes = vec![0_u8; batch.len()];
        let iovec = |addr: usize, len: usize| libc::iovec {
            iov_base: std::ptr::with_exposed_provenance_mut(addr),
            iov_len: len,
        };
        let remote: Vec<libc::iovec> = batch.iter().map(|&page| iovec(page, 1)).collect();
        let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: the kernel copies one byte of each page into `bytes`, which has as many; it checks the addresses it reads.
        let read =
            unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, remote.as_ptr(), remote.len() as u64, 0) };
        if usize::try_from(read) != Ok(batch.len()) {
            let errno = if read < 0 { Errno::last_raw() } else { libc::EFAULT };
            return Err(Error::Advise { advice: "touch", addr: range.start, len_bytes: range.len(), errno });
        }
    }
    Ok(())
}

/// Where the touched pages of a range are, page by page, as the kernel's page table has it. `None` when the kernel does not
/// tell, as in some sandboxes.
#[must_use]
pub fn whereabouts(range: &Range<usize>) -> Option<Whereabouts> {
    static PAGEMAP: OnceLock<Option<File>> = OnceLock::new();
    let pagemap = PAGEMAP.get_or_init(|| File::open("/proc/self/pagemap").ok()).as_ref()?;
    let mut found = Whereabouts::default();
    let mut entries = [0_u8; BATCH_PAGES * ENTRY_BYTES];
    for begin in range.clone().step_by(BATCH_PAGES * PAGE_BYTES) {
        let pages = (range.end - begin).div_ceil(PAGE_BYTES).min(BATCH_PAGES);
        let entries = &mut entries[..pages * ENTRY_BYTES];
        pagemap.read_exact_at(entries, (begin / PAGE_BYTES * ENTRY_BYTES) as u64).ok()?;
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            let entry = u64::from_ne_bytes(entry.try_into().ok()?);
            if entry & ENTRY_PRESENT != 0 {
                found.present_bytes += PAGE_BYTES as u64;
            } else if entry & ENTRY_SWAPPED != 0 {
                found.swapped_bytes += PAGE_BYTES as u64;
            }
        }
    }
    Some(found)
}

/// Bytes of this process that are in swap now: `VmSwap`, the sum of what `/proc/self/smaps` says of each mapping.
#[must_use]
pub fn swapped_out_bytes() -> Option<u64> {
    status_bytes("VmSwap:")
}

/// Page faults of this process that had to wait for a read.
#[must_use]
pub fn major_faults() -> u64 {
    // SAFETY: all zeroes is a valid value of the struct, which the call fills.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid for writes.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    if result == 0 {
        u64::try_from(usage.ru_majflt).unwrap_or(0)
    } else {
        0
    }
}

fn status_bytes(label: &str) -> Option<u64> {
    let status = host::text(Path::new("/proc/self/status"))?;
    host::field(&status, label)?.checked_mul(1024)
}

/// What the mappings inside a range hold in memory and in swap, from `/proc/self/smaps`. Takes milliseconds.
#[must_use]
pub fn footprint(range: &Range<usize>) -> Option<Footprint> {
    let smaps = host::text(Path::new("/proc/self/smaps"))?;
    let (mut inside, mut found) = (false, Footprint::default());
    for line in smaps.lines() {
        if let Some((start, end)) = line.split_whitespace().next().and_then(|word| word.split_once('-')) {
            let number = |text| usize::from_str_radix(text, 16).ok();
            if let (Some(start), Some(end)) = (number(start), number(end)) {
                inside = start < range.end && range.start < end;
            }
        } else if inside {
            found.resident_bytes += host::field(line, "Rss:").unwrap_or(0) * 1024;
            found.swapped_bytes += host::field(line, "Swap:").unwrap_or(0) * 1024;
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    fn filled(len_bytes: usize) -> Range<usize> {
        let range = memory::reserve(len_bytes).unwrap();
        for page in range.clone().step_by(PAGE_BYTES) {
            // SAFETY: the test reserved the range for itself.
            unsafe { std::ptr::with_exposed_provenance_mut::<usize>(page).write_volatile(page) };
        }
        range
    }

    #[test]
    fn contents_survive_the_way_out_and_back() {
        let range = filled(4 << 20);
        page_out(&range).unwrap();
        let away = whereabouts(&range).expect("Linux tells");
        let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
        if swaps.lines().count() > 1 {
            assert!(away.swapped_bytes > 0, "{away:?}");
            assert!(swapped_out_bytes().unwrap() > 0);
        } else {
            assert_eq!(away.swapped_bytes, 0);
        }
        bring_in(&range).unwrap();
        assert_eq!(whereabouts(&range), Some(Whereabouts { present_bytes: 4 << 20, swapped_bytes: 0 }));
        for page in range.step_by(PAGE_BYTES) {
            // SAFETY: as above.
            assert_eq!(unsafe { std::ptr::with_exposed_provenance::<usize>(page).read_volatile() }, page);
        }
    }

    #[test]
    fn touching_faults_in_and_refuses_what_is_not_mapped() {
        let range = filled(2 << 20);
        page_out(&range).unwrap();
        touch(&range).unwrap();
        assert_eq!(whereabouts(&range).map(|found| found.present_bytes), Some(2 << 20));
        assert!(footprint(&range).unwrap().resident_bytes >= 2 << 20);
        let nowhere = PAGE_BYTES..2 * PAGE_BYTES;
        assert_eq!(touch(&nowhere).unwrap_err().errno(), libc::EFAULT);
        assert_eq!(bring_in(&nowhere).unwrap_err().errno(), libc::ENOMEM);
    }

    #[test]
    fn untouched_memory_is_nowhere() {
        let range = memory::reserve(2 << 20).unwrap();
        assert_eq!(whereabouts(&range), Some(Whereabouts::default()));
    }
}
