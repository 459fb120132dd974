//! Machine profiles: what each tier's memory costs and how fast pages move between tiers.

use serde::Deserialize;
use std::ops::RangeInclusive;
use trace::Tier;

/// Bytes of a cache line, the unit in which a processor waits for memory.
const LINE_BYTES: f64 = 64.0;

/// The profiles that come with the program.
const BUILT_IN: [(&str, &str); 5] = [
    ("optane", include_str!("../machines/optane.toml")),
    ("cxl", include_str!("../machines/cxl.toml")),
    ("hbm-ddr", include_str!("../machines/hbm-ddr.toml")),
    ("swap-nvme", include_str!("../machines/swap-nvme.toml")),
    ("hbm-ddr-cxl", include_str!("../machines/hbm-ddr-cxl.toml")),
];

/// Bandwidths that a machine may have, of its tiers and of its migration, in 10^9 bytes per second: from a slow network drive's
/// to a thousand times that of stacked memory. Beyond, sums of times would no longer be exact.
pub const GBPS_RANGE: RangeInclusive<f64> = 1e-4..=1e6;

/// Latencies of one access in nanoseconds: from less than a cycle's to a second.
const LATENCY_NS_RANGE: RangeInclusive<f64> = 0.1..=1e9;

/// Bytes that one access may bring: up to a huge page of the largest kind.
const ACCESS_BYTES_RANGE: RangeInclusive<f64> = 1.0..=1_073_741_824.0;

/// Accesses that one thread may keep in flight.
const IN_FLIGHT_RANGE: RangeInclusive<f64> = 0.1..=1e4;

/// Threads that a machine may give an op.
const THREADS_RANGE: RangeInclusive<u32> = 1..=65_536;

/// Numbers of tiers that a machine may have.
const TIERS_RANGE: RangeInclusive<usize> = 2..=8;

/// A lower tier that is better than the one above it by more than this in some respect, and no worse in any, is in the wrong
/// place. Measurements of equal memory differ by less.
const MISPLACED: f64 = 1.1;

/// A machine's memory.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Name by which it is asked for.
    pub name: String,
    /// Tiers, the fastest first; at least two.
    pub tiers: Vec<TierSpec>,
    /// Bandwidth of migration towards faster tiers, in 10^9 bytes per second.
    pub promote_gbps: f64,
    /// Bandwidth of migration towards slower tiers, in 10^9 bytes per second.
    pub demote_gbps: f64,
    /// Cache lines that one thread keeps in flight.
    pub lines_in_flight_per_thread: f64,
    /// Threads that the machine gives an op, for simulations of it; `None` when only the recorded count is known.
    #[serde(default)]
    pub threads: Option<u32>,
}

/// One tier.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierSpec {
    /// For people, such as `DDR4`.
    pub name: String,
    /// Read bandwidth of the whole tier, in 10^9 bytes per second.
    pub read_gbps: f64,
    /// Write bandwidth of the whole tier, in 10^9 bytes per second.
    pub write_gbps: f64,
    /// Latency of one access, in nanoseconds.
    pub latency_ns: f64,
    /// Bytes that one access brings: a cache line, unless the tier is reached by page faults.
    #[serde(default = "line_bytes")]
    pub access_bytes: f64,
    /// Accesses that one thread keeps in flight; `None` for the machine's `lines_in_flight_per_thread`.
    #[serde(default)]
    pub in_flight_per_thread: Option<f64>,
}

impl TierSpec {
    /// Whether this tier is faster than `above` in every respect. One that has the lower latency and the lower bandwidth, as DDR
    /// has beside stacked memory, is not.
    fn belongs_above(&self, above: &TierSpec) -> bool {
        let better =
            [self.read_gbps / above.read_gbps, self.write_gbps / above.write_gbps, above.latency_ns / self.latency_ns];
        better.iter().all(|&times| times >= 1.0) && better.iter().any(|&times| times > MISPLACED)
    }
}

fn line_bytes() -> f64 {
    LINE_BYTES
}

/// Why there is no such machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// Neither a built-in name nor a file.
    #[error("unknown machine {name:?}: accepted are {accepted}, or the path of a machine profile (.toml)")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Built-in names, for people.
        accepted: String,
    },
    /// The file is there and cannot be read.
    #[error("machine profile {path}: {reason}")]
    Unreadable {
        /// What was asked for.
        path: String,
        /// The system's text.
        reason: String,
    },
    /// Not a machine profile.
    #[error("machine profile {source_name}: {reason}")]
    Malformed {
        /// Built-in name or path.
        source_name: String,
        /// The parser's text with its line.
        reason: String,
    },
    /// A number that no machine has.
    #[error("machine profile {source_name}: {field} = {value}, accepted is {accepted}")]
    Invalid {
        /// Built-in name or path.
        source_name: String,
        /// Which field.
        field: String,
        /// What it says.
        value: String,
        /// What it may say.
        accepted: String,
    },
}

/// `number` when it is in the range, otherwise what is accepted.
///
/// # Errors
/// When the number is outside, or none.
pub fn in_range(number: f64, range: &RangeInclusive<f64>) -> Result<f64, String> {
    if range.contains(&number) {
        Ok(number)
    } else {
        Err(format!("accepted is {} to {}", range.start(), range.end()))
    }
}

impl Machine {
    /// Names of the profiles that come with the program, in the order in which lists print them.
    #[must_use]
    pub fn built_in_names() -> Vec<&'static str> {
        BUILT_IN.iter().map(|&(name, _)| name).collect()
    }

    /// The built-in profile of that name, else the profile in the file of that path.
    ///
    /// # Errors
    /// When it is neither, or the file is not a valid profile; the message names what is accepted.
    pub fn by_name(name_or_path: &str) -> Result<Machine, MachineError> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            return Machine::parse(name, text);
        }
        let path = std::path::Path::new(name_or_path);
        if !path.is_file() {
            let accepted = Machine::built_in_names().join(", ");
            return Err(MachineError::Unknown { name: name_or_path.to_string(), accepted });
        }
        let text = std::fs::read_to_string(path)
            .map_err(|e| MachineError::Unreadable { path: name_or_path.to_string(), reason: e.to_string() })?;
        Machine::parse(name_or_path, &text)
    }

    /// A profile from the text of a file; `source_name` is for messages.
    ///
    /// # Errors
    /// When the text is no TOML, a field is missing or unknown, a number is one that no machine has, or tiers are too few, too
    /// many or not in their order; the message names the field, what it says and what is accepted.
    pub fn parse(source_name: &str, text: &str) -> Result<Machine, MachineError> {
        let machine: Machine = toml::from_str(text)
            .map_err(|e| MachineError::Malformed { source_name: source_name.to_string(), reason: e.to_string() })?;
        machine.validate(source_name)?;
        Ok(machine)
    }

    fn validate(&self, source_name: &str) -> Result<(), MachineError> {
        let invalid = |field: String, value: String, accepted: String| MachineError::Invalid {
            source_name: source_name.to_string(),
            field,
            value,
            accepted,
        };
        if !TIERS_RANGE.contains(&self.tiers.len()) {
            let (count, least, most) = (self.tiers.len(), TIERS_RANGE.start(), TIERS_RANGE.end());
            return Err(invalid(
                "tiers".into(),
                count.to_string(),
                format!("{least} to {most} of them, the fastest first"),
            ));
        }
        if let Some(threads) = self.threads.filter(|threads| !THREADS_RANGE.contains(threads)) {
            let accepted = format!("{} to {}", THREADS_RANGE.start(), THREADS_RANGE.end());
            return Err(invalid("threads".into(), threads.to_string(), accepted));
        }
        for (field, number, range) in self.numbers() {
            if in_range(number, &range).is_err() {
                return Err(invalid(field, number.to_string(), format!("{} to {}", range.start(), range.end())));
            }
        }
        match (1..self.tiers.len()).find(|&rank| self.tiers[rank].belongs_above(&self.tiers[rank - 1])) {
            Some(rank) => {
                let (below, above) = (&self.tiers[rank], &self.tiers[rank - 1]);
                let accepted = format!(
                    "a tier that is worse than tiers[{}] ({}) in read_gbps, write_gbps or latency_ns: the fastest comes first",
                    rank - 1,
                    above.name
                );
                Err(invalid(format!("tiers[{rank}]"), below.name.clone(), accepted))
            }
            None => Ok(()),
        }
    }

    /// Every number with its name and what it may be.
    fn numbers(&self) -> Vec<(String, f64, RangeInclusive<f64>)> {
        let mut numbers = vec![
            ("promote_gbps".to_string(), self.promote_gbps, GBPS_RANGE),
            ("demote_gbps".to_string(), self.demote_gbps, GBPS_RANGE),
            ("lines_in_flight_per_thread".to_string(), self.lines_in_flight_per_thread, IN_FLIGHT_RANGE),
        ];
        for (rank, tier) in self.tiers.iter().enumerate() {
            let in_flight = tier.in_flight_per_thread.unwrap_or(self.lines_in_flight_per_thread);
            let of_tier = [
                ("read_gbps", tier.read_gbps, GBPS_RANGE),
                ("write_gbps", tier.write_gbps, GBPS_RANGE),
                ("latency_ns", tier.latency_ns, LATENCY_NS_RANGE),
                ("access_bytes", tier.access_bytes, ACCESS_BYTES_RANGE),
                ("in_flight_per_thread", in_flight, IN_FLIGHT_RANGE),
            ];
            numbers.extend(of_tier.map(|(field, number, range)| (format!("tiers[{rank}].{field}"), number, range)));
        }
        numbers
    }

    /// True when a tier is reached by page faults, for each of which a thread stops until the page is there.
    #[must_use]
    pub fn has_page_faults(&self) -> bool {
        self.tiers.iter().any(|tier| tier.access_bytes > LINE_BYTES)
    }

    /// Time in nanoseconds that `threads` threads spend on moving these bytes to and from `tier`:
    ///
    /// `read_bytes / read_gbps + written_bytes / write_gbps
    ///   + (read_bytes + written_bytes) / access_bytes * latency_ns / (in_flight_per_thread * threads)`
    ///
    /// Bytes over bandwidth plus accesses times latency over memory-level parallelism, where an access is one cache line
    /// unless the tier says otherwise: the cost model of this project, after Ren et al., HPCA 2021 (doi 10.1109/HPCA51647.2021.00057). The sum is an
    /// upper estimate, since latency and transfer overlap in part. A rank below the last tier counts as the last tier,
    /// no threads as one.
    #[must_use]
    pub fn memory_time_ns(&self, tier: Tier, read_bytes: u64, written_bytes: u64, threads: u32) -> f64 {
        let spec = &self.tiers[usize::from(tier.0).min(self.tiers.len() - 1)];
        let (read, written) = (bytes_f64(read_bytes), bytes_f64(written_bytes));
        let transfer_ns = read / spec.read_gbps + written / spec.write_gbps;
        let per_thread = spec.in_flight_per_thread.unwrap_or(self.lines_in_flight_per_thread);
        let in_flight = per_thread * f64::from(threads.max(1));
        transfer_ns + (read + written) / spec.access_bytes * spec.latency_ns / in_flight
    }
}

/// A number of bytes or nanoseconds as a float; exact up to 2^53, which is 9 petabytes or 104 days.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn bytes_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_profile_is_valid_and_known_by_its_name() {
        for name in Machine::built_in_names() {
            let machine = Machine::by_name(name).unwrap();
            assert_eq!(machine.name, name);
            assert!(machine.tiers[0].read_gbps > machine.tiers[1].read_gbps);
        }
    }

    #[test]
    fn an_unknown_name_lists_the_accepted_ones() {
        let message = Machine::by_name("optain").unwrap_err().to_string();
        assert!(message.contains("\"optain\"") && message.contains("optane, cxl, hbm-ddr"), "{message}");
    }

    fn broken(from: &str, to: &str) -> String {
        let text = BUILT_IN[0].1;
        assert!(text.contains(from));
        Machine::parse("test.toml", &text.replace(from, to)).unwrap_err().to_string()
    }

    #[test]
    fn numbers_that_no_machine_has_are_refused_by_field() {
        let message = broken("promote_gbps = 2.15", "promote_gbps = 0.0");
        assert!(message.contains("test.toml: promote_gbps = 0, accepted is 0.0001 to 1000000"), "{message}");
        assert!(broken("latency_ns = 339.0", "latency_ns = inf").contains("tiers[1].latency_ns = inf"));
        assert!(broken("read_gbps = 116.0", "read_gbps = -1.0").contains("tiers[0].read_gbps = -1"));
        assert!(broken("lines_in_flight_per_thread = 10.0", "lines_in_flight_per_thread = nan").contains("NaN"));
        for huge_or_tiny in ["1e-300", "1e308", "5e-5", "1.1e6"] {
            let message = broken("promote_gbps = 2.15", &format!("promote_gbps = {huge_or_tiny}"));
            assert!(message.contains(": promote_gbps = ") && message.contains("accepted is 0.0001 to"), "{message}");
        }
        assert!(broken("latency_ns = 339.0", "latency_ns = 1e-300").contains("tiers[1].latency_ns = "));
        let message = broken("threads = 24", "threads = 0");
        assert!(message.ends_with("threads = 0, accepted is 1 to 65536"), "{message}");
    }

    /// The text of optane's profile with other tiers.
    fn with_tiers(tiers: &[(f64, f64, f64)]) -> String {
        let head = &BUILT_IN[0].1[..BUILT_IN[0].1.find("[[tiers]]").unwrap()];
        let of = |&(read, write, latency): &(f64, f64, f64)| {
            format!(
                "[[tiers]]\nname = \"r{read}\"\nread_gbps = {read:?}\nwrite_gbps = {write:?}\nlatency_ns = {latency:?}\n"
            )
        };
        std::iter::once(head.to_owned()).chain(tiers.iter().map(of)).collect()
    }

    #[test]
    fn tiers_in_the_wrong_order_are_refused_and_trade_offs_and_noise_are_not() {
        let parse = |tiers: &[(f64, f64, f64)]| Machine::parse("t.toml", &with_tiers(tiers));
        let message = parse(&[(40.0, 13.0, 339.0), (116.0, 85.0, 107.0)]).unwrap_err().to_string();
        let expected = "t.toml: tiers[1] = r116, accepted is a tier that is worse than tiers[0] (r40) in read_gbps, write_gbps or \
                        latency_ns: the fastest comes first";
        assert!(message.contains(expected), "{message}");
        let third = parse(&[(100.0, 100.0, 100.0), (10.0, 10.0, 300.0), (50.0, 50.0, 300.0)]).unwrap_err().to_string();
        assert!(third.contains("tiers[2] = r50"), "{third}");
        // Stacked memory beside DDR, and the same memory measured twice.
        for fine in [[(330.0, 330.0, 154.0), (77.0, 77.0, 130.0)], [(30.0, 15.0, 120.0), (31.0, 15.2, 118.0)]] {
            assert!(parse(&fine).is_ok(), "{fine:?}");
        }
    }

    #[test]
    fn more_tiers_than_a_machine_has_are_refused() {
        let descending: Vec<(f64, f64, f64)> = (0..302).map(|rank| (1e3 - f64::from(rank), 50.0, 100.0)).collect();
        let parse = |count: usize| Machine::parse("t.toml", &with_tiers(&descending[..count]));
        assert!(parse(8).is_ok());
        for count in [1, 9, 302] {
            let message = parse(count).unwrap_err().to_string();
            let expected = format!("tiers = {count}, accepted is 2 to 8 of them, the fastest first");
            assert!(message.contains(&expected), "{message}");
        }
    }

    #[test]
    fn unknown_fields_missing_fields_and_single_tiers_are_refused() {
        assert!(broken("demote_gbps", "demote_gpbs").contains("demote_gpbs"));
        assert!(broken("name = \"optane\"", "").contains("name"));
        let text = BUILT_IN[0].1;
        let one_tier = &text[..text.rfind("[[tiers]]").unwrap()];
        let message = Machine::parse("one.toml", one_tier).unwrap_err().to_string();
        assert!(message.contains("tiers = 1, accepted is 2 to 8"), "{message}");
    }

    #[test]
    fn a_profile_can_come_from_a_file() {
        let path = std::env::temp_dir().join(format!("sentinel-machine-{}.toml", std::process::id()));
        std::fs::write(&path, BUILT_IN[1].1).unwrap();
        let machine = Machine::by_name(path.to_str().unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(machine, Machine::by_name("cxl").unwrap());
    }

    #[test]
    fn memory_time_is_transfer_plus_latency_over_parallelism() {
        let machine = Machine::by_name("optane").unwrap();
        // One mebibyte is 16384 lines.
        let expected = 1_048_576.0 / 40.1 + 16_384.0 * 339.0 / (10.0 * 2.0);
        assert!((machine.memory_time_ns(Tier::SLOW, 1 << 20, 0, 2) - expected).abs() < 1e-6);
        let expected = 6400.0 / 116.0 + 6400.0 / 85.0 + 200.0 * 107.6 / 10.0;
        assert!((machine.memory_time_ns(Tier::FAST, 6400, 6400, 0) - expected).abs() < 1e-6);
        let last = machine.memory_time_ns(Tier::SLOW, 6400, 0, 1);
        assert!((machine.memory_time_ns(Tier(9), 6400, 0, 1) - last).abs() < f64::EPSILON);
    }
}
