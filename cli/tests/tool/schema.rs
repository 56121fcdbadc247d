//! Scripts read what the tool says with `--json`. `docs/operating.schema.json` describes it, and holds for all that it says.

use std::path::Path;
use std::process::{Command, Stdio};

use jsonschema::Validator;
use serde_json::{Value, json as value};

use vfs_tests::{Agent, Program};

use crate::{TOOL, board, client, outcome, signal, until};

/// The part of the schema by that name.
fn schema(of: &str) -> Validator {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating.schema.json");
    let whole: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(jsonschema::meta::is_valid(&whole));
    let part = value!({
        "$schema": whole["$schema"],
        "$ref": format!("#/$defs/{of}"),
        "$defs": whole["$defs"],
    });
    let whole = jsonschema::validator_for(&whole).unwrap();
    assert!(!whole.is_valid(&value!({"error": 7})));
    jsonschema::validator_for(&part).unwrap()
}

#[track_caller]
pub(crate) fn agrees(said: &Value, of: &str) {
    let errors: Vec<_> = schema(of)
        .iter_errors(said)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}: {said:#}");
}

/// What the tool says, one object a line or over many lines.
fn said(arguments: &[&str], board: &Path) -> (Option<i32>, Vec<Value>) {
    let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = Vec::new();
    all.extend(arguments.iter().map(|one| one as &dyn AsRef<std::ffi::OsStr>));
    all.push(&board);
    let (code, out, errors) = outcome(&all);
    let values = serde_json::Deserializer::from_str(&out).into_iter::<Value>();
    (code, values.map(|value| value.unwrap_or_else(|e| panic!("{e}: {out}{errors}"))).collect())
}

/// A board that nobody has open, and one with everybody at it: a holder, which is stopped, one in the queue, a stock client
/// that reads, and a checkpoint that it keeps from its end. Each member that can be something else than null is.
#[test]
fn status_agrees_with_its_schema() {
    let board = board();
    let (_, idle) = said(&["status", "--json"], &board.path());
    agrees(&idle[0], "status");
    let mut reader = Agent::start_stock(Program::Python, "");
    reader.open("c", &board.uri("unix"), 0);
    reader.sql("c", "BEGIN; SELECT count(*) FROM tasks").rows();
    let mut holder = client(&board, "kanban");
    holder.sql("c", "INSERT INTO tasks (title) VALUES ('x'); BEGIN IMMEDIATE").rows();
    let mut waiter = client(&board, "kanban");
    waiter.send_sql("c", "BEGIN IMMEDIATE");
    signal(&holder.pid().to_string(), libc::SIGSTOP);
    let is_whole = |said: &Value| said["waiters"] == 1 && said["holder"]["state"] == "stopped";
    let whole = until(|| said(&["status", "--json"], &board.path()).1.remove(0), is_whole);
    agrees(&whole, "status");
    for list in ["queue", "sqlite_locks", "readers", "clients"] {
        assert_ne!(whole[list], value!([]), "{list}");
    }
    assert!(whole["wal"].is_object(), "{whole:#}");
    // The schema notices what is wrong.
    for (pointer, wrong) in
        [("/holder/held_ms", value!("long")), ("/readers/0/vfs", value!("other"))]
    {
        let mut changed = whole.clone();
        *changed.pointer_mut(pointer).unwrap() = wrong;
        assert!(!schema("status").is_valid(&changed), "{pointer}");
    }
    for more in ["/clients/0", "/holder", ""] {
        let mut changed = whole.clone();
        changed.pointer_mut(more).unwrap()["undocumented"] = value!(1);
        assert!(!schema("status").is_valid(&changed), "{more}");
    }

    // Those who wait for a stock client are another list.
    signal(&holder.pid().to_string(), libc::SIGCONT);
    holder.sql("c", "COMMIT").rows();
    waiter.reply().rows();
    waiter.sql("c", "COMMIT").rows();
    reader.sql("c", "COMMIT; BEGIN IMMEDIATE").rows();
    waiter.send_sql("c", "BEGIN IMMEDIATE");
    let is_whole = |said: &Value| said["sqlite_waiters"] != value!([]);
    agrees(&until(|| said(&["status", "--json"], &board.path()).1.remove(0), is_whole), "status");
}

/// `watch` says an object a line, each time; also once the board is gone.
#[test]
fn watch_says_a_line_each_time() {
    let board = board();
    let mut holder = client(&board, "kanban");
    holder.sql("c", "BEGIN IMMEDIATE").rows();
    let (code, lines) = said(&["watch", "--json", "--interval=50", "--count=3"], &board.path());
    assert_eq!((code, lines.len()), (Some(0), 3));
    for line in &lines {
        agrees(line, "watch");
        assert_eq!(line["holder"]["pid"], holder.pid());
    }
    let ms = |nth: usize| lines[nth]["watch"]["unix_ms"].as_u64().unwrap();
    assert!(ms(0) < ms(1) && ms(1) < ms(2), "{lines:#?}");
    assert!(
        lines[2]["watch"]["longest_hold_ms"].as_u64() >= lines[0]["holder"]["held_ms"].as_u64()
    );
    let (_, out, _) =
        outcome(&[&"watch", &"--json", &"--count=2", &"--interval=50", &board.path()]);
    assert_eq!(out.lines().count(), 2, "{out}");

    holder.close("c");
    let mut watch = Command::new(TOOL);
    watch.args(["watch", "--json", "--interval=50"]).arg(board.path());
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    agrees(&next(), "watch");
    std::fs::remove_file(board.path()).unwrap();
    let gone = until(&mut next, |line| line["error"].is_string());
    agrees(&gone, "watch_error");
    assert!(gone["error"].as_str().unwrap().contains("no such file"), "{gone}");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn check_agrees_with_its_schema() {
    let board = board();
    let mut writer = client(&board, "kanban");
    writer.sql("c", "INSERT INTO tasks (title) VALUES ('x')").rows();
    let (code, sound) = said(&["check", "--json"], &board.path());
    assert_eq!((code, &sound[0]["state"]), (Some(0), &value!("ok")));
    agrees(&sound[0], "check");
    assert_eq!(sound[0]["wal"]["size"], "small", "{}", sound[0]);
    std::fs::hard_link(board.path(), board.directory().join("second.db")).unwrap();
    let (code, unsound) = said(&["check", "--json"], &board.path());
    assert_eq!((code, &unsound[0]["state"]), (Some(1), &value!("problem")));
    agrees(&unsound[0], "check");
}

/// A burst and a measurement, short ones, say what came of them, and what was wrong.
#[test]
fn stress_and_bench_agree_with_their_schemas() {
    let place = tempfile::tempdir().unwrap();
    let (new, svg) = (place.path().join("new.db"), place.path().join("burst.svg"));
    let svg = format!("--svg={}", svg.display());
    let burst = ["stress", "--json", "--processes=2", "--transactions=5", &svg];
    let (code, stress) = said(&burst, &new);
    agrees(&stress[0], "stress");
    assert_eq!((code, &stress[0]["acknowledged"]), (Some(0), &value!(10)), "{stress:?}");
    assert_eq!(stress[0]["board"], new.to_str().unwrap());
    let drawn = std::fs::read_to_string(place.path().join("burst.svg")).unwrap();
    assert!(drawn.contains("time since the burst began") && drawn.contains("<circle"), "{drawn}");
    let (code, error) = said(&burst, &new);
    assert_eq!((code, &error[0]["database"]), (Some(2), &value!(new.to_str().unwrap())));
    agrees(&error[0], "error");
    let case = "--case=1,wal,normal,0";
    let (_, out, _) = outcome(&[&"bench", &"--json", &case, &"--runs=2", &"--duration=50"]);
    let bench: Value = serde_json::from_str(&out).unwrap();
    agrees(&bench, "bench");
    let ways = bench["cases"][0]["ways"].as_array().unwrap();
    assert!(ways.len() == 3 && ways.iter().all(|way| way["runs"].as_array().unwrap().len() == 2));
}

/// A script asks for JSON and gets it whatever is wrong: a board that is not there, a text, no board at all, a wrong option.
#[test]
fn errors_are_json_too() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text");
    std::fs::write(&text, "no database").unwrap();
    for command in ["status", "watch", "check", "log"] {
        for (path, words) in [
            (directory.path().join("missing.db"), "no such file"),
            (text.clone(), "no SQLite database"),
        ] {
            let (code, error) = said(&[command, "--json"], &path);
            assert_eq!((code, error.len()), (Some(2), 1), "{command}: {error:?}");
            agrees(&error[0], "error");
            assert_eq!(error[0]["database"], path.to_str().unwrap());
            assert!(error[0]["error"].as_str().unwrap().contains(words), "{error:?}");
        }
        let (code, out, _) = outcome(&[&command, &"--json"]);
        let error: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &error["database"]), (Some(2), &Value::Null), "{out}");
        agrees(&error, "error");
    }
    let (code, error) = said(&["status", "--json", "--colour"], &text);
    assert_eq!(code, Some(2));
    agrees(&error[0], "error");
    assert!(error[0]["error"].as_str().unwrap().contains("--colour"), "{error:?}");
}
