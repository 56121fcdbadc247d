//! Applications in Ruby, PHP and Perl that nobody can change, from Debian's packages: their modules link libsqlite3, and are
//! loaded when the program runs. Started with `libkanban_vfs_preload.so`, each of their processes is on this VFS.

use std::path::Path;

use vfs_tests::needs::{PERL, PHP, RUBY};
use vfs_tests::{Board, needs};

use crate::unchanged::{command, said};

/// A language: its interpreter and its programs. `$1` or its like is the directory of the boards.
struct Language {
    interpreter: &'static str,
    /// Works in the first process, in a forked child, and in a program that a shell starts.
    holds: &'static str,
    /// Four children add 25 to a number, one at a time: each reads it and writes it back in a transaction that BEGIN begins.
    counts: &'static str,
}

const RUBY_PROGRAMS: Language = Language {
    interpreter: "ruby",
    holds: include_str!("../../src/languages/holds.rb"),
    counts: include_str!("../../src/languages/counts.rb"),
};

const PHP_PROGRAMS: Language = Language {
    interpreter: "php",
    holds: include_str!("../../src/languages/holds.php"),
    counts: include_str!("../../src/languages/counts.php"),
};

const PERL_PROGRAMS: Language = Language {
    interpreter: "perl",
    holds: include_str!("../../src/languages/holds.pl"),
    counts: include_str!("../../src/languages/counts.pl"),
};

/// Runs a program of a language, with or without the library. Returns its output.
fn run(language: &Language, program: &str, place: &Path, is_preloaded: bool) -> String {
    let script = place.join("program");
    std::fs::write(&script, program).unwrap();
    let mut interpreter = command(Path::new(language.interpreter), is_preloaded);
    interpreter.arg(&script).arg(place).env("STRANGER", "env -u LD_PRELOAD sqlite3");
    interpreter.env("KANBAN_REQUIRE", "1").env("KANBAN_BEGIN", "immediate");
    let (out, errors) = said(interpreter.output().unwrap());
    assert_eq!(errors, "");
    out
}

/// Each process of a language begins to write, and looks at a file of its board, whose close drops the process's POSIX locks.
/// On the stock VFS an outsider then writes into its transaction. On ours the outsider is refused.
fn each_process_is_reached(language: &Language) {
    for (is_preloaded, outcome) in [(false, "broke in"), (true, "refused")] {
        let place = tempfile::tempdir().unwrap();
        let out = run(language, language.holds, place.path(), is_preloaded);
        let expected = ["first", "fork", "program"].map(|name| format!("{name} {outcome}\n"));
        assert_eq!(out, expected.concat(), "{}", language.interpreter);
    }
}

/// Processes of a language read a number and write it back, in deferred transactions. On the stock VFS some are refused; on ours,
/// with `kanban_begin=immediate`, none is.
fn deferred_transactions_succeed(language: &Language) {
    for is_preloaded in [false, true] {
        let board = Board::new();
        let sql =
            "PRAGMA journal_mode=wal; CREATE TABLE total (n INTEGER); INSERT INTO total VALUES (0)";
        crate::connect(&board.stock()).execute_batch(sql).unwrap();
        let out = run(language, language.counts, &board.directory(), is_preloaded);
        let refused: i64 = out.trim().parse().unwrap();
        assert_eq!(refused == 0, is_preloaded, "{}: {refused}", language.interpreter);
        let query = crate::connect(&board.stock());
        let total: i64 = query.query_row("SELECT n FROM total", [], |row| row.get(0)).unwrap();
        assert_eq!(total, 100 - refused, "{}", language.interpreter);
    }
}

/// Ruby's sqlite3.
#[test]
fn an_application_in_ruby_is_reached() {
    needs!(RUBY, "sqlite3");
    each_process_is_reached(&RUBY_PROGRAMS);
    deferred_transactions_succeed(&RUBY_PROGRAMS);
}

/// A busy handler in Ruby raises an exception, as a time limit does while it sleeps. The exception jumps over SQLite and the
/// VFS. The VFS calls handlers where SQLite does not: when SQLite has read which commits there are, but has not dropped its
/// older pages yet. The connection still sees what others have committed, and writes on top of that, as on the stock VFS.
#[test]
fn an_exception_out_of_a_busy_handler_leaves_no_old_pages() {
    needs!(RUBY);
    for is_preloaded in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let program = include_str!("../../src/languages/raises.rb");
        let out = run(&RUBY_PROGRAMS, program, place.path(), is_preloaded);
        let expected =
            "immediate: it has given up\n1 more\ndeferred: it has given up\n1 more\n403\nok\n";
        assert_eq!(out, expected, "preloaded: {is_preloaded}");
    }
}

/// PHP's SQLite3 and PDO, whose libraries PHP loads with `RTLD_DEEPBIND`.
#[test]
fn an_application_in_php_is_reached() {
    needs!(PHP, "sqlite3");
    each_process_is_reached(&PHP_PROGRAMS);
    deferred_transactions_succeed(&PHP_PROGRAMS);
}

/// Perl's DBI and DBD::SQLite.
#[test]
fn an_application_in_perl_is_reached() {
    needs!(PERL, "sqlite3");
    each_process_is_reached(&PERL_PROGRAMS);
    deferred_transactions_succeed(&PERL_PROGRAMS);
}

/// PHP's class SQLite3 takes a URI for the name of a file. So it can name no VFS, and only the default one counts. PDO takes
/// URIs, which can name another VFS.
#[test]
fn php_names_a_vfs_by_pdo_only() {
    needs!(PHP);
    let program = r#"<?php
chdir($argv[1]);
$board = new SQLite3("file:board.db?vfs=unix");
$board->exec("CREATE TABLE tasks (n)");
echo is_string($board->querySingle("PRAGMA kanban_status")) ? "ours" : "another", "\n";
echo file_exists("$argv[1]/file:board.db?vfs=unix") ? "by that name" : "by another name", "\n";
foreach (["sqlite:file:pdo.db?vfs=unix", "sqlite:file:pdo.db", "sqlite:pdo.db"] as $name) {
    echo is_string((new PDO($name))->query("PRAGMA kanban_status")->fetchColumn()) ? "ours" : "another", "\n";
}
"#;
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("program"), program).unwrap();
    let mut php = command(Path::new("php"), true);
    php.arg(place.path().join("program")).arg(place.path());
    let (out, errors) = said(php.output().unwrap());
    assert_eq!((out.as_str(), errors.as_str()), ("ours\nby that name\nanother\nours\nours\n", ""));
}
