//! `sentinel trace scale`: a step for a batch that was not recorded.

use std::path::{Path, PathBuf};

use profile::Recorded;

use crate::amount::{millis, Bytes};

/// Writes to `out` the step of `batch` examples that two recorded steps with their batches foretell; says what it is.
pub fn scale(steps: &[(PathBuf, u32); 2], batch: u32, out: &Path) -> anyhow::Result<String> {
    let [(first_file, first_batch), (second_file, second_batch)] = steps;
    let (first, second) = (trace::read(first_file)?, trace::read(second_file)?);
    let recorded = |step, batch: &u32| Recorded { step, batch: *batch };
    let step = profile::scale(recorded(&first, first_batch), recorded(&second, second_batch), batch)?;
    let profile = profile::fold(&step)?;
    trace::write(out, &step)?;
    Ok(format!(
        "batch {batch} from {first_batch} and {second_batch}: peak live {}, ops {:.3} ms, written to {}",
        Bytes(profile.peak_live_bytes),
        millis(profile.ops.iter().map(|op| op.time_ns).sum()),
        out.display()
    ))
}
