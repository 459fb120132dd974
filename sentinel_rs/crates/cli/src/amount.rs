//! Amounts of memory and time as people write and read them.

use std::fmt;
use std::str::FromStr;

/// Prints bytes with a binary unit: `512 B`, `1.5 KiB`, `20.0 MiB`.
#[derive(Clone, Copy)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut amount = self.0 as f64 / 1024.0;
        let mut unit = 0;
        // From here on one decimal would round to 1024.0, which the next unit says better.
        while amount >= 1023.95 {
            amount /= 1024.0;
            unit += 1;
        }
        write!(f, "{amount:.1} {}", UNITS[unit])
    }
}

/// Nanoseconds as milliseconds.
pub fn millis(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// Nanoseconds as microseconds.
pub fn micros(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// A budget of fast memory as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// This many bytes, at least one.
    Bytes(u64),
    /// This many millionths of the step's peak, from 1 to 1,000,000.
    Share(u32),
}

impl Budget {
    /// Bytes of the budget for a step whose live bytes peak at `peak_bytes`.
    pub fn bytes_of(self, peak_bytes: u64) -> u64 {
        match self {
            Budget::Bytes(bytes) => bytes,
            // Never more than the peak, so it fits.
            Budget::Share(millionths) => {
                u64::try_from(u128::from(peak_bytes) * u128::from(millionths) / 1_000_000).unwrap_or(peak_bytes)
            }
        }
    }

    /// The same, for a command's `--fast`.
    ///
    /// # Errors
    /// When a share of so small a peak is no byte at all.
    pub fn asked_of(self, peak_bytes: u64) -> anyhow::Result<u64> {
        match self.bytes_of(peak_bytes) {
            0 => anyhow::bail!(
                "--fast: that share of this step's peak of {peak_bytes} bytes is less than a byte, accepted is a larger share or a \
                 number of bytes"
            ),
            bytes => Ok(bytes),
        }
    }
}

/// So many percent of the bytes, rounded down; all of them from 100 on.
pub fn percent_of(bytes: u64, percent: u32) -> u64 {
    Budget::Share(percent.saturating_mul(10_000).min(1_000_000)).bytes_of(bytes)
}

impl FromStr for Budget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Budget, Self::Err> {
        let parsed = match text.strip_suffix('%') {
            Some(percent) => parse_percent(percent).map(Budget::Share),
            None => parse_bytes(text).map(Budget::Bytes),
        };
        parsed.ok_or(
            "accepted are bytes above 0 with an optional K, M, G or T (powers of 1024), or a share of the peak above 0% \
             and at most 100% with up to four decimals, such as 20%",
        )
    }
}

/// Whole number with an optional unit letter.
fn parse_bytes(text: &str) -> Option<u64> {
    const UNITS: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let unit = UNITS.iter().find(|(letter, _)| text.ends_with([*letter, letter.to_ascii_lowercase()]));
    let (digits, shift) = unit.map_or((text, 0), |&(_, shift)| (&text[..text.len() - 1], shift));
    parse_digits(digits)?.checked_mul(1 << shift).filter(|&bytes| bytes > 0)
}

/// Percent with up to four decimals, in millionths.
fn parse_percent(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let whole = parse_digits(whole)?.checked_mul(10_000)?;
    let missing = 4_u32.checked_sub(u32::try_from(decimals.len()).ok()?)?;
    let millionths = whole.checked_add(parse_digits(decimals)? * 10_u64.pow(missing))?;
    u32::try_from(millionths).ok().filter(|millionths| (1..=1_000_000).contains(millionths))
}

/// Digits only: the standard parser would also take a sign.
fn parse_digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_well() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (20 << 20, "20.0 MiB"),
            (3 << 30, "3.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn budgets_are_read_as_they_are_meant() {
        let cases = [
            ("20%", Budget::Share(200_000)),
            ("12.5%", Budget::Share(125_000)),
            ("0.0001%", Budget::Share(1)),
            ("100%", Budget::Share(1_000_000)),
            ("4096", Budget::Bytes(4096)),
            ("3k", Budget::Bytes(3072)),
            ("512M", Budget::Bytes(512 << 20)),
            ("2G", Budget::Bytes(2 << 30)),
            ("1T", Budget::Bytes(1 << 40)),
        ];
        for (text, budget) in cases {
            assert_eq!(text.parse(), Ok(budget), "{text}");
        }
    }

    #[test]
    fn other_budgets_are_refused() {
        let cases = [
            "",
            "%",
            "M",
            "0",
            "0M",
            "0%",
            "0.00001%",
            "100.1%",
            "101%",
            "-5",
            "+5",
            "-20%",
            "1.5G",
            "5X",
            "5MiB",
            "99999999999999999999",
            "99999999999T",
            "18446744073709551615%",
            "20 %",
            "é",
            "5é",
        ];
        for text in cases {
            assert!(text.parse::<Budget>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_rounded_down_and_never_wraps() {
        assert_eq!(Budget::Share(200_000).bytes_of(333), 66);
        assert_eq!(Budget::Share(1_000_000).bytes_of(u64::MAX), u64::MAX);
        assert_eq!(Budget::Bytes(7).bytes_of(1), 7);
        // Neither a hundredth's rest nor the last bytes are lost.
        assert_eq!([5, 20, 100].map(|percent| percent_of(199, percent)), [9, 39, 199]);
    }
}
