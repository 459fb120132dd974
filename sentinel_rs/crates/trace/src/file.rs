//! The trace file: a header that shows damage, and one serialized step.
//!
//! Layout, as the schema states it: the eight bytes `SNTLTRC1`, the payload's length as a little-endian `u64`, the
//! payload's CRC-32 (IEEE) as a little-endian `u32`, and the payload. A file may come from anywhere, so nothing in it is
//! believed before it is checked, and its length field never decides how much memory is taken.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use protobuf::Message;

use crate::{proto, wire, StepTrace, Violation};

const MAGIC: [u8; 8] = *b"SNTLTRC1";
const HEADER_BYTES: usize = 20;
/// How many broken rules a message names; [`Defect::Rules`] carries all of them.
const RULES_SHOWN: usize = 3;

/// Why a trace file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file could not be opened or read.
    #[error("{}: cannot read the trace: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file could not be written; what was at the path before is still there.
    #[error("{}: cannot write the trace: {error}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file was read, but is no well-formed trace; or the step is too large for a file.
    #[error("{}: {defect}", path.display())]
    Defective {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        defect: Defect,
    },
}

/// What is wrong with the bytes of a trace.
#[derive(Debug, thiserror::Error)]
pub enum Defect {
    /// The first bytes are not those of a trace.
    #[error("not a trace: it begins with \"{}\", a trace begins with \"SNTLTRC1\"", found.escape_ascii())]
    NotATrace {
        /// The first bytes, at most eight.
        found: Vec<u8>,
    },
    /// The file ends too early.
    #[error("truncated: {expected_bytes} bytes expected, {have_bytes} there")]
    Truncated {
        /// Bytes that the header promises, or the header's own size when not even that is whole.
        expected_bytes: u64,
        /// Bytes of the file.
        have_bytes: u64,
    },
    /// The file goes on after the payload.
    #[error("too long: more follows after the {expected_bytes} bytes that the header promises")]
    TrailingBytes {
        /// Bytes that the header promises.
        expected_bytes: u64,
    },
    /// The payload is not the one that was written.
    #[error("checksum mismatch: the header says {expected:08x}, the payload has {found:08x}")]
    Checksum {
        /// CRC-32 in the header.
        expected: u32,
        /// CRC-32 of the payload.
        found: u32,
    },
    /// The payload is no message of the schema.
    #[error("the payload is no StepTrace message: {0}")]
    Undecodable(protobuf::Error),
    /// An enum field holds a number without a meaning.
    #[error("{field} = {value}: accepted are {accepted}")]
    UnknownValue {
        /// The field, with indices.
        field: String,
        /// Its value.
        value: i32,
        /// The accepted values.
        accepted: &'static str,
    },
    /// The contents break rules of a well-formed step; see [`StepTrace::violations`].
    #[error("{}", list_rules(.0))]
    Rules(Vec<Violation>),
    /// The step does not fit in one message.
    #[error("the step cannot be written as one message: {0}")]
    Unencodable(protobuf::Error),
}

fn list_rules(violations: &[Violation]) -> String {
    let shown: Vec<&str> = violations.iter().take(RULES_SHOWN).map(|violation| violation.0.as_str()).collect();
    let hidden = violations.len() - shown.len();
    let more = if hidden == 0 { String::new() } else { format!("; and {hidden} more") };
    format!("not well-formed: {}{more}", shown.join("; "))
}

/// Reads the trace file at `path`.
///
/// # Errors
/// [`TraceError::Unreadable`] when the system cannot read it, [`TraceError::Defective`] when it is damaged or breaks a
/// rule of well-formed steps.
pub fn read(path: impl AsRef<Path>) -> Result<StepTrace, TraceError> {
    let path = path.as_ref();
    let unreadable = |error| TraceError::Unreadable { path: path.to_owned(), error };
    let defective = |defect| TraceError::Defective { path: path.to_owned(), defect };
    let mut file = File::open(path).map_err(unreadable)?;
    let begin = read_at_most(&mut file, HEADER_BYTES as u64).map_err(unreadable)?;
    let header = Header::parse(&begin).map_err(defective)?;
    // One byte more than promised is enough to tell that the file is too long, whatever its size.
    let payload = read_at_most(&mut file, header.payload_bytes.saturating_add(1)).map_err(unreadable)?;
    header.open(&payload).map_err(defective)
}

/// The step in the bytes of a trace file.
///
/// # Errors
/// What is wrong with the bytes.
pub fn from_bytes(bytes: &[u8]) -> Result<StepTrace, Defect> {
    let (begin, payload) = bytes.split_at(bytes.len().min(HEADER_BYTES));
    Header::parse(begin)?.open(payload)
}

/// The bytes of a trace file that holds `step`. A step that breaks rules is written all the same, so that
/// `sentinel trace check` can show what was recorded.
///
/// # Errors
/// [`Defect::Unencodable`] when the message would be larger than 2 GiB.
pub fn to_bytes(step: &StepTrace) -> Result<Vec<u8>, Defect> {
    let mut payload = Vec::new();
    wire::encode(step).write_to_vec(&mut payload).map_err(Defect::Unencodable)?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    bytes.append(&mut payload);
    Ok(bytes)
}

/// Writes `step` to `path`. Readers see the old file or the whole new one, never a part.
///
/// # Errors
/// [`TraceError::Unwritable`] when the system cannot write there or when `path` names something other than a regular
/// file, [`TraceError::Defective`] when the step is too large for a trace file.
pub fn write(path: impl AsRef<Path>, step: &StepTrace) -> Result<(), TraceError> {
    let path = path.as_ref();
    let bytes = to_bytes(step).map_err(|defect| TraceError::Defective { path: path.to_owned(), defect })?;
    replace(path, &bytes).map_err(|error| TraceError::Unwritable { path: path.to_owned(), error })
}

/// Reads until the end or until `limit_bytes` were read. The buffer grows with what really arrives.
fn read_at_most(reader: &mut impl Read, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

struct Header {
    payload_bytes: u64,
    checksum: u32,
}

impl Header {
    fn parse(begin: &[u8]) -> Result<Header, Defect> {
        let magic = &begin[..begin.len().min(MAGIC.len())];
        if !MAGIC.starts_with(magic) {
            return Err(Defect::NotATrace { found: magic.to_owned() });
        }
        let truncated = Defect::Truncated { expected_bytes: HEADER_BYTES as u64, have_bytes: begin.len() as u64 };
        let Some(rest) = begin.get(MAGIC.len()..HEADER_BYTES) else {
            return Err(truncated);
        };
        let Some((length, rest)) = rest.split_first_chunk::<8>() else {
            return Err(truncated);
        };
        let Some((checksum, _)) = rest.split_first_chunk::<4>() else {
            return Err(truncated);
        };
        Ok(Header { payload_bytes: u64::from_le_bytes(*length), checksum: u32::from_le_bytes(*checksum) })
    }

    /// The step in `payload`, which may be shorter or longer than it should be.
    fn open(&self, payload: &[u8]) -> Result<StepTrace, Defect> {
        let expected_bytes = self.payload_bytes.saturating_add(HEADER_BYTES as u64);
        let have_bytes = payload.len() as u64;
        if have_bytes < self.payload_bytes {
            return Err(Defect::Truncated { expected_bytes, have_bytes: have_bytes + HEADER_BYTES as u64 });
        }
        if have_bytes > self.payload_bytes {
            return Err(Defect::TrailingBytes { expected_bytes });
        }
        let found = crc32fast::hash(payload);
        if found != self.checksum {
            return Err(Defect::Checksum { expected: self.checksum, found });
        }
        let message = proto::sentinel::StepTrace::parse_from_bytes(payload).map_err(Defect::Undecodable)?;
        let step = wire::decode(message)?;
        let violations = step.violations();
        if violations.is_empty() {
            Ok(step)
        } else {
            Err(Defect::Rules(violations))
        }
    }
}

/// Puts `bytes` in place of the file at `path` by a rename within its directory.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A rename would replace a link itself, so the file behind it is the one to write.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    // A rename would also replace a device such as /dev/null for everybody.
    if fs::metadata(&target).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is there and is not a regular file"));
    }
    let (temporary, mut file) = create_beside(&target)?;
    let done = file.write_all(bytes).and_then(|()| fs::rename(&temporary, &target));
    if done.is_err() {
        // The first error is the one to report; a second one from the removal would only hide it.
        let _ = fs::remove_file(&temporary);
    }
    done
}

/// A new file in the directory of `target`, under a name that no other writer uses: several may be given one path.
fn create_beside(target: &Path) -> io::Result<(PathBuf, File)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = target.with_file_name(format!(".sentinel-trace.{}.{number}.tmp", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            // Left behind by a killed process that had the same id.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (temporary, file)),
        }
    }
}
