//! One variant per operation that can fail, each with the system's error number.

use crate::numa::Policy;
use nix::errno::Errno;

/// Why a system call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No address space of this length.
    #[error("mmap of {len_bytes} bytes of address space failed: {}", errno_text(*errno))]
    Reserve {
        /// Length asked for.
        len_bytes: usize,
        /// The system's error number.
        errno: i32,
    },
    /// Advice about a range was refused.
    #[error("madvise({advice}) of {len_bytes} bytes at {addr:#x} failed: {}", errno_text(*errno))]
    Advise {
        /// Name of the advice.
        advice: &'static str,
        /// Begin of the range.
        addr: usize,
        /// Length of the range.
        len_bytes: usize,
        /// The system's error number.
        errno: i32,
    },
    /// The range is not whole pages of memory that was reserved here, so its contents must not be dropped.
    #[error("{len_bytes} bytes at {addr:#x} are not whole pages of one reserved range; only such can be discarded")]
    NotReserved {
        /// Begin of the range.
        addr: usize,
        /// Length of the range.
        len_bytes: usize,
    },
    /// A memory policy was refused.
    #[error("mbind of {len_bytes} bytes at {addr:#x} to nodes {nodes:?} ({policy:?}) failed: {}", errno_text(*errno))]
    Bind {
        /// Begin of the range.
        addr: usize,
        /// Length of the range.
        len_bytes: usize,
        /// The policy.
        policy: Policy,
        /// The nodes.
        nodes: Vec<u32>,
        /// The system's error number.
        errno: i32,
    },
    /// Moving pages, or asking where they are, was refused as a whole.
    #[error("move_pages failed with {settled_pages} of {pages} pages settled: {}", errno_text(*errno))]
    MovePages {
        /// Pages asked for.
        pages: usize,
        /// Pages that had got a status before the failure.
        settled_pages: usize,
        /// The system's error number.
        errno: i32,
    },
    /// A program cannot be started.
    #[error("{program} cannot be started: {reason}")]
    Start {
        /// The program.
        program: String,
        /// The system's error number.
        errno: i32,
        /// The system's text.
        reason: String,
    },
    /// A program that was started cannot be waited for.
    #[error("the program cannot be waited for: {}", errno_text(*errno))]
    Wait {
        /// The system's error number.
        errno: i32,
    },
    /// A file that describes the machine cannot be read.
    #[error("reading {path} failed: {reason}")]
    ReadFile {
        /// The file.
        path: String,
        /// The system's error number, 0 when the contents are not text.
        errno: i32,
        /// The system's text.
        reason: String,
    },
    /// A file that describes the machine says something unexpected.
    #[error("{path} holds `{value}`, expected {expected}")]
    ParseFile {
        /// The file.
        path: String,
        /// What it holds.
        value: String,
        /// What is accepted.
        expected: &'static str,
    },
}

impl Error {
    /// The system's error number. A range that is not ours is `EINVAL`; for unexpected contents of a file there is none: 0.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Error::Reserve { errno, .. }
            | Error::Advise { errno, .. }
            | Error::Bind { errno, .. }
            | Error::MovePages { errno, .. }
            | Error::Start { errno, .. }
            | Error::Wait { errno }
            | Error::ReadFile { errno, .. } => *errno,
            Error::NotReserved { .. } => libc::EINVAL,
            Error::ParseFile { .. } => 0,
        }
    }

    /// The operation that failed, such as `mbind`.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self {
            Error::Reserve { .. } => "mmap",
            Error::Advise { .. } | Error::NotReserved { .. } => "madvise",
            Error::Bind { .. } => "mbind",
            Error::MovePages { .. } => "move_pages",
            Error::Start { .. } => "exec",
            Error::Wait { .. } => "wait",
            Error::ReadFile { .. } => "read",
            Error::ParseFile { .. } => "parse",
        }
    }
}

/// Name and text of an error number, such as `EPERM: Operation not permitted`.
#[must_use]
pub fn errno_text(errno: i32) -> String {
    let known = Errno::from_raw(errno);
    if known == Errno::UnknownErrno {
        format!("errno {errno}")
    } else {
        format!("{known:?}: {}", known.desc())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_operation_range_and_reason() {
        let error = Error::Bind {
            addr: 0x1000,
            len_bytes: 4096,
            policy: Policy::Preferred,
            nodes: vec![7],
            errno: libc::EINVAL,
        };
        let text = "mbind of 4096 bytes at 0x1000 to nodes [7] (Preferred) failed: EINVAL: Invalid argument";
        assert_eq!(error.to_string(), text);
        assert_eq!((error.operation(), error.errno()), ("mbind", libc::EINVAL));
        assert_eq!(errno_text(100_000), "errno 100000");
    }
}
