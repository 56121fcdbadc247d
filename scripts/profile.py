#!/usr/bin/env python3
"""Where the instructions and system calls of one uncontended transaction go, on the stock VFS and on this one.

    scripts/profile.py [read|write|"read in a transaction"] [auto]

With auto, this VFS has kanban_begin=auto.

Counts by callgrind and strace, which must be installed. The difference between a run of 500 transactions and one of
2500 is the cost of 2000 transactions. Prints the functions and calls that differ most between the two VFSes.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COUNTS = (500, 2500)
WORKS = ("read", "write", "read in a transaction")
MOST = 25


def build():
    """The benchmark, with its symbols."""
    command = ["cargo", "rustc", "--release", "--package", "kanban-vfs", "--bench", "uncontended"]
    command += ["--message-format=json", "--", "-C", "strip=none"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = [json.loads(line).get("executable") for line in built.splitlines()]
    return next(path for path in reversed(found) if path)


def instructions(program, arguments, directory):
    """Instructions by function."""
    out = Path(directory) / "callgrind"
    subprocess.run(
        ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", program, *arguments],
        check=True, capture_output=True,
    )  # fmt: skip
    annotate = ["callgrind_annotate", "--threshold=100", str(out)]
    text = subprocess.run(annotate, check=True, capture_output=True, text=True).stdout
    counted = {}
    for line in text.splitlines():
        found = re.match(r"\s*([\d,]+)\s*\(\s*[\d.]+%\)\s+\S+?:(.*?)(?: \[.*)?$", line)
        if found:
            count = int(found[1].replace(",", ""))
            counted[found[2]] = counted.get(found[2], 0) + count
    return counted


def calls(program, arguments, directory):
    """System calls by name."""
    out = Path(directory) / "strace"
    subprocess.run(["strace", "-f", "-o", str(out), program, *arguments], check=True)
    counted = {}
    for line in out.read_text().splitlines():
        found = re.match(r"\d+\s+(\w+)\(", line)
        if found:
            counted[found[1]] = counted.get(found[1], 0) + 1
    return counted


def each(count, program, vfs, work):
    """How often something happens in one transaction."""
    with tempfile.TemporaryDirectory() as directory:
        few, many = (count(program, [vfs, work, str(n)], directory) for n in COUNTS)
    transactions = COUNTS[1] - COUNTS[0]
    return {what: (many.get(what, 0) - few.get(what, 0)) / transactions for what in {*few, *many}}


def main():
    work = sys.argv[1] if len(sys.argv) > 1 else "write"
    modes = sys.argv[2:]
    if work not in WORKS or modes not in ([], ["auto"]):
        sys.exit(__doc__)
    vfses = ("unix", "kanban&kanban_begin=auto" if modes else "kanban")
    program = build()
    for title, count in (("instructions", instructions), ("system calls", calls)):
        stock, ours = (each(count, program, vfs, work) for vfs in vfses)
        sums = sum(stock.values()), sum(ours.values())
        print(f"\n{title} of a {work}: {sums[0]:.1f} stock, {sums[1]:.1f} ours, {sums[1] / sums[0]:.3f} x")
        print("    more     stock      ours")
        differ = {what: ours.get(what, 0) - stock.get(what, 0) for what in {*stock, *ours}}
        for what in sorted(differ, key=lambda what: -abs(differ[what]))[:MOST]:
            if abs(differ[what]) >= 0.05:
                print(f"{differ[what]:8.1f} {stock.get(what, 0):9.1f} {ours.get(what, 0):9.1f}  {what[:90]}")


if __name__ == "__main__":
    main()
