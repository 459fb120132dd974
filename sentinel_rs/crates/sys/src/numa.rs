//! Memory nodes: where pages come from, where they are, and moving them.

use crate::{abi, Error};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::ops::Range;

/// The highest node number that a mask here can hold; Linux is built for at most 1024 nodes.
pub const MAX_NODE: u32 = 1023;

/// Bits in a word of a node mask.
const WORD_BITS: usize = libc::c_ulong::BITS as usize;

/// A status that the kernel never writes: the page was not looked at.
const UNSETTLED: libc::c_int = libc::c_int::MIN;

/// Which nodes untouched pages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The given nodes and no others; when they are full, the process is out of memory.
    Bind,
    /// The given node, which has to be one; others when it is full.
    Preferred,
    /// The given nodes; others when they are full. Linux before 5.15 answers `EINVAL`.
    PreferredMany,
}

impl Policy {
    fn number(self) -> libc::c_int {
        match self {
            Policy::Bind => abi::MPOL_BIND,
            Policy::Preferred => abi::MPOL_PREFERRED,
            Policy::PreferredMany => abi::MPOL_PREFERRED_MANY,
        }
    }
}

/// Where a page is, or why it cannot be said or could not be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageStatus {
    /// On this node.
    OnNode(u32),
    /// This errno: `ENOENT` a page that was never touched, `EBUSY` in use by the kernel at the moment, `EFAULT` not mapped
    /// or the shared page of zeroes, `EACCES` shared with other processes, `ENOMEM` no room on the node.
    Failed(i32),
    /// The kernel gave up, with other pages of the same call, before it noted where this one is.
    Unsettled,
}

/// Sets where pages of the range come from that have not been touched yet. Pages that have been stay where they are.
///
/// # Errors
/// [`Error::Bind`]: `EINVAL` for a node that does not exist, a range that is not whole pages, or a policy that the kernel
/// does not know; `EFAULT` for addresses that are not mapped; `EPERM` and `ENOSYS` where containers forbid the call; and
/// `ENOMEM` when the process has too many mappings, which differing policies cause.
pub fn bind(range: &Range<usize>, policy: Policy, nodes: &[u32]) -> Result<(), Error> {
    let refused =
        |errno: i32| Error::Bind { addr: range.start, len_bytes: range.len(), policy, nodes: nodes.to_vec(), errno };
    let mask = node_mask(nodes).ok_or_else(|| refused(libc::EINVAL))?;
    // The kernel takes one bit less than it is told.
    let mask_bits = mask.len() * WORD_BITS + 1;
    // SAFETY: the mask is valid for reads of its length; a policy decides where pages come from and changes no contents,
    // wherever the range is.
    let result = unsafe {
        libc::syscall(abi::SYS_MBIND, range.start, range.len(), policy.number(), mask.as_ptr(), mask_bits, 0)
    };
    if result == 0 {
        Ok(())
    } else {
        Err(refused(Errno::last_raw()))
    }
}

/// Moves the pages at these addresses to a node and says for each of them where it is afterwards. A page that is part of a
/// huge page moves with all of it.
///
/// # Errors
/// [`Error::MovePages`]: `ENODEV` for a node without memory, `EACCES` for one that the process may not use, `ENOMEM` when
/// the node is full, `EPERM` and `ENOSYS` where containers forbid the call. Some pages may have moved.
pub fn move_pages(pages: &[usize], node: u32) -> Result<Vec<PageStatus>, Error> {
    let node = libc::c_int::try_from(node).unwrap_or(libc::c_int::MAX);
    let nodes = vec![node; pages.len()];
    // SAFETY: `nodes` has as many entries as `pages`.
    unsafe { call_move_pages(pages, nodes.as_ptr()) }
}

/// Says for the pages at these addresses where they are.
///
/// # Errors
/// As [`move_pages`]; nothing moves.
pub fn nodes_of_pages(pages: &[usize]) -> Result<Vec<PageStatus>, Error> {
    // SAFETY: a null pointer asks where the pages are.
    unsafe { call_move_pages(pages, std::ptr::null()) }
}

/// Bytes of this process's memory that the kernel has on each node, of the mappings that begin in the range. The second
/// witness beside [`nodes_of_pages`]: it counts pages that nobody thought of asking about. Slow, as it walks all pages.
///
/// # Errors
/// [`Error::ReadFile`] when `/proc/self/numa_maps` cannot be read, as on a kernel without memory nodes.
pub fn held_bytes(range: &Range<usize>) -> Result<BTreeMap<u32, u64>, Error> {
    const PATH: &str = "/proc/self/numa_maps";
    let text = std::fs::read_to_string(PATH).map_err(|error| Error::ReadFile {
        path: PATH.to_owned(),
        errno: error.raw_os_error().unwrap_or(0),
        reason: error.to_string(),
    })?;
    Ok(sum_of_maps(&text, range))
}

/// Lines such as `7f1200000000 prefer:1 anon=512 dirty=512 N0=12 N1=500 kernelpagesize_kB=4`.
fn sum_of_maps(text: &str, range: &Range<usize>) -> BTreeMap<u32, u64> {
    let mut held = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let begin = words.next().and_then(|word| usize::from_str_radix(word, 16).ok());
        if !begin.is_some_and(|begin| range.contains(&begin)) {
            continue;
        }
        let pairs: Vec<(&str, u64)> = words
            .filter_map(|word| word.split_once('='))
            .filter_map(|(key, value)| Some((key, value.parse().ok()?)))
            .collect();
        let page_kib = pairs.iter().find(|(key, _)| *key == "kernelpagesize_kB").map_or(4, |&(_, kib)| kib);
        for (key, pages) in pairs {
            if let Some(node) = key.strip_prefix('N').and_then(|number| number.parse().ok()) {
                *held.entry(node).or_insert(0) += pages * page_kib * 1024;
            }
        }
    }
    held
}

/// # Safety
/// `nodes` is null or valid for reads of as many numbers as there are pages.
unsafe fn call_move_pages(pages: &[usize], nodes: *const libc::c_int) -> Result<Vec<PageStatus>, Error> {
    const THIS_PROCESS: libc::pid_t = 0;
    let mut statuses = vec![UNSETTLED; pages.len()];
    // SAFETY: `pages` and `statuses` have as many entries as the count says, an address is as large as a pointer, and the
    // caller vouches for `nodes`. Moving a page changes neither its address nor its contents.
    let result = unsafe {
        libc::syscall(
            abi::SYS_MOVE_PAGES,
            THIS_PROCESS,
            pages.len(),
            pages.as_ptr(),
            nodes,
            statuses.as_mut_ptr(),
            abi::MPOL_MF_MOVE,
        )
    };
    // A positive result counts pages that were not moved; their statuses tell, or stay unsettled.
    if result >= 0 {
        return Ok(statuses.into_iter().map(page_status).collect());
    }
    let errno = Errno::last_raw();
    let settled_pages = statuses.iter().filter(|&&status| status != UNSETTLED).count();
    Err(Error::MovePages { pages: pages.len(), settled_pages, errno })
}

fn page_status(status: libc::c_int) -> PageStatus {
    match u32::try_from(status) {
        Ok(node) => PageStatus::OnNode(node),
        Err(_) if status == UNSETTLED => PageStatus::Unsettled,
        Err(_) => PageStatus::Failed(-status),
    }
}

/// A mask with a bit for each node; `None` when there is no node or one that no mask holds.
fn node_mask(nodes: &[u32]) -> Option<Vec<libc::c_ulong>> {
    let highest = *nodes.iter().max()?;
    if highest > MAX_NODE {
        return None;
    }
    let mut mask = vec![0; highest as usize / WORD_BITS + 1];
    for &node in nodes {
        mask[node as usize / WORD_BITS] |= 1 << (node as usize % WORD_BITS);
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{self, PAGE_BYTES};

    fn touch(addr: usize) {
        // SAFETY: the tests pass addresses inside ranges that they reserved for themselves.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(addr).write_volatile(1) }
    }

    /// Containers often forbid these calls; a test that has seen nothing must not look as if it had.
    const FORBIDDEN: &str = "mbind and move_pages are allowed (docker run --cap-add SYS_NICE)";

    #[test]
    fn masks_hold_the_nodes() {
        assert_eq!(node_mask(&[0, 2]), Some(vec![5]));
        assert_eq!(node_mask(&[64]), Some(vec![0, 1]));
        assert_eq!(node_mask(&[MAX_NODE]).map(|mask| mask.len()), Some(16));
        assert_eq!((node_mask(&[]), node_mask(&[MAX_NODE + 1])), (None, None));
    }

    #[test]
    fn statuses_are_told_apart() {
        assert_eq!(page_status(3), PageStatus::OnNode(3));
        assert_eq!(page_status(-libc::ENOENT), PageStatus::Failed(libc::ENOENT));
        assert_eq!(page_status(UNSETTLED), PageStatus::Unsettled);
    }

    #[test]
    fn the_kernels_maps_are_summed_by_node() {
        let text = "10000 prefer:1 anon=600 dirty=600 N0=100 N1=500 kernelpagesize_kB=4\n\
                    12000 default file=/lib/N9=1 mapped=3 N1=1 kernelpagesize_kB=4\n\
                    14000 huge anon=1 N0=1 kernelpagesize_kB=2048\n\
                    90000 default anon=7 N0=7 kernelpagesize_kB=4\n\
                    odd line\n";
        let held = sum_of_maps(text, &(0x10000..0x90000));
        assert_eq!(held, BTreeMap::from([(0, 100 * 4096 + (2 << 20)), (1, 501 * 4096)]));
        assert_eq!(sum_of_maps("", &(0..usize::MAX)), BTreeMap::new());
    }

    #[test]
    fn pages_are_found_where_they_were_bound() {
        let range = memory::reserve(1).unwrap();
        let bound = bind(&range, Policy::Preferred, &[0]);
        bound.expect(FORBIDDEN);
        touch(range.start);
        let found = nodes_of_pages(&[range.start, range.start + PAGE_BYTES]);
        assert_eq!(found.expect(FORBIDDEN), [PageStatus::OnNode(0), PageStatus::Failed(libc::ENOENT)]);
        assert_eq!(move_pages(&[range.start], 0).unwrap(), [PageStatus::OnNode(0)]);
    }

    #[test]
    fn every_policy_is_accepted_for_node_0() {
        let range = memory::reserve(1).unwrap();
        for policy in [Policy::Bind, Policy::Preferred, Policy::PreferredMany] {
            bind(&range, policy, &[0]).expect(FORBIDDEN);
        }
    }

    #[test]
    fn refusals_name_range_nodes_and_progress() {
        let range = memory::reserve(1).unwrap();
        let error = bind(&range, Policy::Bind, &[MAX_NODE + 1]).unwrap_err();
        assert_eq!((error.operation(), error.errno()), ("mbind", libc::EINVAL));
        let bound = bind(&(range.start + 1..range.end), Policy::Bind, &[0]);
        assert_eq!(bound.unwrap_err().errno(), libc::EINVAL);
        let moved = move_pages(&[range.start], MAX_NODE);
        let nothing_done = Error::MovePages { pages: 1, settled_pages: 0, errno: libc::ENODEV };
        assert_eq!(moved, Err(nothing_done));
    }
}
