//! Address space: reserving it, asking for huge pages, dropping contents.

use crate::{abi, Error};
use nix::errno::Errno;
use std::ops::Range;
use std::sync::{PoisonError, RwLock};

/// Bytes in a page.
pub const PAGE_BYTES: usize = 4096;

/// Bytes in a huge page: reserved ranges begin at a multiple of this.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Every range that `reserve` gave out. They are never given back, so an entry stays true forever.
static RESERVED: RwLock<Vec<Range<usize>>> = RwLock::new(Vec::new());

/// Readable and writable address space of at least `len_bytes`, rounded up to a multiple of 2 MiB, that begins at a
/// multiple of 2 MiB. No memory is taken before it is touched, and no swap is set aside. Never given back.
///
/// # Errors
/// [`Error::Reserve`] when the system has no such address space, or the length is zero.
pub fn reserve(len_bytes: usize) -> Result<Range<usize>, Error> {
    let refused = |errno: i32| Error::Reserve { len_bytes, errno };
    let len = len_bytes.checked_next_multiple_of(HUGE_PAGE_BYTES).ok_or_else(|| refused(libc::ENOMEM))?;
    let whole = len.checked_add(HUGE_PAGE_BYTES).ok_or_else(|| refused(libc::ENOMEM))?;
    if len == 0 {
        return Err(refused(libc::EINVAL));
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: without MAP_FIXED and with a null hint the kernel chooses addresses that nothing uses yet.
    let begin = unsafe { libc::mmap(std::ptr::null_mut(), whole, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if begin == libc::MAP_FAILED {
        return Err(refused(Errno::last_raw()));
    }
    let begin = begin.expose_provenance();
    let range = begin.next_multiple_of(HUGE_PAGE_BYTES)..begin.next_multiple_of(HUGE_PAGE_BYTES) + len;
    unmap(begin..range.start);
    unmap(range.end..begin + whole);
    RESERVED.write().unwrap_or_else(PoisonError::into_inner).push(range.clone());
    Ok(range)
}

/// Gives back what the alignment left over. A refusal costs untouched address space and nothing else, so it is no error.
fn unmap(range: Range<usize>) {
    if !range.is_empty() {
        // SAFETY: only `reserve` calls this, with parts of the mapping that it made and has given to nobody.
        unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(range.start), range.len()) };
    }
}

/// Asks for huge pages in a range. The kernel may not have any; that is no error.
///
/// # Errors
/// [`Error::Advise`], for instance `EINVAL` when the kernel was built without transparent huge pages.
pub fn advise_huge_pages(range: &Range<usize>) -> Result<(), Error> {
    // SAFETY: this advice never changes contents, wherever the range is; the kernel checks that it is mapped.
    unsafe { advise(range, abi::MADV_HUGEPAGE, "MADV_HUGEPAGE") }
}

/// Asks for base pages only in a range, because parts of it go different ways.
///
/// # Errors
/// As [`advise_huge_pages`].
pub fn advise_base_pages(range: &Range<usize>) -> Result<(), Error> {
    // SAFETY: this advice never changes contents, wherever the range is; the kernel checks that it is mapped.
    unsafe { advise(range, abi::MADV_NOHUGEPAGE, "MADV_NOHUGEPAGE") }
}

/// Drops the contents of a range: its pages go back to the system, and the next touch finds fresh zeroed ones.
///
/// # Errors
/// [`Error::NotReserved`] when the range is not whole pages inside one range from [`reserve`]; [`Error::Advise`] when the
/// system refuses, for instance `EINVAL` for locked pages.
pub fn discard(range: &Range<usize>) -> Result<(), Error> {
    if !is_reserved(range) {
        return Err(Error::NotReserved { addr: range.start, len_bytes: range.len() });
    }
    // SAFETY: `is_reserved` says that the range is memory that this module mapped. No Rust object or reference lives in it:
    // this crate makes none, and code that does through the bare address has to vouch for it in its own unsafe block.
    unsafe { advise(range, abi::MADV_DONTNEED, "MADV_DONTNEED") }
}

/// Whether a range is whole pages inside one range that [`reserve`] gave out.
#[must_use]
pub fn is_reserved(range: &Range<usize>) -> bool {
    let aligned = range.start % PAGE_BYTES == 0 && range.end % PAGE_BYTES == 0;
    let reserved = RESERVED.read().unwrap_or_else(PoisonError::into_inner);
    aligned
        && range.start <= range.end
        && reserved.iter().any(|whole| whole.start <= range.start && range.end <= whole.end)
}

/// # Safety
/// Following the advice must not break what any other code believes about the contents of the range.
pub(crate) unsafe fn advise(range: &Range<usize>, advice: libc::c_int, name: &'static str) -> Result<(), Error> {
    // SAFETY: the caller vouches for the contents; `madvise` accesses nothing else.
    let result = unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(range.start), range.len(), advice) };
    if result == 0 {
        return Ok(());
    }
    Err(Error::Advise { advice: name, addr: range.start, len_bytes: range.len(), errno: Errno::last_raw() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(addr: usize, value: u8) {
        // SAFETY: the tests pass addresses inside ranges that they reserved for themselves.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(addr).write_volatile(value) }
    }

    fn read(addr: usize) -> u8 {
        // SAFETY: as above; fresh pages read as zero.
        unsafe { std::ptr::with_exposed_provenance::<u8>(addr).read_volatile() }
    }

    #[test]
    fn a_reserved_range_is_aligned_writable_and_can_be_discarded() {
        let range = reserve(5 << 20).unwrap();
        assert_eq!(range.start % HUGE_PAGE_BYTES, 0);
        assert_eq!(range.len(), 6 << 20);
        write(range.start, 7);
        write(range.end - 1, 9);
        discard(&(range.start..range.start + PAGE_BYTES)).unwrap();
        assert_eq!((read(range.start), read(range.end - 1)), (0, 9));
    }

    #[test]
    fn address_space_is_more_than_memory() {
        let range = reserve(1 << 40).unwrap();
        write(range.start + (1 << 39), 1);
        assert_eq!(read(range.start + (1 << 39)), 1);
    }

    #[test]
    fn refuses_lengths_that_cannot_be() {
        assert_eq!(reserve(0), Err(Error::Reserve { len_bytes: 0, errno: libc::EINVAL }));
        for len_bytes in [usize::MAX, usize::MAX - 2 * HUGE_PAGE_BYTES, 1 << 60] {
            assert_eq!(reserve(len_bytes), Err(Error::Reserve { len_bytes, errno: libc::ENOMEM }));
        }
    }

    #[test]
    fn discards_nothing_that_was_not_reserved_here() {
        let range = reserve(1).unwrap();
        let other = vec![1u8; 3 * PAGE_BYTES];
        let begin = other.as_ptr().addr().next_multiple_of(PAGE_BYTES);
        let misaligned = range.start + 8..range.start + PAGE_BYTES;
        let too_long = range.start..range.end + (1 << 30);
        #[allow(clippy::reversed_empty_ranges)]
        let reversed = range.end..range.start;
        for refused in [begin..begin + PAGE_BYTES, misaligned, too_long, reversed] {
            let error = discard(&refused).unwrap_err();
            assert_eq!(error, Error::NotReserved { addr: refused.start, len_bytes: refused.len() });
            assert_eq!(error.errno(), libc::EINVAL);
        }
        assert!(other.iter().all(|&byte| byte == 1));
    }

    #[test]
    fn refused_advice_names_the_range() {
        let range = 8..16;
        let expected = Error::Advise { advice: "MADV_HUGEPAGE", addr: 8, len_bytes: 8, errno: libc::EINVAL };
        assert_eq!(advise_huge_pages(&range), Err(expected));
    }
}
