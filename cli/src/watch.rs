//! `watch`: what an outsider sees of a board, live.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kanban_vfs::observation::{Judgement, Observation};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table};
use ratatui::{DefaultTerminal, Frame};

use crate::facts::Facts;
use crate::{Result, json, observe, observe_board, printable, status, text};

/// How often to look at the board. It is more often than the display changes, to count hand-overs.
const LOOK: Duration = Duration::from_millis(20);
/// The time over which rates are computed.
const WINDOW: Duration = Duration::from_secs(5);

/// How many updates a curve shows.
const MOMENTS: usize = 300;

/// What was seen so far.
struct Seen {
    /// The state at the last moment that was shown.
    now: Result<Facts>,
    /// The longest wait between two shown moments, in ms, and the WAL's size in bytes, the newest
    /// first.
    waits: VecDeque<u64>,
    wals: VecDeque<u64>,
    wait_since: Duration,
    /// The process id of the last holder, and when it took the lock.
    holder: Option<(u32, Instant)>,
    /// When each change of the holder was seen.
    hand_overs: VecDeque<Instant>,
    /// The size of the WAL over time.
    wal: VecDeque<(Instant, u64)>,
    longest_wait: Duration,
    longest_hold: Duration,
    began: Instant,
}

impl Seen {
    fn new(first: Observation) -> Self {
        let mut seen = Self {
            now: Err("".into()),
            waits: VecDeque::new(),
            wals: VecDeque::new(),
            wait_since: Duration::ZERO,
            holder: None,
            hand_overs: VecDeque::new(),
            wal: VecDeque::new(),
            longest_wait: Duration::ZERO,
            longest_hold: Duration::ZERO,
            began: Instant::now(),
        };
        seen.note(&first);
        seen.show(Ok(first));
        // The holder at the first look is not a hand-over.
        seen.hand_overs.clear();
        seen
    }

    /// Takes an observation, which is shown from now on.
    fn show(&mut self, now: Result<Observation>) {
        self.now = now.map(Facts::of);
        let Ok(now) = &self.now else { return };
        let waited = now.longest_wait().max(std::mem::take(&mut self.wait_since));
        self.waits.push_front(waited.as_millis() as u64);
        self.wals.push_front(now.seen.sizes.wal.unwrap_or(0));
        self.waits.truncate(MOMENTS);
        self.wals.truncate(MOMENTS);
    }

    /// Notes a look between the shown moments.
    fn note(&mut self, now: &Observation) {
        let at = Instant::now();
        if let Some(holder) = &now.holder {
            let since = at.checked_sub(holder.held).unwrap_or(at);
            // The time is exact to the ms.
            let is_same = self.holder.is_some_and(|(pid, before)| {
                pid == holder.pid
                    && since.saturating_duration_since(before) < Duration::from_millis(3)
            });
            if !is_same {
                self.hand_overs.push_back(at);
                self.holder = Some((holder.pid, since));
            }
            self.longest_hold = self.longest_hold.max(holder.held);
        }
        let waits = now.queue.iter().chain(&now.sqlite_waiters).map(|waiter| waiter.waited);
        self.wait_since = waits.fold(self.wait_since, Duration::max);
        self.longest_wait = self.longest_wait.max(self.wait_since);
        self.wal.push_back((at, now.sizes.wal.unwrap_or(0)));
        let is_old = |then: &Instant| at.duration_since(*then) > WINDOW;
        while self.hand_overs.front().is_some_and(is_old) {
            self.hand_overs.pop_front();
        }
        while self.wal.front().is_some_and(|(then, _)| is_old(then)) {
            self.wal.pop_front();
        }
    }

    /// A JSON object for this moment.
    fn json(&self, board: &Path) -> serde_json::Value {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let mut said = match &self.now {
            Ok(facts) => json::status(facts),
            Err(error) => json::error(Some(board), error),
        };
        said["watch"] = serde_json::json!({
            "unix_ms": now.unwrap_or_default().as_millis() as u64,
            "hand_overs_per_s": self.hand_over_rate(),
            "wal_bytes_per_s": self.wal_growth(),
            "longest_wait_ms": self.longest_wait.as_millis() as u64,
            "longest_hold_ms": self.longest_hold.as_millis() as u64,
        });
        said
    }

    /// How many hand-overs per second were seen; there may have been more.
    fn hand_over_rate(&self) -> f64 {
        let window = self.began.elapsed().min(WINDOW).as_secs_f64().max(0.1);
        self.hand_overs.len() as f64 / window
    }

    /// How many bytes per second the WAL grows by.
    fn wal_growth(&self) -> f64 {
        match (self.wal.front(), self.wal.back()) {
            (Some((from, before)), Some((to, after))) if to > from => {
                (*after as f64 - *before as f64) / to.duration_since(*from).as_secs_f64()
            }
            _ => 0.0,
        }
    }

    fn rates(&self) -> String {
        let growth = self.wal_growth();
        let sign = if growth < 0.0 { "-" } else { "+" };
        format!(
            "{:.1} hand-overs/s seen, WAL {sign}{}/s",
            self.hand_over_rate(),
            text::bytes(growth.abs() as u64)
        )
    }
}

pub(crate) fn run(board: &Path, interval: u64, count: Option<u64>, as_json: bool) -> Result<bool> {
    let first = observe_board(board)?;
    let interval = Duration::from_millis(interval);
    let seen = Seen::new(first);
    if std::io::stdout().is_terminal() && !as_json {
        // Also restores the terminal after a panic.
        let mut terminal = ratatui::try_init()?;
        let result = live(board, interval, count, seen, &mut terminal);
        ratatui::try_restore()?;
        result?;
    } else {
        lines(board, interval, count, seen, as_json)?;
    }
    Ok(true)
}

/// Looks at the board until the next update is due, with a `pause` before each look. The last look
/// is for that update. False if a pause says to end.
fn look(
    board: &Path,
    seen: &mut Seen,
    interval: Duration,
    mut pause: impl FnMut(&Seen) -> Result<bool>,
) -> Result<bool> {
    let next = Instant::now() + interval;
    let mut last = None;
    while Instant::now() < next {
        if !pause(seen)? {
            return Ok(false);
        }
        last = Some(observe(board));
        if let Some(Ok(now)) = &last {
            seen.note(now);
        }
    }
    seen.show(last.unwrap_or_else(|| observe(board)));
    Ok(true)
}

/// Ends at q, Esc, Ctrl-C, or SIGTERM. (SIGHUP ends the process as usual: there is no terminal to
/// restore, and a wait for its keys would last for ever.)
fn live(
    board: &Path,
    interval: Duration,
    count: Option<u64>,
    mut seen: Seen,
    terminal: &mut DefaultTerminal,
) -> Result<()> {
    let is_over = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&is_over))?;
    let (mut shown, mut is_help) = (0, false);
    while count.is_none_or(|count| shown < count) {
        terminal.draw(|frame| draw(frame, board, &seen, is_help))?;
        shown += 1;
        let goes_on = look(board, &mut seen, interval, |seen| {
            if is_over.load(Ordering::Relaxed) {
                return Ok(false);
            }
            if !event::poll(LOOK)? {
                return Ok(true);
            }
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match key.code {
                    KeyCode::Char('?') => is_help = !is_help,
                    KeyCode::Esc if is_help => is_help = false,
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(false),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                        return Ok(false);
                    }
                    _ => return Ok(true),
                },
                Event::Resize(..) => {}
                _ => return Ok(true),
            }
            terminal.draw(|frame| draw(frame, board, seen, is_help))?;
            Ok(true)
        })?;
        if !goes_on {
            break;
        }
    }
    Ok(())
}

fn lines(
    board: &Path,
    interval: Duration,
    count: Option<u64>,
    mut seen: Seen,
    as_json: bool,
) -> Result<()> {
    let mut shown = 0;
    while count.is_none_or(|count| shown < count) {
        let line = match &seen.now {
            _ if as_json => seen.json(board).to_string(),
            Ok(now) => {
                let others: String = status::sqlite_writers(now)
                    .iter()
                    .map(|writer| format!(", but SQLite's own lock {writer}"))
                    .collect();
                format!(
                    "holder {}{others}; {} waiting; WAL {}; {}",
                    status::holder(now),
                    now.waiters(),
                    text::size(now.seen.sizes.wal),
                    seen.rates()
                )
            }
            Err(error) => error.to_string(),
        };
        let line = if as_json { line } else { printable(&line) };
        shown += 1;
        // The pipe is closed, which is a normal end.
        if !say_line(&line) || count == Some(shown) {
            break;
        }
        look(board, &mut seen, interval, |_| {
            std::thread::sleep(LOOK);
            Ok(true)
        })?;
    }
    Ok(())
}

/// Whether a line could be written to standard output.
fn say_line(line: &str) -> bool {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}").is_ok()
}

/// What `?` shows.
const HELP: &str = "\
holder: the process that has this VFS's write lock, and for how long
SQLite: who has SQLite's own lock for writing; a stock client, or one that goes without the write lock
waits: the longest wait since the moment before, over time, the newest on the left
WAL: the size of the WAL over time
reader: the oldest one, and how much of the WAL it keeps from being copied
queue: who waits for the write lock, the next one first; then, as -, who waits for SQLite's own
STOPPED: a signal has stopped it, kill -CONT lets it go on
rates: how often another process was seen to have the write lock, and how fast the WAL grows
?, Esc: back; q, Esc, Ctrl-C: end";

/// The width of a label in columns.
const LABEL: usize = 10;

fn draw(frame: &mut Frame<'_>, board: &Path, seen: &Seen, is_help: bool) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let alarm = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
    let width = usize::from(frame.area().width);
    let path = printable(&board.display().to_string());
    let name = match width > path.chars().count() + 24 {
        true => path,
        false => printable(&board.file_name().unwrap_or_default().to_string_lossy()),
    };
    let title = Line::styled(format!(" kanban-vfs watch {name} "), bold);
    let block = Block::bordered().title(title).title_bottom(" q quits, ? explains ");
    let area = block.inner(frame.area());
    frame.render_widget(block, frame.area());
    let width = usize::from(area.width);
    if is_help {
        let lines = HELP.lines().flat_map(|line| text::folded(line, width, 2));
        frame.render_widget(Paragraph::new(lines.map(Line::raw).collect::<Vec<_>>()), area);
        return;
    }
    let now = match &seen.now {
        Ok(now) => now,
        Err(error) => {
            let lines = text::folded(&printable(&error.to_string()), width, 0);
            let lines = lines.into_iter().map(|line| Line::styled(line, alarm));
            frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
            return;
        }
    };
    let mut top: Vec<Line<'_>> = Vec::new();
    let mut add = |label: &str, said: &str, style: Style| {
        let said = format!("{label:<LABEL$}{said}");
        top.extend(
            text::folded(&said, width, LABEL).into_iter().map(|line| Line::styled(line, style)),
        );
    };
    let plain = Style::new();
    let is_held = now.seen.holder.is_some() || now.seen.is_locked_by_a_stranger;
    let is_stopped = now.survey.holder.as_ref().is_some_and(|holder| holder.is_stopped());
    let style = if is_stopped {
        alarm
    } else if is_held {
        bold
    } else {
        plain
    };
    add("holder", &status::holder(now), style);
    for writer in status::sqlite_writers(now) {
        add("SQLite", &writer, bold);
    }
    let sizes = &now.seen.sizes;
    if width >= 78 {
        add("rates", &seen.rates(), plain);
        let (wait, hold) = (text::about(seen.longest_wait), text::about(seen.longest_hold));
        add("longest", &format!("wait {wait}, hold {hold} since this began"), plain);
        let said = format!(
            "database {}, WAL {}, wal-index {}, journal {}",
            text::bytes(sizes.database),
            text::size(sizes.wal),
            text::size(sizes.wal_index),
            text::size(sizes.journal)
        );
        add("sizes", &said, plain);
    } else {
        let (wait, hold) = (text::about(seen.longest_wait), text::about(seen.longest_hold));
        add("longest", &format!("wait {wait}, hold {hold}"), plain);
    }
    if let Some(reader) = now.readers().first() {
        let style =
            if now.wal_size().is_some_and(|size| size.is_trouble()) { alarm } else { plain };
        add("reader", &status::reader(now, reader), style);
    }
    if let Some(why) = now.wal_size().filter(|size| size.is_trouble()).and_then(status::why_large) {
        add("WAL", why, alarm);
    }
    for guarantee in &now.seen.guarantees {
        if let Judgement::Inactive(why) = &guarantee.judgement {
            add("!", &format!("{} does not hold: {why}", guarantee.name), alarm);
        }
    }
    // Leaves room for the curves and the head of the queue on a low terminal.
    let height = u16::try_from(top.len()).unwrap_or(u16::MAX).min(area.height.saturating_sub(5));
    let [above, waits, wals, below] = Layout::vertical([
        Constraint::Length(height),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(top), above);
    let longest = Duration::from_millis(seen.waits.front().copied().unwrap_or(0));
    curve(frame, waits, "waits", &text::about(longest), &seen.waits);
    curve(frame, wals, "WAL", &text::size(sizes.wal), &seen.wals);
    frame.render_widget(queue(now, width), below);
}

/// A line with a label, the newest number, and the numbers over time.
fn curve(frame: &mut Frame<'_>, area: Rect, label: &str, newest: &str, over_time: &VecDeque<u64>) {
    let said = format!("{label:<LABEL$}{newest:<11}");
    let width = u16::try_from(said.chars().count()).unwrap_or(u16::MAX);
    let [left, right] =
        Layout::horizontal([Constraint::Length(width), Constraint::Min(0)]).areas(area);
    frame.render_widget(Paragraph::new(said), left);
    let data: Vec<u64> = over_time.iter().copied().collect();
    frame.render_widget(Sparkline::default().data(data), right);
}

/// The waiters. The most important columns come first; those without room are left out.
fn queue(now: &Facts, width: usize) -> Table<'static> {
    let is_wide = width >= 60;
    let ours = now.seen.queue.iter().zip(&now.survey.queue).enumerate();
    let ours = ours.map(|(nth, waiter)| ((nth + 1).to_string(), waiter));
    let others = now.seen.sqlite_waiters.iter().zip(&now.survey.sqlite_waiters);
    let rows = ours.chain(others.map(|waiter| ("-".to_owned(), waiter))).map(
        |(nth, (waiter, process))| {
            let pid = process.as_ref().map_or(waiter.pid, |process| process.pid);
            let is_stopped = process.as_ref().is_some_and(|process| process.is_stopped());
            let state = if is_stopped { "STOPPED" } else { status::state(waiter) };
            let command = process.as_ref().and_then(|process| process.command.clone());
            let mut cells = vec![
                Cell::new(nth),
                Cell::new(pid.to_string()),
                Cell::new(text::about(waiter.waited)),
                Cell::new(state),
            ];
            if is_wide {
                cells.push(Cell::new(command.unwrap_or_else(|| waiter.program.clone())));
            }
            Row::new(cells)
        },
    );
    let mut widths = vec![
        Constraint::Length(4),
        Constraint::Length(8),
        Constraint::Length(11),
        Constraint::Min(10),
    ];
    let mut names = vec!["#", "pid", "waited", ""];
    if is_wide {
        widths[3] = Constraint::Length(16);
        widths.push(Constraint::Min(10));
        names.push("command");
    }
    let header = Row::new(names).style(Style::new().add_modifier(Modifier::REVERSED));
    let queue = format!("queue: {} waiting", now.waiters());
    Table::new(rows, widths).header(header).block(Block::new().title(queue))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    /// The board is deleted while it is watched: the watcher says so and goes on.
    #[test]
    fn a_board_that_is_gone_is_said_to_be() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let board = directory.path().join("board.db");
        std::fs::write(&board, "")?;
        let mut seen = Seen::new(observe(&board)?);
        let mut terminal = Terminal::new(TestBackend::new(80, 12))?;
        terminal.draw(|frame| draw(frame, &board, &seen, false))?;
        assert!(terminal.backend().to_string().contains("holder    nobody"));
        std::fs::remove_file(&board)?;
        seen.show(observe(&board));
        terminal.draw(|frame| draw(frame, &board, &seen, false))?;
        assert!(terminal.backend().to_string().contains("no such file"));
        Ok(())
    }
}
