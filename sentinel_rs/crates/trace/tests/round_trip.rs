//! A trace file gives back what was written, and no bytes whatsoever make the reader panic.

mod common;

use common::{step, wild_step};
use proptest::collection::vec;
use proptest::prelude::*;
use trace::{from_bytes, to_bytes, Defect};

/// A file with `payload` and a header that fits it.
fn sealed(payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"SNTLTRC1".to_vec();
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

proptest! {
    #[test]
    fn a_step_comes_back_as_it_was(step in step()) {
        prop_assert_eq!(step.violations(), vec![]);
        let bytes = to_bytes(&step).unwrap();
        prop_assert_eq!(from_bytes(&bytes).unwrap(), step);
    }

    #[test]
    fn a_changed_byte_is_noticed(step in step(), at in any::<prop::sample::Index>(), change in 1..=255_u8) {
        let mut bytes = to_bytes(&step).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        let defect = from_bytes(&bytes).unwrap_err();
        match at {
            0..8 => prop_assert!(matches!(defect, Defect::NotATrace { .. }), "{defect}"),
            8..16 => prop_assert!(
                matches!(defect, Defect::Truncated { .. } | Defect::TrailingBytes { .. }), "{defect}"),
            _ => prop_assert!(matches!(defect, Defect::Checksum { .. }), "{defect}"),
        }
    }

    #[test]
    fn a_missing_end_is_noticed(step in step(), keep in any::<prop::sample::Index>()) {
        let bytes = to_bytes(&step).unwrap();
        let keep = keep.index(bytes.len());
        let defect = from_bytes(&bytes[..keep]).unwrap_err();
        prop_assert!(
            matches!(defect, Defect::Truncated { have_bytes, .. } if have_bytes == keep as u64), "{defect}");
    }

    #[test]
    fn bytes_after_the_end_are_noticed(step in step(), more in vec(any::<u8>(), 1..9)) {
        let mut bytes = to_bytes(&step).unwrap();
        bytes.extend_from_slice(&more);
        let noticed = matches!(from_bytes(&bytes), Err(Defect::TrailingBytes { .. }));
        prop_assert!(noticed);
    }

    #[test]
    fn random_bytes_are_no_trace(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(from_bytes(&bytes).is_err());
    }

    #[test]
    fn a_random_payload_does_not_panic(payload in vec(any::<u8>(), 0..300)) {
        let _ = from_bytes(&sealed(&payload));
    }

    /// The checksum is no protection against a forger: damage under a fitting checksum reaches the decoder.
    #[test]
    fn a_forged_payload_does_not_panic(
        step in step(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let bytes = to_bytes(&step).unwrap();
        let mut payload = bytes[20..].to_vec();
        for (at, value) in changes {
            let at = at.index(payload.len());
            payload[at] = value;
        }
        if let Ok(read) = from_bytes(&sealed(&payload)) {
            prop_assert_eq!(read.violations(), vec![]);
        }
    }

    #[test]
    fn a_step_that_breaks_rules_is_refused_with_all_of_them(step in wild_step()) {
        let expected = step.violations();
        match from_bytes(&to_bytes(&step).unwrap()) {
            Ok(read) => prop_assert_eq!(read, step),
            Err(Defect::Rules(violations)) => prop_assert_eq!(violations, expected),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
