#!/usr/bin/env python3
"""The public interface of the crate, an item in a line, as rustdoc shows it.

    scripts/public-api.py           fails if it is not what scripts/public-api.txt says
    scripts/public-api.py --write   writes that file

A change that removes or alters a line breaks programs. Before 1.0 it takes a new minor version, and a line in CHANGELOG.md.
"""

import difflib
import html
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LISTING = ROOT / "scripts" / "public-api.txt"
CRATE = "kanban_vfs"
# As docs.rs documents it. Cargo.toml
FEATURES = "linked,libsqlite3-sys/default"


def text(fragment):
    """What a reader sees of a piece of HTML, in one line, without comments."""
    seen = html.unescape(re.sub(r"<[^>]*>", "", fragment))
    return " ".join(re.sub(r"//[^\n]*", "", seen).replace("]pub ", "] pub ").replace("where ", " where ").split())


def items_of(page):
    """The declaration of a page's item, the functions that it has, and the traits that it implements."""
    declared = re.search(r'<pre class="rust item-decl"><code>(.*?)</code></pre>', page, re.S)
    if declared:
        # rustdoc folds long lists, under a summary of its own.
        yield text(re.sub(r"<summary.*?</summary>", "", declared[1], flags=re.S))
    # Not what the compiler derives of Send and the like, nor what every type has.
    page = re.split(r'id="(?:synthetic|blanket)-implementations"', page)[0]
    own, _, traits = page.partition('id="trait-implementations"')
    for level, part in (("[34]", own), ("3", traits)):
        for heading in re.findall(rf'<h{level} class="code-header">(.*?)</h\d>', part, re.S):
            # That is how the compiler marks a derived PartialEq.
            if "StructuralPartialEq" not in heading:
                yield text(heading)


def listing():
    target = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "public-api"
    subprocess.run(
        ["cargo", "doc", "--quiet", "--lib", "--no-deps", "--package", "kanban-vfs"]
        + ["--features", FEATURES, "--target-dir", str(target)],
        cwd=ROOT,
        check=True,
    )
    pages = target / "doc" / CRATE
    index = (pages / "all.html").read_text()
    lines = []
    for name in sorted(set(re.findall(r'<li><a href="([^"]+\.html)">', index))):
        path = "::".join([CRATE, *name.split("/")[:-1]])
        item = name.split("/")[-1].split(".")[1]
        for line in dict.fromkeys(items_of((pages / name).read_text())):
            lines.append(f"{path}::{item}: {line}")
    if not lines:
        sys.exit("rustdoc's pages are not as this script reads them")
    return lines


def main():
    lines = listing()
    if sys.argv[1:] == ["--write"]:
        LISTING.write_text("\n".join(lines) + "\n")
        return
    before = LISTING.read_text().splitlines()
    changes = list(difflib.unified_diff(before, lines, LISTING.name, "now", lineterm="", n=0))
    if changes:
        print("\n".join(changes))
        sys.exit("the public interface has changed: note it in CHANGELOG.md, and run scripts/public-api.py --write")


main()
