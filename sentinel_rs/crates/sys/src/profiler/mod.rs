//! The kernel's page-access profiler: the client of `/dev/sentinel`.
//!
//! Profiling makes pages fault and changes neither their contents nor their rights, so every call here is safe with any
//! argument; the kernel refuses what is not the process's own.

pub mod abi;

use crate::errno_text;
use nix::errno::Errno;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Where the kernel shows its profiler.
pub const DEVICE: &str = "/dev/sentinel";

/// Why the profiler cannot be had, or which call it refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfilerError {
    /// The device cannot be opened.
    #[error("{path} cannot be opened ({reason}); accepted is a kernel with the page-access profiler, see docs/kernel-profiler.md")]
    Open {
        /// The device.
        path: String,
        /// The system's error number.
        errno: i32,
        /// The system's text.
        reason: String,
    },
    /// INFO says something that this client cannot work with.
    #[error("{path}: {field} = {value}: accepted is {accepted}")]
    Unfit {
        /// The device.
        path: String,
        /// The field of INFO.
        field: &'static str,
        /// Its value.
        value: String,
        /// What this client takes.
        accepted: String,
    },
    /// A call was refused.
    #[error("{call}: {field} = {value} was refused ({}); accepted is {accepted}", errno_text(*errno))]
    Call {
        /// The ioctl.
        call: &'static str,
        /// What it was about.
        field: &'static str,
        /// The value given.
        value: String,
        /// What the kernel takes.
        accepted: &'static str,
        /// The system's error number.
        errno: i32,
    },
}

impl ProfilerError {
    /// The system's error number; 0 when the system did not refuse.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            ProfilerError::Open { errno, .. } | ProfilerError::Call { errno, .. } => *errno,
            ProfilerError::Unfit { .. } => 0,
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every access, a fault each.
    Exact,
    /// Accesses whose translation is not in the TLB.
    TlbMiss,
}

impl Mode {
    fn number(self) -> u32 {
        match self {
            Mode::Exact => abi::MODE_EXACT,
            Mode::TlbMiss => abi::MODE_TLB_MISS,
        }
    }

    /// `exact` or `tlb_miss`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Exact => "exact",
            Mode::TlbMiss => "tlb_miss",
        }
    }
}

/// What this kernel can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Version of the interface.
    pub abi_version: u32,
    /// The number of the mechanism, `abi::MECHANISM_*`.
    pub mechanism: u32,
    /// The mechanism for people.
    pub mechanism_name: String,
    /// Whether every access can be counted.
    pub exact: bool,
    /// Whether TLB misses can be counted.
    pub tlb_miss: bool,
    /// Whether exact counts are exact also when threads share pages.
    pub exact_threads: bool,
    /// Built into the kernel; false for the module.
    pub patched: bool,
    /// Whether the TLBs can be emptied while it counts.
    pub flush: bool,
    /// Bits of what the counts leave out.
    pub not_counted: u64,
    /// Ranges that one process can have.
    pub max_ranges: u64,
    /// Pages in all ranges of one process.
    pub max_pages: u64,
    /// Bytes in a page.
    pub page_bytes: u32,
    /// Width of physical addresses.
    pub physical_bits: u32,
    /// Bit of the page table entry that marks a page.
    pub poison_bit: u32,
}

impl Info {
    /// Whether START takes this mode.
    #[must_use]
    pub fn takes(&self, mode: Mode) -> bool {
        match mode {
            Mode::Exact => self.exact,
            Mode::TlbMiss => self.tlb_miss,
        }
    }

    fn of(raw: &abi::RawInfo) -> Info {
        let name = raw.mechanism_name.split(|&byte| byte == 0).next().unwrap_or_default();
        let has = |bit: u64| raw.features & bit != 0;
        Info {
            abi_version: raw.abi_version,
            mechanism: raw.mechanism,
            mechanism_name: String::from_utf8_lossy(name).into_owned(),
            exact: has(abi::FEATURE_EXACT),
            tlb_miss: has(abi::FEATURE_TLB_MISS),
            exact_threads: has(abi::FEATURE_EXACT_THREADS),
            patched: has(abi::FEATURE_PATCHED),
            flush: has(abi::FEATURE_FLUSH),
            not_counted: raw.not_counted,
            max_ranges: raw.max_ranges,
            max_pages: raw.max_pages,
            page_bytes: raw.page_bytes,
            physical_bits: raw.physical_bits,
            poison_bit: raw.poison_bit,
        }
    }
}

/// Accesses to one page.
pub type PageCount = abi::RawCount;

/// Where profiling stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The mode while it runs.
    pub running: bool,
    /// Pages in all ranges.
    pub pages: u64,
    /// Sum of reads over all pages.
    pub reads: u64,
    /// Sum of writes over all pages.
    pub writes: u64,
    /// Times that a page may have missed counts; 0 when the counts are complete.
    pub left_open: u64,
}

/// One open profiler. It belongs to this process from the first range on; closing it ends profiling.
#[derive(Debug)]
pub struct Device {
    file: File,
    path: String,
}

impl Device {
    /// Opens the profiler and asks what it can do.
    ///
    /// # Errors
    /// [`ProfilerError::Open`] when there is no device or no permission, [`ProfilerError::Unfit`] when the kernel speaks
    /// another version, has pages of another size or nothing to profile with, [`ProfilerError::Call`] when the file is no
    /// profiler.
    pub fn open(path: &Path) -> Result<(Device, Info), ProfilerError> {
        let name = path.display().to_string();
        let file = File::options().read(true).write(true).open(path).map_err(|error| ProfilerError::Open {
            path: name.clone(),
            errno: error.raw_os_error().unwrap_or(0),
            reason: error.to_string(),
        })?;
        let device = Device { file, path: name };
        let info = device.info()?;
        device.check(&info)?;
        Ok((device, info))
    }

    fn check(&self, info: &Info) -> Result<(), ProfilerError> {
        let unfit = |field: &'static str, value: String, accepted: String| {
            Err(ProfilerError::Unfit { path: self.path.clone(), field, value, accepted })
        };
        if info.abi_version != abi::ABI_VERSION {
            return unfit("abi_version", info.abi_version.to_string(), abi::ABI_VERSION.to_string());
        }
        if info.page_bytes as usize != crate::memory::PAGE_BYTES {
            return unfit("page_bytes", info.page_bytes.to_string(), crate::memory::PAGE_BYTES.to_string());
        }
        if info.mechanism == abi::MECHANISM_NONE {
            let accepted = "a processor with a reserved address bit, or a kernel with the PROT_NONE mechanism";
            return unfit("mechanism", info.mechanism_name.clone(), accepted.to_owned());
        }
        Ok(())
    }

    /// Asks what this kernel can do.
    ///
    /// # Errors
    /// [`ProfilerError::Call`], `ENOTTY` for a file that is no profiler.
    pub fn info(&self) -> Result<Info, ProfilerError> {
        let mut raw = abi::RawInfo::default();
        let about = ("path", self.path.clone(), "a device of the page-access profiler");
        // SAFETY: `raw` has the size that is part of the number, and is valid for writes.
        unsafe { self.call("INFO", abi::IOC_INFO, std::ptr::from_mut(&mut raw).cast(), about)? };
        Ok(Info::of(&raw))
    }

    /// Adds whole pages to what is profiled; they need not be mapped yet.
    ///
    /// # Errors
    /// [`ProfilerError::Call`]: `EBUSY` while profiling runs or another file profiles this process, `EEXIST` for an overlap,
    /// `ENOSPC` beyond a limit of [`Info`], `EOPNOTSUPP` for hugetlbfs pages, `EINVAL`, `ENOMEM`.
    pub fn add_range(&self, range: &Range<usize>) -> Result<(), ProfilerError> {
        let mut raw = abi::RawRange { start: range.start as u64, bytes: range.len() as u64 };
        let accepted = "whole pages in no other range, while nothing runs, without hugetlbfs pages";
        let about = ("range", format!("{:#x}..{:#x}", range.start, range.end), accepted);
        // SAFETY: `raw` has the size that is part of the number; the kernel checks the addresses in it and marks pages of
        // this process, which changes neither their contents nor their rights.
        unsafe { self.call("ADD_RANGE", abi::IOC_ADD_RANGE, std::ptr::from_mut(&mut raw).cast(), about) }
    }

    /// Begins counting in all ranges.
    ///
    /// # Errors
    /// [`ProfilerError::Call`]: `EBUSY` when it runs, `EINVAL` without a range or for a mode that this kernel has not got.
    pub fn start(&self, mode: Mode) -> Result<(), ProfilerError> {
        let mut raw = abi::RawStart { mode: mode.number(), flags: 0 };
        let about = ("mode", mode.name().to_owned(), "a mode among the features, with a range, while nothing runs");
        // SAFETY: `raw` has the size that is part of the number.
        unsafe { self.call("START", abi::IOC_START, std::ptr::from_mut(&mut raw).cast(), about) }
    }

    /// Ends counting; the counts are final when it returns.
    ///
    /// # Errors
    /// [`ProfilerError::Call`]: `EINVAL` when nothing runs.
    pub fn stop(&self) -> Result<(), ProfilerError> {
        let about = ("state", "stopped".to_owned(), "a running profiler");
        // SAFETY: the call takes no argument.
        unsafe { self.call("STOP", abi::IOC_STOP, std::ptr::null_mut(), about) }
    }

    /// Empties the TLBs of this process's translations, so that the next access to each page misses them.
    ///
    /// # Errors
    /// [`ProfilerError::Call`]: `EINVAL` when nothing runs, `ENOTTY` on a kernel without [`Info::flush`].
    pub fn flush(&self) -> Result<(), ProfilerError> {
        let about = ("state", "stopped".to_owned(), "a running profiler with SENTINEL_FEATURE_FLUSH");
        // SAFETY: the call takes no argument.
        unsafe { self.call("FLUSH", abi::IOC_FLUSH, std::ptr::null_mut(), about) }
    }

    /// The counts of these pages so far, in their order.
    ///
    /// # Errors
    /// [`ProfilerError::Call`]: `EINVAL` when the pages are not whole and all in one range.
    pub fn read(&self, range: &Range<usize>) -> Result<Vec<PageCount>, ProfilerError> {
        let pages = range.len() / crate::memory::PAGE_BYTES;
        let mut counts = vec![PageCount::default(); pages];
        let mut raw = abi::RawRead {
            start: range.start as u64,
            pages: pages as u64,
            counts: counts.as_mut_ptr().expose_provenance() as u64,
            reserved: 0,
        };
        let about = ("pages", format!("{:#x}..{:#x}", range.start, range.end), "whole pages of one range");
        // SAFETY: `raw` has the size that is part of the number, and names as many counts as `counts` has.
        unsafe { self.call("READ", abi::IOC_READ, std::ptr::from_mut(&mut raw).cast(), about)? };
        Ok(counts)
    }

    /// Sets all counts to 0 and forgets the ranges.
    ///
    /// # Errors
    /// [`ProfilerError::Call`]: `EBUSY` while profiling runs.
    pub fn reset(&self) -> Result<(), ProfilerError> {
        let mut raw = abi::RawReset { flags: abi::RESET_RANGES, reserved: 0 };
        let about = ("flags", "SENTINEL_RESET_RANGES".to_owned(), "a profiler that does not run");
        // SAFETY: `raw` has the size that is part of the number.
        unsafe { self.call("RESET", abi::IOC_RESET, std::ptr::from_mut(&mut raw).cast(), about) }
    }

    /// Where profiling stands.
    ///
    /// # Errors
    /// [`ProfilerError::Call`], `ESRCH` before the first range.
    pub fn status(&self) -> Result<Status, ProfilerError> {
        let mut raw = abi::RawStatus::default();
        let about = ("path", self.path.clone(), "a profiler with a range");
        // SAFETY: `raw` has the size that is part of the number, and is valid for writes.
        unsafe { self.call("STATUS", abi::IOC_STATUS, std::ptr::from_mut(&mut raw).cast(), about)? };
        let abi::RawStatus { mode, pages, reads, writes, left_open, .. } = raw;
        Ok(Status { running: mode != 0, pages, reads, writes, left_open })
    }

    /// # Safety
    /// `argument` is valid for what the number says, and what it names is valid as well.
    unsafe fn call(
        &self,
        call: &'static str,
        number: libc::c_ulong,
        argument: *mut libc::c_void,
        (field, value, accepted): (&'static str, String, &'static str),
    ) -> Result<(), ProfilerError> {
        loop {
            // SAFETY: the caller vouches for the argument; the descriptor is open as long as `self`.
            let result = unsafe { libc::ioctl(self.file.as_raw_fd(), number, argument) };
            if result >= 0 {
                return Ok(());
            }
            let errno = Errno::last_raw();
            // A signal came first; nothing was done.
            if errno != libc::EINTR {
                return Err(ProfilerError::Call { call, field, value, accepted, errno });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_named_with_what_would_do() {
        let error = Device::open(Path::new("/nonexistent/sentinel")).unwrap_err();
        assert_eq!(error.errno(), libc::ENOENT);
        let text = error.to_string();
        assert!(text.contains("/nonexistent/sentinel") && text.contains("docs/kernel-profiler.md"), "{text}");
    }

    #[test]
    fn a_file_that_is_no_profiler_refuses_every_call() {
        let error = Device::open(Path::new("/dev/null")).unwrap_err();
        assert!(matches!(error, ProfilerError::Call { call: "INFO", errno: libc::ENOTTY, .. }), "{error}");
        let device = Device { file: File::open("/dev/null").unwrap(), path: "/dev/null".to_owned() };
        let refused = [
            device.add_range(&(0x1000..0x3000)).unwrap_err(),
            device.start(Mode::Exact).unwrap_err(),
            device.stop().unwrap_err(),
            device.flush().unwrap_err(),
            device.read(&(0x1000..0x3000)).unwrap_err(),
            device.reset().unwrap_err(),
            device.status().unwrap_err(),
        ];
        for error in &refused {
            assert_eq!(error.errno(), libc::ENOTTY, "{error}");
        }
        let text = refused[0].to_string();
        for part in ["ADD_RANGE", "range = 0x1000..0x3000", "ENOTTY", "accepted is whole pages"] {
            assert!(text.contains(part), "{text:?} does not say {part:?}");
        }
    }

    #[test]
    fn a_kernel_that_does_not_fit_is_refused_by_field() {
        let device = Device { file: File::open("/dev/null").unwrap(), path: "/dev/x".to_owned() };
        let mut raw = abi::RawInfo { abi_version: abi::ABI_VERSION, page_bytes: 4096, ..abi::RawInfo::default() };
        raw.mechanism = abi::MECHANISM_RESERVED_BIT;
        raw.mechanism_name[..12].copy_from_slice(b"reserved bit");
        raw.features = abi::FEATURE_TLB_MISS;
        let good = Info::of(&raw);
        assert_eq!((device.check(&good), good.mechanism_name.as_str()), (Ok(()), "reserved bit"));
        assert!(good.takes(Mode::TlbMiss) && !good.takes(Mode::Exact));
        let bad = [
            (Info { abi_version: 2, ..good.clone() }, "/dev/x: abi_version = 2: accepted is 1"),
            (Info { page_bytes: 16384, ..good.clone() }, "/dev/x: page_bytes = 16384: accepted is 4096"),
            (Info { mechanism: 0, mechanism_name: "none".into(), ..good }, "/dev/x: mechanism = none: accepted is a"),
        ];
        for (info, said) in bad {
            let text = device.check(&info).unwrap_err().to_string();
            assert!(text.starts_with(said), "{text}");
        }
    }
}
