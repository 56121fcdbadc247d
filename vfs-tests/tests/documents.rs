//! What the README and docs show works: a reader copies a command, a query or a piece of code, and
//! gets what is promised. And they can be read: each page says which question of which reader it answers, sentences are short, and
//! words that made readers stop do not come back. Comments of the programs are held to the same rules.
//!
//! | a block of | |
//! |---|---|
//! | `sh` | is run, line by line, beside a board, with the extension and the tool in their places |
//! | `sh`, a line of `cargo`, `pip` or a script | stands in `.ci/run`, up to its ` -- `: there it is run, in short |
//! | `sql` | is run by the `sqlite3` shell, through the VFS |
//! | `python` | is run by Debian's Python |
//! | `c` | is built with the names of examples/c and run, by Debian's SQLite |
//! | `js` | stands in such a client, or is run by the node that has what it needs, where `.ci/run` has installed one: `KANBAN_NODES` |
//! | `rust` | stands, line for line, in an example that is built and run |
//! | `ruby`, `perl`, `php`, `go` | stands, line for line, in a client that `scripts/clients-tests.sh` runs |
//! | `text`, `ini` and none | is shown only |
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vfs_tests::{extension, preload};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().canonicalize().unwrap()
}

/// A fenced block of a document.
struct Block {
    document: PathBuf,
    line: usize,
    language: String,
    text: String,
}

fn blocks(document: &Path) -> Vec<Block> {
    let (mut blocks, mut open) = (Vec::new(), None);
    for (n, line) in std::fs::read_to_string(document).unwrap().lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                let (document, language) = (document.to_owned(), language.trim().to_owned());
                open = Some(Block { document, line: n + 1, language, text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => writeln!(block.text, "{line}").unwrap(),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{}: a block is not closed", document.display());
    blocks
}

fn documents() -> Vec<PathBuf> {
    let docs = root().join("docs").read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut documents: Vec<_> =
        docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    for document in ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"] {
        documents.push(root().join(document));
    }
    documents
}

/// A directory as a reader has it before them: a clone that was built, and a board.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("target/release");
    std::fs::create_dir_all(&target).unwrap();
    std::os::unix::fs::symlink(extension(), target.join("libkanban_vfs.so")).unwrap();
    for name in ["examples", "include", "python"] {
        std::os::unix::fs::symlink(root().join(name), place.path().join(name)).unwrap();
    }
    // The tool with its libraries beside it, as it looks for them.
    let tools = place.path().join("bin");
    std::fs::create_dir_all(&tools).unwrap();
    let test = std::env::current_exe().unwrap();
    std::fs::copy(test.ancestors().nth(2).unwrap().join("kanban-vfs"), tools.join("kanban-vfs"))
        .unwrap();
    for library in [extension(), preload()] {
        std::os::unix::fs::symlink(library, tools.join(library.file_name().unwrap())).unwrap();
    }
    // The module as `pip install` leaves it.
    let module = place.path().join("site/kanban_vfs");
    std::fs::create_dir_all(&module).unwrap();
    for file in root().join("python/kanban_vfs").read_dir().unwrap().map(|file| file.unwrap()) {
        std::os::unix::fs::symlink(file.path(), module.join(file.file_name())).unwrap();
    }
    let _ = std::fs::remove_file(module.join("libkanban_vfs.so"));
    std::os::unix::fs::symlink(extension(), module.join("libkanban_vfs.so")).unwrap();
    let metadata = place.path().join("site/kanban_vfs-0.dist-info");
    std::fs::create_dir_all(&metadata).unwrap();
    std::fs::write(metadata.join("METADATA"), "Name: kanban-vfs\nVersion: 0\n").unwrap();
    run(place.path(), "sqlite3 :memory: -cmd '.load ./target/release/libkanban_vfs' -cmd '.open file:board.db?vfs=kanban' \
         'PRAGMA journal_mode=wal; CREATE TABLE tasks (id INTEGER PRIMARY KEY, title TEXT); INSERT INTO tasks (title) VALUES (1)'").unwrap();
    place
}

/// Runs a line of a shell, with the tool on the path.
fn run(place: &Path, line: &str) -> Result<(), String> {
    let tools = place.join("bin");
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("timeout")
        .args(["60", "bash", "-euo", "pipefail", "-c", line])
        .current_dir(place)
        .env("PATH", format!("{}:/usr/bin:{path}", tools.display()))
        .env("PYTHONPATH", place.join("site"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.success() { Ok(()) } else { Err(format!("{}: {said}", output.status)) }
}

/// Programs that are run by `.ci/run`, since they build or install something or take their time.
const BY_CI: [&str; 8] =
    ["cargo ", "pip ", "python3 -m pip ", "npm ", "scripts/", "./scripts/", "apt-get ", "cc "];

/// Each line of a shell block, with those that a backslash continues.
fn commands(text: &str) -> Vec<String> {
    text.replace("\\\n", " ")
        .lines()
        .map(|line| line.split(" # ").next().unwrap().trim().to_owned())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A piece of C between those names that examples/c/board.c has.
fn run_c(place: &Path, block: &str) -> Result<(), String> {
    let program = format!(
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <sqlite3.h>\n#include <stddef.h>\n\
         #include <kanban_vfs.h>\n\
         int main(void) {{\n sqlite3 *loader, *board = NULL; char *why = sqlite3_malloc(200); int rc = 0;\n\
         sqlite3_open(\":memory:\", &loader);\n{block}\n\
         return rc || !sqlite3_vfs_find(\"kanban\") || (board && sqlite3_exec(board, \
         \"PRAGMA kanban_status\", NULL, NULL, NULL));\n}}\n"
    );
    // There, "sizeof why" is that of an array.
    let program = match program.contains("sizeof why") {
        true => program.replace("char *why = sqlite3_malloc(200)", "char why[200]"),
        false => program,
    };
    std::fs::write(place.join("block.c"), program).unwrap();
    let built = "cc -Iinclude block.c -Ltarget/release -lkanban_vfs -lsqlite3 -o block";
    run(place, &format!("{built} && LD_LIBRARY_PATH=target/release ./block"))
}

/// `KANBAN_NODES` has lines of a node and a directory of modules for it. The first that has what the
/// block requires runs it; without any, nothing is known of it but that it is there.
fn run_js(place: &Path, block: &str) -> Result<(), String> {
    let Ok(nodes) = std::env::var("KANBAN_NODES") else { return Ok(()) };
    std::fs::write(place.join("block.js"), block).unwrap();
    let module = block.split("require('").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    for (node, modules) in nodes.lines().filter_map(|line| line.split_once(' ')) {
        let with = format!("NODE_PATH={modules} {node}");
        if run(place, &format!("{with} -e \"require('{module}')\"")).is_ok() {
            return run(place, &format!("{with} block.js"));
        }
    }
    Err(format!("none of these has {module}: {nodes}"))
}

/// All lines of all programs in that language in a directory, without the white space at their ends.
fn programs(directory: &str, suffix: &str) -> String {
    fn read(directory: &Path, suffix: &str, all: &mut String) {
        for entry in directory.read_dir().unwrap().map(|entry| entry.unwrap()) {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "target" {
                read(&path, suffix, all);
            } else if path.extension().is_some_and(|extension| extension == suffix) {
                let text = std::fs::read_to_string(&path).unwrap();
                all.extend(text.lines().flat_map(|line| [line.trim(), "\n"]));
            }
        }
    }
    let mut all = String::from("\n");
    read(&root().join(directory), suffix, &mut all);
    all
}

/// A reader tries whatever the documents show.
#[test]
fn all_that_is_shown_works() {
    vfs_tests::needs!("sqlite3", vfs_tests::needs::SQLITE_HEADER);
    let ci = words(&std::fs::read_to_string(root().join(".ci/run")).unwrap().replace("\\\n", " "));
    let (mut tried, mut failed) = (0, Vec::new());
    for document in documents() {
        let place = place();
        for block in blocks(&document) {
            let mut failures = Vec::new();
            match block.language.as_str() {
                "sh" => {
                    for command in commands(&block.text) {
                        tried += 1;
                        if BY_CI.iter().any(|program| command.starts_with(program)) {
                            // `.ci/run` reads the README's packages from the README.
                            let command =
                                command.replace("apt-get install ", "apt-get install -- ");
                            let program = words(command.split(" -- ").next().unwrap());
                            if !ci.contains(&program) {
                                failures.push(format!("`{program}` is not in .ci/run"));
                            }
                        } else if let Err(why) = run(place.path(), &command) {
                            failures.push(format!("`{command}`: {why}"));
                        }
                    }
                }
                "sql" => {
                    tried += 1;
                    std::fs::write(place.path().join("block.sql"), &block.text).unwrap();
                    let line = "sqlite3 -bail :memory: -cmd '.load ./target/release/libkanban_vfs' \
                                -cmd '.open file:board.db?vfs=kanban' < block.sql";
                    failures.extend(run(place.path(), line).err());
                }
                "python" => {
                    tried += 1;
                    let code = format!("import sqlite3\n{}", block.text);
                    std::fs::write(place.path().join("block.py"), code).unwrap();
                    failures.extend(run(place.path(), "/usr/bin/python3 block.py").err());
                }
                "c" => {
                    tried += 1;
                    failures.extend(run_c(place.path(), &block.text).err());
                }
                "js" if block.text.contains("require(") => {
                    tried += 1;
                    failures.extend(run_js(place.path(), &block.text).err());
                }
                "rust" | "ruby" | "perl" | "php" | "go" | "js" => {
                    tried += 1;
                    let known = match block.language.as_str() {
                        "rust" => programs("examples", "rs"),
                        "perl" => programs("scripts/clients", "pl"),
                        "ruby" => programs("scripts/clients", "rb"),
                        same => programs("scripts/clients", same),
                    };
                    let shown: String =
                        block.text.lines().flat_map(|line| [line.trim(), "\n"]).collect();
                    if !known.contains(&format!("\n{shown}")) {
                        failures.push("it stands in no example".to_owned());
                    }
                }
                "text" | "ini" | "toml" | "" => {}
                other => failures.push(format!("`{other}` is no language that is known here")),
            }
            let at = format!("{}:{}", block.document.display(), block.line);
            failed.extend(failures.into_iter().map(|why| format!("{at}: {why}")));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    assert!(tried > 10, "only {tried}");
}

/// A reader follows a link: to a document, to a heading in it, to a test or a source file.
#[test]
fn all_links_lead_somewhere() {
    let anchors = |document: &Path| -> Vec<String> {
        std::fs::read_to_string(document)
            .unwrap()
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .map(|heading| {
                let heading = heading.trim_start_matches('#').trim().to_lowercase();
                let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
                kept.collect::<String>().replace(' ', "-")
            })
            .collect()
    };
    let mut followed = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => document.clone(),
                _ => document.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{}: {link}", document.display());
            let is_there = anchor.is_empty() || anchors(&target).iter().any(|a| a == anchor);
            assert!(is_there, "{}: {link}: no such heading", document.display());
            followed += 1;
        }
    }
    assert!(followed > 20, "only {followed}");
}

/// A diary of long runs, whose sentences may be long.
const NO_PROSE: &str = "test-results.md";

fn name(document: &Path) -> &str {
    document.file_name().and_then(|name| name.to_str()).unwrap()
}

/// A reader opens a page and sees at its top whether it is for them. The index has all pages.
#[test]
fn each_page_says_which_question_it_answers() {
    let index = std::fs::read_to_string(root().join("docs/index.md")).unwrap();
    for document in documents() {
        let name = name(&document);
        let is_exempt = ["README.md", "CHANGELOG.md", "index.md"].contains(&name);
        if is_exempt {
            continue;
        }
        assert!(index.contains(&format!("{name})")), "docs/index.md does not name {name}");
        let text = std::fs::read_to_string(&document).unwrap();
        let top = text.split("\n\n").nth(1).unwrap_or_default();
        let is_said = top.starts_with("*For ") && top[1..].contains('*');
        assert!(is_said, "{name} does not begin with *For ...: a question*, but with {top}");
    }
}

/// The most words of a sentence. 25 are the rule; this is where nobody follows any more.
const MOST_WORDS: usize = 40;

/// What made readers stop, in lower case. A word at the end of an entry is a whole one.
const STOPS_READERS: [&str; 17] = [
    "can not ",
    "whoever",
    "whosoever",
    "mended ",
    "mends ",
    "give back",
    "gives back",
    "given back",
    "gave back",
    "nobody who ",
    "it is made up ",
    "who is alone",
    "of its own accord",
    "of their own accord",
    "told of",
    "to be had",
    "all the same",
];

/// The text of a document without its code, with a word for each piece of code and link: paragraphs, list items and cells of tables.
fn prose(text: &str) -> Vec<String> {
    let (mut parts, mut part, mut is_code) = (Vec::new(), String::new(), false);
    for line in text.lines().map(str::trim) {
        if line.starts_with("```") {
            is_code = !is_code;
        }
        if is_code || line.starts_with("```") {
            continue;
        }
        let is_item = line.starts_with("- ")
            || line.split_once(". ").is_some_and(|(n, _)| n.parse::<u32>().is_ok());
        if line.is_empty() || is_item || line.starts_with(['#', '|']) {
            parts.push(std::mem::take(&mut part));
        }
        match line.starts_with('|') {
            true => parts.extend(line.split('|').map(str::to_owned)),
            false => part.extend([line.trim_start_matches(['#', '-']), " "]),
        }
    }
    parts.push(part);
    parts.iter().map(|part| without_code(part)).collect()
}

/// Code becomes the word "Code", and of a link its text stays.
fn without_code(part: &str) -> String {
    let parts = part.split('`').enumerate();
    let text: String = parts.map(|(n, text)| if n % 2 == 1 { "Code" } else { text }).collect();
    let mut links = text.split("](");
    let first = links.next().unwrap_or_default().to_owned();
    links.fold(first, |text, rest| text + rest.split_once(')').map_or("", |(_, rest)| rest))
}

/// The sentences of a part of a document.
fn sentences(part: &str) -> Vec<String> {
    let (mut all, mut sentence) = (Vec::new(), Vec::new());
    for word in part.split_whitespace() {
        let begins = word.trim_start_matches(['(', '[', '*', '"']).starts_with(char::is_uppercase);
        let ends =
            |last: &&str| last.trim_end_matches([')', ']', '*', '"']).ends_with(['.', '?', '!']);
        if begins && sentence.last().is_some_and(ends) {
            all.push(std::mem::take(&mut sentence).join(" "));
        }
        sentence.push(word);
    }
    all.push(sentence.join(" "));
    all
}

/// What is wrong with the prose of a document.
fn complaints(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for sentence in prose(text).iter().flat_map(|part| sentences(part)) {
        let words = sentence.split(' ').count();
        if words > MOST_WORDS {
            found.push(format!("{words} words: {sentence}"));
        }
        let lower = format!("{} ", sentence.to_lowercase());
        let stops = STOPS_READERS.iter().find(|stop| lower.contains(*stop));
        found.extend(stops.map(|stop| format!("\"{stop}\": {sentence}")));
        if lower.starts_with("who ") && words > 1 && !sentence.ends_with('?') {
            found.push(format!("begins with \"who\", and asks nothing: {sentence}"));
        }
    }
    found
}

/// A reader understands each sentence at first reading.
#[test]
fn sentences_are_short_and_plain() {
    let packages =
        ["python/README.md", "npm/README.md", "cli/README.md"].map(|file| root().join(file));
    let mut found = Vec::new();
    for document in documents().into_iter().chain(packages) {
        if name(&document) == NO_PROSE {
            continue;
        }
        let text = std::fs::read_to_string(&document).unwrap();
        let here = complaints(&text).into_iter();
        found.extend(here.map(|complaint| format!("{}: {complaint}", document.display())));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Directories of programs whose comments are read like the documents.
const PROGRAMS: [&str; 10] = [
    "src",
    "cli",
    "preload",
    "include",
    "python/kanban_vfs",
    "python/tests",
    "npm",
    "examples",
    "benches",
    "vfs-tests",
];

/// The markers with which the lines of comments begin, by the end of a file's name.
fn markers(path: &Path) -> &'static [&'static str] {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("rs") => &["///", "//!", "//"],
        Some("c" | "h") => &["**", "//"],
        Some("py") => &["#:", "#"],
        _ => &[],
    }
}

/// The comments of a program, as a document: code becomes empty lines.
fn comments(source: &str, markers: &[&str]) -> String {
    let mut text = String::new();
    for line in source.lines().map(str::trim) {
        let comment = markers.iter().find_map(|marker| line.strip_prefix(marker));
        let is_text = |comment: &&str| comment.is_empty() || comment.starts_with(' ');
        let comment = comment.filter(is_text).unwrap_or_default().trim();
        // A heading of rustdoc needs no empty line behind it.
        let end = if comment.starts_with("# ") { "\n\n" } else { "\n" };
        text.extend([comment, end]);
    }
    text
}

/// The programs in a directory, without those that were built or installed there.
fn programs_in(directory: &Path, found: &mut Vec<PathBuf>) {
    for path in directory.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
        if !path.is_dir() {
            found.extend(Some(path).filter(|path| !markers(path).is_empty()));
        } else if !["target", "node_modules"].contains(&name(&path)) {
            programs_in(&path, found);
        }
    }
}

/// A reader understands each sentence of a comment at first reading, too.
#[test]
fn comments_are_short_and_plain() {
    let mut programs = Vec::new();
    for directory in PROGRAMS {
        programs_in(&root().join(directory), &mut programs);
    }
    let mut found = Vec::new();
    for program in &programs {
        let text = comments(&std::fs::read_to_string(program).unwrap(), markers(program));
        let here = complaints(&text).into_iter();
        found.extend(here.map(|complaint| format!("{}: {complaint}", program.display())));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(programs.len() > 100, "only {}", programs.len());
}

/// Somebody writes as before: each kind of complaint is made, in paragraphs, lists and tables, and nothing else is.
#[test]
fn what_stops_readers_is_found() {
    let long = "word ".repeat(MOST_WORDS + 1);
    for (text, complaint) in [
        (long.as_str(), "41 words"),
        ("- It does. Who waits is served.", "begins with"),
        ("| a | Whoever waits is served. |", "whoever"),
        ("It can not\nwait.", "can not"),
        ("1. It is mended in 3.31.", "mended"),
    ] {
        let found = complaints(text);
        assert!(found.len() == 1 && found[0].contains(complaint), "{text}: {found:?}");
    }
    for text in [
        "Who has it open? It cannot be told. `whoever`",
        &format!("```text\n{long}\n```"),
        &format!("{}. {}", "word ".repeat(39).trim(), "Word ".repeat(39)),
    ] {
        assert_eq!(complaints(text), [""; 0], "{text}");
    }
    for source in ["fn f() {} /// Whoever waits\n/// is served.", "let x = \"whoever\";"] {
        let found = complaints(&comments(source, &["///", "//"]));
        assert_eq!(found, [""; 0], "{source}");
    }
    let source = "fn f() {\n    // # Heading\n    // Whoever\n    // waits.\n}";
    assert_eq!(complaints(&comments(source, &["//"])), ["\"whoever\": Whoever waits."]);
}
