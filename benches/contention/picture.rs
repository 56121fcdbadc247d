//! The distribution of waits as SVG: the share of transactions that waited longer than x.

use std::fmt::Write;

use super::histogram::Histogram;
use super::{Case, Outcome, Way};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 140.0;
const TOP: f64 = 40.0;
/// Waits from 1 us to 10 s.
const X_DECADES: (f64, f64) = (-6.0, 1.0);
/// Shares from all to one in a hundred thousand.
const Y_DECADES: f64 = 5.0;

fn x(seconds: f64) -> f64 {
    let (from, to) = X_DECADES;
    LEFT + (seconds.max(1e-6).log10() - from) / (to - from) * WIDTH
}

fn y(share: f64) -> f64 {
    TOP + (-share.max(1e-5).log10() / Y_DECADES).clamp(0.0, 1.0) * HEIGHT
}

/// The picture of one case, all runs of a way together.
pub fn of(case: &Case, outcomes: &[(Way, Vec<Outcome>)]) -> String {
    let (middle_x, middle_y) = (LEFT + WIDTH / 2.0, TOP + HEIGHT / 2.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"18\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"20\">{case}</text>\n\
         <text x=\"{middle_x}\" y=\"{}\" text-anchor=\"middle\">wait for the write lock</text>\n\
         <text x=\"22\" y=\"{middle_y}\" text-anchor=\"middle\" \
         transform=\"rotate(-90 22 {middle_y})\">transactions that wait longer</text>\n",
        TOP + HEIGHT + 50.0,
        width = LEFT + WIDTH + 30.0,
        height = TOP + HEIGHT + 64.0,
    );
    let labels =
        ["1 \u{b5}s", "10 \u{b5}s", "100 \u{b5}s", "1 ms", "10 ms", "100 ms", "1 s", "10 s"];
    for (nth, label) in labels.iter().enumerate() {
        let at = x(10f64.powf(X_DECADES.0 + nth as f64));
        let _ = writeln!(
            svg,
            "<line x1=\"{at}\" x2=\"{at}\" y1=\"{TOP}\" y2=\"{}\" stroke=\"#ddd\"/>\
             <text x=\"{at}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            TOP + HEIGHT,
            TOP + HEIGHT + 24.0
        );
    }
    for (nth, label) in
        ["all", "1 in 10", "1 in 100", "1 in 1000", "1 in 10\u{2074}", "1 in 10\u{2075}"]
            .iter()
            .enumerate()
    {
        let at = y(10f64.powi(-(nth as i32)));
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at}\" y2=\"{at}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>",
            LEFT + WIDTH,
            LEFT - 6.0,
            at + 6.0
        );
    }
    for (nth, (way, outcomes)) in outcomes.iter().enumerate() {
        let colour = match way {
            Way::Stock => "#c0392b",
            Way::Flock => "#7f8c8d",
            Way::Kanban => "#1f6fb2",
            Way::KanbanGroup => "#27ae60",
        };
        let mut all = Histogram::default();
        outcomes.iter().for_each(|outcome| all.add(&outcome.waits));
        let mut points = format!("{:.1},{:.1}", x(1e-6), y(1.0));
        let mut above = 1.0;
        for (wait, share) in all.tail() {
            let at = x(wait.as_secs_f64());
            let _ = write!(points, " {at:.1},{:.1} {at:.1},{:.1}", y(above), y(share));
            above = share;
        }
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{}\" y=\"{}\" fill=\"{colour}\" font-size=\"20\">{}</text>",
            LEFT + 12.0,
            TOP + HEIGHT - 90.0 + 26.0 * nth as f64,
            way.name()
        );
    }
    svg + "</svg>\n"
}
