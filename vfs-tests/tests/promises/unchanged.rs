//! An application that nobody can change is started with `libkanban_vfs_preload.so` in
//! `LD_PRELOAD`. This VFS is then the default one of every SQLite that it links, or that a module
//! brings along, in the application and in its children. An SQLite that cannot be reached is
//! reported, and a program without SQLite notices nothing.

use std::path::Path;
use std::process::{Command, Output};

use vfs_tests::needs::SQLITE_HEADER;
use vfs_tests::{Board, PYTHON, extension, needs, preload, run};

/// A command, started as `kanban-vfs run` would start it, or without the library.
pub(crate) fn command(program: &Path, is_preloaded: bool) -> Command {
    let mut command = Command::new("timeout");
    command.arg("100").arg(program);
    for name in ["KANBAN_VFS_DEFAULT", "KANBAN_REQUIRE", "LD_PRELOAD", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
    if is_preloaded {
        command.env("LD_PRELOAD", preload());
    }
    command
}

/// What a program printed, and what it printed to standard error.
pub(crate) fn said(output: Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{output:?}");
    (text(&output.stdout), text(&output.stderr))
}

/// In each of its workers an outsider breaks into a transaction, or is refused.
const PYTHONS: &str = include_str!("../../src/application.py");

/// Debian's Python, without any package, and workers of each kind. Its sqlite3 is a module that is
/// loaded when it is imported, and brings libsqlite3.
#[test]
fn every_worker_of_a_python_is_reached() {
    for (is_preloaded, outcome) in [(false, "broke in"), (true, "database is locked")] {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("application.py");
        std::fs::write(&script, PYTHONS).unwrap();
        let mut python = command(Path::new(PYTHON), is_preloaded);
        let (out, errors) = said(python.arg(&script).arg(directory.path()).output().unwrap());
        let mut lines: Vec<_> = out.lines().collect();
        lines.sort_unstable();
        let workers = [
            "fork",
            "fork pool",
            "forkserver",
            "forkserver pool",
            "shell",
            "spawn",
            "spawn pool",
            "subprocess",
            "the first",
        ];
        let mut expected = workers.map(|worker| format!("{worker} {outcome}"));
        expected.sort_unstable();
        assert_eq!(lines, expected, "{errors}");
        assert_eq!(errors, "");
    }
}

/// The same in C. `open` is its call that opens the board; the outsider is Debian's shell.
const HOLDER: &str = r#"
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static sqlite3 *open_board(const char *path) {
    sqlite3 *board = NULL;
#if defined(OPEN_16)
    unsigned short wide[500] = {0};
    for (size_t n = 0; path[n]; n++) wide[n] = (unsigned char)path[n];
    int rc = sqlite3_open16(wide, &board);
#elif defined(OPEN_V2)
    int rc = sqlite3_open_v2(path, &board, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
#else
    int rc = sqlite3_open(path, &board);
#endif
    if (rc != SQLITE_OK) exit(3);
    return board;
}

int work(const char *path) {
    char text[1000];
    sqlite3 *board = open_board(path);
    if (sqlite3_exec(board, "PRAGMA journal_mode=wal; CREATE TABLE tasks (n INTEGER);"
                     "BEGIN IMMEDIATE; INSERT INTO tasks VALUES (1)", NULL, NULL, NULL)) return 4;
    snprintf(text, sizeof text, "%s-shm", path);
    FILE *file = fopen(text, "rb");
    if (!file || fclose(file)) return 5;
    snprintf(text, sizeof text,
             "env -u LD_PRELOAD sqlite3 '%s' 'INSERT INTO tasks VALUES (2)' 2> /dev/null && echo broke in || echo refused", path);
    fflush(stdout);
    return system(text);
}
"#;

/// Compiles C into a program or library of that name.
fn compile(directory: &Path, name: &str, source: &str, arguments: &[&str]) -> std::path::PathBuf {
    let [file, made] = [format!("{name}.c"), name.to_owned()].map(|name| directory.join(name));
    std::fs::write(&file, source).unwrap();
    let mut all = vec![file.to_str().unwrap(), "-Wall", "-Werror", "-o", made.to_str().unwrap()];
    all.extend(arguments);
    run("cc", &all);
    made
}

/// Runs a program with and without the library, each on its own board. Returns its output and its
/// errors.
fn on_stock_and_ours(program: &Path, arguments: &[&str]) -> [(String, String); 2] {
    [false, true].map(|is_preloaded| {
        let board = Board::new();
        let mut command = command(program, is_preloaded);
        said(command.arg(board.path()).args(arguments).output().unwrap())
    })
}

/// A program in C that links libsqlite3 opens a board with each of the functions that open.
#[test]
fn a_program_that_links_sqlite_is_reached() {
    needs!(SQLITE_HEADER, "sqlite3");
    let directory = tempfile::tempdir().unwrap();
    for how in ["-DOPEN_V1", "-DOPEN_V2", "-DOPEN_16"] {
        let source =
            format!("{HOLDER}\nint main(int n, char **all) {{ return n < 2 || work(all[1]); }}");
        let program = compile(directory.path(), "holder", &source, &[how, "-lsqlite3"]);
        let [stock, ours] = on_stock_and_ours(&program, &[]);
        assert_eq!((stock.0.as_str(), ours.0.as_str()), ("broke in\n", "refused\n"), "{how}");
        assert_eq!((stock.1.as_str(), ours.1.as_str()), ("", ""));
    }
}

/// A program loads the part that uses SQLite later: as Python and Ruby do, or, as PHP does, with
/// the part's symbols bound to its own SQLite.
#[test]
fn a_plugin_that_brings_sqlite_is_reached() {
    needs!(SQLITE_HEADER, "sqlite3");
    let directory = tempfile::tempdir().unwrap();
    let plugin = compile(directory.path(), "plugin.so", HOLDER, &["-shared", "-fPIC", "-lsqlite3"]);
    let main = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
int main(int n, char **all) {
    void *plugin = n < 4 ? NULL : dlopen(all[2], RTLD_NOW | (atoi(all[3]) ? RTLD_DEEPBIND | RTLD_GLOBAL : 0));
    int (*work)(const char *) = plugin ? (int (*)(const char *))dlsym(plugin, "work") : NULL;
    return work ? work(all[1]) : 9;
}
"#;
    let program = compile(directory.path(), "main", main, &[]);
    for is_deep in ["0", "1"] {
        let [stock, ours] = on_stock_and_ours(&program, &[plugin.to_str().unwrap(), is_deep]);
        assert_eq!((stock.0.as_str(), ours.0.as_str()), ("broke in\n", "refused\n"), "{is_deep}");
        assert_eq!((stock.1.as_str(), ours.1.as_str()), ("", ""));
    }
}

/// dlopen(3) looks for a library by the RUNPATH of its caller. It still does, and so does dlsym(3)
/// with `RTLD_NEXT`.
#[test]
fn a_library_is_found_as_before() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("libraries")).unwrap();
    let shared = ["-shared", "-fPIC"];
    compile(directory.path(), "libraries/libplugin.so", "int answer(void) { return 42; }", &shared);
    let main = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
int main(void) {
    void *plugin = dlopen("libplugin.so", RTLD_NOW);
    int (*answer)(void) = plugin ? (int (*)(void))dlsym(plugin, "answer") : NULL;
    printf("%d %d\n", answer ? answer() : -1, dlopen("libno-such.so", RTLD_NOW) == NULL);
    return 0;
}
"#;
    let program = compile(directory.path(), "main", main, &["-Wl,-rpath,$ORIGIN/libraries"]);
    for is_preloaded in [false, true] {
        let (out, _) = said(command(&program, is_preloaded).output().unwrap());
        assert_eq!(out, "42 1\n", "{is_preloaded}");
    }
}

/// A program has no SQLite: its descriptors, locks and exit status are as before, and the extension
/// is not loaded.
#[test]
fn a_program_without_sqlite_notices_nothing() {
    let program = r#"
import errno, fcntl, os, struct, sys, tempfile
file = tempfile.TemporaryFile()
said = [fcntl.fcntl(file, fcntl.F_GETFD), fcntl.fcntl(file, fcntl.F_DUPFD, 100) >= 100]
fcntl.fcntl(file, fcntl.F_SETFD, 0)
said.append(fcntl.fcntl(file, fcntl.F_GETFD))
for command in fcntl.F_SETLK, fcntl.F_SETLKW:
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 5, 1, 0)
    said.append(len(fcntl.fcntl(file, command, lock)))
child = os.fork()
if child == 0:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 5)
        os._exit(1)
    except OSError as error:
        os._exit(2 if error.errno in (errno.EAGAIN, errno.EACCES) else 3)
said.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
read, write = os.pipe()
said.append(fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 65536))
for descriptor, command, argument in [(read, 9999, 0), (file, fcntl.F_SETLK, 5), (file, fcntl.F_SETLKW, -1)]:
    try:
        fcntl.fcntl(descriptor, command, argument)
    except OSError as error:
        said.append(error.errno)
said.append("libkanban_vfs.so" in open("/proc/self/maps").read())
print(said)
"#;
    let outcomes = [false, true].map(|is_preloaded| {
        let mut python = command(Path::new(PYTHON), is_preloaded);
        said(python.env("KANBAN_REQUIRE", "1").args(["-c", program]).output().unwrap())
    });
    assert!(outcomes[0].0.contains("False]"), "{outcomes:?}");
    assert_eq!(outcomes[0], outcomes[1]);
}

/// `KANBAN_VFS_DEFAULT=0` leaves a child out, without a report, since its operator asked for that.
#[test]
fn a_child_can_be_left_out() {
    let board = Board::new();
    let look = "import sqlite3, sys; print(len(sqlite3.connect(sys.argv[1]).execute('PRAGMA kanban_status').fetchall()))";
    for (value, rows) in [("1", "1\n"), ("0", "0\n")] {
        let mut python = command(Path::new(PYTHON), true);
        python.env("KANBAN_VFS_DEFAULT", value).env("KANBAN_REQUIRE", "1");
        let (out, errors) = said(python.args(["-c", look]).arg(board.path()).output().unwrap());
        assert_eq!((out.as_str(), errors.as_str()), (rows, ""), "{value}");
    }
}

/// Two kinds of connections bypass this VFS: those that name another one, and those of an SQLite
/// that does not call its functions by their names. With `KANBAN_REQUIRE=1` each process reports
/// that once, and goes on.
#[test]
fn a_stock_connection_is_reported_once() {
    let names_another = r#"
import sqlite3, sys
for n in range(3):
    board = sqlite3.connect("file:" + sys.argv[1] + "?vfs=unix", uri=True)
    board.execute("CREATE TABLE IF NOT EXISTS t (n)")
    board.close()
"#;
    // Like an SQLite that is linked statically and hidden: only the caller knows the address of its
    // function.
    let hidden = r#"
import ctypes, sys
sqlite = ctypes.CDLL(sys.argv[2])
for n in range(3):
    board = ctypes.c_void_p()
    assert sqlite.sqlite3_open(sys.argv[1].encode(), ctypes.byref(board)) == 0
    assert sqlite.sqlite3_exec(board, b"CREATE TABLE IF NOT EXISTS t (n)", None, None, None) == 0
    sqlite.sqlite3_close(board)
"#;
    // The file name has control characters, which a terminal would obey.
    for (program, cause) in [
        (names_another, "a connection names another VFS"),
        (hidden, "no SQLite of this process could be reached"),
    ] {
        for require in ["1", "0"] {
            let board = Board::new();
            let path = board.directory().join("\x1b[31m\u{9b}\u{202e}\u{2028}.db");
            let mut python = command(Path::new(PYTHON), true);
            python.env("KANBAN_REQUIRE", require).args(["-c", program]);
            python.arg(&path).arg(env!("NEWEST_SQLITE"));
            let (_, errors) = said(python.output().unwrap());
            let is_told = errors.starts_with("kanban-vfs: process ")
                && errors.contains(board.directory().join("?[31m???.db").to_str().unwrap())
                && errors.contains(cause)
                && errors.lines().count() == 1;
            assert!(
                if require == "1" { is_told } else { errors.is_empty() },
                "{require}: {errors}"
            );
        }
    }
}

/// A program that takes locks at the bytes that SQLite locks, and prints errno(3) afterwards. With
/// `own` the program locks the whole database before, so this VFS takes POSIX locks like the stock
/// VFS.
const LOCKER: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sqlite3.h>

static int lock(int file, short type, long start, long length) {
    struct flock one = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    return fcntl(file, F_SETLK, &one);
}

int main(int n, char **all) {
    sqlite3 *board;
    if (n < 3) return 1;
    if (!strcmp(all[2], "own")) {
        if (sqlite3_open(all[1], &board) || sqlite3_exec(board, "CREATE TABLE t (n)", NULL, NULL, NULL)) return 2;
        sqlite3_close(board);
        int file = open(all[1], O_RDWR);
        if (lockf(file, F_LOCK, 0) || sqlite3_open(all[1], &board)) return 3;
        return sqlite3_exec(board, "INSERT INTO t VALUES (1)", NULL, NULL, NULL);
    }
    int file = open(all[1], O_RDWR | O_CREAT, 0600);
    if (!strcmp(all[2], "far")) return lock(file, F_WRLCK, 0x40000000, 1);
    if (!strcmp(all[2], "unlock")) return lock(file, F_UNLCK, 0x40000002, 510);
    if (!strcmp(all[2], "closed")) close(2);
    errno = 77;
    if (lock(file, F_RDLCK, 0x40000002, 510)) return 4;
    return errno == 77 ? 0 : 5;
}
"#;

/// Only SQLite locks the range with which its connections begin to read. A program that locks
/// another high range, or unlocks one, is no SQLite. A connection of this VFS is not reported
/// either, even if it locks as the stock VFS does. The program finds errno(3) as it was.
#[test]
fn only_stock_connections_are_reported() {
    needs!(SQLITE_HEADER);
    let directory = tempfile::tempdir().unwrap();
    let program = compile(directory.path(), "locker", LOCKER, &["-lsqlite3"]);
    for (who, is_told) in
        [("far", false), ("unlock", false), ("own", false), ("closed", false), ("shared", true)]
    {
        let board = Board::new();
        let mut told = command(&program, true);
        let told = told.env("KANBAN_REQUIRE", "1").arg(board.path()).arg(who);
        let (_, errors) = said(told.output().unwrap());
        assert_eq!(errors.contains("is locked by SQLite's own VFS"), is_told, "{who}: {errors}");
    }
}

/// A program has closed standard error, and its next file gets that number. No report is written
/// into that file.
#[test]
fn a_file_in_place_of_standard_error_stays_as_it_is() {
    needs!(SQLITE_HEADER);
    let directory = tempfile::tempdir().unwrap();
    let main = r#"
#include <fcntl.h>
#include <unistd.h>
#include <sqlite3.h>
int main(int n, char **all) {
    sqlite3 *board;
    close(2);
    if (n < 3 || open(all[2], O_RDWR | O_CREAT, 0600) != 2) return 1;
    if (sqlite3_open_v2("file:x.db?vfs=kanban&kanban_x=1", &board, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI, NULL) == 0) return 2;
    if (sqlite3_open_v2(all[1], &board, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix")) return 3;
    return sqlite3_exec(board, "CREATE TABLE tasks (n INTEGER)", NULL, NULL, NULL);
}
"#;
    let program = compile(directory.path(), "main", main, &["-lsqlite3"]);
    for variable in
        [("KANBAN_REQUIRE", "1"), ("KANBAN_LOG", "stderr"), ("KANBAN_BUSY_TIMEOUT", "x")]
    {
        let board = Board::new();
        let file = board.directory().join("file");
        let mut told = command(&program, true);
        told.env(variable.0, variable.1).arg(board.path()).arg(&file);
        assert!(told.status().unwrap().success(), "{variable:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "", "{variable:?}");
    }
}

/// A plugin that opens a database, and reports by which SQLite, and whether on this VFS. `opens` is
/// the last call of its function, so its return address is in the plugin's caller.
const PLUGIN: &str = r#"
#include <sqlite3.h>
#include <stdio.h>
int opens(const char *path, sqlite3 **board) { return sqlite3_open(path, board); }
int opens_here(const char *path, sqlite3 **board) {
    int rc = sqlite3_open(path, board);
    return rc ? 100 : 0;
}
static int show(void *is_ours, int n, char **values, char **names) {
    (void)n, (void)values, (void)names;
    return *(int *)is_ours = 1, 0;
}
int uses(sqlite3 *board) {
    int is_ours = 0;
    if (sqlite3_exec(board, "CREATE TABLE IF NOT EXISTS t (n); INSERT INTO t VALUES (1)", NULL, NULL, NULL)) return 1;
    if (sqlite3_exec(board, "PRAGMA kanban_status", show, &is_ours, NULL)) return 2;
    printf("%s %d\n", sqlite3_libversion(), is_ours);
    fflush(stdout);
    return sqlite3_close(board);
}
"#;

/// Loads plugins, each of which brings an SQLite of its own, and opens by some.
const LOADS_PLUGINS: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* board, then for each step: l PATH (load), g PATH (load for all), o N or t N (open by plugin N) */
int main(int n, char **all) {
    void *plugins[9];
    int loaded = 0;
    for (int nth = 2; nth + 1 < n; nth += 2) {
        void *board = NULL;
        int is_global = *all[nth] == 'g';
        if (*all[nth] == 'l' || is_global) {
            plugins[loaded] = dlopen(all[nth + 1], RTLD_NOW | (is_global ? RTLD_GLOBAL : RTLD_LOCAL));
            if (!plugins[loaded++]) return puts(dlerror()), 9;
            continue;
        }
        void *plugin = plugins[atoi(all[nth + 1])];
        int (*opens)(const char *, void **) = (int (*)(const char *, void **))
            dlsym(plugin, *all[nth] == 't' ? "opens" : "opens_here");
        int rc = opens(all[1], &board);
        printf("%d ", rc);
        fflush(stdout);
        if (!rc && ((int (*)(void *))dlsym(plugin, "uses"))(board)) return 8;
    }
    return puts(""), 0;
}
"#;

/// A process has two SQLites, one of each plugin. A connection that is passed to functions of the
/// other SQLite would crash the process. Each open reaches the SQLite of its caller, even if it is
/// the last call of its function, and if another library was loaded with `RTLD_GLOBAL` meanwhile.
#[test]
fn each_plugin_keeps_its_own_sqlite() {
    needs!(SQLITE_HEADER);
    let place = tempfile::tempdir().unwrap();
    let newest = env!("NEWEST_SQLITE");
    let shared = ["-shared", "-fPIC", "-O2"];
    let plugin = |name, with, how| {
        let made = compile(place.path(), name, PLUGIN, &[&shared[..], &[with, how]].concat());
        made.to_str().unwrap().to_owned()
    };
    let program = compile(place.path(), "main", LOADS_PLUGINS, &[]);
    // An SQLite whose hash table of symbols is of the older kind.
    let whole = ["-Wl,--whole-archive,-l:libsqlite3.a,--no-whole-archive", "-lm"];
    let sysv = ["-Wl,-Bsymbolic,--hash-style=sysv"];
    let sysv = compile(place.path(), "sysv.so", "", &[&shared[..], &whole, &sysv].concat());
    for how in ["-Wl,-z,lazy", "-Wl,-z,now"] {
        let old = plugin("old.so", "-lsqlite3", how);
        let older = plugin("older.so", sysv.to_str().unwrap(), how);
        let new = plugin("new.so", newest, how);
        for steps in [
            vec!["l", &old, "l", &new, "o", "0", "t", "1", "t", "0", "o", "1", "t", "1"],
            vec!["l", &new, "t", "0", "l", &old, "o", "1", "t", "1", "t", "0"],
            vec!["l", &new, "g", "libsqlite3.so.0", "o", "0", "t", "0"],
            vec!["l", &older, "l", &new, "o", "0", "t", "1", "t", "0"],
        ] {
            let [stock, ours] = on_stock_and_ours(&program, &steps);
            let (stock, ours) = (stock.0, ours);
            assert!(stock.contains(" 0\n") && !stock.contains(" 1\n"), "{stock}");
            assert_eq!(ours.0, stock.replace(" 0\n", " 1\n"), "{how} {steps:?}");
            assert_eq!(ours.1, "");
        }
        // The very first open of the process is such a jump, and either plugin may have made it. No
        // SQLite is better than the wrong one. From then on each jump shows its plugin.
        let steps = ["l", &old, "l", &new, "t", "1", "t", "0", "t", "1"];
        let (out, errors) = on_stock_and_ours(&program, &steps)[1].clone();
        let is_refused = out.starts_with("1 0 3.") && out.matches(" 1\n").count() == 2;
        assert!(
            is_refused && errors.contains("a call of sqlite3_open is refused"),
            "{out} {errors}"
        );
    }
}

/// A process has two SQLites, so the library exchanges the addresses of functions in its plugins. A
/// plugin keeps one address among its constants, where only the dynamic linker could write while it
/// bound the plugin, and one in a packed struct, across two pages. Both stay as they are, and the
/// process goes on.
#[test]
fn a_constant_of_a_plugin_is_left_alone() {
    needs!(SQLITE_HEADER);
    let place = tempfile::tempdir().unwrap();
    let source = format!(
        "{PLUGIN}
__asm__(\".section .rodata\\n.balign 8\\n.globl constant\\nconstant: .quad sqlite3_open\\n.text\\n\");
extern const struct __attribute__((packed)) {{ char before[PAGE - 4]; int (*open)(const char *, sqlite3 **); }} packed;
__attribute__((aligned(PAGE))) const __typeof__(packed) packed = {{{{0}}, sqlite3_open}};"
    );
    let plugin = |name, source, with| {
        let arguments = ["-shared", "-fPIC", "-O2", "-DPAGE=4096", with, "-Wl,-z,now,-z,notext"];
        compile(place.path(), name, source, &arguments).to_str().unwrap().to_owned()
    };
    let constant = plugin("constant.so", source.as_str(), "-lsqlite3");
    let new = plugin("new.so", PLUGIN, env!("NEWEST_SQLITE"));
    let program = compile(place.path(), "main", LOADS_PLUGINS, &[]);
    let steps = ["l", &constant, "l", &new, "o", "0", "t", "1", "t", "0"];
    let [stock, ours] = on_stock_and_ours(&program, &steps);
    assert_eq!((ours.0, ours.1), (stock.0.replace(" 0\n", " 1\n"), String::new()));
}

/// Two libraries were linked for the same high address, like Wine's. The dynamic linker loads the
/// second one below that address, at a negative offset. A plugin that opens a database is served
/// nevertheless.
#[test]
fn a_library_below_its_own_address_is_read() {
    needs!(SQLITE_HEADER);
    let place = tempfile::tempdir().unwrap();
    let compiled = |name, source, with| {
        let made = compile(place.path(), name, source, &["-shared", "-fPIC", "-O2", with]);
        made.to_str().unwrap().to_owned()
    };
    let [one, two] = ["one.so", "two.so"].map(|name| {
        let source = "int answer(void) { return 42; }";
        compiled(name, source, "-Wl,-Ttext-segment=0x7fff00000000")
    });
    let plugin = compiled("plugin.so", PLUGIN, "-lsqlite3");
    let program = compile(place.path(), "main", LOADS_PLUGINS, &[]);
    let steps = ["l", &one, "l", &two, "l", &plugin, "o", "2", "t", "2"];
    let [stock, ours] = on_stock_and_ours(&program, &steps);
    assert_eq!((ours.0, ours.1), (stock.0.replace(" 0\n", " 1\n"), String::new()));
}

/// A thread opens a database while another one loads a plugin: the dynamic linker is writing the
/// plugin's page of addresses, and makes the page read-only later. A function that is chosen at
/// that moment (`ifunc`) keeps the second thread there.
#[test]
#[cfg(target_env = "gnu")]
fn a_plugin_that_is_being_bound_is_left_alone() {
    needs!(SQLITE_HEADER);
    let place = tempfile::tempdir().unwrap();
    let bound = r#"
#include <sqlite3.h>
/* Their addresses are bound before those of functions that are called. */
const void *address(int n) { return n ? (const void *)sqlite3_open : (const void *)sqlite3_close; }
static int one(void) { return 1; }
static int (*choose(void))(void) {
    volatile int *page = (volatile int *)0x200000000000;
    page[0] = 1;
    while (!page[1]) {}
    return one;
}
int chosen(void) __attribute__((ifunc("choose")));
int opens_here(const char *path, sqlite3 **board) { return sqlite3_open(path, board) + chosen() - 1; }
"#;
    let main = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
typedef int (*Opens)(const char *, void **);
static void *load(void *path) { return dlopen(path, RTLD_NOW); }
static Opens find(void *plugin) { return plugin ? (Opens)dlsym(plugin, "opens_here") : (exit(9), NULL); }
int main(int n, char **all) {
    int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    volatile int *page = mmap((void *)0x200000000000, 4096, PROT_READ | PROT_WRITE, how, -1, 0);
    void *board, *loaded;
    pthread_t thread;
    if (page == MAP_FAILED || n < 6) return 1;
    /* Both SQLites are served, and each plugin but the third one is bound. */
    for (int nth = 2; nth < 4; nth++)
        if (find(load(all[nth]))(all[1], &board)) return 2;
    Opens third = find(load(all[4]));
    if (pthread_create(&thread, NULL, load, all[5])) return 3;
    while (!page[0]) {}
    if (third(all[1], &board)) return 4;
    page[1] = 1;
    return pthread_join(thread, &loaded) || find(loaded)(all[1], &board);
}
"#;
    let plugin = |name, source, with| {
        let arguments = ["-shared", "-fPIC", "-O2", with, "-Wl,-z,now"];
        compile(place.path(), name, source, &arguments).to_str().unwrap().to_owned()
    };
    let all = [
        plugin("old.so", PLUGIN, "-lsqlite3"),
        plugin("new.so", PLUGIN, env!("NEWEST_SQLITE")),
        plugin("third.so", PLUGIN, "-lsqlite3"),
        plugin("bound.so", bound, "-lsqlite3"),
    ];
    let program = compile(place.path(), "main", main, &["-O2", "-pthread"]);
    let [stock, ours] = on_stock_and_ours(&program, &all.each_ref().map(String::as_str));
    assert_eq!(stock, ours);
}

/// A library's constructor starts a thread that opens a database, and waits for it. Meanwhile the
/// dynamic linker has a lock, so that nothing can be loaded, nor looked up by name. Then it forks.
/// The process goes on, whether that is its first open or not, and whether the program links SQLite
/// or the library brings it.
#[test]
fn a_constructor_that_waits_for_an_open_goes_on() {
    needs!(SQLITE_HEADER);
    let place = tempfile::tempdir().unwrap();
    let library = r#"
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <sqlite3.h>
static void *opens(void *unused) {
    sqlite3 *board;
    if (sqlite3_open(":memory:", &board)) abort();
    sqlite3_close(board);
    return unused;
}
__attribute__((constructor)) static void waits(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, opens, NULL) || pthread_join(thread, NULL)) abort();
    pid_t child = fork();
    if (child == 0) _exit(0);
    if (child < 0 || waitpid(child, NULL, 0) != child) abort();
}
int work(void) { sqlite3 *board; return sqlite3_open(":memory:", &board); }
"#;
    let library = compile(place.path(), "waits.so", library, &["-shared", "-fPIC", "-lsqlite3"]);
    let linked = r#"
#include <dlfcn.h>
#include <sqlite3.h>
int main(int n, char **all) {
    sqlite3 *board;
    if (n > 3 && sqlite3_open(":memory:", &board)) return 1;
    return n < 3 || !dlopen(all[2], RTLD_NOW) || sqlite3_open(":memory:", &board);
}
"#;
    let brought = r#"
#include <dlfcn.h>
int main(int n, char **all) {
    void *library = n < 3 ? 0 : dlopen(all[2], RTLD_NOW);
    return !library || ((int (*)(void))dlsym(library, "work"))();
}
"#;
    let linked = compile(place.path(), "linked", linked, &["-lsqlite3"]);
    let brought = compile(place.path(), "brought", brought, &[]);
    let library = library.to_str().unwrap();
    for arguments in [&[library][..], &[library, "x"]] {
        let [stock, ours] = on_stock_and_ours(&linked, arguments);
        assert_eq!(stock, ours);
    }
    // A database that is opened before the extension can be loaded is on the stock VFS, and that is
    // reported.
    let (_, errors) = on_stock_and_ours(&brought, &[library])[1].clone();
    assert!(errors.contains("goes past kanban") && errors.lines().count() == 1, "{errors}");
    // The extension is already loaded, for another SQLite. A thread must keep this SQLite loaded,
    // and waits for the constructor. The fork waits for that thread, but not for ever.
    let arguments = [&["-shared", "-fPIC"][..], &[env!("NEWEST_SQLITE")]].concat();
    let other = compile(place.path(), "other.so", PLUGIN, &arguments);
    let program = compile(place.path(), "main", LOADS_PLUGINS, &[]);
    let steps = ["l", other.to_str().unwrap(), "o", "0", "l", library];
    let (out, errors) = on_stock_and_ours(&program, &steps)[1].clone();
    assert!(out.starts_with("0 3.") && out.ends_with(" 1\n\n"), "{out}");
    assert!(errors.contains("goes past kanban") && errors.lines().count() == 1, "{errors}");
}

/// A malformed variable keeps the VFS out. The process reports that, once for each copy of SQLite,
/// and goes on as on the stock VFS.
#[test]
fn a_failure_is_reported_and_the_application_goes_on() {
    let board = Board::new();
    let program = "
import sqlite3, sys
for n in range(3):
    board = sqlite3.connect(sys.argv[1])
    print(len(board.execute('PRAGMA kanban_status').fetchall()))
";
    let mut python = command(Path::new(PYTHON), true);
    python.env("KANBAN_BUSY_TIMEOUT", "soon").args(["-c", program]).arg(board.path());
    let (out, errors) = said(python.output().unwrap());
    assert_eq!(out, "0\n0\n0\n");
    let expected =
        "goes on with SQLite's own VFS: kanban-vfs: KANBAN_BUSY_TIMEOUT: \"soon\" is not a number";
    assert!(errors.contains(expected) && errors.lines().count() == 1, "{errors}");
}

/// Sixteen threads open their first database at once: each connection is on the VFS.
#[test]
fn threads_that_open_at_once_are_reached() {
    let board = Board::new();
    let program = r#"
import sqlite3, sys, threading
gate = threading.Barrier(16)
missed = []
def opens():
    gate.wait()
    board = sqlite3.connect(sys.argv[1], timeout=60)
    if not board.execute("PRAGMA kanban_status").fetchall():
        missed.append("thread")
threads = [threading.Thread(target=opens) for _ in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(missed)
"#;
    for _ in 0..10 {
        let mut python = command(Path::new(PYTHON), true);
        let (out, errors) = said(python.args(["-c", program]).arg(board.path()).output().unwrap());
        assert_eq!((out.as_str(), errors.as_str()), ("[]\n", ""));
    }
}

/// A thread opens the first database of its process, which loads the extension. Another thread
/// forks meanwhile, and its child opens a database, too: ld.so aborts a child that loads a library
/// while its parent was loading one. An extension with many parts makes sure that the fork comes
/// during the load. (It keeps the first thread busy afterwards, so that the fork does not find
/// SQLite's mutexes locked, against which no VFS helps.)
#[test]
fn a_fork_beside_the_first_open_is_harmless() {
    const PARTS: usize = 400;
    let place = tempfile::tempdir().unwrap();
    let shared = ["-shared", "-fPIC"];
    let part = compile(place.path(), "part", "static int part; int *p = &part;", &shared);
    let parts: Vec<_> = (0..PARTS).map(|nth| format!("libpart{nth}.so")).collect();
    for name in &parts {
        std::fs::copy(&part, place.path().join(name)).unwrap();
    }
    let extension = r#"
#include <stddef.h>
#include <unistd.h>
int kanban_vfs_register_by(void *find, void *of, int make_default, char *message, size_t size) {
    (void)find, (void)of, (void)make_default, (void)message, (void)size;
    return usleep(300000);
}
"#;
    let search = format!("-L{}", place.path().display());
    let parts: Vec<_> = parts.iter().map(|name| format!("-l:{name}")).collect();
    let mut link = shared.to_vec();
    link.extend(["-Wl,--no-as-needed,-rpath,$ORIGIN", &search]);
    link.extend(parts.iter().map(String::as_str));
    compile(place.path(), "libkanban_vfs.so", extension, &link);
    let library = place.path().join("libkanban_vfs_preload.so");
    std::fs::copy(preload(), &library).unwrap();
    let program = r#"
import os, sqlite3, threading
opener = threading.Thread(target=sqlite3.connect, args=(":memory:",))
opener.start()
while "/libpart39" not in open("/proc/self/maps").read():
    pass
child = os.fork()
if child == 0:
    sqlite3.connect(":memory:")
    os._exit(0)
print(os.waitpid(child, 0)[1])
opener.join()
"#;
    for _ in 0..3 {
        let mut python = command(Path::new(PYTHON), true);
        let python = python.env("LD_PRELOAD", &library).args(["-c", program]);
        assert_eq!(said(python.output().unwrap()), ("0\n".to_owned(), String::new()));
    }
}

/// SQLite derives the entry point from the file's name, for a client that loads an extension but
/// cannot name an entry point.
#[test]
fn it_is_an_extension_that_makes_the_vfs_the_default_one() {
    let board = Board::new();
    let program = "
import sqlite3, sys
loader = sqlite3.connect(':memory:')
loader.enable_load_extension(True)
loader.load_extension(sys.argv[2])
print(len(sqlite3.connect(sys.argv[1]).execute('PRAGMA kanban_status').fetchall()))
";
    for (library, rows) in [(preload(), "1\n"), (extension(), "0\n")] {
        let mut python = command(Path::new(PYTHON), false);
        python.args(["-c", program]).arg(board.path()).arg(library);
        assert_eq!(said(python.output().unwrap()).0, rows);
    }
}

/// Standard error is a pipe without a reader. A program in C that prints to it ends, but the
/// library's report must not end the program.
#[test]
fn a_report_ends_no_process() {
    needs!(SQLITE_HEADER);
    let directory = tempfile::tempdir().unwrap();
    let main = r#"
#include <sqlite3.h>
#include <unistd.h>
int main(int n, char **all) {
    int ends[2];
    sqlite3 *board;
    if (n < 2 || pipe(ends) || dup2(ends[1], 2) != 2 || close(ends[0]) || close(ends[1])) return 1;
    if (sqlite3_open_v2(all[1], &board, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix")) return 2;
    return sqlite3_exec(board, "CREATE TABLE tasks (n INTEGER)", NULL, NULL, NULL);
}
"#;
    let program = compile(directory.path(), "main", main, &["-lsqlite3"]);
    for variable in [("KANBAN_REQUIRE", "1"), ("KANBAN_BUSY_TIMEOUT", "soon")] {
        let board = Board::new();
        let mut told = command(&program, true);
        told.env(variable.0, variable.1).arg(board.path());
        assert!(told.status().unwrap().success(), "{variable:?}");
    }
}
