//! Somebody starts an application that he cannot change.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use vfs_tests::{Board, PYTHON, extension, is_root, needs, preload, run};

use crate::{TOOL, outcome};

/// `kanban-vfs run`, with the libraries of this tree.
fn run_command(options: &[&str], command: &[&str]) -> Command {
    let mut tool = Command::new("timeout");
    tool.args(["100", TOOL, "run", "--libraries"]).arg(preload().parent().unwrap());
    tool.args(options).arg("--").args(command);
    without_ours(&mut tool);
    tool
}

/// Without what `run` sets.
fn without_ours(tool: &mut Command) {
    let ours = |name: &String| name.starts_with("KANBAN_");
    for name in std::env::vars().map(|(name, _)| name).filter(ours) {
        tool.env_remove(name);
    }
    tool.env_remove("LD_PRELOAD").env_remove("NODE_OPTIONS");
}

/// Its exit status, output and errors, but for what it says of a tree that is not everybody's to read.
fn done(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let errors = text(&output.stderr);
    let errors = errors.split_inclusive('\n').filter(|line| !line.contains(PRIVATE)).collect();
    (output.status.code(), text(&output.stdout), errors)
}

/// What it says of libraries that only some users may read.
const PRIVATE: &str = "not every user may read it";

/// A shell starts a shell that starts SQLite's shell: its connection, which names no VFS, is on this one, with the options
/// that were asked for. Its arguments, its exit status and its process id are its own.
#[test]
fn an_application_is_on_the_vfs() {
    needs!("sqlite3");
    let board = Board::new();
    let sql = "PRAGMA busy_timeout; PRAGMA kanban_status";
    let script = format!("sh -c 'sqlite3 \"$0\" \"{sql}\"' \"$0\"; echo \"$@\"; exit 7");
    let options = ["--busy-timeout=1234", "--persist-wal", "--file-ahead=0"];
    let path = board.path();
    let command = ["sh", "-c", &script, path.to_str().unwrap(), "--busy-timeout=1", "--"];
    let (code, out, errors) = done(&mut run_command(&options, &command));
    let lines: Vec<_> = out.lines().collect();
    assert_eq!((code, lines[0], lines[2]), (Some(7), "1234", "--busy-timeout=1 --"), "{errors}");
    let status: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(
        (&status["vfs"], &status["persist_wal"], &status["begin"]),
        (&"kanban/unix".into(), &true.into(), &"auto".into()),
        "{status}"
    );
    assert_eq!(errors, "");
    // Without it, that board's shell knows nothing of the VFS.
    assert_eq!(run("sqlite3", &[path.to_str().unwrap(), "PRAGMA kanban_status"]), "");
}

/// The variables that it sets are what the documents say, beside what is there already; a supervisor sees one process.
#[test]
fn it_becomes_the_application() {
    let names = "LD_PRELOAD NODE_OPTIONS KANBAN_VFS_DEFAULT KANBAN_REQUIRE KANBAN_GROUP_COMMIT KANBAN_BEGIN KANBAN_LOG";
    let script = format!("echo $$; for name in {names}; do eval echo \"\\$$name\"; done");
    let shown = |variables: &[(&str, &str)]| {
        let mut tool = Command::new(TOOL);
        without_ours(&mut tool);
        tool.args(["run", "--group-commit", "--log=lines", "--libraries"]);
        tool.arg(preload().parent().unwrap());
        tool.args(["sh", "-c", &script]).envs(variables.iter().copied());
        tool.stdout(std::process::Stdio::piped());
        let child = tool.spawn().unwrap();
        let pid = child.id().to_string();
        let out = child.wait_with_output().unwrap().stdout;
        let out = String::from_utf8(out).unwrap();
        let lines: Vec<_> = out.lines().map(str::to_owned).collect();
        assert_eq!(lines[0], pid);
        lines
    };
    let library = preload().canonicalize().unwrap().display().to_string();
    let other = extension().canonicalize().unwrap().display().to_string();
    let unset = [("LD_PRELOAD", ""), ("NODE_OPTIONS", "")];
    let lines = shown(&unset);
    assert_eq!(lines[1], library);
    assert!(lines[2].starts_with("--require \"") && lines[2].ends_with("node.js\""), "{lines:?}");
    let log = std::env::current_dir().unwrap().join("lines").display().to_string();
    assert_eq!(lines[3..], ["1", "1", "1", "auto", &log]);
    let set = [
        ("NODE_OPTIONS", "--no-deprecation"),
        ("KANBAN_REQUIRE", "0"),
        ("KANBAN_BEGIN", "deferred"),
        // It was run before, and another library must come first.
        ("LD_PRELOAD", &format!("{library} {other}")),
    ];
    let lines = shown(&set);
    assert_eq!((lines[1].as_str(), lines[4].as_str()), (&*format!("{other}:{library}"), "0"));
    assert_eq!(lines[6], "deferred");
    assert!(lines[2].ends_with("node.js\" --no-deprecation"), "{lines:?}");
}

/// A variable is misspelt: a line says that it means nothing, and the application is started.
#[test]
fn an_unknown_variable_is_reported() {
    let mut tool = run_command(&["--log=stderr"], &["sh", "-c", "echo $KANBAN_LOG"]);
    let (code, out, errors) =
        done(tool.env("KANBAN_BUSY_TIMEOT", "5000").env("KANBAN_HARD_LINKS", "1"));
    assert_eq!((code, out.as_str()), (Some(0), "stderr\n"));
    assert!(
        errors.starts_with("kanban-vfs: unknown variables: KANBAN_BUSY_TIMEOT; known: "),
        "{errors}"
    );
}

/// What it cannot do it says, and starts nothing.
#[test]
fn run_refuses_what_it_cannot_do() {
    let place = tempfile::tempdir().unwrap();
    let [spaced, dollar] = ["with a space", "$LIB"].map(|name| {
        let directory = place.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        for name in ["libkanban_vfs.so", "libkanban_vfs_preload.so"] {
            std::fs::write(directory.join(name), "").unwrap();
        }
        directory
    });
    for (arguments, why) in [
        (&["--libraries", "/nowhere", "true"][..], "are not in /nowhere: cargo build --release"),
        (&["--libraries", spaced.to_str().unwrap(), "true"], "no path with a space, a colon or"),
        (&["--libraries", dollar.to_str().unwrap(), "true"], "no path with a space, a colon or"),
        (
            &["--libraries", preload().parent().unwrap().to_str().unwrap(), "no-such"],
            "no-such: No such file",
        ),
        (&["--busy-timeout=soon", "true"], "--busy-timeout"),
        (&["--group-commit=on", "true"], "--group-commit"),
        (
            &["--libraries", preload().parent().unwrap().to_str().unwrap(), "--no-such", "true"],
            "--no-such: No such file",
        ),
        (&[], "required"),
    ] {
        let all: Vec<&dyn AsRef<std::ffi::OsStr>> = [&"run" as &dyn AsRef<_>]
            .into_iter()
            .chain(arguments.iter().map(|one| one as _))
            .collect();
        let (code, out, errors) = outcome(&all);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}: {errors}");
        assert!(errors.contains(why), "{arguments:?}: {errors}");
    }
}

/// ld.so preloads nothing for a program that is linked statically, or has the setuid bit: it runs
/// as before, and a line says that it is not protected.
#[test]
fn a_program_that_cannot_be_reached_is_reported() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("main.c");
    std::fs::write(&source, "int main(void) { return 3; }").unwrap();
    let program = place.path().join("main");
    let built = |how: &str| {
        run("cc", &[source.to_str().unwrap(), how, "-o", program.to_str().unwrap()]);
        done(&mut run_command(&[], &[program.to_str().unwrap()]))
    };
    let (code, _, errors) = built("-static");
    assert_eq!(code, Some(3));
    assert!(errors.contains("main: is linked statically: no library is preloaded"), "{errors}");
    // execvp(3) passes over a file on the PATH that nobody may execute, and takes the next one.
    let passed_over = place.path().join("first");
    std::fs::create_dir(&passed_over).unwrap();
    std::fs::copy(&program, passed_over.join("main")).unwrap();
    std::fs::set_permissions(passed_over.join("main"), PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(built("-O0"), (Some(3), String::new(), String::new()));
    let path = std::env::var_os("PATH").unwrap();
    let ours = [passed_over.clone(), place.path().to_owned()].into_iter();
    let path = std::env::join_paths(ours.chain(std::env::split_paths(&path))).unwrap();
    let found = done(run_command(&[], &["main"]).env("PATH", path));
    assert_eq!(found, (Some(3), String::new(), String::new()));
    // A FIFO is refused at once, though nobody writes to it.
    let fifo = place.path().join("fifo");
    run("mkfifo", &[fifo.to_str().unwrap()]);
    let (code, _, errors) = done(&mut run_command(&[], &[fifo.to_str().unwrap()]));
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("Permission denied"), "{errors}");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).unwrap();
    let (code, _, errors) = done(&mut run_command(&[], &[program.to_str().unwrap()]));
    assert_eq!(code, Some(3));
    assert!(errors.contains("has the setuid or setgid bit"), "{errors}");
}

/// Root starts an application that gives up its rights, with libraries that only root may read: a
/// Node of another user's would not start. A line says so.
#[test]
fn libraries_that_not_everybody_may_read_are_reported() {
    if !is_root() {
        return vfs_tests::skip!(
            vfs_tests::needs::missing(&[vfs_tests::needs::ROOT]).unwrap().as_str()
        );
    }
    let place = tempfile::tempdir().unwrap();
    for library in [preload(), extension()] {
        let copy = place.path().join(library.file_name().unwrap());
        std::fs::copy(library, &copy).unwrap();
        std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).unwrap();
    }
    for (mode, is_told) in [(0o700, true), (0o755, false)] {
        std::fs::set_permissions(place.path(), PermissionsExt::from_mode(mode)).unwrap();
        let mut tool = Command::new(TOOL);
        without_ours(&mut tool);
        let tool = tool.args(["run", "--libraries"]).arg(place.path()).arg("true");
        let errors = String::from_utf8(tool.output().unwrap().stderr).unwrap();
        assert_eq!(errors.contains(PRIVATE), is_told, "{errors}");
    }
}

/// In a program with the setuid bit, whose environment its caller chooses, nothing of this is loaded and nothing told.
#[test]
fn a_program_with_the_setuid_bit_is_left_alone() {
    if !is_root() {
        return vfs_tests::skip!(
            vfs_tests::needs::missing(&[vfs_tests::needs::ROOT]).unwrap().as_str()
        );
    }
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("main.c");
    let main = r#"
#include <stdio.h>
#include <string.h>
int main(void) {
    char line[1000];
    FILE *maps = fopen("/proc/self/maps", "r");
    if (!maps) return 1;
    while (fgets(line, sizeof line, maps)) if (strstr(line, "kanban")) return 2;
    return 5;
}
"#;
    std::fs::write(&source, main).unwrap();
    let program = place.path().join("main");
    run("cc", &[source.to_str().unwrap(), "-o", program.to_str().unwrap()]);
    let command = || done(Command::new(&program).env("LD_PRELOAD", preload()));
    assert_eq!(command().0, Some(2), "it is preloaded");
    // Root becomes somebody else by it.
    run("chown", &["65534", program.to_str().unwrap()]);
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).unwrap();
    let (code, _, errors) = command();
    assert!(matches!(code, Some(1 | 5)), "{code:?}");
    assert_eq!(errors, "");
}

/// Node has copies of SQLite of its own: better-sqlite3, required or imported, in the first process, in a worker thread and
/// in a child, and node:sqlite. `KANBAN_NODES` names nodes that have them, as for the documents; without it nothing is tried, and
/// `.ci/run` runs this test again when it has installed them.
#[test]
fn node_is_on_the_vfs() {
    let Ok(nodes) = std::env::var("KANBAN_NODES") else { return };
    let application = r#"
import { createRequire, isBuiltin } from 'node:module';
import { fork } from 'node:child_process';
import { Worker, isMainThread } from 'node:worker_threads';
const require = createRequire(process.env.MODULES + '/x.js');
const [board, who] = process.argv.slice(2);
const open = {
  'better-sqlite3': () => new (require('better-sqlite3'))(board),
  'node:sqlite': () => new (require('node:sqlite').DatabaseSync)(board),
};
for (const [name, opens] of Object.entries(open)) {
  let opened;
  try { opened = opens(); } catch (error) { if (error.code === 'MODULE_NOT_FOUND' || error.code === 'ERR_UNKNOWN_BUILTIN_MODULE') continue; throw error; }
  console.log(name, who ?? (isMainThread ? 'first' : 'thread'), opened.prepare('PRAGMA kanban_status').all().length);
}
if (isMainThread && !who) {
  await new Promise((end) => new Worker(new URL(import.meta.url), { argv: [board] }).on('exit', end));
  fork(new URL(import.meta.url), [board, 'child']);
}
"#;
    let mut seen = Vec::new();
    for (node, modules) in nodes.lines().filter_map(|line| line.split_once(' ')) {
        let board = Board::new();
        let script = board.directory().join("application.mjs");
        std::fs::write(&script, application).unwrap();
        let node_line =
            [node, script.to_str().unwrap(), board.path().to_str().unwrap()].map(str::to_owned);
        let node_line: Vec<_> = node_line.iter().map(String::as_str).collect();
        let (code, out, errors) = done(run_command(&[], &node_line).env("MODULES", modules));
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{node}: {out}");
        assert!(Path::new(modules).exists() && !out.is_empty(), "{node} has nothing to try");
        for line in out.lines() {
            assert!(line.ends_with(" 1"), "{node}: {line}");
        }
        for name in ["better-sqlite3", "node:sqlite"] {
            let lines = out.lines().filter(|line| line.starts_with(name)).count();
            assert!(lines == 0 || lines == 3, "{node}: {out}");
            seen.extend((lines == 3).then_some(name));
        }
        let mut stock = Command::new(node);
        stock.args(&node_line[1..]).env("MODULES", modules).env_remove("NODE_OPTIONS");
        let (_, out, _) = done(&mut stock);
        assert!(out.lines().all(|line| line.ends_with(" 0")), "{node}: {out}");
    }
    assert!(!seen.is_empty());
}

/// A module of Node's has the name of one that is served, but its constructor fails, with a message full of what a terminal obeys.
/// The operator is told once, with a question mark for each such character, and the application goes on.
#[test]
fn a_failure_in_node_is_reported() {
    needs!("node");
    let place = tempfile::tempdir().unwrap();
    let module = place.path().join("node_modules/better-sqlite3");
    std::fs::create_dir_all(&module).unwrap();
    std::fs::write(
        module.join("index.js"),
        r"module.exports = function () { throw new Error('no \x1b[31m\n\x9b\u061c\u200e\u2028\u202e\u2066way'); };",
    )
    .unwrap();
    let application = place.path().join("application.js");
    let source = "console.log(typeof require('better-sqlite3'), typeof require('better-sqlite3'));";
    std::fs::write(&application, source).unwrap();
    let node = ["node", application.to_str().unwrap()];
    let (code, out, errors) = done(&mut run_command(&[], &node));
    assert_eq!((code, out.as_str()), (Some(0), "function function\n"), "{errors}");
    let told = "(node): better-sqlite3 goes on with SQLite's own VFS: no ?[31m???????way\n";
    assert!(errors.ends_with(told) && errors.lines().count() == 1, "{errors:?}");
}

/// Debian's Python, which no package of ours is installed in, by the name of a program on the PATH.
#[test]
fn a_python_is_on_the_vfs() {
    let board = Board::new();
    let look = "import sqlite3, sys; print(len(sqlite3.connect(sys.argv[1]).execute('PRAGMA kanban_status').fetchall()))";
    let path = board.path();
    let command = [PYTHON, "-c", look, path.to_str().unwrap()];
    assert_eq!(done(&mut run_command(&[], &command)), (Some(0), "1\n".to_owned(), String::new()));
}
