//! The board as one looks at it: a column for each status, side by side.

use std::fmt::Write;

use console::{Color, Style, Term, measure_text_width, pad_str, truncate_str};

use crate::board::Task;

/// The statuses, with their headings and colours.
const STATUSES: [(&str, &str, Color); 4] = [
    ("ready", "Ready", Color::Blue),
    ("running", "Running", Color::Yellow),
    ("done", "Done", Color::Green),
    ("failed", "Failed", Color::Red),
];
const GAP: usize = 2;
/// Narrower than this, columns are of no use: then they are printed one below the other.
const NARROWEST: usize = 12;
/// As much of a column as is shown.
const LONGEST: usize = 20;

/// How wide the output may be: as the terminal, else as COLUMNS says, else 80.
pub(crate) fn width() -> usize {
    let terminal = Term::stdout();
    let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
    match terminal.size_checked() {
        Some((_, width)) if terminal.is_term() => usize::from(width),
        _ => columns().unwrap_or(80),
    }
}

/// The tasks of a board by status.
pub(crate) struct Columns(Vec<(&'static str, Color, Vec<Task>)>);

impl Columns {
    pub(crate) fn of(tasks: Vec<Task>) -> Self {
        let mut columns: Vec<_> =
            STATUSES.iter().map(|(_, heading, colour)| (*heading, *colour, Vec::new())).collect();
        for task in tasks {
            if let Some(nth) = STATUSES.iter().position(|(status, ..)| *status == task.status) {
                columns[nth].2.push(task);
            }
        }
        Self(columns)
    }

    /// The columns, no line wider than `width`.
    pub(crate) fn text(&self, width: usize, has_colours: bool) -> String {
        let side_by_side = (width + GAP) / self.0.len();
        if side_by_side >= NARROWEST + GAP {
            let columns: Vec<_> = self.0.iter().collect();
            return row(&columns, side_by_side - GAP, has_colours);
        }
        let one_by_one = self.0.iter().map(|column| row(&[column], width.max(1), has_colours));
        one_by_one.collect::<Vec<_>>().join("\n")
    }
}

/// Columns side by side, each so wide.
fn row(columns: &[&(&str, Color, Vec<Task>)], width: usize, has_colours: bool) -> String {
    let lines: Vec<Vec<String>> = columns
        .iter()
        .map(|(heading, colour, tasks)| {
            let style = Style::new().fg(*colour).bold().force_styling(has_colours);
            let heading = fit(&format!("{heading} ({})", tasks.len()), width);
            let mut lines = vec![
                style.apply_to(heading).to_string(),
                style.apply_to("\u{2500}".repeat(width)).to_string(),
            ];
            // Of what is done, the last is the most interesting; of what waits, the first.
            let hidden = tasks.len().saturating_sub(LONGEST);
            let is_over = matches!(*colour, Color::Green | Color::Red);
            let shown = if is_over { &tasks[hidden..] } else { &tasks[..tasks.len() - hidden] };
            for task in shown {
                let worker = task.worker.as_ref().filter(|_| task.status == "running");
                let worker = worker.map(|worker| format!(" \u{2190} {worker}")).unwrap_or_default();
                let title = task.title.replace(char::is_control, " ");
                lines.push(fit(&format!("{} {title}{worker}", task.id), width));
            }
            if hidden > 0 {
                lines.push(fit(&format!("and {hidden} more"), width));
            }
            lines
        })
        .collect();
    let height = lines.iter().map(Vec::len).max().unwrap_or(0);
    let mut text = String::new();
    for nth in 0..height {
        let cells = lines.iter().map(|column| {
            let cell = column.get(nth).map_or("", String::as_str);
            // By what is seen, which colours are not.
            format!("{cell}{}", " ".repeat(width.saturating_sub(measure_text_width(cell))))
        });
        let line = cells.collect::<Vec<_>>().join(&" ".repeat(GAP));
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// As much of a text as fits.
fn fit(text: &str, width: usize) -> String {
    pad_str(&truncate_str(text, width, "\u{2026}"), width, console::Alignment::Left, None)
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: i64, title: &str, status: &str, worker: Option<&str>) -> Task {
        let worker = worker.map(str::to_owned);
        Task { id, title: title.to_owned(), status: status.to_owned(), worker }
    }

    fn board() -> Columns {
        Columns::of(vec![
            task(1, "write the plan", "done", Some("worker-1")),
            task(2, "build", "running", Some("worker-2")),
            task(3, "a title that is too long for its column", "ready", None),
            task(4, "\u{6f22}\u{5b57} are wide, \u{1b}[31mand no colour\n", "ready", None),
            task(5, "break", "failed", Some("worker-1")),
        ])
    }

    #[test]
    fn columns_stand_side_by_side() {
        let expected = "\
Ready (2)            Running (1)          Done (1)             Failed (1)
-------------------  -------------------  -------------------  -------------------
3 a title that is \u{2026}  2 build \u{2190} worker-2   1 write the plan     5 break
4 \u{6f22}\u{5b57} are wide,  \u{2026}
";
        assert_eq!(board().text(82, false).replace('\u{2500}', "-"), expected);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [1, 5, 20, 54, 55, 80, 200] {
            for line in board().text(width, true).lines() {
                assert!(measure_text_width(line) <= width, "{width}: {line:?}");
            }
        }
    }

    #[test]
    fn a_narrow_terminal_has_them_one_below_the_other() {
        let text = board().text(30, false);
        let headings: Vec<_> = text.lines().filter(|line| line.ends_with(')')).collect();
        assert_eq!(headings, ["Ready (2)", "Running (1)", "Done (1)", "Failed (1)"], "{text}");
    }

    /// A title may hold anything, the terminal's own commands too: they are no colours.
    #[test]
    fn colours_are_ours_only() {
        assert!(!board().text(80, false).contains('\u{1b}'));
        let text = board().text(80, true);
        assert!(text.contains("\u{1b}[33m") && !text.contains("\u{1b}[31mand"), "{text:?}");
    }

    #[test]
    fn a_long_column_says_how_much_is_left_out() {
        let tasks = |status| (1..=25).map(move |id| task(id, "t", status, None)).collect();
        let ready = Columns::of(tasks("ready")).text(80, false);
        assert!(ready.contains("1 t") && ready.contains("and 5 more") && !ready.contains("25 t"));
        let done = Columns::of(tasks("done")).text(80, false);
        assert!(done.contains("25 t") && done.contains("Done (25)"));
    }
}
