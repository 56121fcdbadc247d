#!/usr/bin/env python3
"""Mutation testing of the guards, the write lock and the interposition.

cargo-mutants (`cargo install cargo-mutants --locked`) lists the mutants; this script tries them one by
one in a copy of the tree, target/mutants/tree, with the unit tests and those promises that bear on the
mutated file, after the same tests have passed without a mutant. It stops a mutant at the first test that
fails. Results are appended to
target/mutants/results.jsonl, and what is there already is not tried again.

    scripts/mutants.py src/guard                   all mutants of a directory or file
    scripts/mutants.py src/lock --sample 40 --seed 7
    scripts/mutants.py src/lock --match 'with true'
    scripts/mutants.py src/guard --under 'nice -n 10'   each mutant through that command
    scripts/mutants.py --table                     the counts, and the mutants that survived
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PLACE = ROOT / "target/mutants"
TREE = PLACE / "tree"
RESULTS = PLACE / "results.jsonl"

# Which promises bear on a file, by prefix of the test's name. The unit tests run for all.
PROMISES = {
    "src/guard/cancellation.rs": ["lock_cancellation::", "fork::"],
    "src/guard/file_length.rs": ["file_length::"],
    "src/guard/filesystem.rs": ["storage::"],
    "src/guard/fork.rs": ["fork::"],
    "src/guard/identity.rs": ["displaced_files::", "canonical_path::", "kept_wal::"],
    "src/guard/mount.rs": ["canonical_path::"],
    "src/guard/wal_index.rs": ["displaced_files::"],
    "src/guard/wal_reset.rs": ["wal_reset::"],
    "src/lock/database.rs": ["lock_scope::", "sidecar::", "timeout::", "queue::", "lock_errors::"],
    "src/lock/holder.rs": ["killed_holder::", "timeout::", "lock_scope::", "queue::"],
    "src/lock/page.rs": ["queue::", "hostile_sidecar::"],
    "src/lock/queue.rs": ["queue::", "killed_holder::", "hostile_sidecar::"],
    "src/lock/sidecar.rs": ["sidecar::", "lock_scope::", "queue::", "fork::"],
    "src/lock/wait.rs": ["timeout::", "queue::", "setlk_timeout::", "first_connect::"],
    "src/file/connection.rs": ["lock_scope::", "timeout::", "first_connect::", "lock_errors::",
                               "wal_reset::", "queue::", "displaced_files::", "storage::"],
    "src/file/guards.rs": ["file_length::", "displaced_files::", "wal_reset::", "kept_wal::",
                           "lock_scope::", "first_connect::", "storage::", "lock_errors::"],
    "src/file/inherited.rs": ["fork::"],
    "src/file/methods.rs": ["lock_scope::", "stacking::", "journal_modes::", "file_length::",
                            "lock_errors::", "kept_wal::", "loading::", "storage::"],
    "src/file/mod.rs": ["fork::", "unloading::", "stacking::"],
    "src/file/refused.rs": ["canonical_path::", "fork::", "loading::"],
}
# Those that take long, or measure times, and find what others find.
SKIP = ["thousands_of_databases", "busy_processes_that_look", "a_monitor_never_sees",
        "wherever_one_stops_the_newest"]
TEST_SECONDS = 120

# Release, but the workspace itself is compiled anew for each mutant.
CONFIG = ["profile.release.incremental=true",
          'profile.release.package.kanban-vfs.opt-level=1',
          'profile.release.package.vfs-tests.opt-level=0']


def cargo(*arguments, package=()):
    """Runs cargo in the copy; the paths of the executables, or None if it does not compile."""
    configuration = [part for item in CONFIG for part in ("--config", item)]
    if "--lib" in arguments and "build" in arguments:
        configuration = configuration[:-2]  # vfs-tests takes no part
    built = subprocess.run(
        ["cargo", arguments[0], "--release", "--message-format=json", "--quiet", *configuration,
         *arguments[1:]],
        cwd=TREE, capture_output=True, text=True)
    if built.returncode != 0:
        return None
    found = (json.loads(line) for line in built.stdout.splitlines() if line.startswith("{"))
    return {artifact["target"]["name"]: artifact.get("executable") or artifact["filenames"][0]
            for artifact in found if artifact.get("reason") == "compiler-artifact"}


def run(program, arguments, environment, seconds):
    """Runs tests until one fails: its name, 'timeout', or None."""
    tests = subprocess.Popen([program, *arguments], cwd=TREE / "vfs-tests", env=environment, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             stdin=subprocess.DEVNULL, start_new_session=True)
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


def verdict(promises, seconds):
    """What the unit tests and those promises say of the tree as it is now."""
    unit = cargo("test", "--lib", "--no-run", "--package", "kanban-vfs")
    if unit is None:
        return "unviable", None
    with tempfile.TemporaryDirectory(prefix="kanban-mutant-", ignore_cleanup_errors=True) as place:
        # Some tests become another user.
        os.chmod(place, 0o1777)
        environment = dict(os.environ, TMPDIR=place, KANBAN_KILLS="3", CARGO="/bin/true",
                           CARGO_MANIFEST_DIR=str(TREE / "vfs-tests"))
        by = run(unit["kanban_vfs"], [], environment, seconds)
        if not by:
            # What the promises load into Python and the shell; they would build it with cargo.
            extension = cargo("build", "--lib", "--package", "kanban-vfs", "--target-dir",
                              "target/extension")
            tests = cargo("test", "--package", "vfs-tests", "--test", "promises", "--no-run")
            if extension is None or tests is None:
                return "unviable", None
            skip = [part for name in SKIP for part in ("--skip", name)]
            by = run(tests["promises"], [*promises, *skip], environment, seconds)
    return ("timeout" if by == "timeout" else "caught" if by else "survived"), by


def mutated(source, mutant):
    """The source with the mutant in it."""
    lines = source.splitlines(keepends=True)
    at = lambda place: sum(map(len, lines[:place["line"] - 1])) + place["column"] - 1
    start, end = at(mutant["span"]["start"]), at(mutant["span"]["end"])
    return source[:start] + mutant["replacement"] + source[end:]


def one(mutant):
    """Tries one mutant."""
    file = TREE / mutant["file"]
    source = file.read_text()
    began = time.monotonic()
    try:
        file.write_text(mutated(source, mutant))
        said, by = verdict(PROMISES[mutant["file"]], TEST_SECONDS)
    finally:
        file.write_text(source)
    result = {"name": mutant["name"], "file": mutant["file"], "verdict": said, "by": by,
              "seconds": round(time.monotonic() - began)}
    with RESULTS.open("a") as results:
        results.write(json.dumps(result) + "\n")
    print(f"{said:9} {result['seconds']:4} s  {mutant['name']}  {by or ''}", flush=True)


def baseline(files):
    """Fails unless all tests pass on the tree as it is: else nothing is known by a test that fails."""
    promises = sorted({name for file in files for name in PROMISES[file]})
    said, by = verdict(promises, 2 * TEST_SECONDS)
    print("no mutant:", said, by or "", flush=True)
    return said == "survived"


def results():
    """What is known, the last word of each."""
    if not RESULTS.exists():
        return {}
    return {found["name"]: found for found in map(json.loads, RESULTS.read_text().splitlines())}


def mutants(paths):
    """What cargo-mutants would do to those files."""
    listed = subprocess.run(["cargo", "mutants", "--list", "--json", "--file", "src/**/*.rs"],
                            cwd=ROOT, check=True, capture_output=True, text=True).stdout
    inside = lambda file: any(file == path or file.startswith(path.rstrip("/") + "/") for path in paths)
    return [mutant for mutant in json.loads(listed)
            if mutant["file"] in PROMISES and inside(mutant["file"])]


def copy():
    """Makes the copy, or brings it up to date; only what has changed is touched."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.splitlines()
    for name in listed:
        source, target = ROOT / name, TREE / name
        if not source.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_bytes() != source.read_bytes():
            shutil.copy(source, target)
    if (ROOT / "target/release").exists() and not (TREE / "target").exists():
        # Spares building the dependencies again.
        shutil.copytree(ROOT / "target/release", TREE / "target/release", symlinks=True,
                        copy_function=shutil.copy2)


def table():
    """Prints the counts by file, and what survived."""
    count = collections.defaultdict(collections.Counter)
    for found in results().values():
        count[found["file"]][found["verdict"]] += 1
    total = collections.Counter(mutant["file"] for mutant in mutants(["src"]))
    print("| file | mutants | tried | caught | timeouts | unviable | survived |")
    print("|---|---|---|---|---|---|---|")
    for file in sorted(count):
        of = count[file]
        print(f"| {file} | {total[file]} | {of.total()} | {of['caught']} | {of['timeout']} "
              f"| {of['unviable']} | {of['survived']} |")
    for found in results().values():
        if found["verdict"] == "survived":
            print(found["name"])


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=["src"], help="files or directories")
    parser.add_argument("--sample", type=int, metavar="N", help="try N of them, evenly spaced")
    parser.add_argument("--seed", type=int, default=1, help="where the sample begins")
    parser.add_argument("--match", default="", help="only those whose name contains this")
    parser.add_argument("--under", default="", metavar="COMMAND", help="run each through COMMAND")
    parser.add_argument("--again", action="store_true", help="also those that are known")
    parser.add_argument("--table", action="store_true", help="print the results")
    parser.add_argument("--one", metavar="JSON", help=argparse.SUPPRESS)
    parser.add_argument("--baseline", metavar="JSON", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return one(json.loads(options.one))
    if options.baseline:
        sys.exit(not baseline(json.loads(options.baseline)))
    if options.table:
        return table()
    PLACE.mkdir(parents=True, exist_ok=True)
    copy()
    todo = [mutant for mutant in mutants(options.paths) if options.match in mutant["name"]]
    if options.sample and options.sample < len(todo):
        step = len(todo) / options.sample
        first = random.Random(options.seed).random() * step
        todo = [todo[int(first + nth * step)] for nth in range(options.sample)]
    known = {} if options.again else results()
    todo = [mutant for mutant in todo if mutant["name"] not in known]
    itself = [*shlex.split(options.under), sys.executable, __file__]
    files = sorted({mutant["file"] for mutant in todo})
    if files:
        subprocess.run([*itself, "--baseline", json.dumps(files)], check=True)
    for mutant in todo:
        only = {key: mutant[key] for key in ("name", "file", "span", "replacement")}
        subprocess.run([*itself, "--one", json.dumps(only)], check=True)


if __name__ == "__main__":
    main()
