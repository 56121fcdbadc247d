//! Runs a scene on both VFSes, and compares.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use vfs_tests::{Heard, Lines, PYTHON, extension};

/// For how long a step may last: the stock VFS waits for locks a second or two in these scenes.
const HANGS: Duration = Duration::from_secs(30);

/// Who does what.
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
    pub(crate) steps: &'static str,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Value(String),
    Error(String),
    Dies,
    Hangs,
}

/// What became of a scene.
#[derive(Debug)]
struct Ending {
    steps: Vec<(String, Outcome)>,
    /// How many rows there are; `None` if they cannot be read.
    rows: Option<u64>,
    is_sound: bool,
    /// The files by their names: mode, owner, group.
    files: BTreeMap<String, (u32, u32, u32)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Stock,
    Ours,
}

/// How ours is worse than the stock VFS, a line for each way. In WAL mode with Debian's SQLite and with a rollback journal
/// and the newest; with `KANBAN_SCENES=all` in the environment, each with each.
pub(crate) fn fails(scene: &Scene) -> Vec<String> {
    let mut found = Vec::new();
    let all =
        [("wal", None), ("delete", Some(newest())), ("wal", Some(newest())), ("delete", None)];
    let scenes = if std::env::var("KANBAN_SCENES").is_ok_and(|n| n == "all") { 4 } else { 2 };
    for (journal, sqlite) in &all[..scenes] {
        let stock = run(scene, Side::Stock, journal, *sqlite);
        let ours = run(scene, Side::Ours, journal, *sqlite);
        let version = if sqlite.is_some() { "newest" } else { "Debian's" };
        for worse in stock.compare(&ours) {
            found.push(format!("{} ({journal}, {version}): {worse}", scene.name));
        }
    }
    found
}

impl Ending {
    /// How `ours` is worse.
    fn compare(&self, ours: &Self) -> Vec<String> {
        let mut worse = Vec::new();
        for ((step, stock), (_, ours)) in self.steps.iter().zip(&ours.steps) {
            let is_worse = match (stock, ours) {
                (stock, ours) if stock == ours => false,
                (Outcome::Value(_), _) => true,
                (_, Outcome::Value(_)) | (Outcome::Dies | Outcome::Hangs, Outcome::Error(_)) => {
                    false
                }
                (_, ours) => matches!(ours, Outcome::Dies | Outcome::Hangs),
            };
            if is_worse {
                worse.push(format!("{step}: {}, on the stock VFS {}", ours.said(), stock.said()));
            }
        }
        if self.rows > ours.rows {
            worse.push(format!("rows: {:?}, on the stock VFS {:?}", ours.rows, self.rows));
        }
        if self.is_sound && !ours.is_sound {
            worse.push("the database is damaged, on the stock VFS it is not".to_owned());
        }
        for (name, ours) in &ours.files {
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

impl Outcome {
    fn said(&self) -> String {
        match self {
            Self::Value(value) => value.clone(),
            Self::Error(error) => format!("error {error}"),
            Self::Dies => "it dies".to_owned(),
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
    // They close what they have open as programs do that end, one after the other.
    let mut names: Vec<_> = stage.clients.keys().copied().collect();
    names.sort_unstable();
    for name in names {
        stage.step_of(name, "[close(name) for name in list(connections)]");
        stage.clients.remove(name);
    }
    let files = std::fs::read_dir(&directory).unwrap().map(|file| {
        let file = file.unwrap();
        let found = std::fs::symlink_metadata(file.path()).unwrap();
        let name = file.file_name().to_string_lossy().into_owned();
        (name, (found.mode(), found.uid(), found.gid()))
    });
    let files = files.collect();
    stage.side = Side::Stock;
    let is_sound = stage.step("judge: sql('PRAGMA integrity_check')");
    let rows = match stage.step("judge: count()") {
        Some(Outcome::Value(rows)) => rows.parse().ok(),
        _ => None,
    };
    let is_sound = is_sound == Some(Outcome::Value("[('ok',)]".to_owned()));
    Ending { steps, rows, is_sound, files }
}

impl<'s> Stage<'s> {
    /// Plays a step. What became of it; `None` if it tells nothing.
    fn step(&mut self, step: &'s str) -> Option<Outcome> {
        let (who, rest) = step.split_at(step.find([':', '&', '=', '!', '%', '$']).unwrap());
        let (sign, what) = (&rest[..1], rest[1..].trim());
        match sign {
            ":" => return Some(self.step_of(who, what)),
            "&" => self.client(who).say(what),
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
        if client.try_say(code) { heard(client) } else { Outcome::Dies }
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
        Heard::End => Outcome::Dies,
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
