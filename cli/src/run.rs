//! `run`: starts an unchanged application with this VFS as the default one, which all programs that
//! it starts inherit.
//!
//! It sets environment variables and replaces itself with the application.
//!
//! | variable | does |
//! |---|---|
//! | `LD_PRELOAD` | reaches every SQLite that is linked dynamically: `preload/` |
//! | `NODE_OPTIONS` | reaches better-sqlite3 and node:sqlite: `node.js` |
//! | `KANBAN_VFS_DEFAULT=1` | reaches sqlite3, pysqlite3 and apsw of every Python that has the package installed |
//! | `KANBAN_REQUIRE=1` | reports a database that none of these reaches; not set if it is set already |
//! | `KANBAN_BEGIN=auto` | makes transactions that read first and write later take the write lock first, once others of their kind have written; not set if it is set already |

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;

/// The library that interposes SQLite's functions, and the extension that it loads.
const LIBRARIES: [&str; 2] = ["libkanban_vfs_preload.so", "libkanban_vfs.so"];

/// What Node runs before the application.
const NODE: &str = "kanban_vfs_node.js";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The busy timeout that connections start with, in ms.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(..=i64::from(i32::MAX)))]
    busy_timeout: Option<u32>,
    /// When a transaction takes the write lock: deferred, immediate, or auto, the default here.
    /// With auto, a transaction takes it when it begins to read if others with the same first
    /// statement have written after they had read.
    #[arg(long, value_name = "MODE", value_parser = ["deferred", "immediate", "auto"])]
    begin: Option<String>,
    /// For how long a transaction waits for the write lock when it begins to read, if the
    /// application's busy handler is not known, in ms.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(..=i64::from(i32::MAX)))]
    begin_timeout: Option<u32>,
    /// The least busy timeout, whatever the application sets, in ms.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(..=i64::from(i32::MAX)))]
    busy_timeout_min: Option<u32>,
    /// The VFS underneath, if the application has one of its own.
    #[arg(long, value_name = "NAME")]
    base_vfs: Option<OsString>,
    /// Where the VFS logs its refusals and their reasons: stderr, or a file.
    #[arg(long, value_name = "stderr|PATH")]
    log: Option<OsString>,
    /// Keep the file longer than its header says (1), or not (0).
    #[arg(long, value_name = "0|1", num_args = 0..=1, require_equals = true, default_missing_value = "1", value_parser = ["0", "1"])]
    file_ahead: Option<String>,
    /// Let commits share their syncs.
    #[arg(long, value_name = "0|1", num_args = 0..=1, require_equals = true, default_missing_value = "1", value_parser = ["0", "1"])]
    group_commit: Option<String>,
    /// Write to databases that have several hard links.
    #[arg(long, value_name = "0|1", num_args = 0..=1, require_equals = true, default_missing_value = "1", value_parser = ["0", "1"])]
    hard_links: Option<String>,
    /// Allow WAL mode on network file systems.
    #[arg(long, value_name = "0|1", num_args = 0..=1, require_equals = true, default_missing_value = "1", value_parser = ["0", "1"])]
    network_wal: Option<String>,
    /// Keep the WAL when the last connection closes.
    #[arg(long, value_name = "0|1", num_args = 0..=1, require_equals = true, default_missing_value = "1", value_parser = ["0", "1"])]
    persist_wal: Option<String>,
    /// Record events in the event log beside each board (1), or not (0).
    #[arg(long, value_name = "0|1", num_args = 0..=1, require_equals = true, default_missing_value = "1", value_parser = ["0", "1"])]
    record: Option<String>,
    /// Record the statements of events.
    #[arg(long, value_name = "0|1", num_args = 0..=1, require_equals = true, default_missing_value = "1", value_parser = ["0", "1"])]
    record_sql: Option<String>,
    /// How long a transaction holds the write lock or waits for it, or a checkpoint lasts, before it
    /// is recorded, in ms.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(..=i64::from(i32::MAX)))]
    slow_ms: Option<u32>,
    /// Report on standard error databases that are used without this VFS (1), or not (0).
    #[arg(long, value_name = "0|1", num_args = 0..=1, require_equals = true, default_missing_value = "1", value_parser = ["0", "1"])]
    require: Option<String>,
    /// The directory of libkanban_vfs.so and libkanban_vfs_preload.so; unset, that of this program.
    #[arg(long, value_name = "DIRECTORY")]
    libraries: Option<PathBuf>,
    /// The application: a program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Becomes the application; returns only if that fails.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    if !cfg!(target_os = "linux") {
        return Err("run needs Linux: it sets LD_PRELOAD".into());
    }
    let libraries = libraries(arguments.libraries.as_deref())?;
    let program = &arguments.command[0];
    let mut command = Command::new(program);
    command.args(&arguments.command[1..]);
    command.env("KANBAN_VFS_DEFAULT", "1");
    for (name, value) in [("KANBAN_REQUIRE", "1"), ("KANBAN_BEGIN", "auto")] {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    let unknown = kanban_vfs::unknown_variables(std::env::vars_os().map(|(name, _)| name));
    if !unknown.is_empty() {
        let (unknown, known) = (unknown.join(", "), kanban_vfs::VARIABLES.join(", "));
        eprintln!("kanban-vfs: unknown variables: {unknown}; known: {known}");
    }
    for (name, value) in arguments.variables()? {
        command.env(name, value);
    }
    let library = libraries.join(LIBRARIES[0]);
    command.env("LD_PRELOAD", preloaded(&library)?);
    tell_if_private(&library);
    if let Some(node) = node(&libraries) {
        command.env("NODE_OPTIONS", node_options(&node));
    }
    if let Some(why) = where_is(program).as_deref().and_then(not_reached) {
        eprintln!("kanban-vfs: {}: {why}", program.display());
    }
    let error = command.exec();
    Err(format!("{}: {error}", program.display()).into())
}

impl Arguments {
    /// The environment variables for the options that were given (docs/configuration.md).
    fn variables(&self) -> Result<Vec<(&'static str, OsString)>> {
        let times = [
            ("KANBAN_BUSY_TIMEOUT", self.busy_timeout),
            ("KANBAN_BUSY_TIMEOUT_MIN", self.busy_timeout_min),
            ("KANBAN_BEGIN_TIMEOUT", self.begin_timeout),
            ("KANBAN_SLOW_MS", self.slow_ms),
        ];
        let times = times.into_iter().filter_map(|(name, ms)| Some((name, ms?.to_string().into())));
        let begin = self.begin.clone().map(|begin| ("KANBAN_BEGIN", begin.into()));
        let base = self.base_vfs.clone().map(|base| ("KANBAN_BASE_VFS", base));
        let flags = [
            ("KANBAN_FILE_AHEAD", &self.file_ahead),
            ("KANBAN_GROUP_COMMIT", &self.group_commit),
            ("KANBAN_HARD_LINKS", &self.hard_links),
            ("KANBAN_NETWORK_WAL", &self.network_wal),
            ("KANBAN_PERSIST_WAL", &self.persist_wal),
            ("KANBAN_RECORD", &self.record),
            ("KANBAN_RECORD_SQL", &self.record_sql),
            ("KANBAN_REQUIRE", &self.require),
        ];
        let flags =
            flags.into_iter().filter_map(|(name, flag)| Some((name, flag.as_ref()?.into())));
        let log = match &self.log {
            // The application, or a child of it, may have changed its directory by then.
            Some(file) if file != "stderr" && !file.is_empty() => {
                Some(std::path::absolute(file)?.into())
            }
            log => log.clone(),
        };
        let log = log.map(|log| ("KANBAN_LOG", log));
        Ok(times.chain(begin).chain(base).chain(log).chain(flags).collect())
    }
}

/// The directory that has both libraries.
fn libraries(named: Option<&Path>) -> Result<PathBuf> {
    let mut places: Vec<PathBuf> = Vec::new();
    match named {
        Some(named) => places.push(named.to_owned()),
        None => {
            let program = std::env::current_exe()?;
            let beside = program.parent().unwrap_or(Path::new("/"));
            places.push(beside.to_owned());
            places.push(beside.join("../lib/kanban-vfs"));
            // `cargo install` installs programs only; the libraries stay where they were built.
            places.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release"));
        }
    }
    let has_both = |place: &&PathBuf| LIBRARIES.iter().all(|name| place.join(name).is_file());
    if let Some(found) = places.iter().find(has_both) {
        return Ok(found.canonicalize()?);
    }
    let looked: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
    Err(format!(
        "{} are not in {}: cargo build --release --package kanban-vfs --package kanban-vfs-preload makes them in \
         target/release; name their directory by --libraries",
        LIBRARIES.join(" and "),
        looked.join(", nor in ")
    )
    .into())
}

/// `LD_PRELOAD` with that library at its end: some libraries, such as AddressSanitizer's, must come
/// first. ld.so(8)
fn preloaded(library: &Path) -> Result<OsString> {
    if library.as_os_str().as_bytes().iter().any(|byte| b" :$".contains(byte)) {
        let why = "LD_PRELOAD takes no path with a space, a colon or a dollar sign: name another directory by --libraries";
        return Err(format!("{}: {why}", library.display()).into());
    }
    let mut all = OsString::new();
    let others = std::env::var_os("LD_PRELOAD").unwrap_or_default();
    let others = others.as_bytes().split(|byte| b" :".contains(byte));
    for other in
        others.filter(|other| !other.is_empty() && *other != library.as_os_str().as_bytes())
    {
        all.push(OsStr::from_bytes(other));
        all.push(":");
    }
    all.push(library);
    Ok(all)
}

/// Warns if other users cannot read a file that every child reads: an application that root starts
/// may change its user, and then Node would not start.
fn tell_if_private(file: &Path) {
    if !is_root() {
        return;
    }
    let is_open = |path: &Path, bits: u32| {
        path.metadata().is_ok_and(|found| found.permissions().mode() & bits == bits)
    };
    if !is_open(file, 0o004) || !file.ancestors().skip(1).all(|place| is_open(place, 0o001)) {
        eprintln!(
            "kanban-vfs: {}: not every user may read it: a child of another user goes on with SQLite's own VFS, and \
             a Node does not start; name another directory by --libraries",
            file.display()
        );
    }
}

/// Whether this process runs as root, and so may change its user.
fn is_root() -> bool {
    std::fs::metadata("/proc/self")
        .is_ok_and(|found| std::os::unix::fs::MetadataExt::uid(&found) == 0)
}

/// The script that Node runs first, if it exists here.
fn node(libraries: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/node.js");
    [libraries.join(NODE), source].into_iter().find(|file| file.is_file())
}

/// `NODE_OPTIONS` with that file at its beginning.
fn node_options(file: &Path) -> OsString {
    let quoted = file.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    let mut options = OsString::from(format!("--require \"{quoted}\""));
    if let Some(others) = std::env::var_os("NODE_OPTIONS").filter(|others| !others.is_empty()) {
        if others.to_string_lossy().contains(&*quoted) {
            return others;
        }
        options.push(" ");
        options.push(others);
    }
    options
}

/// The file of a program, as execvp(3) finds it.
fn where_is(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH")?;
    let is_program = |file: &PathBuf| {
        file.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&path).map(|place| place.join(program)).find(is_program)
}

/// Why a preloaded library cannot reach a program; `None` if its file shows no reason.
fn not_reached(program: &Path) -> Option<&'static str> {
    // Only a regular file is opened: open(2) of a FIFO would wait for a writer.
    let found = program.metadata().ok().filter(std::fs::Metadata::is_file)?;
    if found.permissions().mode() & 0o6000 != 0 {
        return Some(
            "has the setuid or setgid bit: ld.so ignores LD_PRELOAD, so it goes on with SQLite's own VFS",
        );
    }
    is_static(&File::open(program).ok()?)?.then_some(
        "is linked statically: no library is preloaded, so its SQLite goes on with its own VFS, unless the program \
         loads the extension itself (docs/clients.md)",
    )
}

/// Whether a file is a statically linked program: an ELF file without an interpreter. `None` if it
/// is no ELF file of 64 bits, little-endian. elf(5)
fn is_static(file: &File) -> Option<bool> {
    const PT_INTERP: u64 = 3;
    let little = |at: u64, size: usize| -> Option<u64> {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes[..size], at).ok()?;
        Some(u64::from_le_bytes(bytes))
    };
    // "\x7fELF", 64 bits, little-endian.
    if little(0, 6)? != 0x0102_464c_457f {
        return None;
    }
    let [start, size, count] = [little(32, 8)?, little(54, 2)?, little(56, 2)?];
    for nth in 0..count {
        if little(start.checked_add(nth * size)?, 4)? == PT_INTERP {
            return Some(false);
        }
    }
    Some(true)
}
