//! Kernel objects as small numbers.
//!
//! TensorFlow names a kernel by the address of its object, which a later session may use again. A kernel keeps its number
//! as long as an executor holds it; the table's generation tells every thread's cache when an address may have changed
//! hands.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

const CACHE_SLOTS: usize = 4096;

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
    generation: AtomicU64,
}

#[derive(Clone, Copy)]
struct Cached {
    address: usize,
    generation: u64,
    number: u32,
}

thread_local! {
    static CACHE: RefCell<[Cached; CACHE_SLOTS]> =
        const { RefCell::new([Cached { address: 0, generation: 0, number: 0 }; CACHE_SLOTS]) };
}

impl Kernels {
    /// The number of the kernel at `address`, from the calling thread's cache.
    #[must_use]
    pub fn cached(&self, address: usize) -> Option<u32> {
        let generation = self.generation.load(Ordering::Acquire) + 1;
        CACHE.with_borrow(|cache| {
            let entry = &cache[(address >> 6) % CACHE_SLOTS];
            (entry.address == address && entry.generation == generation).then_some(entry.number)
        })
    }

    fn remember(address: usize, generation: u64, number: u32) {
        CACHE.with_borrow_mut(|cache| {
            cache[(address >> 6) % CACHE_SLOTS] = Cached { address, generation: generation + 1, number };
        });
    }

    /// An executor holds the kernel from now on.
    pub fn hold(&self, address: usize, name: &str, kind: &str) -> u32 {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let number = number_of(&mut table, address, name, kind);
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
            number_of(&mut table, address, name, kind)
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
}

/// The number at `address`, unless another kernel has taken that address since.
fn number_of(table: &mut Table, address: usize, name: &str, kind: &str) -> u32 {
    if let Some(known) = table.by_address.get(&address) {
        let same = table.names.get(known.number as usize).is_some_and(|known| known.name == name && known.kind == kind);
        if same {
            return known.number;
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
    table.by_address.insert(address, Known { number, holders: 0 });
    number
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
    fn another_kernel_at_the_same_address_gets_its_own_number() {
        let kernels = Kernels::default();
        let first = kernels.look_up(128, "a", "Add");
        assert_ne!(kernels.look_up(128, "b", "Add"), first);
        assert_eq!(kernels.name(first), Some(KernelName { name: "a".into(), kind: "Add".into() }));
        let second = kernels.look_up(128, "b", "Add");
        kernels.suspect();
        assert_eq!(kernels.cached(128), None);
        assert_eq!(kernels.look_up(128, "b", "Add"), second, "a kernel that still lives keeps its number");
    }
}
