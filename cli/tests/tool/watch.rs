//! An operator watches a board in a terminal, tmux's.

use std::path::Path;
use std::process::Command;

use vfs_tests::{Board, run};

use crate::{TOOL, board, client, holder_and_waiter, outcome, signal, until};

/// A terminal with a shell that runs `watch`; ended when dropped.
struct Terminal {
    socket: String,
    /// With the socket: a server that was told to end may still have that of the terminal before.
    _directory: tempfile::TempDir,
}

impl Terminal {
    fn watching(board: &Board) -> Self {
        Self::of_size(board, 100, 24)
    }

    fn of_size(board: &Board, columns: u32, rows: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("tmux").display().to_string();
        let terminal = Self { socket, _directory: directory };
        let script = format!(
            "echo a line before; stty -a | md5sum > {before}; {TOOL} watch {}; echo ended with $?; \
             stty -a | md5sum > {after}; cmp {before} {after} && echo as before; sleep 60",
            board.path().display(),
            before = board.directory().join("before").display(),
            after = board.directory().join("after").display(),
        );
        let [columns, rows] = [columns, rows].map(|n| n.to_string());
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &rows,
            &script,
        ]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        run("tmux", &[&["-S", &self.socket], arguments].concat())
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    #[track_caller]
    fn until(&self, words: &str) -> String {
        until(|| self.screen(), |screen| screen.contains(words))
    }

    /// The process id of the tool, the shell's child.
    fn tool(&self) -> String {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        std::fs::read_to_string(
            Path::new("/proc").join(shell).join("task").join(shell).join("children"),
        )
        .unwrap()
        .trim()
        .to_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-S", &self.socket, "kill-server"]).status();
    }
}

/// A holder, a waiter, and then neither; and however the tool ends, the terminal has its lines and its
/// settings back.
#[test]
fn it_shows_the_holder_live_and_leaves_the_terminal_whole() {
    vfs_tests::needs!("tmux");
    let board = board();
    let [mut holder, mut waiter] = holder_and_waiter(&board);
    for end in ["q", "C-c", "SIGTERM"] {
        let terminal = Terminal::watching(&board);
        let screen = terminal.until("queue: 1 waiting");
        assert!(screen.contains(&format!("holder    pid {} (python3", holder.pid())), "{screen}");
        assert!(screen.contains(&waiter.pid().to_string()), "{screen}");
        assert!(!screen.contains("a line before"), "{screen}");
        match end {
            "SIGTERM" => signal(&terminal.tool(), libc::SIGTERM),
            key => drop(terminal.tmux(&["send-keys", key])),
        }
        let screen = terminal.until("ended with");
        assert!(screen.contains("a line before"), "{screen}");
        assert!(screen.contains("ended with 0"), "{screen}");
        assert!(!screen.contains("queue:"), "{screen}");
        terminal.until("as before");
    }
    let terminal = Terminal::watching(&board);
    terminal.until("queue: 1 waiting");
    holder.sql("c", "COMMIT").rows();
    waiter.reply().rows();
    terminal.until(&format!("holder    pid {}", waiter.pid()));
    waiter.kill();
    terminal.until("holder    nobody");
    // The terminal goes, and with it the tool.
    let tool = Path::new("/proc").join(terminal.tool());
    assert!(tool.exists());
    drop(terminal);
    until(|| tool.exists().to_string(), |exists| exists == "false");
}

/// Without a terminal there is a line for each interval. Nobody hands over the lock of a stuck board.
#[test]
fn it_writes_lines_without_a_terminal() {
    let board = board();
    let mut holder = client(&board, "kanban");
    holder.sql("c", "BEGIN IMMEDIATE").rows();
    let (code, out, errors) = outcome(&[&"watch", &board.path(), &"--interval=50", &"--count=3"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert_eq!(out.lines().count(), 3, "{out}");
    for line in out.lines() {
        assert!(line.starts_with(&format!("holder pid {} (python3", holder.pid())), "{line}");
        assert!(line.contains("0 waiting; WAL ") && line.contains("; 0.0 hand-overs/s"), "{line}");
    }
    assert!(!out.contains('\u{1b}'), "{out:?}");
}

/// A corner of a screen, or a telephone: 40 columns. The holder and for how long, who is stopped, who waits and the curves are
/// there, nothing is cut in the middle of a word, and `?` explains it, until it is pressed again.
#[test]
fn forty_columns_are_enough() {
    vfs_tests::needs!("tmux");
    let board = board();
    let mut holder = client(&board, "kanban");
    holder.sql("c", "INSERT INTO tasks (title) VALUES ('a WAL'); BEGIN IMMEDIATE").rows();
    let mut waiter = client(&board, "kanban");
    waiter.send_sql("c", "BEGIN IMMEDIATE");
    let terminal = Terminal::of_size(&board, 40, 30);
    terminal.until("queue: 1 waiting");
    // The last line: the screen is drawn from its top.
    let screen = terminal.until("? explains");
    assert!(
        screen.contains(&format!("holder    pid {} (python3), for ", holder.pid())),
        "{screen}"
    );
    assert!(screen.contains("? explains"), "{screen}");
    assert!(screen.lines().all(|line| line.chars().count() <= 40), "{screen}");
    let row = |screen: &str| {
        let of_waiter = |line: &&str| line.contains(&waiter.pid().to_string());
        screen.lines().find(of_waiter).unwrap_or_else(|| panic!("{screen}")).to_owned()
    };
    assert!(row(&screen).contains("waits"), "{screen}");
    // The newest moment is the highest so far: the wait goes on.
    let curve = |name: &str| {
        let screen = terminal.screen();
        screen.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned()
    };
    until(|| curve("waits  "), |line| line.contains('\u{2588}') && line.contains(" s "));
    assert!(curve("WAL  ").contains('\u{2588}'), "{}", terminal.screen());

    terminal.tmux(&["send-keys", "?"]);
    let help = terminal.until("STOPPED: a signal has stopped");
    assert!(help.contains("Ctrl-C: end") && !help.contains("queue: 1 waiting"), "{help}");
    terminal.tmux(&["send-keys", "?"]);
    terminal.until("queue: 1 waiting");

    signal(&holder.pid().to_string(), libc::SIGSTOP);
    signal(&waiter.pid().to_string(), libc::SIGSTOP);
    let screen = until(|| terminal.screen(), |screen| screen.matches("STOPPED").count() == 2);
    assert!(row(&screen).contains("STOPPED"), "{screen}");
}
