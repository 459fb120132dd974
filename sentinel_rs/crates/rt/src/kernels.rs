//! Kernel objects as small numbers.
//!
//! TensorFlow names a kernel by the address of its object, which a later session may use again. A kernel keeps its number
//! as long as an executor holds it; the table's generation tells every thread's cache when an address may have changed
//! hands.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Entries that may hold the same kernel: a line of the processor's cache.
const WAYS: usize = 4;
/// Lines of a thread's cache: at first, and at most (1 MiB).
const LINES_MIN: usize = 1024;
const LINES_MAX: usize = 16384;
/// Kernels follow each other in memory at about a KiB or more, and often run in that order. So each KiB has its line, and the
/// KiBs of a stretch have lines that follow each other, which the processor fetches ahead.
const LINE_BITS: u32 = 10;
const STRETCH_BITS: u32 = 24;

#[derive(Debug)]
struct Known {
    number: u32,
    holders: u32,
}

/// A kernel as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelName {
    /// The node's name.
    pub name: String,
    /// The operation's type.
    pub kind: String,
}

#[derive(Debug, Default)]
struct Table {
    by_address: HashMap<usize, Known>,
    names: Vec<KernelName>,
    /// Numbers whose kernels are gone; they are given out again, so that names do not pile up over many sessions.
    vacant: Vec<u32>,
}

/// The table of all kernels seen.
#[derive(Debug, Default)]
pub struct Kernels {
    table: Mutex<Table>,
    generation: AtomicU32,
}

#[derive(Clone, Copy)]
struct Cached {
    address: usize,
    /// The table's generation plus one, so that an empty entry belongs to none.
    generation: u32,
    number: u32,
}

const EMPTY: Cached = Cached { address: 0, generation: 0, number: 0 };

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([Cached; WAYS]);

/// What one thread has met, and more lines when the thread has to ask too often.
struct Cache {
    lines: Vec<Line>,
    /// Entries written since it has this length.
    written: usize,
}

impl Cache {
    const fn new() -> Cache {
        Cache { lines: Vec::new(), written: 0 }
    }

    /// The line that may hold the kernel.
    fn line(&self, address: usize) -> usize {
        let stretch = (address >> STRETCH_BITS).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        // The number of lines is a power of two.
        (stretch + (address >> LINE_BITS)) & (self.lines.len() - 1)
    }

    fn get(&self, address: usize, generation: u32) -> Option<u32> {
        if self.lines.is_empty() {
            return None;
        }
        let here = &self.lines[self.line(address)].0;
        here.iter().find(|entry| entry.address == address && entry.generation == generation).map(|entry| entry.number)
    }

    fn put(&mut self, new: Cached) {
        if self.written >= self.lines.len() * WAYS / 2 && self.lines.len() < LINES_MAX {
            let longer = (self.lines.len() * 4).max(LINES_MIN);
            let before = std::mem::replace(&mut self.lines, vec![Line([EMPTY; WAYS]); longer]);
            self.written = 0;
            let known = before.into_iter().flat_map(|line| line.0).filter(|known| known.generation == new.generation);
            known.for_each(|known| self.write(known));
        }
        self.write(new);
    }

    fn write(&mut self, new: Cached) {
        self.written += 1;
        let line = self.line(new.address);
        let here = &mut self.lines[line].0;
        let outdated = |entry: &Cached| entry.address == new.address || entry.generation != new.generation;
        let victim = here.iter().position(outdated).unwrap_or(new.number as usize % WAYS);
        here[victim] = new;
    }
}

thread_local! {
    static CACHE: RefCell<Cache> = const { RefCell::new(Cache::new()) };
}

impl Kernels {
    /// The number of the kernel at `address`, from the calling thread's cache.
    #[must_use]
    pub fn cached(&self, address: usize) -> Option<u32> {
        let generation = self.generation.load(Ordering::Acquire).wrapping_add(1);
        CACHE.with_borrow(|cache| cache.get(address, generation))
    }

    fn remember(address: usize, generation: u32, number: u32) {
        let generation = generation.wrapping_add(1);
        CACHE.with_borrow_mut(|cache| cache.put(Cached { address, generation, number }));
    }

    /// An executor holds the kernel from now on.
    pub fn hold(&self, address: usize, name: &str, kind: &str) -> u32 {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.number_of(&mut table, address, name, kind);
        if let Some(known) = table.by_address.get_mut(&address) {
            known.holders += 1;
        }
        number
    }

    /// An executor lets go of the kernel.
    pub fn release(&self, address: usize) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = table.by_address.get_mut(&address) else { return };
        known.holders = known.holders.saturating_sub(1);
        if known.holders == 0 {
            let number = known.number;
            table.by_address.remove(&address);
            table.vacant.push(number);
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// The number of a kernel that the cache does not know: of a held one, or of one that no executor of ours made, such
    /// as a function body's.
    pub fn look_up(&self, address: usize, name: &str, kind: &str) -> u32 {
        let generation = self.generation.load(Ordering::Acquire);
        let number = {
            let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            self.number_of(&mut table, address, name, kind)
        };
        Self::remember(address, generation, number);
        number
    }

    /// Kernels that no executor of ours made may have died: the next use of an address compares names again.
    pub fn suspect(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Name and type of a kernel.
    #[must_use]
    pub fn name(&self, number: u32) -> Option<KernelName> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.names.get(number as usize).cloned()
    }

    /// The number at `address`, unless another kernel has taken that address since. Nobody said that the kernel before it is
    /// gone, which was therefore none of our executors': its number is free now, and whoever remembers it forgets.
    fn number_of(&self, table: &mut Table, address: usize, name: &str, kind: &str) -> u32 {
        let before = table.by_address.get(&address).map(|known| known.number);
        if let Some(number) = before {
            let same = |known: &KernelName| known.name == name && known.kind == kind;
            if table.names.get(number as usize).is_some_and(same) {
                return number;
            }
        }
        let name = KernelName { name: name.to_owned(), kind: kind.to_owned() };
        let number = match table.vacant.pop() {
            Some(number) => {
                table.names[number as usize] = name;
                number
            }
            None => {
                table.names.push(name);
                u32::try_from(table.names.len() - 1).unwrap_or(u32::MAX)
            }
        };
        if let Some(gone) = before {
            table.vacant.push(gone);
            self.generation.fetch_add(1, Ordering::Release);
        }
        table.by_address.insert(address, Known { number, holders: 0 });
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_keeps_its_number_while_it_is_held() {
        let kernels = Kernels::default();
        let number = kernels.hold(64, "a", "Add");
        assert_eq!(kernels.cached(64), None);
        assert_eq!(kernels.look_up(64, "a", "Add"), number);
        assert_eq!(kernels.cached(64), Some(number));
        kernels.hold(64, "a", "Add");
        kernels.release(64);
        assert_eq!(kernels.cached(64), Some(number));
        kernels.release(64);
        assert_eq!(kernels.cached(64), None);
        assert_eq!(kernels.look_up(64, "b", "Mul"), number, "a vacant number is used again");
        assert_eq!(kernels.name(number), Some(KernelName { name: "b".into(), kind: "Mul".into() }));
    }

    #[test]
    fn a_thread_remembers_more_kernels_than_it_has_room_for_at_first() {
        let kernels = Kernels::default();
        let address = |kernel: usize| 0x7f00_0000_0000 + 448 * kernel;
        for round in 0..4 {
            let known = (0..12_000).filter(|&kernel| kernels.cached(address(kernel)).is_some()).count();
            // It grows while it writes, and keeps what it knew.
            assert!(round < 1 || known > 11_900, "{known}");
            for kernel in (0..12_000).filter(|&kernel| kernels.cached(address(kernel)).is_none()).collect::<Vec<_>>() {
                kernels.look_up(address(kernel), &format!("op{kernel}"), "Add");
            }
        }
        for kernel in 0..12_000 {
            let number = kernels.cached(address(kernel));
            assert!(
                number.is_none() || number == Some(kernels.look_up(address(kernel), &format!("op{kernel}"), "Add"))
            );
        }
    }

    #[test]
    fn another_kernel_at_the_same_address_gets_its_own_number() {
        let kernels = Kernels::default();
        let first = kernels.look_up(128, "a", "Add");
        assert_ne!(kernels.look_up(128, "b", "Add"), first);
        assert_eq!(kernels.name(first), Some(KernelName { name: "a".into(), kind: "Add".into() }));
        let second = kernels.look_up(128, "b", "Add");
        assert_eq!(kernels.look_up(128, "b", "Add"), second);
        kernels.suspect();
        assert_eq!(kernels.cached(128), None);
        assert_eq!(kernels.look_up(128, "b", "Add"), second, "a kernel that still lives keeps its number");
    }

    #[test]
    fn names_do_not_pile_up_when_nobody_says_that_kernels_are_gone() {
        let kernels = Kernels::default();
        for round in 0..1000 {
            for address in [64, 128, 192] {
                let name = format!("map{round}");
                let number = kernels.look_up(address, &name, "Add");
                assert_eq!(kernels.name(number).map(|known| known.name), Some(name));
            }
        }
        assert!(kernels.table.lock().expect("nobody panics").names.len() <= 4);
        let seen = kernels.look_up(64, "a", "Add");
        std::thread::scope(|scope| scope.spawn(|| kernels.look_up(64, "b", "Add")).join().expect("no thread fails"));
        assert_eq!(kernels.cached(64), None, "{seen} may belong to another kernel now");
    }
}
