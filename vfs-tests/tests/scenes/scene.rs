//! Runs a scene on both VFSes, and compares.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use vfs_tests::{Heard, Lines, PYTHON, extension};

/// For how long a step may last: the stock VFS waits for locks a second or two in these scenes.
const HANGS: Duration = Duration::from_secs(30);

/// The processes and their steps.
pub(crate) struct Scene {
    /// The story, in a line.
    pub(crate) name: &'static str,
    /// Steps that ` | ` separates. Each begins with who does it and a sign:
    ///
    /// - `a: code` a process runs a piece of Python, [`client.py`](self) says with what functions; the first step of a
    ///   process starts it.
    /// - `a& code` it begins to; `a= ` waits for the end.
    /// - `a! SIGNAL` it gets a signal; after KILL it is gone.
    /// - `a% words` it is started with these words before it, `env` and the like; `~` is a space in one.
    /// - `$ command` a shell runs a command, in the board's directory.
    ///
    /// A piece of Python that begins with `!` is to fail on the stock VFS, in WAL mode only with `wal!`, with a rollback
    /// journal only with `delete!`; all others are to give a value there. So a scene that does not play its story is found.
    pub(crate) steps: &'static str,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Value(String),
    Error(String),
    /// The process ends, as its status says.
    Ends(String),
    Hangs,
}

/// What became of a scene.
#[derive(Debug)]
struct Ending {
    steps: Vec<(String, Outcome)>,
    /// The databases by their names.
    databases: BTreeMap<String, Found>,
    /// All files by their names: mode, owner, group.
    files: BTreeMap<String, (u32, u32, u32)>,
}

/// What a stock client finds in a database; `None` if it cannot be read.
type Found = Option<(bool, u64)>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Stock,
    Ours,
}

/// How ours is worse than the stock VFS, a line for each way, and what comes on the stock VFS that the scene does not say.
/// In WAL mode with Debian's SQLite and with a rollback journal and the newest; with `KANBAN_SCENES=all` in the
/// environment, each with each.
pub(crate) fn fails(scene: &Scene) -> Vec<String> {
    let mut found = Vec::new();
    let all =
        [("wal", None), ("delete", Some(newest())), ("wal", Some(newest())), ("delete", None)];
    let scenes = if std::env::var("KANBAN_SCENES").is_ok_and(|n| n == "all") { 4 } else { 2 };
    for (journal, sqlite) in &all[..scenes] {
        let stock = run(scene, Side::Stock, journal, *sqlite);
        let ours = run(scene, Side::Ours, journal, *sqlite);
        let version = if sqlite.is_some() { "newest" } else { "Debian's" };
        // Shown when the test fails, and with `--show-output`.
        println!("{} ({journal}, {version})", scene.name);
        for ((step, stock), (_, ours)) in stock.steps.iter().zip(&ours.steps) {
            println!("    {step}: {}, on the stock VFS {}", ours.said(), stock.said());
        }
        for line in stock.differs(journal).into_iter().chain(stock.compare(&ours)) {
            found.push(format!("{} ({journal}, {version}): {line}", scene.name));
        }
    }
    found
}

/// A piece of Python, and whether it is to fail on the stock VFS.
fn marked<'s>(code: &'s str, journal: &str) -> (&'s str, bool) {
    match code.split_once('!') {
        Some((mode @ ("" | "wal" | "delete"), code)) => {
            (code.trim_start(), mode.is_empty() || mode == journal)
        }
        _ => (code, false),
    }
}

/// What `look` of client.py says.
fn read(found: &str) -> (bool, u64) {
    let (is_sound, rows) = found.trim_matches(['(', ')']).split_once(", ").expect("a pair");
    (is_sound == "True", rows.parse().expect("a number"))
}

/// The process, the sign, and the step.
fn parts(step: &str) -> (&str, &str, &str) {
    let (who, rest) = step.split_at(step.find([':', '&', '=', '!', '%', '$']).expect("a sign"));
    (who, &rest[..1], rest[1..].trim())
}

impl Ending {
    /// What came on the stock VFS that the scene does not say.
    fn differs(&self, journal: &str) -> Vec<String> {
        let mut differs = Vec::new();
        for (step, outcome) in &self.steps {
            let fails = marked(parts(step).2, journal).1;
            if fails == matches!(outcome, Outcome::Value(_)) {
                let expected = if fails { "fail" } else { "give a value" };
                differs.push(format!(
                    "{step}: {} on the stock VFS, where it is to {expected}",
                    outcome.said()
                ));
            }
        }
        let unsound = self.databases.iter().filter(|(_, found)| !matches!(found, Some((true, _))));
        differs.extend(unsound.map(|(name, found)| format!("{name}: {found:?} on the stock VFS")));
        differs
    }

    /// How `ours` is worse.
    fn compare(&self, ours: &Self) -> Vec<String> {
        let mut worse = Vec::new();
        for ((step, stock), (_, ours)) in self.steps.iter().zip(&ours.steps) {
            let is_worse = match (stock, ours) {
                (stock, ours) if stock == ours => false,
                (Outcome::Value(_), _) => true,
                (_, Outcome::Value(_)) | (Outcome::Ends(_) | Outcome::Hangs, Outcome::Error(_)) => {
                    false
                }
                (_, ours) => matches!(ours, Outcome::Ends(_) | Outcome::Hangs),
            };
            if is_worse {
                worse.push(format!("{step}: {}, on the stock VFS {}", ours.said(), stock.said()));
            }
        }
        for (name, stock) in &self.databases {
            let Some((is_sound, rows)) = *stock else { continue };
            let ours: Found = ours.databases.get(name).copied().flatten();
            if ours.is_none_or(|ours| is_sound && !ours.0 || rows > ours.1) {
                worse.push(format!("{name}: {}, on the stock VFS {}", told(ours), told(*stock)));
            }
        }
        // The log of what has happened stays, as the documents say.
        let left = ours.files.iter().filter(|(name, _)| !name.ends_with("-kanban-log"));
        for (name, ours) in left {
            let stock: Option<&(u32, u32, u32)> = self.files.get(name);
            if stock != Some(ours) {
                let said = |(mode, user, group): &(u32, u32, u32)| {
                    format!("mode {mode:o} of {user}:{group}")
                };
                let stock = stock.map_or_else(|| "not there".to_owned(), said);
                worse.push(format!("{name}: {}, on the stock VFS {stock}", said(ours)));
            }
        }
        worse
    }
}

fn told(found: Found) -> String {
    match found {
        Some((true, rows)) => format!("{rows} rows"),
        Some((false, rows)) => format!("damaged, {rows} rows"),
        None => "no rows that can be read".to_owned(),
    }
}

impl Outcome {
    fn said(&self) -> String {
        match self {
            Self::Value(value) => value.clone(),
            Self::Error(error) => format!("error {error}"),
            Self::Ends(status) => format!("it ends, {status}"),
            Self::Hangs => "it hangs".to_owned(),
        }
    }
}

/// The directory of a scene. What was mounted in it is unmounted.
struct Place(tempfile::TempDir);

impl Drop for Place {
    fn drop(&mut self) {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let inside = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for mount in inside.filter(|path| Path::new(path).starts_with(self.0.path())) {
            let _ = Command::new("umount").arg("-l").arg(mount).status();
        }
    }
}

/// A scene that is being played.
struct Stage<'s> {
    directory: &'s Path,
    side: Side,
    journal: &'s str,
    sqlite: Option<&'s Path>,
    before: HashMap<&'s str, Vec<String>>,
    clients: HashMap<&'s str, Lines>,
}

fn run(scene: &Scene, side: Side, journal: &str, sqlite: Option<&Path>) -> Ending {
    let place = Place(tempfile::tempdir().unwrap());
    let directory = place.0.path().canonicalize().unwrap().join("here");
    std::fs::create_dir(&directory).unwrap();
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(place.0.path(), open_to_all).unwrap();
    let (before, clients) = (HashMap::new(), HashMap::new());
    let mut stage = Stage { directory: &directory, side, journal, sqlite, before, clients };
    let made = stage.step("maker: make()");
    assert_eq!(made, Some(Outcome::Value("None".to_owned())), "{}", scene.name);
    stage.clients.clear();
    let mut steps = Vec::new();
    for step in scene.steps.split(" | ").map(str::trim) {
        if let Some(outcome) = stage.step(step) {
            steps.push((step.to_owned(), outcome));
        }
    }
    // They close what they have open and end, one after the other.
    let mut names: Vec<_> = stage.clients.keys().copied().collect();
    names.sort_unstable();
    for name in names {
        let closed = stage.step_of(name, "[close(name) for name in list(connections)]");
        let mut client = stage.clients.remove(name).unwrap();
        let ended = if closed == Outcome::Hangs { None } else { client.ends_within(HANGS) };
        let ended = match ended {
            Some(status) if status.success() => Outcome::Value("it ends".to_owned()),
            Some(status) => Outcome::Ends(status.to_string()),
            None => Outcome::Hangs,
        };
        steps.push((format!("{name}: the end"), ended));
    }
    let files = files(&directory);
    stage.side = Side::Stock;
    let mut databases = BTreeMap::new();
    for name in files.keys().filter(|name| is_database(&directory.join(name))) {
        let path = serde_json::to_string(name).unwrap();
        let found = match stage.step_of("judge", &format!("look({path})")) {
            Outcome::Value(found) => Some(read(&found)),
            _ => None,
        };
        databases.insert(name.clone(), found);
    }
    Ending { steps, databases, files }
}

/// The files under a directory, also those of other file systems there, by their names: mode, owner, group.
fn files(directory: &Path) -> BTreeMap<String, (u32, u32, u32)> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(within) = directories.pop() {
        for path in std::fs::read_dir(within).unwrap().map(|file| file.unwrap().path()) {
            let file = std::fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
            found.insert(name, (file.mode(), file.uid(), file.gid()));
            if file.is_dir() {
                directories.push(path);
            }
        }
    }
    found
}

/// Whether SQLite takes the file for a database that is not empty: its content may still be in its WAL.
fn is_database(path: &Path) -> bool {
    let header = || {
        let mut header = [0; 16];
        std::fs::File::open(path)?.read_exact(&mut header).map(|()| header)
    };
    let wal = PathBuf::from(format!("{}-wal", path.display()));
    path.symlink_metadata().is_ok_and(|file| file.is_file())
        && (header().is_ok_and(|header| &header == b"SQLite format 3\0") || wal.exists())
}

impl<'s> Stage<'s> {
    /// Plays a step. What became of it; `None` if it tells nothing.
    fn step(&mut self, step: &'s str) -> Option<Outcome> {
        let (who, sign, what) = parts(step);
        match sign {
            ":" => return Some(self.step_of(who, marked(what, self.journal).0)),
            // If it has ended, its next step says so.
            "&" => drop(self.client(who).try_say(what)),
            "=" => return Some(heard(self.client(who))),
            "!" => {
                let pid = self.clients[who].pid().to_string();
                vfs_tests::run("kill", &[&format!("-{what}"), &pid]);
                if what == "KILL" {
                    self.clients.remove(who).unwrap().kill();
                }
            }
            "%" => {
                let words = what.split(' ').map(|word| word.replace('~', " "));
                self.before.insert(who, words.collect());
            }
            _ => {
                let mut shell = Command::new("sh");
                let output =
                    shell.args(["-ec", what]).current_dir(self.directory).output().unwrap();
                assert!(output.status.success(), "{step}: {output:?}");
            }
        }
        None
    }

    fn step_of(&mut self, who: &'s str, code: &str) -> Outcome {
        let client = self.client(who);
        client.try_say(code);
        heard(client)
    }

    fn client(&mut self, who: &'s str) -> &mut Lines {
        let (directory, before) = (self.directory, self.before.get(who));
        let vfs = if self.side == Side::Ours { "kanban" } else { "unix" };
        self.clients.entry(who).or_insert_with(|| {
            let words = before.into_iter().flatten().map(String::as_str);
            let words: Vec<_> = words.chain([PYTHON]).collect();
            let mut command = Command::new(words[0]);
            command.args(&words[1..]).arg("-S").arg("-B");
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenes/client.py"));
            command.arg(vfs).arg(extension()).arg(self.journal).current_dir(directory);
            if let Some(sqlite) = self.sqlite {
                command.env("LD_LIBRARY_PATH", sqlite);
            }
            Lines::start(command)
        })
    }
}

fn heard(client: &mut Lines) -> Outcome {
    match client.hear_or(HANGS) {
        Heard::Line(line) => {
            let reply: Value = serde_json::from_str(&line).expect("clients speak JSON");
            let text = |key: &str| reply[key].as_str().map(str::to_owned);
            match text("value") {
                Some(value) => Outcome::Value(value),
                None => Outcome::Error(text("error").expect("a value or an error")),
            }
        }
        Heard::End => match client.ends_within(HANGS) {
            Some(status) => Outcome::Ends(status.to_string()),
            None => Outcome::Hangs,
        },
        Heard::Nothing => Outcome::Hangs,
    }
}

/// A directory that has the newest SQLite under the name of Debian's, for the dynamic linker.
fn newest() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let directory = Path::new(env!("NEWEST_SQLITE")).parent().unwrap().join("newest");
        std::fs::create_dir_all(&directory).unwrap();
        // Another test program may make it at the same time.
        match symlink(env!("NEWEST_SQLITE"), directory.join("libsqlite3.so.0")) {
            Err(why) if why.kind() != std::io::ErrorKind::AlreadyExists => panic!("{why}"),
            _ => directory,
        }
    })
}
