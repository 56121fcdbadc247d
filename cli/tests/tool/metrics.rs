//! `metrics`: Prometheus reads what all processes at a board have counted, by a file or by HTTP.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use vfs_tests::{Board, needs};

use crate::{TOOL, beside, board, client, outcome, until};

/// The value of the line that begins so.
#[track_caller]
fn value(text: &str, begins: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(begins));
    let line = line.unwrap_or_else(|| panic!("no {begins}: {text}"));
    line.trim().parse().unwrap_or_else(|e| panic!("{begins}{line}: {e}"))
}

/// `kanban_transactions_total{board="..."}` and the like.
fn of(board: &Board, name: &str) -> String {
    format!("{name}{{board=\"{}\"}} ", board.path().display())
}

/// What a program says to a text on its standard input, if it ends well.
fn fed(program: &mut Command, text: &str) -> Result<String, String> {
    let program = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// Two boards, three processes at the first. An operator asks once, so that clients begin to count.
/// From then on the counters cover all processes, also those that have closed the board. The
/// program promtool accepts the text for the node exporter, and OpenMetrics.
#[test]
fn counters_of_all_processes_add_up() {
    needs!("promtool");
    let (board, other) = (board(), board());
    let first = outcome(&[&"metrics", &board.path(), &other.path()]);
    assert_eq!(first.0, Some(0), "{first:?}");
    assert_eq!(value(&first.1, &of(&board, "kanban_transactions_total")), 0.0);
    assert!(beside(&board, "-kanban-log").exists());
    let mut clients: Vec<_> = (0..3).map(|_| client(&board, "kanban")).collect();
    for client in &mut clients {
        for _ in 0..20 {
            client.sql("c", "UPDATE tasks SET title = 'x' WHERE id = 1").rows();
        }
    }
    clients[0].sql("c", "BEGIN IMMEDIATE").rows();
    clients[1].sql("c", "PRAGMA busy_timeout=60").rows();
    assert_eq!(clients[1].sql("c", "BEGIN IMMEDIATE").message(), "database is locked");
    let (_, held, _) = outcome(&[&"metrics", &board.path()]);
    assert!(value(&held, &of(&board, "kanban_held_seconds")) > 0.0);
    clients[0].sql("c", "COMMIT").rows();
    for client in &mut clients {
        client.close("c");
    }
    let (code, text, errors) = outcome(&[&"metrics", &board.path(), &other.path()]);
    assert_eq!((code, &*errors), (Some(0), ""));
    let counted = value(&text, &of(&board, "kanban_transactions_total"));
    // The last connection holds the lock when it cleans up.
    assert!((61.0..=62.0).contains(&counted), "{text}");
    assert_eq!(value(&text, &of(&board, "kanban_hold_seconds_count")), counted);
    let path = board.path();
    let all = format!("kanban_hold_seconds_bucket{{board=\"{}\",le=\"+Inf\"}} ", path.display());
    assert_eq!(value(&text, &all), counted);
    assert_eq!(value(&text, &of(&board, "kanban_give_ups_total")), 1.0);
    assert_eq!(value(&text, &of(&board, "kanban_up")), 1.0);
    assert_eq!(value(&text, &of(&other, "kanban_transactions_total")), 0.0);
    let buckets: Vec<f64> = text
        .lines()
        .filter(|line| {
            line.starts_with("kanban_hold_seconds_bucket")
                && line.contains(&*path.to_string_lossy())
        })
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(buckets.len() > 20 && buckets.is_sorted(), "{buckets:?}");

    let checked = fed(Command::new("promtool").args(["check", "metrics"]), &text);
    assert_eq!(checked, Ok(String::new()), "{text}");
    // It reads OpenMetrics where each sample has a time.
    let (_, text, _) = outcome(&[&"metrics", &"--openmetrics", &board.path(), &other.path()]);
    assert!(text.ends_with("# EOF\n") && text.contains("# TYPE kanban_transactions counter\n"));
    let timed = text.lines().map(|line| match line.starts_with('#') {
        true => format!("{line}\n"),
        false => format!("{line} 1796006807\n"),
    });
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("metrics");
    std::fs::write(&file, timed.collect::<String>()).unwrap();
    let mut promtool = Command::new("promtool");
    promtool.args(["tsdb", "create-blocks-from", "openmetrics"]).arg(&file).arg(place.path());
    let read = fed(&mut promtool, "");
    assert!(read.is_ok(), "{read:?}: {text}");
}

/// A board that does not exist, and one whose log cannot be created, are reported by a value, and
/// by a line on standard error that says why. The others are still measured.
#[test]
fn a_board_that_is_gone_is_down() {
    let board = board();
    std::fs::write(beside(&board, "-kanban-log"), "mine").unwrap();
    let gone = Path::new("/no/such/board.db");
    let (code, text, errors) = outcome(&[&"metrics", &board.path(), &gone]);
    assert_eq!(code, Some(1));
    let foreign =
        format!("kanban-vfs: {}: the event log holds something else", board.path().display());
    assert!(
        errors.contains(&foreign) && errors.contains("board.db: there is no such file"),
        "{errors}"
    );
    assert_eq!(errors.lines().count(), 2, "{errors}");
    assert_eq!(value(&text, "kanban_up{board=\"/no/such/board.db\"} "), 0.0);
    assert_eq!(value(&text, &of(&board, "kanban_up")), 1.0);
    assert_eq!(value(&text, &of(&board, "kanban_recorded")), 0.0);
    assert!(value(&text, &of(&board, "kanban_database_bytes")) > 4000.0);
}

/// The log would be longer than this process may make a file: the operator reads what to see to.
#[test]
fn a_log_that_cannot_be_made_is_told() {
    needs!("prlimit");
    let board = board();
    let mut limited = Command::new("prlimit");
    limited.args(["--fsize=100000", TOOL, "metrics"]).arg(board.path());
    let output = limited.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("cannot make the event log; see to the rights"), "{errors}");
    assert!(!beside(&board, "-kanban-log").exists());
}

/// The tool as a server, which is killed with the test.
struct Server(Child, String);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn serve(board: &Board) -> Server {
    let mut command = Command::new(TOOL);
    command.args(["metrics", "--listen", "127.0.0.1:0"]).arg(board.path());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let address = said.split("//").nth(1).unwrap().split('/').next().unwrap().to_owned();
    Server(child, address)
}

/// The answer to a request, to its end.
fn ask(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(&server.1).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A scraper asks for OpenMetrics and gets it, another gets the older format; a reader that keeps
/// its snapshot shows. Nonsense, and a client that goes away in the middle, delay no other; a
/// client that asks nothing is dropped after some seconds.
#[test]
fn scrapers_are_answered() {
    let board = board();
    let server = serve(&board);
    let _silent = TcpStream::connect(&server.1).unwrap();
    drop(TcpStream::connect(&server.1).unwrap());
    let get = |path: &str, accept: &str| {
        ask(&server, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n"))
    };
    let plain = get("/metrics", "*/*");
    assert!(
        plain.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"),
        "{plain}"
    );
    assert!(plain.contains("\n# TYPE kanban_transactions_total counter\n"), "{plain}");
    let open = get("/metrics", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    assert!(
        open.contains("\r\nContent-Type: application/openmetrics-text")
            && open.ends_with("# EOF\n")
    );
    assert!(get("/", "*/*").contains("see /metrics") && get("/x", "*/*").contains(" 404 "));
    assert!(ask(&server, "POST /metrics HTTP/1.1\r\n\r\n").contains(" 405 "));
    let head = ask(&server, "HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.contains("Content-Length: ") && head.ends_with("\r\n\r\n"), "{head}");

    let mut reader = client(&board, "kanban");
    reader.sql("c", "BEGIN; SELECT count(*) FROM tasks").rows();
    let name = of(&board, "kanban_oldest_snapshot_seconds");
    until(|| value(&get("/metrics", "*/*"), &name), |age| *age > 0.0);
    reader.sql("c", "COMMIT").rows();
    until(|| value(&get("/metrics", "*/*"), &name), |age| *age == 0.0);
    // A port that is taken is an error.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, errors) = outcome(&[&"metrics", &"--listen", &address, &board.path()]);
    assert!(code == Some(2) && errors.contains(&address), "{errors}");
}

/// One client connects and asks nothing; a scraper has its answer before that client is dropped.
/// Then as many as are answered at a time send a byte now and then, and never a whole line. Each is
/// dropped after some seconds, and a scraper has its answer.
#[test]
fn a_slow_client_holds_up_nobody() {
    let board = board();
    let server = serve(&board);
    let is_answered = || ask(&server, "GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200");
    let _ = until(
        || {
            let mut silent = TcpStream::connect(&server.1).unwrap();
            assert!(is_answered());
            silent.set_nonblocking(true).unwrap();
            silent.read(&mut [0]).map_err(|error| error.kind())
        },
        |read| *read == Err(ErrorKind::WouldBlock),
    );
    let slow: Vec<_> = (0..16).map(|_| TcpStream::connect(&server.1).unwrap()).collect();
    let are_connected = || {
        let sends = |mut stream: &TcpStream| stream.write_all(b"x").is_ok();
        slow.iter().filter(|stream| sends(stream)).count()
    };
    std::thread::scope(|scope| {
        let given_up = scope.spawn(|| until(are_connected, |count| *count == 0));
        assert!(is_answered());
        given_up.join().unwrap();
    });
}
