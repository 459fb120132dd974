//! Hands the statistics over to whoever started this process: as files in the folder that `SENTINEL_STATS` names.
//!
//! Each process that loads the library writes `PID.json` there: when it loads, at most once a second as steps end, and
//! when it exits. So whoever reads the folder afterwards knows that Sentinel was there and what it did, up to a second
//! before the end of a process that was killed.

use crate::options::OptionError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;
use std::time::Instant;

/// The variable that names the folder.
pub const VARIABLE: &str = "SENTINEL_STATS";

/// Milliseconds between two files for steps: often enough to be of use after a kill, too rare to be felt.
const INTERVAL_MS: u64 = 1000;

static HANDOVER: OnceLock<Handover> = OnceLock::new();

struct Handover {
    folder: PathBuf,
    /// A forked child has this state too, but must not write in its parent's name.
    pid: u32,
    report: fn() -> String,
    began: Instant,
    /// Milliseconds after `began` from which on the next file is due.
    due_ms: AtomicU64,
}

/// The library has been loaded; `report` gives the statistics as JSON. Does nothing unless `SENTINEL_STATS` is set. A
/// folder that cannot be written is refused later, by [`check`], when a session can be told.
pub fn loaded(report: fn() -> String) {
    let Some(folder) = std::env::var_os(VARIABLE) else { return };
    let handover = Handover {
        folder: PathBuf::from(folder),
        pid: std::process::id(),
        report,
        began: Instant::now(),
        due_ms: AtomicU64::new(0),
    };
    if HANDOVER.set(handover).is_ok() {
        write_now();
        sys::process::at_exit(write_now);
    }
}

/// A step has ended: writes a file when one is due.
pub fn step_ended() {
    let Some(handover) = HANDOVER.get() else { return };
    let now_ms = u64::try_from(handover.began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let due_ms = handover.due_ms.load(Ordering::Relaxed);
    let next_ms = now_ms.saturating_add(INTERVAL_MS);
    let ours = now_ms >= due_ms
        && handover.due_ms.compare_exchange(due_ms, next_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    if ours {
        write_now();
    }
}

/// Refuses a folder that cannot be written, before training.
///
/// # Errors
/// When `folder`, the value of `SENTINEL_STATS`, is no folder or takes no files.
pub fn check(folder: &str) -> Result<(), OptionError> {
    let probe = Path::new(folder).join(format!("{}.probe", std::process::id()));
    let tried = std::fs::write(&probe, "").and_then(|()| std::fs::remove_file(&probe));
    tried.map_err(|error| OptionError {
        option: VARIABLE.to_owned(),
        value: folder.to_owned(),
        accepted: format!("cannot be written ({error}); accepted is a folder that is there and can be written"),
    })
}

extern "C" fn write_now() {
    let Some(handover) = HANDOVER.get().filter(|handover| handover.pid == std::process::id()) else { return };
    // Training goes on without the file; `check` has told the session when the folder was wrong from the start.
    if let Err(error) = write(&handover.folder, handover.pid, &(handover.report)()) {
        log::debug!("sentinel: {VARIABLE} = {}: {error}", handover.folder.display());
    }
}

/// Replaces the process's file as a whole, so that a reader never finds half of one.
fn write(folder: &Path, pid: u32, json: &str) -> io::Result<()> {
    let partial = folder.join(format!("{pid}.partial"));
    std::fs::write(&partial, json)?;
    std::fs::rename(&partial, folder.join(format!("{pid}.json")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_a_wrong_folder_is_refused() {
        let folder = std::env::temp_dir().join(format!("sentinel-handover-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let name = folder.to_str().unwrap();
        check(name).unwrap();
        write(&folder, 7, "{\"long\": 1}").unwrap();
        write(&folder, 7, "{}").unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("7.json")).unwrap(), "{}");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing but the file is left");
        std::fs::remove_dir_all(&folder).unwrap();
        let message = check(name).unwrap_err().to_string();
        assert!(message.starts_with(&format!("sentinel: SENTINEL_STATS = {name}: cannot be written")), "{message}");
        assert!(message.contains("accepted is a folder"), "{message}");
    }

    #[test]
    fn without_the_variable_nothing_is_written() {
        step_ended();
        assert!(HANDOVER.get().is_none());
    }
}
