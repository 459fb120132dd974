//! The report as text that fits into 100 columns.

use std::io::{self, Write};

use super::facts::Facts;
use super::problems::Problem;
use super::Report;
use crate::amount::Bytes;
use crate::table::{printable, Align, Table};

/// Columns of a terminal that everybody has.
const COLUMNS: usize = 100;

/// Prints everything, the problems last, where they are seen.
pub fn report(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let facts = &report.facts;
    writeln!(out, "Memory nodes")?;
    nodes(facts, out)?;
    moves(facts, out)?;
    writeln!(out, "\nSwap")?;
    swap(facts, out)?;
    writeln!(out, "\nSettings")?;
    settings(facts, out)?;
    writeln!(out, "\nPython")?;
    python(facts, out)?;
    problems(&report.problems, out)?;
    let verdict = if report.ready { "ready for tiering" } else { "not ready: see what blocks above" };
    writeln!(out, "\n{verdict}")
}

fn nodes(facts: &Facts, out: &mut impl Write) -> io::Result<()> {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("node", Right),
        ("use", Left),
        ("CPUs", Left),
        ("memory", Right),
        ("free", Right),
        ("read GB/s", Right),
        ("write GB/s", Right),
        ("latency ns", Right),
        ("distances", Left),
    ]);
    let number =
        |value: Option<f64>, digits: usize| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"));
    for node in &facts.nodes {
        let purpose = match node.id {
            id if id == facts.fast_node => "fast",
            id if Some(id) == facts.slow_node => "slow",
            _ => "",
        };
        let distances: Vec<String> = node.distances.iter().map(|(_, distance)| distance.to_string()).collect();
        table.push([
            node.id.to_string(),
            purpose.to_owned(),
            ranges(&node.cpus),
            Bytes(node.total_bytes).to_string(),
            node.free_bytes.map_or_else(|| "-".to_owned(), |bytes| Bytes(bytes).to_string()),
            number(node.read_gbps, 1),
            number(node.write_gbps, 1),
            number(node.latency_ns, 0),
            distances.join(" "),
        ]);
    }
    table.print(out)?;
    for node in &facts.nodes {
        if let Some(hmat) = &node.hmat {
            let text = format!(
                "firmware (HMAT) on node {}: {:.1} GB/s read, {:.1} write; {} ns read, {} write",
                node.id, hmat.read_gbps, hmat.write_gbps, hmat.read_ns, hmat.write_ns
            );
            wrapped(&text, "", out)?;
        }
    }
    if let Some(measured) = &facts.measured {
        let text = format!(
            "measured with {} threads on CPUs {} over {} per node (last-level caches: {}), best of 5; latency by one \
             chain of reads in random order",
            measured.threads,
            ranges(&measured.cpus),
            Bytes(measured.buffer_bytes),
            facts.last_level_cache_bytes.map_or_else(|| "unknown".to_owned(), |bytes| Bytes(bytes).to_string())
        );
        wrapped(&text, "", out)?;
    }
    Ok(())
}

fn moves(facts: &Facts, out: &mut impl Write) -> io::Result<()> {
    for one in &facts.moves {
        let page = Bytes(one.page_bytes as u64);
        match (one.demote_gbps, one.promote_gbps, &one.error) {
            (Some(demote), Some(promote), _) => {
                writeln!(out, "move_pages, {page} pages: {demote:.2} GB/s to slow, {promote:.2} GB/s to fast")?;
            }
            (.., error) => {
                let why = error.as_deref().unwrap_or("no answer");
                wrapped(&format!("move_pages, {page} pages: not measured: {why}"), "", out)?;
            }
        }
    }
    Ok(())
}

fn swap(facts: &Facts, out: &mut impl Write) -> io::Result<()> {
    if facts.swap_areas.is_empty() {
        writeln!(out, "  none")?;
    }
    for area in &facts.swap_areas {
        let zswap = if area.behind_zswap { ", behind zswap" } else { "" };
        let (total, used) = (Bytes(area.total_bytes), Bytes(area.used_bytes));
        writeln!(out, "  {} ({}{zswap}): {total}, {used} in use", printable(&area.path), area.kind)?;
    }
    for one in &facts.swap_speed {
        let page = Bytes(one.page_bytes as u64);
        match (one.out_gbps, one.in_gbps, one.fault_ns) {
            (Some(to), Some(from), Some(fault)) => writeln!(
                out,
                "  {page} pages: {to:.2} GB/s out, {from:.2} GB/s in, {:.1} us for a fault at random",
                fault / 1e3
            )?,
            _ => {
                let why = one.error.as_deref().unwrap_or("no answer");
                wrapped(&format!("  {page} pages: not measured: {why}"), "    ", out)?;
            }
        }
    }
    Ok(())
}

fn settings(facts: &Facts, out: &mut impl Write) -> io::Result<()> {
    let settings = &facts.settings;
    let or_unknown = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
    let limit = |bytes: Option<u64>| bytes.map_or_else(|| "none".to_owned(), |bytes| Bytes(bytes).to_string());
    let version = settings.cgroup_version.map_or_else(|| "no cgroup".to_owned(), |v| format!("cgroup v{v}"));
    let used = settings.memory_used_bytes.map_or_else(String::new, |bytes| format!(", {} in use", Bytes(bytes)));
    let calls: Vec<String> = facts
        .permissions
        .iter()
        .map(|(call, refused)| format!("{call} {}", if refused.is_some() { "refused" } else { "allowed" }))
        .collect();
    let balancing = match settings.numa_balancing.as_deref() {
        Some("0") => "off".to_owned(),
        Some(value) => format!("on ({value})"),
        None => "unknown".to_owned(),
    };
    let profiler = facts.kernel_profiler.in_words();
    let rows = [
        ("kernel", or_unknown(&facts.kernel)),
        ("transparent huge pages", or_unknown(&settings.transparent_huge_pages)),
        ("NUMA balancing", balancing),
        ("overcommit", or_unknown(&settings.overcommit_memory)),
        ("memory limit", format!("{} ({version}){used}", limit(settings.memory_limit_bytes))),
        ("swap limit", limit(settings.swap_limit_bytes)),
        ("address space limit", limit(settings.address_space_limit_bytes)),
        ("system calls", calls.join(", ")),
        ("kernel profiler", profiler),
    ];
    rows_of(&rows, out)
}

fn python(facts: &Facts, out: &mut impl Write) -> io::Result<()> {
    let python = &facts.python;
    let Some(installed) = &python.installed else {
        return writeln!(out, "  none found; looked for {}", printable(&python.looked_for));
    };
    let tensorflow = match (&installed.tensorflow, &installed.folder) {
        (Some(version), Some(folder)) => format!("{version}, {folder}"),
        _ => "none".to_owned(),
    };
    let plugin = match &python.tried {
        Some(tried) if tried.active => format!("active in a session with an emulated tier ({})", tried.version),
        Some(_) => "loaded, but not active".to_owned(),
        None if installed.library => "there, but the trial failed".to_owned(),
        None => "none".to_owned(),
    };
    let rows = [
        ("interpreter", format!("{} ({})", installed.executable, installed.python)),
        ("TensorFlow", tensorflow),
        ("Sentinel", plugin),
    ];
    rows_of(&rows, out)
}

fn problems(problems: &[Problem], out: &mut impl Write) -> io::Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nProblems")?;
    for problem in problems {
        wrapped(&format!("  {:<8}{}", problem.weight.name(), problem.what), "          ", out)?;
        // Not wrapped: it is there to be copied.
        writeln!(out, "          {}", printable(&problem.fix))?;
    }
    Ok(())
}

fn rows_of(rows: &[(&str, String)], out: &mut impl Write) -> io::Result<()> {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows {
        wrapped(&format!("  {name:<width$}  {value}"), &" ".repeat(width + 4), out)?;
    }
    Ok(())
}

/// Prints text in lines that fit; those after the first begin with `indent`.
fn wrapped(text: &str, indent: &str, out: &mut impl Write) -> io::Result<()> {
    let clean = printable(text);
    let mut rest = clean.as_str();
    let mut line = String::new();
    while rest.chars().count() + line.chars().count() > COLUMNS {
        let room = COLUMNS - line.chars().count();
        let end = rest.char_indices().nth(room).map_or(rest.len(), |(at, _)| at);
        // A word that is longer than a line stays whole.
        let begin = rest.len() - rest.trim_start().len();
        let Some(cut) =
            rest[begin..end].rfind(' ').map(|at| at + begin).or_else(|| rest[end..].find(' ').map(|at| at + end))
        else {
            break;
        };
        writeln!(out, "{line}{}", rest[..cut].trim_end())?;
        rest = rest[cut..].trim_start();
        indent.clone_into(&mut line);
    }
    writeln!(out, "{line}{rest}")
}

/// Numbers in the kernel's short form: `0-3,8`; a dash for none.
fn ranges(numbers: &[u32]) -> String {
    if numbers.is_empty() {
        return "-".to_owned();
    }
    let runs = numbers.chunk_by(|left, right| left + 1 == *right);
    let texts: Vec<String> = runs
        .map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            _ => run[0].to_string(),
        })
        .collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrap(text: &str) -> Vec<String> {
        let mut out = Vec::new();
        wrapped(text, "    ", &mut out).unwrap();
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_fit_and_lose_nothing() {
        let text = format!("  {}", "word ".repeat(60).trim_end());
        let lines = wrap(&text);
        assert!(lines.len() > 1 && lines.iter().all(|line| line.len() <= COLUMNS), "{lines:?}");
        assert_eq!(lines.join(" ").split_whitespace().count(), 60);
        let long = "x".repeat(150);
        assert_eq!(wrap(&format!("a {long} b")), ["a".to_owned(), format!("    {long}"), "    b".to_owned()]);
        assert_eq!(wrap("short"), ["short"]);
    }

    #[test]
    fn numbers_are_shown_in_runs() {
        assert_eq!(ranges(&[0, 1, 2, 8]), "0-2,8");
        assert_eq!(ranges(&[]), "-");
    }
}
