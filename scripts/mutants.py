#!/usr/bin/env python3
"""Mutation testing of the guards, the write lock and the interposition.

cargo-mutants lists the mutants. This script puts all of them into one copy of the tree,
target/mutants/tree, each behind `if mutant(N)`, so that they are built once; KANBAN_MUTANT=N chooses
one. It leaves out those that do not compile. Then it runs every test by itself to see which mutants the
test reaches. It tries each mutant with the tests that reach it, unit tests before promises, quick ones
first, until one fails. A promise that fails counts only if it fails alone, too. A constant cannot ask
`mutant`, so the script builds mutants of constants one by one, and tries them with the unit tests only.

It needs root and Linux, as each test has a PID and a mount namespace of its own: a mutant may end any
process by mistake. The script appends results to target/mutants/results.jsonl, and does not try again
what is there.

    cargo install cargo-mutants --locked && pip install tree-sitter tree-sitter-rust
    scripts/mutants.py                             all mutants
    scripts/mutants.py src/guard --match 'with true'
    scripts/mutants.py --again-survivors           those that survived, with the tests as they are now
    scripts/mutants.py --table                     the counts, and the mutants that survived
"""

import argparse
import collections
import hashlib
import json
import mmap
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import tree_sitter
import tree_sitter_rust

ROOT = pathlib.Path(__file__).resolve().parent.parent
PLACE = ROOT / "target/mutants"
TREE = PLACE / "tree"
RESULTS = PLACE / "results.jsonl"
# What is known of the tree as it is built: which mutants are in it, and who reaches them.
BUILT = PLACE / "built.json"
# Where tests have their files, by a short name, as lines of the log hold 200 bytes: a sync costs nothing there.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
DIRECTORIES = ("src/guard/", "src/lock/", "src/group_commit/", "src/connection/", "src/shim/")
# Models of the kernel and the schedules: tests themselves.
NOT_TRIED = ("src/lock/kernel.rs", "src/lock/simulation.rs", "src/lock/model.rs")
# Promises that take long, or measure how the lock is shared out.
SKIP = ["thousands_of_databases", "busy_process", "a_monitor_never_sees", "wherever_one",
        "kills_at_any_moment", "nobody_starves", "a_process_in_a_loop", "a_complete_checkpoint",
        "the_wal_stays_small", "a_storm_of_first", "a_pool_of_workers", "two_copies"]
# A promise that takes longer is not run at all.
LONGEST = 12

MUTANT_RS = r"""
/// Whether mutant `n` is the one to be tried. Notes that it was reached, if that is wanted.
#[allow(unsafe_code)]
#[inline]
pub(crate) fn mutant(n: u32) -> bool {
    use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed};
    static CHOSEN: AtomicU32 = AtomicU32::new(u32::MAX);
    static REACHED: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
    #[cold]
    fn begin() {
        use std::os::fd::AsRawFd;
        let chosen = std::env::var("KANBAN_MUTANT").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
        if let Some(name) = std::env::var_os("KANBAN_REACHED") {
            if let Ok(file) = std::fs::OpenOptions::new().read(true).write(true).open(name) {
                let at = unsafe {
                    libc::mmap(std::ptr::null_mut(), 65536, libc::PROT_READ | libc::PROT_WRITE,
                               libc::MAP_SHARED, file.as_raw_fd(), 0)
                };
                if at != libc::MAP_FAILED {
                    REACHED.store(at.cast(), Relaxed);
                }
            }
        }
        CHOSEN.store(chosen, Relaxed);
    }
    if CHOSEN.load(Relaxed) == u32::MAX {
        begin();
    }
    let reached = REACHED.load(Relaxed);
    if !reached.is_null() {
        unsafe { *reached.add(n as usize) = 1 };
    }
    CHOSEN.load(Relaxed) == n
}
"""


# --- The tree with all mutants -------------------------------------------------------------------

def listed():
    """What cargo-mutants would do, numbered from 1."""
    found = json.loads(subprocess.run(["cargo", "mutants", "--list", "--json", "--file", "src/**/*.rs"],
                                      cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    found = [mutant for mutant in found
             if mutant["file"].startswith(DIRECTORIES) and mutant["file"] not in NOT_TRIED
             and not mutant["file"].endswith("/tests.rs")
             and mutant["span"]["start"]["line"] < first_test(mutant["file"])]
    for number, mutant in enumerate(found, 1):
        mutant["number"] = number
    return found


def first_test(file):
    """The line from which on there are tests, of which cargo-mutants knows some."""
    lines = (ROOT / file).read_text().splitlines()
    tests = (number for number, line in enumerate(lines) if line.endswith("mod tests {"))
    return next(tests, len(lines) + 1)


def span(source, mutant):
    """Where it is, in bytes."""
    lines = source.splitlines(keepends=True)

    def at(place):
        line = place["line"] - 1
        return (len("".join(lines[:line]).encode())
                + len(lines[line][:place["column"] - 1].encode()))

    return at(mutant["span"]["start"]), at(mutant["span"]["end"])


def enclosing(node, kinds):
    while node is not None and node.type not in kinds:
        node = node.parent
    return node


def is_constant(node):
    """Whether `mutant` cannot be called there."""
    while node is not None:
        if node.type in ("const_item", "static_item", "const_block"):
            return True
        if node.type == "function_item":
            return any(child.type == "function_modifiers" and b"const" in child.text
                       for child in node.children)
        node = node.parent
    return False


class File:
    """A source with its mutants in it."""

    def __init__(self, name, mutants):
        text = (ROOT / name).read_text()
        self.source = text.encode()
        root = tree_sitter.Parser(tree_sitter.Language(tree_sitter_rust.language())).parse(self.source).root_node
        # By the place that is rewritten: how, and the mutants with the text of each.
        self.places = collections.defaultdict(list)
        self.alone = []
        for mutant in mutants:
            start, end = span(text, mutant)
            node = root.descendant_for_byte_range(start, end)
            genre, by = mutant["genre"], mutant["replacement"].encode()
            if is_constant(node):
                self.alone.append(mutant["number"])
                continue
            if genre == "FnValue":
                function = enclosing(node, ("function_item",))
                result = function.child_by_field_name("return_type")
                if result is not None and result.text.startswith(b"impl "):
                    self.alone.append(mutant["number"])
                    continue
                place = ("body", start, end)
                change = b"" if by == b"()" else by
            elif genre == "MatchArmGuard":
                place, change = ("guard", start, end), by
            elif genre == "MatchArm":
                arm = enclosing(node, ("match_arm",))
                pattern = arm.child_by_field_name("pattern")
                last = arm.parent.named_children[-1].child_by_field_name("pattern").text
                if last != b"_" and not (last.decode().isidentifier() and last.islower()):
                    # With a guard at one arm, the others may not be exhaustive.
                    self.alone.append(mutant["number"])
                    continue
                guard = pattern.child_by_field_name("condition")
                if guard is not None:
                    place, change = ("guard", guard.start_byte, guard.end_byte), b"false"
                else:
                    place, change = ("arm", pattern.start_byte, pattern.end_byte), b""
            else:
                kinds = {"BinaryOperator": ("binary_expression", "compound_assignment_expr"),
                         "UnaryOperator": ("unary_expression",),
                         "StructField": ("struct_expression",)}[genre]
                around = enclosing(node, kinds)
                place = ("value", around.start_byte, around.end_byte)
                change = self.source[around.start_byte:start] + by + self.source[end:around.end_byte]
            self.places[place].append((mutant["number"], change))

    def render(self, without):
        """The text, and where in it each mutant is: (start, end, number)."""
        out, where = bytearray(), []
        places = sorted(self.places.items(), key=lambda item: (item[0][1], -item[0][2], item[0][0] != "body"))

        def put(text, number=None):
            begin = len(out)
            out.extend(text)
            if number is not None:
                where.append((begin, len(out), number))

        def copy(start, end, inside):
            at = start
            while inside:
                (kind, first, last), mutants = inside[0]
                nested = [item for item in inside[1:] if item[0][2] <= last]
                inside = [item for item in inside[1:] if item[0][2] > last]
                put(self.source[at:first])
                mutants = [(number, change) for number, change in mutants if number not in without]
                before, after = b"", b""
                if kind == "body":
                    for number, change in mutants:
                        put(b"if crate::mutant(%d) { " % number)
                        put(b"return %s;" % change, number)
                        put(b" } ")
                elif kind == "value" and mutants:
                    put(b"(")
                    for number, change in mutants:
                        put(b"if crate::mutant(%d) { " % number)
                        put(change, number)
                        put(b" } else ")
                    before, after = b"{ ", b" })"
                elif kind == "guard" and mutants:
                    for number, change in mutants:
                        put(b"(crate::mutant(%d) || " % number if change == b"true"
                            else b"(!crate::mutant(%d) && " % number, number)
                    before, after = b"(", b")" * (len(mutants) + 1)
                elif kind == "arm" and mutants:
                    after = b" if " + b" && ".join(b"!crate::mutant(%d)" % number for number, _ in mutants)
                put(before)
                copy(first, last, nested)
                put(after)
                at = last
            put(self.source[at:end])

        copy(0, len(self.source), places)
        return bytes(out), where


def copy_tree():
    """Makes the copy, or brings it up to date; only what has changed is touched."""
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True,
                           capture_output=True, text=True).stdout.splitlines()
    for name in names:
        source, target = ROOT / name, TREE / name
        if source.is_file() and not (name.startswith(DIRECTORIES) or name == "src/lib.rs" or name in NOT_TRIED):
            write(target, source.read_bytes())
            shutil.copymode(source, target)
    for name in NOT_TRIED:
        write(TREE / name, (ROOT / name).read_bytes())
    write(TREE / "src/lib.rs", (ROOT / "src/lib.rs").read_text().replace(
        "\n#![deny(unsafe_code)]\n",
        "\n#![deny(unsafe_code)]\n#![allow(warnings, arithmetic_overflow, unconditional_panic)]\n"
        + MUTANT_RS).encode())
    if (ROOT / "target/release").exists() and not (TREE / "target").exists():
        # Spares building the dependencies again.
        shutil.copytree(ROOT / "target/release", TREE / "target/release", symlinks=True,
                        copy_function=shutil.copy2)


def write(target, content):
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_bytes() != content:
        target.write_bytes(content)


def cargo(*arguments):
    """Runs cargo in the copy: what it says."""
    built = subprocess.run(["cargo", *arguments, "--release", "--message-format=json", "--quiet"],
                           cwd=TREE, capture_output=True, text=True)
    return built.returncode, [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]


def product(said, name):
    """The executable, or else the shared library, of that name."""
    found = [message for message in said
             if message.get("reason") == "compiler-artifact" and message["target"]["name"] == name]
    return (next((message["executable"] for message in found if message["executable"]), None)
            or next(file for message in found for file in message["filenames"] if file.endswith(".so")))


def build(mutants):
    """Builds all that compile: the executables, and the numbers of those that do not."""
    copy_tree()
    by_file = collections.defaultdict(list)
    for mutant in mutants:
        by_file[mutant["file"]].append(mutant)
    files = {name: File(name, inside) for name, inside in by_file.items()}
    for path in ROOT.glob("src/*/*.rs"):
        name = str(path.relative_to(ROOT))
        if name.startswith(DIRECTORIES) and name not in files:
            write(TREE / name, path.read_bytes())
    unviable = set()
    while True:
        where = {}
        for name, file in files.items():
            text, where[name] = file.render(unviable)
            write(TREE / name, text)
        code, said = cargo("check", "--lib", "--package", "vfs-tests")
        if code == 0:
            break
        found = set()
        for message in said:
            message = message.get("message")
            if not isinstance(message, dict) or message["level"] != "error":
                continue
            for place in message["spans"]:
                if place["is_primary"]:
                    found |= {number for start, end, number in where.get(place["file_name"], ())
                              if start <= place["byte_start"] and place["byte_end"] <= end}
        if not found:
            sys.exit("\n".join(message["message"]["rendered"] for message in said
                               if message.get("reason") == "compiler-message"))
        unviable |= found
        print(f"{len(unviable)} mutants do not compile", flush=True)
    built = {}
    for name, what in (("unit", ["test", "--lib", "--no-run", "--package", "kanban-vfs"]),
                       ("promises", ["test", "--no-run", "--package", "vfs-tests", "--test", "promises"]),
                       ("extension", ["build", "--lib", "--package", "kanban-vfs",
                                      "--target-dir", "target/extension"])):
        code, said = cargo(*what)
        if code != 0:
            sys.exit("\n".join(message["message"]["rendered"] for message in said
                               if message.get("reason") == "compiler-message"))
        built[name] = product(said, "promises" if name == "promises" else "kanban_vfs")
    alone = sorted(number for file in files.values() for number in file.alone)
    return built | {"unviable": sorted(unviable), "alone": alone}


# --- Tests ---------------------------------------------------------------------------------------

def run(program, arguments, built, seconds, **environment):
    """Runs tests until one fails: its name, 'timeout', 'crash', or None."""
    with tempfile.TemporaryDirectory(prefix="m-", dir=MEMORY, ignore_cleanup_errors=True) as place:
        os.chmod(place, 0o1777)  # Some tests become another user.
        environment = dict(os.environ, TMPDIR=place, KANBAN_EXTENSION=built["extension"],
                           PROPTEST_RNG_SEED="1", CARGO_MANIFEST_DIR=str(TREE / "vfs-tests"), **environment)
        inside = ["unshare", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child",
                  "sh", "-c", '"$@"; exit $?', "sh"]
        tests = subprocess.Popen([*inside, program, *arguments], cwd=TREE / "vfs-tests", env=environment,
                                 text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, errors="replace",
                                 stdin=subprocess.DEVNULL, start_new_session=True,
                                 preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, 6 << 30)))
        expired = threading.Event()

        def end():
            expired.set()
            os.killpg(tests.pid, signal.SIGKILL)

        timer = threading.Timer(seconds, end)
        timer.start()
        failed, finished = None, False
        try:
            for line in tests.stdout:
                if line.startswith("test ") and line.rstrip().endswith("FAILED"):
                    failed = line.split()[1]
                    break
                finished |= line.startswith("test result: ok")
        finally:
            timer.cancel()
            try:
                os.killpg(tests.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            tests.wait()
    if failed or finished:
        return failed
    return "timeout" if expired.is_set() else "crash"


def names(program):
    said = subprocess.run([program, "--list"], capture_output=True, text=True, check=True,
                          cwd=TREE / "vfs-tests").stdout
    return [line[:-len(": test")] for line in said.splitlines() if line.endswith(": test")]


def reach(built, kind, name):
    """How long a test takes, and the mutants that it reaches; None if it fails."""
    with tempfile.NamedTemporaryFile(dir=MEMORY) as file:
        file.truncate(65536)
        os.chmod(file.name, 0o666)
        began = time.monotonic()
        failed = run(built[kind], ["--exact", name], built, 60, KANBAN_REACHED=file.name)
        took = time.monotonic() - began
        with mmap.mmap(file.fileno(), 65536) as reached:
            numbers = [number for number, byte in enumerate(reached[:]) if byte]
    return None if failed else {"seconds": round(took, 2), "reached": numbers}


def stamp():
    """Of the tree as it is."""
    state = hashlib.sha256()
    said = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True,
                          capture_output=True, text=True).stdout.splitlines()
    for name in sorted(said):
        if name.startswith(("src/", "vfs-tests/", "Cargo")) and (ROOT / name).is_file():
            state.update(name.encode() + (ROOT / name).read_bytes())
    return state.hexdigest()


class Expired(Exception):
    """There is no time left."""


def prepare(until, as_built):
    """Builds, and learns who reaches what, unless that is known of this tree."""
    built = json.loads(BUILT.read_text()) if BUILT.exists() else {}
    now = built["stamp"] if as_built else stamp()
    mutants = built["mutants"] if as_built else listed()
    if built.get("stamp") != now:
        before = built.get("tests", {})
        built = build(mutants) | {"stamp": now, "mutants": mutants, "tests": {}, "todo": []}
        built["todo"] = [["unit", name] for name in names(built["unit"])]
        built["todo"] += [["promises", name] for name in names(built["promises"])
                          if not any(part in name for part in SKIP)
                          # One that takes too long is not asked again.
                          and before.get(f"promises {name}", {}).get("seconds", 0) <= LONGEST]
        BUILT.write_text(json.dumps(built))
        failed = run(built["unit"], [], built, 120)
        if failed:
            sys.exit(f"without a mutant: {failed} fails")
    while built["todo"]:
        if time.monotonic() > until:
            raise Expired
        kind, name = built["todo"].pop()
        said = reach(built, kind, name)
        if said is None:
            print(f"without a mutant: {name} fails", flush=True)
        else:
            built["tests"][f"{kind} {name}"] = said
        BUILT.write_text(json.dumps(built))
    for said in built["tests"].values():
        said["reached"] = set(said["reached"])
    return built


# --- Mutants -------------------------------------------------------------------------------------

def groups(tests, seconds):
    """Tests in the order of the time they take, in groups of so many seconds, then more."""
    group, total = [], 0
    for name, took in sorted(tests, key=lambda test: test[1]):
        if group and total + took > seconds:
            yield group, total
            group, total, seconds = [], 0, 3 * seconds
        group.append(name)
        total += took
    if group:
        yield group, total


def verdict(built, number, promise_seconds):
    """caught, survived or timeout; by which test; how many tests it met, of how many that reach it."""
    choice = {"KANBAN_MUTANT": str(number)}
    reaching = {kind: [(key.split(" ", 1)[1], said["seconds"]) for key, said in built["tests"].items()
                       if key.startswith(kind + " ") and number in said["reached"]]
                for kind in ("unit", "promises")}
    of = sum(map(len, reaching.values()))
    met = 0
    for group, seconds in groups(reaching["unit"], 1):
        met += len(group)
        by = run(built["unit"], ["--exact", *group], built, 15 + 10 * seconds, **choice)
        if by:
            return ("timeout" if by == "timeout" else "caught"), by, met, of
    spent = 0
    for group, seconds in groups(reaching["promises"], 2):
        if spent + seconds > promise_seconds:
            break
        spent += seconds
        while group:
            by = run(built["promises"], ["--exact", *group, "--test-threads=6"], built, 15 + 3 * seconds, **choice)
            if by is None:
                break
            if by in ("timeout", "crash"):
                if run(built["promises"], ["--exact", *group, "--test-threads=6"], built, 60):
                    break
                return ("timeout" if by == "timeout" else "caught"), by, met + len(group), of
            # Others run beside it, and on the same machine: it counts if it fails alone, too, and not
            # without the mutant.
            if not run(built["promises"], ["--exact", by], built, 30, **choice):
                print(f"{by} failed, but not again", flush=True)
                group = [name for name in group if name != by]
                continue
            if run(built["promises"], ["--exact", by], built, 60):
                print(f"{by} fails without a mutant, too", flush=True)
                group = [name for name in group if name != by]
                continue
            return "caught", by, met + len(group), of
        met += len(group)
    return "survived", None, met, of


def alone(built, mutant):
    """Builds it by itself, and runs the unit tests."""
    file = TREE / mutant["file"]
    kept = file.read_bytes()
    text = (ROOT / mutant["file"]).read_text()
    start, end = span(text, mutant)
    source = text.encode()
    try:
        file.write_bytes(source[:start] + mutant["replacement"].encode() + source[end:])
        # Elsewhere, as the executables with all mutants are still wanted.
        code, said = cargo("test", "--lib", "--no-run", "--package", "kanban-vfs", "--target-dir", "target/alone",
                           "--config", "profile.release.package.kanban-vfs.opt-level=1")
        if code != 0:
            return "unviable", None, 0, 0
        unit = product(said, "kanban_vfs")
        by = run(unit, [], built, 60)
        return ("timeout" if by == "timeout" else "caught" if by else "survived"), by, 0, 0
    finally:
        file.write_bytes(kept)


def results():
    """What is known, the last word of each."""
    if not RESULTS.exists():
        return {}
    return {found["name"]: found for found in map(json.loads, RESULTS.read_text().splitlines())}


def attempt(built, mutant, promise_seconds):
    began = time.monotonic()
    number = mutant["number"]
    if number in built["unviable"]:
        said = "unviable", None, 0, 0
    elif number in built["alone"]:
        said = alone(built, mutant)
    else:
        said = verdict(built, number, promise_seconds)
    result = {"name": mutant["name"], "file": mutant["file"], "verdict": said[0], "by": said[1],
              "met": said[2], "reached_by": said[3], "seconds": round(time.monotonic() - began, 1)}
    known = results().get(mutant["name"])
    # With fewer tests it is not known better.
    if not (known and known["verdict"] == result["verdict"] == "survived" and known["met"] > result["met"]):
        with RESULTS.open("a") as file:
            file.write(json.dumps(result) + "\n")
    print(f"{result['verdict']:9} {result['seconds']:5} s  {mutant['name']}  {result['by'] or ''}"
          f"  {result['met']}/{result['reached_by']}", flush=True)


def table(mutants):
    """Prints the counts by file, and what survived."""
    count = collections.defaultdict(collections.Counter)
    known = results()
    total = collections.Counter(mutant["file"] for mutant in mutants)
    survived = []
    for mutant in mutants:
        found = known.get(mutant["name"])
        if found:
            count[mutant["file"]][found["verdict"]] += 1
            if found["verdict"] == "survived":
                survived.append(found)
    print("| file | mutants | tried | caught | timeouts | unviable | survived |")
    print("|---|---|---|---|---|---|---|")
    for file in sorted(total):
        of = count[file]
        print(f"| {file} | {total[file]} | {sum(of.values())} | {of['caught']} | {of['timeout']} "
              f"| {of['unviable']} | {of['survived']} |")
    every = sum(count.values(), collections.Counter())
    print(f"| | {len(mutants)} | {sum(every.values())} | {every['caught']} | {every['timeout']} "
          f"| {every['unviable']} | {every['survived']} |")
    for found in survived:
        print(f"{found['name']}  {found['met']}/{found['reached_by']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=list(DIRECTORIES), metavar="PATH",
                        help="files or directories")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long; go on by the next run")
    parser.add_argument("--match", default="", help="only those whose name contains this")
    parser.add_argument("--again", action="store_true", help="also those that are known")
    parser.add_argument("--again-survivors", action="store_true", help="only those that survived")
    parser.add_argument("--promise-seconds", type=float, default=60,
                        help="try only the quickest promises, as many as take so long without a mutant (60)")
    parser.add_argument("--as-built", action="store_true",
                        help="go on with what was built, whatever has changed in the sources since")
    parser.add_argument("--table", action="store_true", help="print the results")
    options = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    if options.table:
        return table(json.loads(BUILT.read_text())["mutants"])
    until = time.monotonic() + options.seconds
    try:
        built = prepare(until, options.as_built)
    except Expired:
        return print("the tests are not all known yet", flush=True)
    known = results()
    todo = [mutant for mutant in built["mutants"]
            if any(mutant["file"].startswith(path.rstrip("/")) for path in options.paths)
            and options.match in mutant["name"]
            and (options.again or mutant["name"] not in known
                 or options.again_survivors and known[mutant["name"]]["verdict"] == "survived")
            and (not options.again_survivors or mutant["name"] in known)]
    # A run that is cut short is still a sample of all, of the guards first.
    random.seed(1)
    random.shuffle(todo)
    todo.sort(key=lambda mutant: not mutant["file"].startswith("src/guard/"))
    print(f"{len(todo)} mutants", flush=True)
    for mutant in todo:
        if time.monotonic() > until:
            break
        attempt(built, mutant, options.promise_seconds)


if __name__ == "__main__":
    main()
