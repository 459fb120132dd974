//! `sentinel bench packing`: how high packings are above the largest load, at which effort, in what time.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{anyhow, bail, Context};
use plan::{load_bytes, pack_lifetimes, Effort, Item, PACK_ALIGN_BYTES};
use profile::Class;
use serde::Serialize;

use super::clock::{calibrate, cpu_seconds};
use crate::table::{Align, Table};

/// Seed of every search.
const SEED: u64 = 1;

/// Items of the large synthetic step, and the seconds that its packing may take.
const LARGE_ITEMS: u32 = 100_000;

/// What is measured on.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Family {
    /// Hard instances made for packing.
    Minimalloc,
    /// Steps of other systems: SOMAS and iopddl.
    Published,
    /// Steps recorded with Sentinel.
    Trace,
    /// Generated for its size.
    Synthetic,
}

struct Instance {
    name: String,
    family: Family,
    items: Vec<Item>,
    align_bytes: u64,
}

#[derive(Serialize)]
struct Row {
    name: String,
    family: Family,
    items: usize,
    load_bytes: u64,
    efforts: Vec<Measured>,
}

#[derive(Serialize)]
struct Measured {
    effort: &'static str,
    height_bytes: u64,
    ratio: f64,
    cpu_seconds: f64,
}

/// The last line of the output.
#[derive(Serialize)]
struct Summary {
    /// Largest height ÷ load on published steps and traces at effort good.
    worst_dl_ratio: f64,
    /// The same on minimalloc's instances.
    worst_minimalloc_ratio: f64,
    /// The same at effort exact.
    worst_minimalloc_ratio_exact: f64,
    /// Largest CPU time at effort good of any instance.
    worst_good_cpu_seconds: f64,
    /// Largest CPU time at effort exact of any minimalloc instance.
    worst_exact_cpu_seconds: f64,
    /// CPU time at effort fast for the synthetic step of 100,000 items.
    fast_100k_cpu_seconds: f64,
    /// CPU time of a fixed loop, to compare machines by.
    calibration_cpu_seconds: f64,
    seed: u64,
    instances: Vec<Row>,
}

/// Packs every instance in `data/packing`, every trace in `data` and the `traces` named, at every effort.
pub fn run(data: &Path, traces: &[PathBuf], exact_limit: Duration, out: &mut impl Write) -> anyhow::Result<()> {
    let instances = instances(data, traces)?;
    let calibration_cpu_seconds = calibrate();
    let rows = instances.iter().map(|instance| measure(instance, exact_limit)).collect::<anyhow::Result<Vec<Row>>>()?;
    print(&rows, out)?;
    let summary = summary(rows, calibration_cpu_seconds);
    writeln!(out, "calibration loop: {:.3} CPU s", summary.calibration_cpu_seconds)?;
    writeln!(out, "{}", serde_json::to_string(&summary)?)?;
    Ok(())
}

fn instances(data: &Path, traces: &[PathBuf]) -> anyhow::Result<Vec<Instance>> {
    let mut instances = Vec::new();
    let folder = data.join("packing");
    for file in files_in(&folder, "csv")? {
        instances.push(published(&file)?);
    }
    if instances.is_empty() {
        bail!("--data = {}: no packing/*.csv in it", data.display());
    }
    for file in files_in(data, "trace")?.iter().chain(traces) {
        instances.push(traced(file)?);
    }
    instances.push(synthetic());
    Ok(instances)
}

fn files_in(folder: &Path, extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let listing = fs::read_dir(folder).map_err(|error| anyhow!("--data: cannot list {}: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = listing.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    Ok(files)
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Reads `id,lower,upper,size`, half-open.
fn published(file: &Path) -> anyhow::Result<Instance> {
    let text = fs::read_to_string(file).map_err(|error| anyhow!("cannot read {}: {error}", file.display()))?;
    let mut items = Vec::new();
    for (number, line) in text.lines().enumerate().skip(1) {
        let item = item_of(line).with_context(|| {
            format!("{}, line {}: {line:?} is not id,lower,upper,size with lower < upper", file.display(), number + 1)
        })?;
        items.push(item);
    }
    let name = stem(file);
    let family = if name.starts_with("minimalloc") { Family::Minimalloc } else { Family::Published };
    Ok(Instance { name, family, items, align_bytes: 1 })
}

fn item_of(line: &str) -> Option<Item> {
    let mut fields = line.split(',').skip(1).map(str::trim);
    let first_op: u32 = fields.next()?.parse().ok()?;
    let upper: u32 = fields.next()?.parse().ok()?;
    let size_bytes = fields.next()?.parse().ok()?;
    (first_op < upper).then(|| Item { size_bytes, first_op, last_op: upper - 1 })
}

/// The buffers of a recorded step that get an address from a plan.
fn traced(file: &Path) -> anyhow::Result<Instance> {
    let profile = profile::fold(&trace::read(file)?)?;
    let placed = |class| matches!(class, Class::ShortLived | Class::LongLived | Class::Persistent);
    let items = profile.buffers.iter().filter(|buffer| placed(buffer.class)).map(|buffer| Item {
        size_bytes: buffer.size_bytes,
        first_op: buffer.birth_op,
        last_op: buffer.death_op,
    });
    Ok(Instance { name: stem(file), family: Family::Trace, items: items.collect(), align_bytes: PACK_ALIGN_BYTES })
}

/// A step of 10,000 ops: weights, activations that live from their forward to their backward op, and temporaries.
fn synthetic() -> Instance {
    let mut state = SEED;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let small = |drawn: u64| u32::try_from(drawn).unwrap_or(u32::MAX);
    let items = (0..LARGE_ITEMS).map(|k| {
        let size_bytes = (1 + draw(1 << 12)) << draw(9);
        let (first_op, last_op) = match k % 20 {
            0 => (0, 9999),
            1..4 => {
                let forward = small(draw(5000));
                (forward, 9999 - forward)
            }
            _ => {
                let birth = small(draw(9990));
                (birth, birth + small(draw(10)))
            }
        };
        Item { size_bytes, first_op, last_op }
    });
    Instance {
        name: "synthetic-100k".to_owned(),
        family: Family::Synthetic,
        items: items.collect(),
        align_bytes: PACK_ALIGN_BYTES,
    }
}

fn measure(instance: &Instance, exact_limit: Duration) -> anyhow::Result<Row> {
    let load_bytes = load_bytes(&instance.items, 1);
    let mut efforts = Vec::new();
    for (name, effort) in
        [("fast", Effort::Fast), ("good", Effort::Good), ("exact", Effort::Exact { time_limit: exact_limit })]
    {
        let before = cpu_seconds();
        let packing = pack_lifetimes(&instance.items, instance.align_bytes, effort, SEED);
        let cpu_seconds = cpu_seconds() - before;
        if let Err(error) = check(&instance.items, &packing.offsets, packing.height_bytes) {
            bail!("{} at effort {name}: {error}", instance.name);
        }
        let ratio = packing.height_bytes as f64 / load_bytes as f64;
        efforts.push(Measured { effort: name, height_bytes: packing.height_bytes, ratio, cpu_seconds });
    }
    let Instance { name, family, items, .. } = instance;
    Ok(Row { name: name.clone(), family: *family, items: items.len(), load_bytes, efforts })
}

/// Refuses a packing in which items that are alive at the same op overlap, or that is higher than it says.
///
/// Goes through the ops with the living items in address order, so that only neighbours need to be compared.
fn check(items: &[Item], offsets: &[u64], height_bytes: u64) -> anyhow::Result<()> {
    let mut edges: Vec<(u64, bool, usize)> = Vec::with_capacity(items.len() * 2);
    for (k, item) in items.iter().enumerate() {
        edges.push((u64::from(item.first_op), true, k));
        edges.push((u64::from(item.last_op) + 1, false, k));
    }
    edges.sort_unstable();
    let mut living = std::collections::BTreeMap::new();
    for (_, begins, k) in edges.into_iter().filter(|&(_, _, k)| items[k].size_bytes > 0) {
        if !begins {
            living.remove(&offsets[k]);
            continue;
        }
        let end = offsets[k] + items[k].size_bytes;
        let below = living.range(..end).next_back().is_none_or(|(_, &other_end)| other_end <= offsets[k]);
        if !below || end > height_bytes {
            bail!("item {k} overlaps another or the height; this is a defect of the packing");
        }
        living.insert(offsets[k], end);
    }
    Ok(())
}

fn print(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("instance", Left),
        ("items", Right),
        ("max load", Right),
        ("effort", Left),
        ("height", Right),
        ("ratio", Right),
        ("CPU s", Right),
    ]);
    for row in rows {
        for measured in &row.efforts {
            table.push([
                row.name.clone(),
                row.items.to_string(),
                row.load_bytes.to_string(),
                measured.effort.to_owned(),
                measured.height_bytes.to_string(),
                format!("{:.5}", measured.ratio),
                format!("{:.3}", measured.cpu_seconds),
            ]);
        }
    }
    table.print(out)
}

fn summary(rows: Vec<Row>, calibration_cpu_seconds: f64) -> Summary {
    let worst = |effort: &str, families: &[Family], figure: fn(&Measured) -> f64| {
        let chosen = rows.iter().filter(|row| families.contains(&row.family)).flat_map(|row| &row.efforts);
        chosen.filter(|measured| measured.effort == effort).map(figure).fold(0.0, f64::max)
    };
    let learning = [Family::Published, Family::Trace];
    let all = [Family::Minimalloc, Family::Published, Family::Trace];
    Summary {
        worst_dl_ratio: worst("good", &learning, |measured| measured.ratio),
        worst_minimalloc_ratio: worst("good", &[Family::Minimalloc], |measured| measured.ratio),
        worst_minimalloc_ratio_exact: worst("exact", &[Family::Minimalloc], |measured| measured.ratio),
        worst_good_cpu_seconds: worst("good", &all, |measured| measured.cpu_seconds),
        worst_exact_cpu_seconds: worst("exact", &[Family::Minimalloc], |measured| measured.cpu_seconds),
        fast_100k_cpu_seconds: worst("fast", &[Family::Synthetic], |measured| measured.cpu_seconds),
        calibration_cpu_seconds,
        seed: SEED,
        instances: rows,
    }
}
