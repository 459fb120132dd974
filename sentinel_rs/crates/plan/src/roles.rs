//! What each kernel of a step means to the code that carries a plan out.

use profile::Profile;
use std::collections::BTreeMap;

/// A kernel's part in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelRole {
    /// The kernel's number.
    pub kernel: u32,
    /// Layer of its first execution.
    pub layer: u32,
    /// Temporaries up to this size are left to the heap of small blocks; 0 for none.
    pub scratch_max_bytes: u64,
}

/// Every kernel of the step, by number, with its first layer and its scratch rule.
#[must_use]
pub fn kernel_roles(profile: &Profile) -> Vec<KernelRole> {
    let mut roles: BTreeMap<u32, KernelRole> = BTreeMap::new();
    for op in &profile.ops {
        roles.entry(op.kernel).or_insert_with(|| {
            let scratch = profile.scratch_kernels.binary_search(&op.kernel).is_ok();
            let scratch_max_bytes = if scratch { profile::SCRATCH_MAX_BYTES } else { 0 };
            KernelRole { kernel: op.kernel, layer: op.layer, scratch_max_bytes }
        });
    }
    roles.into_values().collect()
}
