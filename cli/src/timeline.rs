//! The drawing of `log --svg`: over time, holders as bars, waiters below them, and marks for
//! refusals.

use std::fmt::Write;
use std::path::Path;

use kanban_vfs::observation::{Event, EventKind};

use crate::log::sentence;
use crate::svg::{Frame, Tick, escaped};
use crate::time;

/// The height of a row, and of the bar in it.
const ROW: f64 = 22.0;
const BAR: f64 = 14.0;
/// At most this many waiters have a row of their own; the others share the last row.
const MOST_WAITERS: usize = 12;

/// A row of the drawing, from the top.
const HOLDS: usize = 0;
const CHECKPOINTS: usize = 1;
const MARKS: usize = 2;
const FIRST_WAITER: usize = 3;

/// An event as it is drawn: from and to, in us since 1970.
struct Span<'e> {
    row: usize,
    from: u64,
    to: u64,
    event: &'e Event,
}

/// The drawing of a board's events.
pub(crate) fn of(board: &Path, events: &[Event]) -> String {
    let mut spans = Vec::new();
    let mut waiters: Vec<u64> = Vec::new();
    for event in events {
        let end = event.unix_us;
        let held_from = end.saturating_sub(event.held.as_micros() as u64);
        match event.kind {
            EventKind::Transaction => {
                spans.push(Span { row: HOLDS, from: held_from, to: end, event })
            }
            EventKind::Checkpoint => {
                spans.push(Span { row: CHECKPOINTS, from: held_from, to: end, event });
            }
            _ => spans.push(Span { row: MARKS, from: end, to: end, event }),
        }
        if !event.waited.is_zero() {
            let from = held_from.saturating_sub(event.waited.as_micros() as u64);
            let free = waiters.iter().position(|until| *until <= from);
            let nth = free.unwrap_or(waiters.len()).min(MOST_WAITERS - 1);
            if nth == waiters.len() {
                waiters.push(0);
            }
            waiters[nth] = waiters[nth].max(held_from);
            spans.push(Span { row: FIRST_WAITER + nth, from, to: held_from, event });
        }
    }
    let first = spans.iter().map(|span| span.from).min().unwrap_or(0);
    let last = spans.iter().map(|span| span.to).max().unwrap_or(0);
    // A time may be any number, since other users may write the log.
    let last = last.max(first.saturating_add(1_000));
    let rows = FIRST_WAITER + waiters.len().max(1);
    let frame = Frame { left: 110.0, top: 40.0, width: 1000.0, height: rows as f64 * ROW };
    let share = |at: u64| (at - first) as f64 / (last - first).max(1) as f64;

    let middle = |row: f64| 1.0 - (row + 0.5) / rows as f64;
    let mut names: Vec<Tick> = vec![
        (middle(0.0), "holds".to_owned()),
        (middle(1.0), "checkpoints".to_owned()),
        (middle(2.0), "refusals".to_owned()),
    ];
    let waits = FIRST_WAITER as f64 + (waiters.len().max(1) - 1) as f64 / 2.0;
    names.push((middle(waits), "waits".to_owned()));
    let times = times(first, last);
    let ticks: Vec<Tick> = times.iter().map(|(at, label)| (share(*at), label.clone())).collect();
    let title = format!("{}: {} events", board.display(), events.len());
    let axis = format!("local time, from {}", time::local_seconds(first, true));
    let mut svg = frame.begin(&title, (&axis, &ticks), ("write lock", &names));

    for Span { row, from, to, event } in &spans {
        let x = frame.left + share(*from) * frame.width;
        let y = frame.top + *row as f64 * ROW + (ROW - BAR) / 2.0;
        let told =
            format!("<title>{}  {}</title>", time::local(event.unix_us), escaped(&sentence(event)));
        // Writing to a String does not fail.
        if *row == MARKS {
            let (x, y, half) = (x, y + BAR / 2.0, BAR / 2.0 - 1.0);
            let colour = match event.kind {
                EventKind::Refusal | EventKind::GiveUp => "#c0392b",
                EventKind::HolderDied | EventKind::JournalRolledBack => "#222",
                _ => "#8e44ad",
            };
            let _ = writeln!(
                svg,
                "<path class=\"{}\" d=\"M{:.1} {:.1}L{:.1} {:.1}M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"{colour}\" \
                 stroke-width=\"2.5\">{told}</path>",
                event.kind.name(),
                x - half,
                y - half,
                x + half,
                y + half,
                x - half,
                y + half,
                x + half,
                y - half,
            );
            continue;
        }
        let width = ((share(*to) - share(*from)) * frame.width).max(1.5);
        let (class, colour) = match (*row, event.kind) {
            (HOLDS, _) => ("hold", "#1f6fb2"),
            (CHECKPOINTS, _) => ("checkpoint", "#27ae60"),
            (_, EventKind::GiveUp) => ("wait in vain", "#e59866"),
            _ => ("wait", "#aab7b8"),
        };
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" \
             fill=\"{colour}\">{told}</rect>"
        );
    }
    svg + "</svg>\n"
}

/// About six round times between two times, with their labels; none if the numbers overflow.
fn times(first: u64, last: u64) -> Vec<(u64, String)> {
    const S: u64 = 1_000_000;
    const STEPS: [u64; 20] = [
        1_000,
        10_000,
        100_000,
        S,
        2 * S,
        5 * S,
        10 * S,
        30 * S,
        60 * S,
        120 * S,
        300 * S,
        600 * S,
        1800 * S,
        3600 * S,
        7200 * S,
        21_600 * S,
        43_200 * S,
        86_400 * S,
        604_800 * S,
        2_592_000 * S,
    ];
    let step = STEPS.into_iter().find(|step| (last - first) / step <= 8);
    let step = step.unwrap_or_else(|| ((last - first) / 6).max(1));
    // Midnight is that of this machine's time zone.
    let offset = time::parse(&time::local(first)[..10], first).unwrap_or(0) % step;
    let begin = (first - offset.min(first)).checked_next_multiple_of(step);
    let begin = begin.and_then(|begin| begin.checked_add(offset));
    let label = |at: u64| match step {
        step if step < S => time::local(at)[11..].to_owned(),
        step if step < 86_400 * S => time::local_seconds(at, false),
        _ => time::local(at)[..10].to_owned(),
    };
    let all = std::iter::successors(begin, |at| at.checked_add(step));
    all.take_while(|at| *at <= last).map(|at| (at, label(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_round_and_few() {
        for span in
            [1_000, 70_000, 3_000_000, 59_000_000, 7_000_000_000, 90_000_000_000, 9_000_000_000_000]
        {
            let first = 1_796_006_807_412_345;
            let times = times(first, first + span);
            assert!((1..=9).contains(&times.len()), "{span}: {times:?}");
            assert!(times.iter().all(|(at, _)| (first..=first + span).contains(at)), "{times:?}");
        }
        let (_, label) = &times(1_796_006_807_412_345, 1_796_006_807_412_345 + 600_000_000)[0];
        assert!(label.ends_with(":00"), "{label}");
    }

    /// A forged log has a time near the greatest possible number.
    #[test]
    fn times_end_where_numbers_do() {
        for first in [0, 1_796_006_807_412_345, u64::MAX - 1_000_000, u64::MAX] {
            let times = times(first, u64::MAX);
            assert!(times.len() <= 9, "{first}: {times:?}");
            assert!(times.iter().all(|(at, _)| *at >= first), "{times:?}");
        }
    }
}
