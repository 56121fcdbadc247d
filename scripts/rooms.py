#!/usr/bin/env python3
"""The rooms of src/: which imports which, and whether imports go down only.

    scripts/rooms.py            draws docs/rooms.svg
    scripts/rooms.py --check    fails on an import that goes up, that joins two guards, by which a guard imports lock/, or that
                                closes a circle of files; on unsafe code in a room that must have none; and if the drawing
                                or the table in docs/design.md does not match the sources
    scripts/rooms.py --list     prints each import of one room by another, with its files

Tests are left out: they may import from anywhere.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = ROOT / "src"
DRAWING = ROOT / "docs/rooms.svg"
DESIGN = ROOT / "docs/design.md"

#: From the top of the house down: a room may import those below it. What it promises, for the drawing.
ROOMS = {
    "lib": "the public face",
    "register": "how SQLite finds us",
    "vfs": "sqlite3_vfs: open, sleep, delete; replaced system calls",
    "shim": "our methods in front of the base file's",
    "connection": "when a connection takes and releases the write lock; which guard is asked when",
    "observation": "a board seen from outside, without opening it",
    "guard": "one file per hazard",
    "group_commit": "syncs that commits share",
    "lock": "the write lock: acquire, wait, release",
    "recorder": "what has happened on a board, for its operator",
    "options": "what can be set, and by whom",
    "counters": "what has happened so far",
    "log": "what the VFS has to say to people",
    "json": "JSON that pragmas answer",
    "format": "SQLite's byte layouts and file names",
    "ffi": "SQLite's C interface as Rust types",
    "error": "what registering can answer",
    "sys": "system calls",
}
#: Where `unsafe` may stand.
UNSAFE = {"register", "vfs", "shim", "ffi", "sys"}


def without_tests(text):
    """The source above its tests."""
    found = re.search(r"^#\[cfg\((all\()?test\b[^\n]*\n(#\[[^\n]*\n)*(pub(\([^)]*\))? )?mod \w+ \{", text, re.M)
    text = text[:found.start()] if found else text
    text = re.sub(r"^#\[cfg\((all\()?test\b.*?\n(#\[.*\n)*(pub(\(.*?\))? )?(mod|use) .*?;\n", "", text, flags=re.M)
    text = re.sub(r"^//.*\n", "", text, flags=re.M)
    return re.sub(r"\s//.*", "", text)


def files():
    """Each source file that is no test, by its module's path."""
    found = {}
    for path in sorted(SOURCES.rglob("*.rs")):
        parts = path.relative_to(SOURCES).with_suffix("").parts
        text = path.read_text()
        is_test = "tests" in parts or parts[-1].startswith("test_") or parts in TEST_ONLY
        if not is_test:
            module = parts[:-1] if parts[-1] == "mod" else parts
            found["::".join(module)] = (path, without_tests(text))
    return found


#: Modules that are built for tests and fuzzers only.
TEST_ONLY = {("lock", "kernel"), ("lock", "model"), ("lock", "simulation")}


def expand(tree):
    """`a::{b, c::d}` as its single paths."""
    depth, start, parts = 0, 0, []
    brace = tree.find("{")
    if brace < 0:
        return [tree.split(" as ")[0].strip()]
    prefix, inner = tree[:brace], tree[brace + 1:tree.rindex("}")]
    for at, char in enumerate(inner + ","):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            parts.append(inner[start:at].strip())
            start = at + 1
    return [prefix.strip() + path for part in parts if part for path in expand(part)]


def imports(module, is_folder, text):
    """The paths from the crate's root that a module names."""
    for use in re.findall(r"\buse ((?:crate|super|self)\b[^;]*);", text):
        for path in expand(re.sub(r"\s+", " ", use)):
            yield absolute(module, is_folder, path)
    for path in re.findall(r"(?<!use )\b((?:crate|super)(?:::\w+)+)", re.sub(r"\buse [^;]*;", "", text)):
        yield absolute(module, is_folder, path)


def absolute(module, is_folder, path):
    parts = path.replace(" ", "").split("::")
    if parts[0] == "crate":
        return parts[1:]
    here = module.split("::")
    if parts[0] == "self":
        return here + parts[1:]
    base = here if is_folder else here
    while parts and parts[0] == "super":
        base, parts = base[:-1], parts[1:]
    return base + parts


def house():
    """Who imports whom: pairs of modules."""
    found = files()
    pairs = set()
    for module, (path, text) in found.items():
        for parts in imports(module, path.stem == "mod", text):
            for length in range(len(parts), 0, -1):
                target = "::".join(parts[:length])
                if target in found:
                    # A folder's own items, or what it lends of those within.
                    if target != module:
                        pairs.add((module, target))
                    break
    return found, pairs


def room(module):
    return module.split("::")[0]


def circles(pairs):
    """Groups of files that import each other, by Tarjan. A module that lies within another may import from it."""
    graph = {}
    for one, other in pairs:
        if not one.startswith(other + "::"):
            graph.setdefault(one, set()).add(other)
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for next_ in graph.get(node, ()):
            if next_ not in index:
                visit(next_)
                low[node] = min(low[node], low[next_])
            elif next_ in stack:
                low[node] = min(low[node], index[next_])
        if low[node] == index[node]:
            group = []
            while True:
                group.append(stack.pop())
                if group[-1] == node:
                    break
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def complaints():
    found, pairs = house()
    order = list(ROOMS)
    for module in found:
        if room(module) not in ROOMS:
            yield f"src/{module}: is in no room that this script knows"
    for one, other in sorted(pairs):
        above, below = room(one), room(other)
        if above != below and order.index(above) > order.index(below):
            yield f"{one} imports {other}: up"
        if (above, below) == ("guard", "lock"):
            yield f"{one} imports {other}: a guard knows its hazard only"
        if above == below == "guard" and "::" in one and "::" in other:
            first, second = one.split("::")[1], other.split("::")[1]
            if first != second:
                yield f"{one} imports {other}: from one guard to another"
    for group in circles(pairs):
        yield "a circle: " + ", ".join(group)
    for module, (path, text) in found.items():
        if re.search(r"allow\(unsafe_code\)", text) and room(module) not in UNSAFE:
            yield f"{module}: unsafe code is for {', '.join(sorted(UNSAFE))}"
    if not DRAWING.exists() or DRAWING.read_text() != drawing():
        yield f"{DRAWING.relative_to(ROOT)} is not of these sources; run scripts/rooms.py"
    table = re.findall(r"^\| `(\w+)(?:/|\.rs)` \|", DESIGN.read_text(), re.M)
    if table != order:
        yield f"docs/design.md has the rooms {table}, not {order}"


def drawing():
    found, pairs = house()
    order = list(ROOMS)
    height, left, column = 46, 560, 34
    top = 120
    lines = []
    say = lines.append
    width = left + column * len(order) + 30
    say(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top + height * len(order) + 40}" '
        f'font-family="sans-serif" font-size="13">')
    say('<rect width="100%" height="100%" fill="white"/>')
    say(f'<text x="20" y="34" font-size="18" font-weight="bold">The rooms of src/, from the top down</text>')
    say('<text x="20" y="58" fill="#555">A dot: the room of this row imports that of this column. All dots lie right of '
        'the diagonal, so imports go down only.</text>')
    say('<text x="20" y="78" fill="#555">Drawn by scripts/rooms.py.</text>')
    for nth, name in enumerate(order):
        x, y = left + column * nth, top + height * nth
        within = [module for module in found if room(module) == name]
        names = sorted(module.split("::")[1] for module in within if module.count("::") == 1)
        listed = ", ".join(names)
        if len(listed) > 78:
            listed = listed[:75].rsplit(", ", 1)[0] + ", …"
        fill = "#fff3e0" if name in UNSAFE else "#e8f1fb"
        say(f'<rect x="20" y="{y}" width="{left - 40}" height="{height - 6}" rx="5" fill="{fill}" stroke="#888"/>')
        say(f'<text x="32" y="{y + 17}"><tspan font-weight="bold">{name}</tspan> '
            f'<tspan fill="#333">{ROOMS[name]}</tspan></text>')
        say(f'<text x="32" y="{y + 33}" fill="#666" font-size="11">{listed}</text>')
        say(f'<text x="{x + column / 2}" y="{top - 8}" transform="rotate(-45 {x + column / 2} {top - 8})" '
            f'font-size="11">{name}</text>')
        say(f'<rect x="{x}" y="{y}" width="{column - 4}" height="{height - 6}" fill="#ddd"/>')
        for other in order:
            if other != name and any(room(a) == name and room(b) == other for a, b in pairs):
                cx = left + column * order.index(other) + column / 2 - 2
                say(f'<circle cx="{cx}" cy="{y + height / 2 - 3}" r="6" fill="#1f5fa8"/>')
    say(f'<text x="20" y="{top + height * len(order) + 22}" fill="#666" font-size="11">Orange: rooms that may have '
        'unsafe code.</text>')
    say("</svg>")
    return "\n".join(lines) + "\n"


def main():
    match sys.argv[1:]:
        case []:
            DRAWING.write_text(drawing())
        case ["--check"]:
            wrong = list(complaints())
            print("\n".join(wrong) or "imports go down only")
            sys.exit(bool(wrong))
        case ["--list"]:
            _, pairs = house()
            for one, other in sorted(pairs):
                if room(one) != room(other):
                    print(f"{one} -> {other}")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
