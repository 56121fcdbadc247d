#!/usr/bin/env python3
"""Mutation testing of the guards, the write lock and the interposition.

cargo-mutants (`cargo install cargo-mutants --locked`) lists the mutants; this script tries them one by
one in a copy of the tree, target/mutants/tree, with the unit tests and those promises that bear on the
mutated file, after the same tests have passed without a mutant. It stops a mutant at the first test that
fails. Results are appended to
target/mutants/results.jsonl, and what is there already is not tried again.

    scripts/mutants.py src/guard                   all mutants of a directory or file
    scripts/mutants.py src/guard:40 src/lock:60 --seed 7   so many of each, evenly spaced
    scripts/mutants.py src/lock --match 'with true'
    scripts/mutants.py --table                     the counts, and the mutants that survived
"""

import argparse
import collections
import json
import os
import pathlib
import random
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
# Where tests have their files, by a short name, as lines of the log hold 200 bytes: a sync costs nothing there.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

# Which promises bear on a file, by part of the test's name. The unit tests come first; those of the
# queue, in model.rs and simulation.rs, only for src/lock.
PROMISES = {
    "src/guard/cancellation.rs": ["lock_cancellation::"],
    "src/guard/file_length.rs": ["file_length::"],
    "src/guard/filesystem.rs": ["storage::"],
    "src/guard/fork.rs": ["fork::"],
    "src/guard/identity.rs": ["displaced_files::", "canonical_path::", "kept_wal::"],
    "src/guard/mount.rs": ["canonical_path::"],
    "src/guard/wal_index.rs": ["displaced_files::"],
    "src/guard/wal_reset.rs": ["wal_reset::"],
    "src/lock/database.rs": ["lock_scope::", "sidecar::", "timeout::", "lock_errors::",
                             "queue::waiters_are_served", "fork::a_childs_own", "unloading::"],
    "src/lock/holder.rs": ["killed_holder::", "timeout::", "queue::waiters_are_served"],
    "src/lock/page.rs": ["queue::waiters_are_served", "queue::a_hostile_page", "hostile_sidecar::"],
    "src/lock/queue.rs": ["queue::waiters_are_served", "queue::a_waiter_is", "queue::where_nobody_wakes",
                          "queue::a_dead_or", "queue::a_client_with", "queue::more_waiters"],
    "src/lock/sidecar.rs": ["sidecar::", "lock_scope::", "queue::waiters_are_served", "queue::a_waiter_is",
                            "fork::a_waiting_parent", "fork::a_childs_own"],
    "src/lock/wait.rs": ["timeout::", "setlk_timeout::", "first_connect::", "queue::a_client_with",
                         "queue::a_refusal"],
    "src/file/connection.rs": ["lock_scope::", "timeout::", "first_connect::", "lock_errors::",
                               "wal_reset::", "displaced_files::", "storage::", "queue::a_checkpoint_refuses"],
    "src/file/guards.rs": ["file_length::", "displaced_files::", "wal_reset::", "kept_wal::",
                           "lock_scope::", "first_connect::", "storage::", "lock_errors::"],
    "src/file/inherited.rs": ["fork::"],
    "src/file/methods.rs": ["lock_scope::", "stacking::", "journal_modes::", "file_length::",
                            "lock_errors::", "kept_wal::", "loading::", "storage::"],
    "src/file/mod.rs": ["fork::", "unloading::", "stacking::"],
    "src/file/refused.rs": ["canonical_path::", "fork::", "loading::"],
}
# Those that take long, or measure how the lock is shared out.
SKIP = ["thousands_of_databases", "busy_process", "a_monitor_never_sees", "wherever_one",
        "kills_at_any_moment", "nobody_starves", "a_process_in_a_loop", "a_complete_checkpoint",
        "the_wal_stays_small", "a_storm_of_first", "a_pool_of_workers", "two_copies"]
TEST_SECONDS = 60

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


def unmount(place):
    """Ends what a test that was stopped has mounted there."""
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        at = line.split()[1].replace("\\040", " ")
        if at.startswith(place + "/"):
            subprocess.run(["umount", "--lazy", at], check=False)


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
        unmount(environment["TMPDIR"])
    if failed or finished:
        return failed
    return "timeout" if expired.is_set() else "crash"


def verdict(files, seconds):
    """What the unit tests and the promises that bear on those files say of the tree as it is now."""
    promises = sorted({name for file in files for name in PROMISES[file]})
    unit = cargo("test", "--lib", "--no-run", "--package", "kanban-vfs")
    if unit is None:
        return "unviable", None
    with tempfile.TemporaryDirectory(prefix="m-", dir=MEMORY,
                                     ignore_cleanup_errors=True) as place:
        # Some tests become another user.
        os.chmod(place, 0o1777)
        environment = dict(os.environ, TMPDIR=place, CARGO="/bin/true", PROPTEST_RNG_SEED="1",
                           CARGO_MANIFEST_DIR=str(TREE / "vfs-tests"))
        is_lock = any(file.startswith("src/lock/") for file in files)
        by = run(unit["kanban_vfs"], [] if is_lock else ["--skip", "lock::"], environment, seconds)
        if not by:
            # What the promises load into Python and the shell; they would build it with cargo.
            extension = cargo("build", "--lib", "--package", "kanban-vfs", "--target-dir",
                              "target/extension")
            tests = cargo("test", "--package", "vfs-tests", "--test", "promises", "--no-run")
            if extension is None or tests is None:
                return "unviable", None
            skip, by = list(SKIP), None
            while True:
                options = [part for name in skip for part in ("--skip", name)]
                by = run(tests["promises"], [*promises, *options, "--test-threads=4"], environment, seconds)
                if by in (None, "timeout", "crash"):
                    break
                # Others run beside it, and on the same machine: it counts if it fails alone, too.
                if run(tests["promises"], ["--exact", by], environment, seconds):
                    break
                print(f"{by} failed, but not again", flush=True)
                skip.append(by)
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
        said, by = verdict([mutant["file"]], TEST_SECONDS)
    finally:
        file.write_text(source)
    result = {"name": mutant["name"], "file": mutant["file"], "verdict": said, "by": by,
              "seconds": round(time.monotonic() - began)}
    with RESULTS.open("a") as results:
        results.write(json.dumps(result) + "\n")
    print(f"{said:9} {result['seconds']:4} s  {mutant['name']}  {by or ''}", flush=True)


def baseline(files):
    """Ends unless all tests pass on the tree as it is: else nothing is known by a test that fails."""
    said, by = verdict(files, 2 * TEST_SECONDS)
    if said != "survived":
        sys.exit(f"without a mutant: {said} {by or ''}")


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
    parser.add_argument("paths", nargs="*", default=["src"], metavar="PATH[:N]",
                        help="files or directories; N: try N of its mutants, evenly spaced")
    parser.add_argument("--seed", type=int, default=1, help="where a sample begins")
    parser.add_argument("--match", default="", help="only those whose name contains this")
    parser.add_argument("--again", action="store_true", help="also those that are known")
    parser.add_argument("--table", action="store_true", help="print the results")
    options = parser.parse_args()
    if options.table:
        return table()
    PLACE.mkdir(parents=True, exist_ok=True)
    copy()
    random.seed(options.seed)
    todo = []
    for path in options.paths:
        path, _, number = path.partition(":")
        inside = [mutant for mutant in mutants([path]) if options.match in mutant["name"]]
        step = max(1, len(inside) / int(number or len(inside)))
        first = random.random() * step
        todo += [inside[int(first + nth * step)] for nth in range(int((len(inside) - first - 1) / step) + 1)]
    known = {} if options.again else results()
    todo = [mutant for mutant in todo if mutant["name"] not in known]
    # One that is cut short is still a sample of all.
    random.shuffle(todo)
    print(f"{len(todo)} mutants", flush=True)
    if todo:
        baseline(sorted({mutant["file"] for mutant in todo}))
    for mutant in todo:
        one(mutant)


if __name__ == "__main__":
    main()
