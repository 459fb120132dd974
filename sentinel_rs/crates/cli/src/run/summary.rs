//! Five lines that prove that Sentinel was on and say what it did.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::amount::Bytes;

/// The statistics that a process handed over; the field names are the keys of `tf.sentinel.stats()`.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(PartialEq))]
pub struct Handed {
    active: bool,
    slow_tier: String,
    policy: String,
    state: String,
    fast_bytes_allowed: Option<u64>,
    fast_bytes_peak: u64,
    fast_bytes_needed: u64,
    peak_bytes: u64,
    promoted_bytes: u64,
    demoted_bytes: u64,
    late_promotions: u64,
    swapped_out_bytes_peak: u64,
    major_faults: u64,
    slot_hit_rate: Option<f64>,
    overflow_bytes: u64,
    stall_ns: u64,
    emulated_delay_ns: u64,
    steps_seen: u64,
    steps_profiled: u64,
    steps_managed: u64,
    layers: u64,
    layer_source: String,
    profiler: String,
    panics_caught: u64,
    errors_by_errno: BTreeMap<i32, u64>,
    message: Option<String>,
}

/// The lines for what the processes of one command handed over: at least one. The process with the most managed steps
/// stands for the command.
pub fn lines(handed: &[Handed]) -> Vec<String> {
    let Some(one) = handed.iter().max_by_key(|one| (one.active, one.steps_managed, one.steps_seen)) else {
        return Vec::new();
    };
    if !one.active {
        return not_on(one);
    }
    vec![on(one, handed.len()), steps(one), fast_memory(one), moved(one), placed(one)]
}

fn not_on(one: &Handed) -> Vec<String> {
    let why = one.message.clone().unwrap_or_else(|| {
        "no session ran under it: none asked for a budget (--fast, SENTINEL_FAST), or what it asked for was refused, \
         which the error above says"
            .to_owned()
    });
    let again = why.strip_prefix("sentinel: ").unwrap_or(&why);
    vec!["was not on: TensorFlow had loaded it, and no session used it".to_owned(), again.to_owned()]
}

fn on(one: &Handed, processes: usize) -> String {
    let allowed = one.fast_bytes_allowed.map_or_else(|| "no limit".to_owned(), |bytes| Bytes(bytes).to_string());
    let others = match processes - 1 {
        0 => String::new(),
        others => format!("; this is the busiest of {} processes that loaded it", others + 1),
    };
    format!("was on: policy {}, fast memory {allowed}, slow memory {}{others}", one.policy, one.slow_tier)
}

fn steps(one: &Handed) -> String {
    let by = if one.profiler.is_empty() { String::new() } else { format!(" by {}", one.profiler) };
    let (managed, seen, profiled) = (one.steps_managed, one.steps_seen, one.steps_profiled);
    let counts = format!("steps: {managed} followed a plan, of {seen} ({profiled} profiled{by}");
    if one.steps_managed > 0 {
        format!("{counts}); {} layers, {}", one.layers, one.layer_source)
    } else {
        let why = one.message.as_deref().unwrap_or("the command ended too early");
        format!("{counts}); the last state was {}: {}", one.state, why.strip_prefix("sentinel: ").unwrap_or(why))
    }
}

fn fast_memory(one: &Handed) -> String {
    let peak = match one.peak_bytes {
        0 => "no step was profiled".to_owned(),
        peak => format!("a step's tensors take {} at their peak", Bytes(peak)),
    };
    let needed = match one.fast_bytes_needed {
        0 => String::new(),
        needed => format!(", the plan needs {} at least", Bytes(needed)),
    };
    format!("fast memory: {} in use at most; {peak}{needed}", Bytes(one.fast_bytes_peak))
}

fn moved(one: &Handed) -> String {
    let waited = |ns| format!("{:.2} s", Duration::from_nanos(ns).as_secs_f64());
    let emulated = match one.emulated_delay_ns {
        0 => String::new(),
        ns => format!(", emulated slowness took {}", waited(ns)),
    };
    let swapped = match one.swapped_out_bytes_peak {
        0 => String::new(),
        bytes => format!("; {} in swap at most, {} page faults waited for it", Bytes(bytes), one.major_faults),
    };
    format!(
        "moved: {} to fast, {} to slow memory; {} promotions dropped as late, waited {} for moves{emulated}{swapped}",
        Bytes(one.promoted_bytes),
        Bytes(one.demoted_bytes),
        one.late_promotions,
        waited(one.stall_ns)
    )
}

fn placed(one: &Handed) -> String {
    let hits = one.slot_hit_rate.map_or_else(
        || "nothing had a planned place yet".to_owned(),
        |rate| format!("{:.2}% of planned allocations got their place", 100.0 * rate),
    );
    let overflow = match one.overflow_bytes {
        0 => String::new(),
        bytes => format!(", {} wanted fast and got slow memory", Bytes(bytes)),
    };
    let mut errors: Vec<String> =
        one.errors_by_errno.iter().map(|(&errno, count)| format!("{count} x {}", sys::errno_text(errno))).collect();
    if one.panics_caught > 0 {
        errors.push(format!("{} internal errors", one.panics_caught));
    }
    let errors = if errors.is_empty() { "none".to_owned() } else { errors.join(", ") };
    format!("placed: {hits}{overflow}; failed system calls: {errors}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trained() -> Handed {
        Handed {
            active: true,
            slow_tier: "emulated:cxl".into(),
            policy: "hpca21".into(),
            state: "managed".into(),
            fast_bytes_allowed: Some(64 << 20),
            fast_bytes_peak: 60 << 20,
            fast_bytes_needed: 80 << 20,
            peak_bytes: 320 << 20,
            promoted_bytes: 1 << 30,
            demoted_bytes: 2 << 30,
            late_promotions: 3,
            slot_hit_rate: Some(0.98951),
            stall_ns: 1_250_000_000,
            steps_seen: 40,
            steps_profiled: 1,
            steps_managed: 28,
            layers: 60,
            layer_source: "inferred".into(),
            profiler: "kernel:tlb_miss".into(),
            ..Handed::default()
        }
    }

    #[test]
    fn five_lines_tell_what_was_done() {
        let expected = [
            "was on: policy hpca21, fast memory 64.0 MiB, slow memory emulated:cxl",
            "steps: 28 followed a plan, of 40 (1 profiled by kernel:tlb_miss); 60 layers, inferred",
            "fast memory: 60.0 MiB in use at most; a step's tensors take 320.0 MiB at their peak, the plan needs 80.0 MiB at least",
            "moved: 1.0 GiB to fast, 2.0 GiB to slow memory; 3 promotions dropped as late, waited 1.25 s for moves",
            "placed: 98.95% of planned allocations got their place; failed system calls: none",
        ];
        assert_eq!(lines(&[trained()]), expected);
    }

    #[test]
    fn swap_is_told_of() {
        let one = Handed { swapped_out_bytes_peak: 64 << 20, major_faults: 7, ..trained() };
        assert!(lines(&[one])[3].ends_with("for moves; 64.0 MiB in swap at most, 7 page faults waited for it"));
    }

    #[test]
    fn the_busiest_process_stands_for_all() {
        let helper = Handed { active: true, steps_seen: 900, ..Handed::default() };
        let said = lines(&[helper, trained(), Handed::default()]);
        assert!(said[0].ends_with("slow memory emulated:cxl; this is the busiest of 3 processes that loaded it"));
        assert!(said[1].starts_with("steps: 28 "));
    }

    #[test]
    fn failures_and_early_ends_are_told() {
        let one = Handed {
            steps_managed: 0,
            slot_hit_rate: None,
            state: "warmup".into(),
            profiler: String::new(),
            message: Some("sentinel: not yet".into()),
            errors_by_errno: BTreeMap::from([(12, 2)]),
            panics_caught: 1,
            ..trained()
        };
        let said = lines(&[one]);
        assert_eq!(said[1], "steps: 0 followed a plan, of 40 (1 profiled); the last state was warmup: not yet");
        assert!(said[4].starts_with("placed: nothing had a planned place yet;"), "{}", said[4]);
        let failures = format!("failed system calls: 2 x {}, 1 internal errors", sys::errno_text(12));
        assert!(said[4].ends_with(&failures), "{}", said[4]);
    }

    #[test]
    fn a_run_without_sentinel_says_so() {
        let said = lines(&[Handed { state: "off".into(), ..Handed::default() }]);
        assert!(said[0].starts_with("was not on:") && said[1].contains("--fast"), "{said:?}");
        let advice = "sentinel: slow = node:9: no such node; training goes on without Sentinel";
        let said = lines(&[Handed { message: Some(advice.into()), ..Handed::default() }]);
        assert_eq!(said[1], advice.strip_prefix("sentinel: ").unwrap());
    }
}
