//! `sentinel bench policies`: calibration on published figures, our policy beside others and the bound, robustness.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use plan::Machine;
use serde::Serialize;
use sim::{Costs, MemoryTime, ModelError, Named, Setting, Workload};
use trace::StepTrace;

use super::cells::{self, Point, Solved};
use super::published::Figures;
use super::rivals::Rivals;
use super::robustness;
use crate::amount::percent_of;
use crate::cores::on_all_cores;
use crate::simulate::one;
use crate::table::{Align, Table};

/// Fast memory in percent of the peak.
const BUDGETS: [u32; 5] = [5, 10, 20, 40, 60];
/// Peaks that each direction can move in one all-fast step.
const M_HATS: [f64; 5] = [0.5, 1.0, 2.0, 4.0, 8.0];
/// Further points, of budget in percent and m̂, at which no policy may be faster than ours.
const AMPLE: [(u32, f64); 2] = [(80, 1.0), (100, 1.0)];
/// Published columns that are predicted.
const PREDICTED: [u32; 3] = [10, 20, 40];
/// Migration speeds among which the calibration chooses: from the first, each this much faster than the one before.
const SPEED_FIRST_GBPS: f64 = 0.25;
const SPEED_RATIO: f64 = 1.189_207_115_002_721; // fourth root of two
const SPEEDS: i32 = 29;
/// Recorded steps that stand for published models: column of the published tables, name of the step here, and how the names of its
/// files begin. BERT large would need a recording of its own: another batch of a model is worked out from two, another model is not.
const STEPS: [(&str, &str, &str); 5] = [
    ("resnet32", "resnet32", "resnet32"),
    ("bert_large", "bert_base", "bert"),
    ("lstm", "lstm", "lstm"),
    ("dcgan", "dcgan", "dcgan"),
    ("mobilenet", "mobilenet", "mobilenet"),
];
/// A model whose bound is below this at 20% cannot reach what is asked of it.
const REACHABLE: f64 = 0.97;

/// One recorded model on the calibrated machine.
pub struct Model {
    /// What the step is of.
    pub name: &'static str,
    /// Name of the column in the published tables that it is compared with.
    published: &'static str,
    /// As recorded.
    pub trace: StepTrace,
    /// Its step.
    pub workload: Workload,
    /// Its model, with the memory share that gives the published slow-only ratio.
    pub costs: Costs,
    /// Set when the published ratio is beyond what the machine can give.
    pub beyond: Option<ModelError>,
    kappa: f64,
}

impl Model {
    /// Recorded nanoseconds per nanosecond of the machine; the largest over ops, which is the uncut number.
    pub fn kappa(&self) -> f64 {
        self.kappa
    }
}

/// The last line.
#[derive(Default, Serialize)]
struct Summary {
    ours_mean_20: f64,
    ours_gap_to_bound_20: f64,
    ours_gap_to_bound_20_m1: f64,
    ours_gap_to_bound_10: f64,
    ours_vs_hpca21_20: f64,
    hpca21_mean_20: f64,
    ial_mean_20: f64,
    ours_vs_ial_20: f64,
    calibrated_gbps: f64,
    hpca21_worst_error: f64,
    hpca21_mean_error: f64,
    ial_mean_error: f64,
    robust_worst_vs_first_touch: f64,
    /// The least ratio of ours to the best other policy of the same budget over all points; with three digits, 1.000 or more.
    never_below_worst: f64,
    ours_never_below: Rivals,
    models: Vec<&'static str>,
    beyond_machine: Vec<&'static str>,
}

/// Runs everything.
pub fn run(data: &Path, published: &Path, results: &Path, brief: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let machine = Machine::by_name("optane")?;
    let throughput = Figures::read(&published.join("throughput-vs-fast-only.csv"))?;
    let speedup = Figures::read(&published.join("speedup-over-slow-only-at-20.csv"))?;
    let models = load(data, &speedup, &machine, out)?;
    if models.is_empty() {
        anyhow::bail!("no recorded step of a published model in {}: expected such as resnet32.trace", data.display());
    }
    let table = results.join("policies.csv");
    if !brief {
        std::fs::create_dir_all(results)
            .with_context(|| format!("--results = {}: cannot be made", results.display()))?;
        crate::output::check("--results", &table)?;
    }
    let mut summary = Summary {
        models: models.iter().map(|model| model.name).collect(),
        beyond_machine: models.iter().filter(|m| m.beyond.is_some()).map(|m| m.name).collect(),
        ..Summary::default()
    };
    calibrate(&models, &machine, &throughput, &mut summary, out)?;
    predict_ial(&models, &machine, &speedup, &mut summary, out)?;
    let solved = cells::solve(&models, &machine, &points(&models, brief), is_compared)?;
    compare(&models, &solved, &mut summary, out)?;
    summary.robust_worst_vs_first_touch = robust(&models, &machine, out)?;
    if !brief {
        cells::write(&models, &solved, &table)?;
        writeln!(out, "\nfull table: {}", table.display())?;
    }
    for cell in &solved {
        let point = format!("{} {}% m̂ = {}", models[cell.point.model].name, cell.point.percent, cell.point.m_hat);
        let others = cell.results.iter().filter(|(policy, _)| policy.is_rival());
        let others = others.filter_map(|(policy, result)| Some((policy.name(), result.throughput?)));
        summary.ours_never_below.see(&point, cell.throughput(Named::Gap).unwrap_or(0.0), others);
    }
    summary.never_below_worst = summary.ours_never_below.worst_ratio();
    summary.ours_never_below.print(out)?;
    writeln!(out, "{}", serde_json::to_string(&summary)?)?;
    Ok(())
}

/// One trace per published model: of several files that begin alike, the first by name.
fn load(data: &Path, speedup: &Figures, machine: &Machine, out: &mut impl Write) -> anyhow::Result<Vec<Model>> {
    let listing = std::fs::read_dir(data).with_context(|| format!("cannot read {}", data.display()))?;
    let mut files: Vec<PathBuf> = listing.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "trace"));
    files.sort();
    let mut models = Vec::new();
    writeln!(out, "models: one number each, the memory share, set on the published slow-only ÷ fast-only\n")?;
    let columns = ["model", "trace", "published as", "published", "at most", "memory share", "peak MB"];
    let mut table = Table::new(&columns.map(|name| (name, Align::Right)));
    for (published, name, begin) in STEPS {
        let stem = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem.to_string_lossy().starts_with(begin));
        let wanted = speedup.get("fast_only", published)?;
        let Some(file) = files.iter().find(|path| stem(path)) else {
            let wanted = format!("{wanted:.2}");
            table.push([name, "none", published, &wanted, "-", "-", "-"].map(str::to_owned));
            continue;
        };
        let trace = trace::read(file)?;
        let workload = Workload::of(name, &trace)?;
        let most = Costs::new(&workload.profile, machine, MemoryTime::Share(1.0))?;
        let (costs, beyond) = match Costs::new(&workload.profile, machine, MemoryTime::SlowRatio(wanted)) {
            Ok(costs) => (costs, None),
            Err(error) => (most.clone(), Some(error)),
        };
        let kappa = costs.ops.iter().map(|op| op.scale).fold(0.0, f64::max);
        table.push([
            name.to_owned(),
            file.file_name().map_or_else(String::new, |file| file.to_string_lossy().into_owned()),
            published.to_owned(),
            format!("{wanted:.2}"),
            format!("{:.2}", most.step_in_tier_ns(&workload.profile, trace::Tier::SLOW) / workload.step_ns),
            if beyond.is_some() { "beyond: 100%".into() } else { format!("{:.0}%", costs.memory_share * 100.0) },
            format!("{:.0}", workload.profile.peak_live_bytes as f64 / 1e6),
        ]);
        models.push(Model { name, published, trace, workload, costs, beyond, kappa });
    }
    table.print(out)?;
    Ok(models)
}

/// Throughput of a policy relative to all-fast.
fn relative(policy: Named, model: &Model, setting: &Setting, machine: &Machine) -> anyhow::Result<f64> {
    let result = one(policy, &model.workload, &model.costs, setting, machine)?;
    result.throughput.with_context(|| format!("{} on {}: {:?}", policy.name(), model.name, result.infeasible))
}

/// A share of the peak.
pub fn budget(model: &Model, percent: u32) -> u64 {
    percent_of(model.workload.profile.peak_live_bytes, percent)
}

/// hpca21 at the published budgets, per model.
fn predictions(models: &[&Model], machine: &Machine, gbps: f64) -> anyhow::Result<Vec<Vec<f64>>> {
    let of = |model: &&Model| {
        PREDICTED
            .iter()
            .map(|&percent| {
                let setting = Setting::with_gbps(&model.costs, budget(model, percent), gbps, gbps);
                relative(Named::Hpca21, model, &setting, machine)
            })
            .collect()
    };
    models.iter().map(of).collect()
}

/// Chooses the machine's one migration speed and prints what it predicts beside what was published.
fn calibrate(
    models: &[Model],
    machine: &Machine,
    published: &Figures,
    summary: &mut Summary,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let fitted: Vec<&Model> = models.iter().filter(|model| model.beyond.is_none()).collect();
    let wanted: Vec<Vec<f64>> = fitted
        .iter()
        .map(|model| PREDICTED.iter().map(|percent| published.get(&percent.to_string(), model.published)).collect())
        .collect::<anyhow::Result<_>>()?;
    let errors = |predicted: &[Vec<f64>]| -> Vec<f64> {
        let pairs = predicted.iter().flatten().zip(wanted.iter().flatten());
        pairs.map(|(predicted, wanted)| (predicted - wanted).abs()).collect()
    };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / (values.len().max(1) as f64);
    let mut best: Option<(f64, f64, Vec<Vec<f64>>)> = None;
    let speeds: Vec<f64> = (0..SPEEDS).map(|step| SPEED_FIRST_GBPS * SPEED_RATIO.powi(step)).collect();
    let tried = on_all_cores("speeds", speeds.len(), |index| predictions(&fitted, machine, speeds[index]))?;
    for (gbps, predicted) in speeds.into_iter().zip(tried) {
        let error = mean(&errors(&predicted));
        if best.as_ref().is_none_or(|(least, ..)| error < *least) {
            best = Some((error, gbps, predicted));
        }
    }
    let Some((_, gbps, predicted)) = best else { return Ok(()) };
    writeln!(out, "\nmachine: one number, migration speed = {gbps:.2} GB/s, set on the figures below\n")?;
    let mut table = Table::new(&["model", "m̂", "10%", "", "20%", "", "40%", ""].map(|name| (name, Align::Right)));
    for ((model, predicted), wanted) in fitted.iter().zip(&predicted).zip(&wanted) {
        let m_hat = Setting::with_gbps(&model.costs, 1, gbps, gbps).m_hat(&model.workload);
        let cells = predicted.iter().zip(wanted).flat_map(|(p, w)| [format!("{p:.2}"), format!("({w:.2})")]);
        table.push([model.name.to_owned(), format!("{m_hat:.2}")].into_iter().chain(cells));
    }
    table.print(out)?;
    let errors = errors(&predicted);
    summary.calibrated_gbps = gbps;
    summary.hpca21_worst_error = errors.iter().copied().fold(0.0, f64::max);
    summary.hpca21_mean_error = mean(&errors);
    writeln!(
        out,
        "hpca21 predicted (published): worst error {:.3}, asked 0.08; mean {:.3}, asked 0.05",
        summary.hpca21_worst_error, summary.hpca21_mean_error
    )?;
    Ok(())
}

/// IAL, hpca21 and ours at 20% on the calibrated machine.
fn predict_ial(
    models: &[Model],
    machine: &Machine,
    speedup: &Figures,
    summary: &mut Summary,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let gbps = summary.calibrated_gbps;
    let mut sums = [0.0; 4];
    for model in models {
        let setting = Setting::with_gbps(&model.costs, budget(model, 20), gbps, gbps);
        sums[0] += relative(Named::Ial, model, &setting, machine)?;
        sums[1] += relative(Named::Hpca21, model, &setting, machine)?;
        sums[2] += relative(Named::Gap, model, &setting, machine)?;
        sums[3] += speedup.get("ial", model.published)? / speedup.get("fast_only", model.published)?;
    }
    let [ial, hpca21, ours, published] = sums.map(|sum| sum / models.len() as f64);
    summary.ial_mean_20 = ial;
    summary.hpca21_mean_20 = hpca21;
    summary.ours_vs_ial_20 = ours / ial;
    summary.ial_mean_error = (ial - published).abs();
    writeln!(
        out,
        "at 20% on this machine, means: ial {ial:.3} (published {published:.3}), hpca21 {hpca21:.3}, gap {ours:.3}"
    )?;
    Ok(())
}

/// The points of the comparison: budget in percent, and m̂.
const COMPARED: [(u32, f64); 4] = [(20, 1.0), (20, 2.0), (20, 4.0), (10, 4.0)];

fn is_compared(point: Point) -> bool {
    COMPARED.contains(&(point.percent, point.m_hat))
}

/// Every point of the full table, or those of the comparison only.
fn points(models: &[Model], brief: bool) -> Vec<Point> {
    let all = || BUDGETS.into_iter().flat_map(|percent| M_HATS.map(|m_hat| (percent, m_hat))).chain(AMPLE).collect();
    let of_model: Vec<(u32, f64)> = if brief { COMPARED.to_vec() } else { all() };
    let at = |model: usize| of_model.iter().map(move |&(percent, m_hat)| Point { model, percent, m_hat });
    (0..models.len()).flat_map(at).collect()
}

/// Ours beside the bound and the published policy.
fn compare(models: &[Model], solved: &[Solved], summary: &mut Summary, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "\nours beside the bound\n")?;
    let columns = ["model", "fast", "m̂", "bound", "gap", "gap ÷ bound", "hpca21", "gap ÷ hpca21"];
    let mut table = Table::new(&columns.map(|name| (name, Align::Right)));
    let mut logarithms = Vec::new();
    let mut reached = Vec::new();
    let mut short = [const { Vec::new() }; COMPARED.len()];
    for (model, name) in models.iter().map(|model| model.name).enumerate() {
        for (place, &(percent, m_hat)) in COMPARED.iter().enumerate() {
            let point = Point { model, percent, m_hat };
            let Some(solved) = solved.iter().find(|solved| solved.point == point) else { continue };
            let of = |policy: Named| solved.throughput(policy).with_context(|| format!("{}: no result", policy.name()));
            let bound = solved.bound.context("no bound at a point of the comparison")?;
            let (ours, published) = (of(Named::Gap)?, of(Named::Hpca21)?);
            short[place].push(1.0 - ours / bound);
            if place == 2 && bound >= REACHABLE {
                reached.push(ours);
            }
            if place < 2 {
                logarithms.push((ours / published).ln());
            }
            let ratios = [ours / bound, published, ours / published].map(|value| format!("{value:.3}"));
            let head = [name.to_owned(), format!("{percent}%"), format!("{m_hat}"), format!("{bound:.3}")];
            table.push(head.into_iter().chain([format!("{ours:.3}")]).chain(ratios));
        }
    }
    table.print(out)?;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / (values.len().max(1) as f64);
    summary.ours_gap_to_bound_20_m1 = mean(&short[0]);
    summary.ours_gap_to_bound_20 = mean(&short[1]).max(mean(&short[2]));
    summary.ours_gap_to_bound_10 = mean(&short[3]);
    summary.ours_mean_20 = mean(&reached);
    summary.ours_vs_hpca21_20 = mean(&logarithms).exp();
    Ok(())
}

fn robust(models: &[Model], machine: &Machine, out: &mut impl Write) -> anyhow::Result<f64> {
    writeln!(out, "\nour plan in steps it was not made for: throughput ÷ that of first touch, at 20%\n")?;
    let mut worst = f64::INFINITY;
    let mut table: Option<Table> = None;
    let all = on_all_cores("robustness", models.len(), |index| robustness::cases(&models[index], machine))?;
    for (model, cases) in models.iter().zip(all) {
        worst = worst.min(robustness::worst(&cases));
        let heading = || {
            let names = std::iter::once("model").chain(cases.iter().map(|case| case.name.as_str()));
            Table::new(&names.map(|name| (name, Align::Right)).collect::<Vec<_>>())
        };
        let table = table.get_or_insert_with(heading);
        table.push(std::iter::once(model.name.to_owned()).chain(cases.iter().map(|case| format!("{:.3}", case.ratio))));
    }
    if let Some(table) = table {
        table.print(out)?;
    }
    Ok(worst)
}
