//! Machine profiles: what each tier's memory costs and how fast pages move between tiers.

use serde::Deserialize;
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
        accepted: &'static str,
    },
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
    /// When the text is no TOML, a field is missing or unknown, a number is not above zero and finite, or there are
    /// fewer than two tiers.
    pub fn parse(source_name: &str, text: &str) -> Result<Machine, MachineError> {
        let machine: Machine = toml::from_str(text)
            .map_err(|e| MachineError::Malformed { source_name: source_name.to_string(), reason: e.to_string() })?;
        machine.validate(source_name)?;
        Ok(machine)
    }

    fn validate(&self, source_name: &str) -> Result<(), MachineError> {
        let invalid = |field: String, value: String, accepted: &'static str| MachineError::Invalid {
            source_name: source_name.to_string(),
            field,
            value,
            accepted,
        };
        if self.tiers.len() < 2 {
            return Err(invalid("tiers".into(), self.tiers.len().to_string(), "two or more, the fastest first"));
        }
        let mut numbers = vec![
            ("promote_gbps".to_string(), self.promote_gbps),
            ("demote_gbps".to_string(), self.demote_gbps),
            ("lines_in_flight_per_thread".to_string(), self.lines_in_flight_per_thread),
        ];
        for (rank, tier) in self.tiers.iter().enumerate() {
            numbers.push((format!("tiers[{rank}].read_gbps"), tier.read_gbps));
            numbers.push((format!("tiers[{rank}].write_gbps"), tier.write_gbps));
            numbers.push((format!("tiers[{rank}].latency_ns"), tier.latency_ns));
            numbers.push((format!("tiers[{rank}].access_bytes"), tier.access_bytes));
            let in_flight = tier.in_flight_per_thread.unwrap_or(self.lines_in_flight_per_thread);
            numbers.push((format!("tiers[{rank}].in_flight_per_thread"), in_flight));
        }
        match numbers.into_iter().find(|&(_, number)| !(number.is_finite() && number > 0.0)) {
            Some((field, number)) => Err(invalid(field, number.to_string(), "a finite number above 0")),
            None => Ok(()),
        }
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
        assert!(message.contains("test.toml: promote_gbps = 0, accepted is a finite number above 0"), "{message}");
        assert!(broken("latency_ns = 339.0", "latency_ns = inf").contains("tiers[1].latency_ns = inf"));
        assert!(broken("read_gbps = 116.0", "read_gbps = -1.0").contains("tiers[0].read_gbps = -1"));
        assert!(broken("lines_in_flight_per_thread = 10.0", "lines_in_flight_per_thread = nan").contains("NaN"));
    }

    #[test]
    fn unknown_fields_missing_fields_and_single_tiers_are_refused() {
        assert!(broken("demote_gbps", "demote_gpbs").contains("demote_gpbs"));
        assert!(broken("name = \"optane\"", "").contains("name"));
        let text = BUILT_IN[0].1;
        let one_tier = &text[..text.rfind("[[tiers]]").unwrap()];
        let message = Machine::parse("one.toml", one_tier).unwrap_err().to_string();
        assert!(message.contains("tiers = 1, accepted is two or more"), "{message}");
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
