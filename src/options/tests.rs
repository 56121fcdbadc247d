use super::*;

/// The options that the extension takes from these variables.
fn from(variables: &[(&str, &str)]) -> Result<Options, String> {
    Options::from_env(|name| {
        variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).into())
    })
}

#[test]
fn the_environment_sets_the_defaults_of_the_extension() {
    assert_eq!(from(&[]), Ok(Options::default()));
    let expected =
        Options::default().with_base("unix").with_busy_timeout(Duration::from_millis(70));
    assert_eq!(from(&[("KANBAN_BASE_VFS", "unix"), ("KANBAN_BUSY_TIMEOUT", "70")]), Ok(expected));
    let expected = Options::default()
        .with_begin(Begin::Immediate)
        .with_begin_timeout(Duration::from_millis(30))
        .with_busy_timeout_min(Duration::from_millis(20))
        .with_file_ahead(false)
        .with_group_commit(true)
        .with_hard_links(true)
        .with_network_wal(true)
        .with_persist_wal(true)
        .with_record(false)
        .with_record_sql(true)
        .with_slow(Duration::from_millis(7));
    let set = [
        ("KANBAN_BEGIN", "immediate"),
        ("KANBAN_BEGIN_TIMEOUT", "30"),
        ("KANBAN_BUSY_TIMEOUT_MIN", "20"),
        ("KANBAN_FILE_AHEAD", "0"),
        ("KANBAN_GROUP_COMMIT", "1"),
        ("KANBAN_HARD_LINKS", "1"),
        ("KANBAN_NETWORK_WAL", "1"),
        ("KANBAN_PERSIST_WAL", "1"),
        ("KANBAN_RECORD", "0"),
        ("KANBAN_RECORD_SQL", "1"),
        ("KANBAN_SLOW_MS", "7"),
    ];
    assert_eq!(from(&set), Ok(expected));
}

/// A variable that is read but not in the list would be reported as unknown.
#[test]
fn each_variable_that_is_read_is_known() {
    let read = std::cell::RefCell::new(Vec::new());
    let get = |name: &str| {
        read.borrow_mut().push(name.to_owned());
        None
    };
    assert!(Options::from_env(get).is_ok());
    let read = read.into_inner();
    assert!(read.len() > 5, "{read:?}");
    assert_eq!(unknown_variables(read.into_iter().map(Into::into)), Vec::<String>::new());
}

#[test]
fn a_malformed_variable_is_named() {
    for value in ["", "5s", "-1", "+1", " 1", "99999999999999"] {
        let why = from(&[("KANBAN_BUSY_TIMEOUT", value)]).expect_err(value);
        assert!(why.starts_with("KANBAN_BUSY_TIMEOUT: "), "{why}");
    }
    for name in [
        "KANBAN_BEGIN",
        "KANBAN_BEGIN_TIMEOUT",
        "KANBAN_BUSY_TIMEOUT_MIN",
        "KANBAN_FILE_AHEAD",
        "KANBAN_GROUP_COMMIT",
        "KANBAN_HARD_LINKS",
        "KANBAN_NETWORK_WAL",
        "KANBAN_PERSIST_WAL",
        "KANBAN_RECORD",
        "KANBAN_RECORD_SQL",
        "KANBAN_SLOW_MS",
    ] {
        let why = from(&[(name, "on")]).expect_err(name);
        assert!(why.starts_with(name), "{why}");
    }
}
