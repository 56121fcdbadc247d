//! What the VFS does with a file that SQLite opens.

use std::ffi::c_int;

use crate::ffi::uri::Uri;
use crate::ffi::{
    SQLITE_OPEN_DELETEONCLOSE, SQLITE_OPEN_MAIN_DB, SQLITE_OPEN_MAIN_JOURNAL,
    SQLITE_OPEN_SUBJOURNAL, SQLITE_OPEN_SUPER_JOURNAL, SQLITE_OPEN_WAL,
};
use crate::guard;
use crate::options::{Options, Settings};

/// What to do with a file that is being opened.
pub(crate) enum OpenPlan {
    /// It stays the base's: a temporary or in-memory database, or one that nobody locks.
    LeaveToBase,
    /// A WAL, a journal or a statement journal, which has no name. It keeps the base's methods, but a forked child
    /// must not use it.
    Watch,
    /// A database that others may share.
    Guard(Settings),
    /// Opening it would lose a guarantee. The text says why and what to do.
    Refuse(String),
}

/// Decides what to do with a file, by the name and flags that xOpen gets and where the name leads.
pub(crate) fn plan_open(uri: &impl Uri, flags: c_int, defaults: &Options) -> OpenPlan {
    let is_shared_database = flags & SQLITE_OPEN_MAIN_DB != 0
        && flags & SQLITE_OPEN_DELETEONCLOSE == 0
        && !uri.is_null();
    if !is_shared_database {
        const WATCHED: c_int =
            SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL;
        let is_watched =
            flags & WATCHED != 0 && !uri.is_null() || flags & SQLITE_OPEN_SUBJOURNAL != 0;
        return if is_watched { OpenPlan::Watch } else { OpenPlan::LeaveToBase };
    }
    let settings = match Settings::from_uri(uri, defaults) {
        Ok(settings) => settings,
        Err(why) => return OpenPlan::Refuse(format!("{}: {why}", uri.path().display())),
    };
    if uri.is_true(c"nolock") || uri.is_true(c"immutable") {
        return OpenPlan::LeaveToBase;
    }
    match guard::mount::refusal(&uri.path()) {
        Some(why) => OpenPlan::Refuse(format!("{}: {why}", uri.path().display())),
        None => OpenPlan::Guard(settings),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;
    use std::ffi::{CStr, CString};
    use std::path::Path;

    struct Name(Vec<(CString, CString)>);

    impl Name {
        fn new(parameters: &[(&str, &str)]) -> Self {
            let c = |text: &&str| CString::new(*text).expect("no NUL");
            Self(parameters.iter().map(|(k, v)| (c(k), c(v))).collect())
        }
    }

    impl Uri for Name {
        fn is_null(&self) -> bool {
            false
        }
        fn get(&self, key: &CStr) -> Option<&CStr> {
            self.0.iter().find(|(k, _)| k.as_c_str() == key).map(|(_, v)| v.as_c_str())
        }
        fn key(&self, n: usize) -> Option<&CStr> {
            self.0.get(n).map(|(k, _)| k.as_c_str())
        }
        fn is_true(&self, key: &CStr) -> bool {
            self.get(key) == Some(c"1")
        }
        fn path(&self) -> Cow<'_, Path> {
            Path::new("/boards/board.db").into()
        }
    }

    fn plan(parameters: &[(&str, &str)]) -> OpenPlan {
        plan_open(&Name::new(parameters), SQLITE_OPEN_MAIN_DB, &Options::default())
    }

    #[test]
    fn a_database_that_nobody_locks_is_left_to_the_base() {
        for key in ["immutable", "nolock"] {
            assert!(matches!(plan(&[(key, "1")]), OpenPlan::LeaveToBase), "{key}");
            assert!(matches!(plan(&[(key, "0")]), OpenPlan::Guard(_)), "{key}");
        }
        let journal = plan_open(&Name::new(&[]), 0x800, &Options::default());
        assert!(matches!(journal, OpenPlan::Watch));
    }

    /// Two values for one parameter: SQLite passes the first on, and says nothing of the other.
    #[test]
    fn a_parameter_that_is_given_twice_is_refused() {
        let key = "kanban_hard_links";
        for second in ["1", "0", "yes"] {
            let OpenPlan::Refuse(why) = plan(&[(key, "0"), ("cache", "private"), (key, second)])
            else {
                panic!("0 and {second} were not refused");
            };
            assert!(why.contains(key) && why.contains("more than once"), "{why}");
        }
    }

    #[test]
    fn a_wrong_parameter_is_refused_by_name() {
        for (key, value) in [
            ("kanban_busy_timeuot", "5"),
            ("kanban_busy_timeout", "soon"),
            ("kanban_busy_timeout", "-1"),
            ("kanban_busy_timeout", "99999999999"),
            ("kanban_file_ahead", "true"),
            ("kanban_group_commit", "on"),
            ("kanban_hard_links", "yes"),
            ("kanban_network_wal", ""),
            ("kanban_persist_wal", "2"),
        ] {
            let OpenPlan::Refuse(why) = plan(&[("cache", "private"), (key, value)]) else {
                panic!("{key}={value} was not refused");
            };
            assert!(why.contains(key) && why.contains("/boards/board.db"), "{why}");
        }
        let OpenPlan::Guard(settings) = plan(&[("kanban_busy_timeout", "250")]) else {
            panic!("a right parameter was refused");
        };
        assert_eq!(settings.busy_timeout_ms(), 250);
        let others = [
            "kanban_file_ahead",
            "kanban_group_commit",
            "kanban_hard_links",
            "kanban_network_wal",
            "kanban_persist_wal",
        ];
        for (value, expected) in [("0", false), ("1", true)] {
            let OpenPlan::Guard(settings) = plan(&others.map(|key| (key, value))) else {
                panic!("right parameters were refused");
            };
            let set = [
                settings.file_ahead,
                settings.group_commit,
                settings.hard_links,
                settings.network_wal,
                settings.persist_wal,
            ];
            assert_eq!(set, [expected; 5]);
        }
    }
}
