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

/// Two values for one parameter: SQLite passes on the first and ignores the other.
#[test]
fn a_parameter_that_is_given_twice_is_refused() {
    let key = "kanban_hard_links";
    for second in ["1", "0", "yes"] {
        let OpenPlan::Refuse(why) = plan(&[(key, "0"), ("cache", "private"), (key, second)]) else {
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
