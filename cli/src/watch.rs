//! `watch`: what an outsider sees of a board, live.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kanban_vfs::observation::{Judgement, Lockers, Observation};
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table};

use crate::{Result, observe, observe_board, status, text};

/// How often it looks, for hand-overs that the shown moments would miss.
const LOOK: Duration = Duration::from_millis(20);
/// Rates are of so long.
const WINDOW: Duration = Duration::from_secs(5);

/// What was seen so far.
struct Seen {
    now: Result<Observation>,
    /// Process id of the last holder and when it took the lock.
    holder: Option<(u32, Instant)>,
    /// When it was seen that another holder had come.
    hand_overs: VecDeque<Instant>,
    /// The size of the WAL over time.
    wal: VecDeque<(Instant, u64)>,
    /// Who keeps the lock of a holder that is gone, and when that was found out.
    keepers: Option<(u32, Option<Lockers>, Instant)>,
    longest_wait: Duration,
    longest_hold: Duration,
    began: Instant,
}

impl Seen {
    fn new(first: Observation) -> Self {
        let mut seen = Self {
            now: Err("".into()),
            holder: None,
            hand_overs: VecDeque::new(),
            wal: VecDeque::new(),
            keepers: None,
            longest_wait: Duration::ZERO,
            longest_hold: Duration::ZERO,
            began: Instant::now(),
        };
        seen.take(Ok(first));
        // Whoever has the lock at the first look was not seen to come.
        seen.hand_overs.clear();
        seen
    }

    fn take(&mut self, now: Result<Observation>) {
        let at = Instant::now();
        if let Ok(now) = &now {
            self.look_for_keepers(now, at);
            if let Some(holder) = &now.holder {
                let since = at.checked_sub(holder.held).unwrap_or(at);
                // The time is known to the ms.
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
            let waits = now.queue.iter().map(|waiter| waiter.waited);
            self.longest_wait = waits.fold(self.longest_wait, Duration::max);
            self.wal.push_back((at, now.sizes.wal.unwrap_or(0)));
        }
        self.now = now;
        let is_old = |then: &Instant| at.duration_since(*then) > WINDOW;
        while self.hand_overs.front().is_some_and(is_old) {
            self.hand_overs.pop_front();
        }
        while self.wal.front().is_some_and(|(then, _)| is_old(then)) {
            self.wal.pop_front();
        }
    }

    /// Once a second: it is a look into all processes.
    fn look_for_keepers(&mut self, now: &Observation, at: Instant) {
        let Some(holder) = now.holder.as_ref().filter(|holder| holder.is_gone) else {
            self.keepers = None;
            return;
        };
        let is_known = self.keepers.as_ref().is_some_and(|(pid, _, then)| {
            *pid == holder.pid && at.duration_since(*then) < Duration::from_secs(1)
        });
        if !is_known {
            self.keepers = Some((holder.pid, now.keepers(status::LOOK), at));
        }
    }

    fn holder(&self, now: &Observation) -> String {
        status::holder(now, self.keepers.as_ref().and_then(|(_, keepers, _)| keepers.as_ref()))
    }

    /// Hand-overs per second that were seen; there may have been more.
    fn hand_over_rate(&self) -> f64 {
        let window = self.began.elapsed().min(WINDOW).as_secs_f64().max(0.1);
        self.hand_overs.len() as f64 / window
    }

    /// By how many bytes per second the WAL grows.
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

pub(crate) fn run(board: &Path, interval: u64, count: Option<u64>) -> Result<bool> {
    let first = observe_board(board)?;
    let interval = Duration::from_millis(interval);
    let seen = Seen::new(first);
    if std::io::stdout().is_terminal() {
        // Puts the terminal back also when it panics.
        let mut terminal = ratatui::try_init()?;
        let result = live(board, interval, count, seen, |draw| {
            terminal.draw(|frame| draw(frame))?;
            Ok(())
        });
        ratatui::try_restore()?;
        result?;
    } else {
        lines(board, interval, count, seen)?;
    }
    Ok(true)
}

/// Ends at q, Esc, Ctrl-C, SIGTERM. (SIGHUP ends the process as ever: there is no terminal any more
/// that could be put back, and what waits for its keys would wait for ever.)
fn live(
    board: &Path,
    interval: Duration,
    count: Option<u64>,
    mut seen: Seen,
    mut show: impl FnMut(&dyn Fn(&mut Frame<'_>)) -> Result<()>,
) -> Result<()> {
    let is_over = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&is_over))?;
    let mut shown = 0;
    while count.is_none_or(|count| shown < count) {
        show(&|frame| draw(frame, board, &seen))?;
        shown += 1;
        let next = Instant::now() + interval;
        while Instant::now() < next {
            if is_over.load(Ordering::Relaxed) {
                return Ok(());
            }
            if event::poll(LOOK)? {
                match event::read()? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => {
                        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
                        match key.code {
                            KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                            KeyCode::Char('c') if is_control => return Ok(()),
                            _ => {}
                        }
                    }
                    Event::Resize(..) => break,
                    _ => {}
                }
            }
            seen.take(observe(board));
        }
    }
    Ok(())
}

fn lines(board: &Path, interval: Duration, count: Option<u64>, mut seen: Seen) -> Result<()> {
    use std::io::Write;
    let mut shown = 0;
    while count.is_none_or(|count| shown < count) {
        let line = match &seen.now {
            Ok(now) => format!(
                "holder {}; {} waiting; WAL {}; {}",
                seen.holder(now),
                now.queue.len(),
                text::size(now.sizes.wal),
                seen.rates()
            ),
            Err(error) => error.to_string(),
        };
        // Nobody listens any more: as good an end as any.
        if writeln!(std::io::stdout(), "{line}").is_err() {
            return Ok(());
        }
        shown += 1;
        let next = Instant::now() + interval;
        while Instant::now() < next && count.is_none_or(|count| shown < count) {
            std::thread::sleep(LOOK);
            seen.take(observe(board));
        }
    }
    Ok(())
}

fn draw(frame: &mut Frame<'_>, board: &Path, seen: &Seen) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let alarm = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
    let title = Line::styled(format!(" kanban-vfs watch {} ", board.display()), bold);
    let block = Block::bordered().title(title).title_bottom(" q quits ");
    let area = block.inner(frame.area());
    frame.render_widget(block, frame.area());
    let now = match &seen.now {
        Ok(now) => now,
        Err(error) => {
            frame.render_widget(Paragraph::new(Line::styled(error.to_string(), alarm)), area);
            return;
        }
    };
    let sizes = &now.sizes;
    let mut top = vec![
        Line::raw(format!("holder    {}", seen.holder(now))),
        Line::raw(format!("rates     {}", seen.rates())),
        Line::raw(format!(
            "longest   wait {}, hold {} since this began",
            text::about(seen.longest_wait),
            text::about(seen.longest_hold)
        )),
        Line::raw(format!(
            "sizes     database {}, WAL {}, wal-index {}, journal {}",
            text::bytes(sizes.database),
            text::size(sizes.wal),
            text::size(sizes.wal_index),
            text::size(sizes.journal)
        )),
    ];
    if now.holder.is_some() || now.is_locked_by_a_stranger {
        top[0] = top[0].clone().style(bold);
    }
    for guarantee in &now.guarantees {
        if let Judgement::Inactive(why) = &guarantee.judgement {
            top.push(Line::styled(format!("{} does not hold: {why}", guarantee.name), alarm));
        }
    }
    let height = u16::try_from(top.len()).unwrap_or(u16::MAX);
    let [above, below] =
        Layout::vertical([Constraint::Length(height + 1), Constraint::Min(0)]).areas(area);
    frame.render_widget(Paragraph::new(top), above);
    let rows = now.queue.iter().enumerate().map(|(nth, waiter)| {
        Row::new([
            Cell::new(format!("{}", nth + 1)),
            Cell::new(waiter.pid.to_string()),
            Cell::new(waiter.program.clone()),
            Cell::new(text::about(waiter.waited)),
            Cell::new(status::state(waiter)),
        ])
    });
    let widths = [
        Constraint::Length(4),
        Constraint::Length(9),
        Constraint::Length(14),
        Constraint::Length(12),
        Constraint::Min(10),
    ];
    let header = Row::new(["#", "pid", "program", "waited", ""])
        .style(Style::new().add_modifier(Modifier::REVERSED));
    let queue = format!("queue: {} waiting", now.queue.len());
    let table = Table::new(rows, widths).header(header).block(Block::new().title(queue));
    frame.render_widget(table, below);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    /// The board is deleted under the watcher: it says so and goes on.
    #[test]
    fn a_board_that_is_gone_is_said_to_be() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let board = directory.path().join("board.db");
        std::fs::write(&board, "")?;
        let mut seen = Seen::new(observe(&board)?);
        let mut terminal = Terminal::new(TestBackend::new(80, 12))?;
        terminal.draw(|frame| draw(frame, &board, &seen))?;
        assert!(terminal.backend().to_string().contains("holder    nobody"));
        std::fs::remove_file(&board)?;
        seen.take(observe(&board));
        terminal.draw(|frame| draw(frame, &board, &seen))?;
        assert!(terminal.backend().to_string().contains("no such file"));
        Ok(())
    }
}
