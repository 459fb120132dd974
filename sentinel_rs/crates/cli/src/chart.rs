//! The picture of `sentinel sim`: throughput over fast memory, a curve per policy, and what no policy can reach.

use std::fmt::Write;

use crate::simulate::{Point, Report};

const WIDTH: f64 = 1280.0;
const HEIGHT: f64 = 720.0;
const LEFT: f64 = 96.0;
const RIGHT: f64 = 900.0;
const TOP: f64 = 112.0;
const BOTTOM: f64 = 620.0;

/// How a curve looks. Colours are those of Okabe and Ito, which people with colour blindness can tell apart; dashes and
/// marks say the same without colour.
struct Look {
    policy: &'static str,
    label: &'static str,
    colour: &'static str,
    width: f64,
    dash: &'static str,
    mark: char,
}

/// Every policy but `fast_only`, which is the line at 100%.
const LOOKS: [Look; 11] = [
    Look { policy: "gap", label: "gap (ours)", colour: "#D55E00", width: 5.0, dash: "", mark: 'o' },
    Look {
        policy: "gap_at_ops",
        label: "gap, moves at every op",
        colour: "#D55E00",
        width: 2.5,
        dash: "8 5",
        mark: 'v',
    },
    Look { policy: "hpca21", label: "Sentinel (HPCA 2021)", colour: "#0072B2", width: 3.0, dash: "", mark: 's' },
    Look { policy: "layer_prefetch", label: "layer prefetch", colour: "#009E73", width: 2.5, dash: "", mark: 't' },
    Look { policy: "static_optimum", label: "static optimum", colour: "#CC79A7", width: 2.5, dash: "", mark: 'd' },
    Look { policy: "hotness", label: "hotness histogram", colour: "#E69F00", width: 2.5, dash: "", mark: 'x' },
    Look { policy: "ial", label: "active lists (IAL)", colour: "#56B4E9", width: 2.5, dash: "", mark: 'v' },
    Look { policy: "memory_mode", label: "hardware cache", colour: "#7A5195", width: 2.0, dash: "8 5", mark: 's' },
    Look { policy: "interleave", label: "weighted interleave", colour: "#8C8C00", width: 2.0, dash: "8 5", mark: 'd' },
    Look { policy: "first_touch", label: "first touch", colour: "#555555", width: 2.0, dash: "8 5", mark: 'o' },
    Look { policy: "slow_only", label: "slow only", colour: "#999999", width: 2.0, dash: "2 5", mark: ' ' },
];

/// The whole SVG file.
pub fn svg(report: &Report) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\" fill=\"#222222\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    title(&mut out, report);
    unreachable_area(&mut out, report);
    axes(&mut out);
    // The most important curve is drawn last, over the others.
    for look in LOOKS.iter().rev() {
        curve(&mut out, report, look);
    }
    legend(&mut out, report);
    out.push_str("</svg>\n");
    out
}

fn x(share: f64) -> f64 {
    LEFT + share.clamp(0.0, 1.0) * (RIGHT - LEFT)
}

fn y(throughput: f64) -> f64 {
    BOTTOM - throughput.clamp(0.0, 1.05) / 1.05 * (BOTTOM - TOP)
}

fn text(out: &mut String, at: (f64, f64), size: f64, attributes: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let words: String = words.chars().filter(|letter| !letter.is_control()).collect();
    let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"{size}\" {attributes}>{words}</text>", at.0, at.1);
}

fn title(out: &mut String, report: &Report) {
    text(
        out,
        (LEFT, 48.0),
        30.0,
        "font-weight=\"bold\"",
        &format!("{}: training with less fast memory", report.workload),
    );
    let facts = format!(
        "{} machine · slow-only is {:.1}× slower · migration moves {:.1} peaks per step and direction · peak {:.2} GB",
        report.machine,
        report.slow_over_fast,
        report.m_hat,
        report.peak_live_bytes as f64 / 1e9
    );
    text(out, (LEFT, 80.0), 18.0, "fill=\"#555555\"", &facts);
}

fn axes(out: &mut String) {
    for tick in 0..=10 {
        let share = f64::from(tick) / 10.0;
        let (across, up) = (x(share), y(share));
        let grid = "stroke=\"#DDDDDD\" stroke-width=\"1\"";
        let _ = writeln!(out, "<line x1=\"{LEFT}\" y1=\"{up:.1}\" x2=\"{RIGHT}\" y2=\"{up:.1}\" {grid}/>");
        let label = format!("{}%", tick * 10);
        if tick % 2 == 0 {
            text(out, (across, BOTTOM + 28.0), 18.0, "text-anchor=\"middle\"", &label);
            text(out, (LEFT - 12.0, up + 6.0), 18.0, "text-anchor=\"end\"", &label);
        }
    }
    let full = y(1.0);
    let _ = writeln!(
        out,
        "<line x1=\"{LEFT}\" y1=\"{full:.1}\" x2=\"{RIGHT}\" y2=\"{full:.1}\" stroke=\"#222222\" stroke-width=\"1.5\"/>\n\
         <line x1=\"{LEFT}\" y1=\"{BOTTOM}\" x2=\"{RIGHT}\" y2=\"{BOTTOM}\" stroke=\"#222222\" stroke-width=\"1.5\"/>"
    );
    text(out, (RIGHT - 4.0, full - 8.0), 16.0, "text-anchor=\"end\"", "everything in fast memory");
    text(
        out,
        ((LEFT + RIGHT) / 2.0, BOTTOM + 66.0),
        20.0,
        "text-anchor=\"middle\"",
        "fast memory, share of peak live bytes",
    );
    let middle = (TOP + BOTTOM) / 2.0;
    let turned = format!("text-anchor=\"middle\" transform=\"rotate(-90 32 {middle})\"");
    text(out, (32.0, middle), 20.0, &turned, "training throughput, share of all-fast");
}

fn bounds(report: &Report) -> Vec<(f64, f64)> {
    report.points.iter().filter_map(|point| point.bound.map(|bound| (point.fast_share, bound))).collect()
}

/// Grey above the lower bound on step time.
fn unreachable_area(out: &mut String, report: &Report) {
    let bounds = bounds(report);
    let (Some(first), Some(last)) = (bounds.first(), bounds.last()) else { return };
    let mut path = format!("M{:.1} {:.1}", x(first.0), y(1.0));
    let mut line = String::new();
    for &(share, bound) in &bounds {
        let _ = write!(path, " L{:.1} {:.1}", x(share), y(bound));
        let _ = write!(line, "{:.1},{:.1} ", x(share), y(bound));
    }
    let _ = writeln!(out, "<path d=\"{path} L{:.1} {:.1} Z\" fill=\"#E8E8E8\"/>", x(last.0), y(1.0));
    let stroke = "fill=\"none\" stroke=\"#000000\" stroke-width=\"2.5\" stroke-dasharray=\"10 4 2 4\"";
    let _ = writeln!(out, "<polyline points=\"{}\" {stroke}/>", line.trim_end());
}

fn value(point: &Point, policy: &str) -> Option<f64> {
    point.results.iter().find(|result| result.policy == policy).and_then(|result| result.throughput)
}

fn curve(out: &mut String, report: &Report, look: &Look) {
    let points: Vec<(f64, f64)> = report
        .points
        .iter()
        .filter_map(|point| value(point, look.policy).map(|throughput| (x(point.fast_share), y(throughput))))
        .collect();
    if points.is_empty() {
        return;
    }
    let line: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-dasharray=\"{}\" \
         stroke-linejoin=\"round\"/>",
        line.join(" "),
        look.colour,
        look.width,
        look.dash
    );
    for &at in &points {
        mark(out, at, look);
    }
}

/// Two bars across each other, around the outside.
const CROSS: [(f64, f64); 12] = [
    (0.0, -0.5),
    (1.1, -1.6),
    (1.6, -1.1),
    (0.5, 0.0),
    (1.6, 1.1),
    (1.1, 1.6),
    (0.0, 0.5),
    (-1.1, 1.6),
    (-1.6, 1.1),
    (-0.5, 0.0),
    (-1.6, -1.1),
    (-1.1, -1.6),
];

fn mark(out: &mut String, (x, y): (f64, f64), look: &Look) {
    let r = look.width + 2.0;
    let corners: &[(f64, f64)] = match look.mark {
        's' => &[(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)],
        't' => &[(0.0, -1.3), (1.2, 1.0), (-1.2, 1.0)],
        'v' => &[(0.0, 1.3), (1.2, -1.0), (-1.2, -1.0)],
        'd' => &[(0.0, -1.4), (1.4, 0.0), (0.0, 1.4), (-1.4, 0.0)],
        'x' => &CROSS,
        'o' => {
            let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r:.1}\" fill=\"{}\"/>", look.colour);
            return;
        }
        _ => return,
    };
    let corners: Vec<String> = corners.iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + dx * r, y + dy * r)).collect();
    let _ = writeln!(out, "<polygon points=\"{}\" fill=\"{}\"/>", corners.join(" "), look.colour);
}

/// Names beside their looks, with the figures at the budget nearest to a fifth of the peak, the best first.
fn legend(out: &mut String, report: &Report) {
    let distance = |point: &&Point| (point.fast_share - 0.2).abs();
    let Some(point) = report.points.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))) else { return };
    let left = RIGHT + 36.0;
    let mut at = TOP + 26.0;
    let heading = format!("at {:.0}%", point.fast_share * 100.0);
    text(out, (WIDTH - 24.0, at - 10.0), 16.0, "text-anchor=\"end\" fill=\"#555555\"", &heading);
    at += 22.0;
    if let Some(bound) = point.bound {
        let stroke = "stroke=\"#000000\" stroke-width=\"2.5\" stroke-dasharray=\"10 4 2 4\"";
        let _ = writeln!(
            out,
            "<rect x=\"{left}\" y=\"{:.1}\" width=\"36\" height=\"14\" fill=\"#E8E8E8\"/>\
             <line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\" {stroke}/>",
            at - 14.0,
            left + 36.0
        );
        text(out, (left + 46.0, at + 5.0), 18.0, "", "bound on any policy");
        text(out, (WIDTH - 24.0, at + 5.0), 18.0, "text-anchor=\"end\"", &format!("{:.0}%", bound * 100.0));
        at += 36.0;
    }
    let mut entries: Vec<(&Look, f64)> =
        LOOKS.iter().filter_map(|look| value(point, look.policy).map(|value| (look, value))).collect();
    entries.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (look, value) in entries {
        let weight = if look.policy == "gap" { "font-weight=\"bold\"" } else { "" };
        let _ = writeln!(
            out,
            "<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\" stroke=\"{}\" stroke-width=\"{}\" \
             stroke-dasharray=\"{}\"/>",
            left + 36.0,
            look.colour,
            look.width,
            look.dash
        );
        mark(out, (left + 18.0, at), look);
        text(out, (left + 46.0, at + 6.0), 18.0, weight, look.label);
        text(
            out,
            (WIDTH - 24.0, at + 6.0),
            18.0,
            &format!("text-anchor=\"end\" {weight}"),
            &format!("{:.0}%", value * 100.0),
        );
        at += 36.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_with_a_budget_has_a_look_of_its_own() {
        for (name, _) in sim::Named::ALL.iter().filter(|(name, _)| *name != "fast_only") {
            assert_eq!(LOOKS.iter().filter(|look| look.policy == *name).count(), 1, "{name}");
        }
        for (at, one) in LOOKS.iter().enumerate() {
            let alike =
                |other: &&Look| (other.colour, other.mark) == (one.colour, one.mark) || other.label == one.label;
            assert_eq!(LOOKS[at + 1..].iter().find(alike).map(|other| other.policy), None, "{}", one.policy);
        }
    }
}
