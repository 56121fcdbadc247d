//! The outcome of a case as a Markdown table.

use std::fmt::Write;
use std::time::Duration;

use super::{Case, Outcome, Way};

/// The median, and the least and greatest, of a number over the runs.
fn spread(outcomes: &[Outcome], number: impl Fn(&Outcome) -> f64) -> (f64, f64, f64) {
    let mut numbers: Vec<f64> = outcomes.iter().map(number).collect();
    numbers.sort_by(f64::total_cmp);
    let last = numbers.len() - 1;
    (numbers[last / 2], numbers[0], numbers[last])
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The table of one case, with a heading.
pub fn of(case: &Case, outcomes: &[(Way, Vec<Outcome>)]) -> String {
    let mut text = format!("### {case}\n\n");
    let runs = outcomes.first().map_or(0, |(_, outcomes)| outcomes.len());
    let _ = writeln!(text, "Medians of {runs} paired runs (least to greatest); waits in ms.\n");
    text += "| | tx/s | p50 | p99 | p99.9 | longest wait | Jain | tx per writer, least / most \
             | WAL MB | errors | reads/s | longest read |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|---|---|\n";
    let quantile = |share| move |outcome: &Outcome| ms(outcome.waits.quantile(share));
    for (way, outcomes) in outcomes {
        let middle = |number: &dyn Fn(&Outcome) -> f64| spread(outcomes, number).0;
        let (per_second, least, most) = spread(outcomes, Outcome::per_second);
        let (longest, shortest_longest, longest_longest) =
            spread(outcomes, |outcome| ms(outcome.waits.longest()));
        let _ = writeln!(
            text,
            "| {} | {per_second:.0} ({least:.0} to {most:.0}) | {:.3} | {:.2} | {:.2} | {longest:.1} \
             ({shortest_longest:.1} to {longest_longest:.1}) | {:.3} | {:.0} / {:.0} | {:.1} | {:.0} \
             | {:.0} | {:.1} |",
            way.name(),
            middle(&quantile(0.5)),
            middle(&quantile(0.99)),
            middle(&quantile(0.999)),
            middle(&Outcome::jain),
            middle(&|o| o.counts.iter().min().map_or(0.0, |n| *n as f64)),
            middle(&|o| o.counts.iter().max().map_or(0.0, |n| *n as f64)),
            middle(&|o| o.wal_bytes as f64 / 1e6),
            middle(&|o| o.errors as f64),
            middle(&|o| o.reads as f64 / o.seconds),
            middle(&|o| ms(o.longest_read)),
        );
    }
    // Ratios are of pairs: each run against the stock run beside it.
    let stock = outcomes.iter().find(|(way, _)| *way == Way::Stock);
    let flock = outcomes.iter().find(|(way, _)| *way == Way::Flock);
    let ours = |(way, _): &&(Way, Vec<Outcome>)| matches!(way, Way::Kanban | Way::KanbanGroup);
    for (way, kanban) in outcomes.iter().filter(ours) {
        for (name, others) in [("stock", stock), ("flock", flock)] {
            let Some((_, others)) = others else { continue };
            let paired = |number: &dyn Fn(&Outcome) -> f64| {
                let mut ratios: Vec<f64> = kanban
                    .iter()
                    .zip(others)
                    .map(|(ours, theirs)| number(ours) / number(theirs))
                    .collect();
                ratios.sort_by(f64::total_cmp);
                ratios[(ratios.len() - 1) / 2]
            };
            let _ = write!(
                text,
                "\n{} against {name}: {:.2} x throughput, {:.3} x longest wait",
                way.name(),
                paired(&Outcome::per_second),
                paired(&|o| ms(o.waits.longest()).max(0.001)),
            );
            if case.readers > 0 {
                let _ = write!(text, ", {:.2} x reads", paired(&|o| o.reads as f64));
            }
            text += "  ";
        }
        text += "\n";
    }
    text
}
