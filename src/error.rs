//! Errors of registering and unregistering.

use std::fmt;

/// Why a VFS was not registered or unregistered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// SQLite is older than 3.31.0, the first version that lets a VFS list URI parameters
    /// (<https://www.sqlite.org/c3ref/uri_boolean.html>).
    SqliteTooOld {
        /// The `sqlite3_libversion_number()` of that SQLite, for example 3030001.
        version: i32,
    },
    /// A name with a NUL in it.
    InvalidName {
        /// The name.
        name: String,
    },
    /// The library that an application named (`kanban_vfs_register` in `include/kanban_vfs.h`) does
    /// not export this function of SQLite. Rust programs never get this error.
    MissingFunction {
        /// The name of the function.
        name: String,
    },
    /// No VFS of that name is registered to build on.
    NoBaseVfs {
        /// The name, empty for the default VFS.
        name: String,
    },
    /// The default VFS is not one of the operating system's. This crate does not know what that VFS
    /// does with its files, so the application must name the base:
    /// [`Options::with_base`](crate::Options::with_base).
    BaseUnnamed {
        /// The name of the default VFS.
        name: String,
    },
    /// The base encrypts. It finds its files by pointers that a VFS above it changes, so it would
    /// write plain text. Register it over this VFS instead.
    BaseUnfit {
        /// The name of the base.
        name: String,
    },
    /// Another VFS has this name, or this VFS was registered under it with other options.
    NameTaken {
        /// The name.
        name: String,
    },
    /// Databases are open through the VFS.
    InUse {
        /// The name of the VFS.
        name: String,
        /// How many databases are open.
        databases: usize,
    },
    /// This crate registered no VFS of that name.
    NotRegistered {
        /// The name.
        name: String,
    },
    /// The fork handlers, by which a child abandons the locks that it inherited, cannot be
    /// installed.
    AtFork {
        /// The errno of pthread_atfork(3).
        errno: i32,
    },
    /// SQLite refused.
    Sqlite {
        /// Its result code, <https://www.sqlite.org/rescode.html>.
        code: i32,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SqliteTooOld { version } => write!(
                f,
                "SQLite {}.{}.{} is too old; 3.31.0 or later is needed",
                version / 1_000_000,
                version / 1000 % 1000,
                version % 1000
            ),
            Self::InvalidName { name } => write!(f, "{name:?} cannot be the name of a VFS"),
            Self::MissingFunction { name } => {
                write!(f, "function {name} was not found: is the SQLite linked statically?")
            }
            Self::NoBaseVfs { name } if name.is_empty() => write!(f, "SQLite has no default VFS"),
            Self::NoBaseVfs { name } => write!(f, "no such VFS to build on: {name}"),
            Self::BaseUnnamed { name } => write!(
                f,
                "the default VFS is {name}, which is none of the operating system's; name the VFS to build on: \
                 {name} if it may have another VFS over it, or {} (KANBAN_BASE_VFS, Options::with_base)",
                if cfg!(windows) { "win32" } else { "unix" }
            ),
            Self::BaseUnfit { name } => write!(
                f,
                "{name} would write in plain text under another VFS; register this one over the operating \
                 system's VFS, not as the default one, and open databases with vfs=multipleciphers-kanban"
            ),
            Self::NameTaken { name } => {
                write!(f, "a VFS named {name} is registered already, with other options")
            }
            Self::InUse { name, databases } => {
                write!(f, "VFS {name} has {databases} open database(s)")
            }
            Self::NotRegistered { name } => write!(f, "no VFS named {name} was registered here"),
            Self::AtFork { errno } => {
                let error = std::io::Error::from_raw_os_error(*errno);
                write!(f, "cannot watch for forks: {error}")
            }
            Self::Sqlite { code } => write!(f, "SQLite error {code}"),
        }
    }
}

impl std::error::Error for Error {}
