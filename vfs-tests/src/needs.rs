//! What some tests need apart from Rust, a C compiler and Python. If a need is not met, the test skips
//! itself: its name appears on the terminal, and in a list that is shown when all tests have run. With
//! `KANBAN_TESTS=all` in the environment, as in CI, the test fails instead.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The need to be root.
pub const ROOT: &str = "root";

/// A C++ compiler that `gcc` finds.
pub const CXX: &str = "c++";

/// The header of the system's SQLite, and the library to link with it.
pub const SQLITE_HEADER: &str = "sqlite3.h";

/// Ruby, and its module for SQLite.
pub const RUBY: &str = "ruby-sqlite3";

/// PHP, and its modules for SQLite.
pub const PHP: &str = "php-sqlite3";

/// Perl, and its module for SQLite.
pub const PERL: &str = "DBD::SQLite";

/// Ends the test that uses it unless everything that it names is here: programs by their names,
/// [`ROOT`], [`CXX`], [`SQLITE_HEADER`], [`RUBY`], [`PHP`], [`PERL`].
///
/// ```no_run
/// fn a_watcher_sees_it() {
///     vfs_tests::needs!("tmux", "strace");
/// }
/// ```
#[macro_export]
macro_rules! needs {
    ($($need:expr),+ $(,)?) => {
        if let Some(missing) = $crate::needs::missing(&[$($need),+]) {
            return $crate::skip!(&missing);
        }
    };
}

/// Skips the test that uses it, for a reason: `return skip!("no mounts here")`.
#[macro_export]
macro_rules! skip {
    ($why:expr) => {{
        fn here() {}
        $crate::needs::skipped($crate::needs::name_of(&here), $why)
    }};
}

/// Which of these needs are not met, and how to meet them; `None` if all are met.
#[must_use]
pub fn missing(needs: &[&str]) -> Option<String> {
    let missing: Vec<_> =
        needs.iter().filter(|need| !is_met(need)).map(|need| said(need)).collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

fn is_met(need: &str) -> bool {
    match need {
        ROOT => crate::is_root(),
        CXX => compiles(&["-x", CXX, "/dev/null"]),
        SQLITE_HEADER => compiles(&["-x", "c", "-include", SQLITE_HEADER, "/dev/null"]),
        RUBY => runs("ruby", &["-rsqlite3", "-e", ""]),
        PHP => runs(
            "php",
            &["-r", "exit((int) !(class_exists('SQLite3') && extension_loaded('pdo_sqlite')));"],
        ),
        PERL => runs("perl", &["-MDBD::SQLite", "-e", "1"]),
        program => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).any(|place| place.join(program).is_file())
        }
    }
}

fn compiles(arguments: &[&str]) -> bool {
    runs("cc", &[&["-fsyntax-only"], arguments].concat())
}

/// Whether a program is here and succeeds.
fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn said(need: &str) -> String {
    let package = match need {
        ROOT => return "needs to be run by root".to_owned(),
        CXX => "g++",
        SQLITE_HEADER => "libsqlite3-dev",
        RUBY => "ruby ruby-sqlite3",
        PHP => "php-cli php-sqlite3",
        PERL => "libdbd-sqlite3-perl",
        "nm" | "readelf" => "binutils",
        "promtool" => "prometheus",
        "unshare" => "util-linux",
        program => program,
    };
    format!("needs {need} (apt-get install {package})")
}

/// The path of the function that has `of`.
#[doc(hidden)]
#[must_use]
pub fn name_of<T>(_: &T) -> &'static str {
    let name = std::any::type_name::<T>();
    name.strip_suffix("::here").unwrap_or(name)
}

/// Notes that a test skips itself. The test harness does not show what a passed test prints, so this
/// writes to the terminal directly.
///
/// # Panics
/// If `KANBAN_TESTS=all` says that nothing may be skipped.
#[track_caller]
pub fn skipped(test: &str, why: &str) {
    let why = why.trim().replace('\n', "; ");
    assert!(
        std::env::var_os("KANBAN_TESTS").is_none_or(|tests| tests != "all"),
        "{test} {why}, and KANBAN_TESTS=all lets nothing be skipped"
    );
    // With one write, since other tests write at the same time.
    let _ = io::stderr().write_all(format!("\nskipped: {test} {why}\n").as_bytes());
    let note = || -> io::Result<()> {
        let list = list();
        fs::create_dir_all(list.parent().expect("a directory"))?;
        let mut list = fs::File::options().create(true).append(true).open(list)?;
        list.write_all(format!("{test} {why}\n").as_bytes())
    };
    // If this user may not write there, the line on the terminal is enough.
    let _ = note();
}

/// The tests that this run of cargo has skipped so far, a line each, sorted by name. They are then
/// forgotten.
#[must_use]
pub fn take_skipped() -> Vec<String> {
    let list = list();
    let text = fs::read_to_string(&list).unwrap_or_default();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines.dedup();
    // Also removes the lists of runs that ended before they came here.
    let _ = fs::remove_dir_all(list.parent().expect("a directory"));
    lines
}

/// The list of this run, recognised by cargo, the parent of all test programs of the run.
fn list() -> PathBuf {
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../target");
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| OsString::from(target));
    let run = std::os::unix::process::parent_id();
    PathBuf::from(target).join("skipped-tests").join(run.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_is_found_and_what_is_not_is_named() {
        assert_eq!(missing(&["sh", "ls"]), None);
        let said = missing(&["sh", "no-such-tool", "readelf2"]).expect("two are missing");
        assert_eq!(
            said,
            "needs no-such-tool (apt-get install no-such-tool), needs readelf2 (apt-get install readelf2)"
        );
        assert_eq!(missing(&[ROOT]).is_none(), crate::is_root());
        assert_eq!(super::said(SQLITE_HEADER), "needs sqlite3.h (apt-get install libsqlite3-dev)");
    }

    #[test]
    fn a_test_knows_its_name() {
        fn here() {}
        let name = name_of(&here);
        assert!(name.ends_with("needs::tests::a_test_knows_its_name"), "{name}");
    }
}
