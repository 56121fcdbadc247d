"""A client of the board in `scripts/32-bit-tests.sh`.

`hold`: writes, prints the status that it then sees, and commits when a line comes in.
`try`: prints the status, and whether a write is refused at once.
`write N`: N transactions.
"""

import json
import sqlite3
import sys

extension, path, what = sys.argv[1:4]
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(extension)
timeout = 0 if what == "try" else 60
board = sqlite3.connect(f"file:{path}?vfs=kanban", uri=True, isolation_level=None, timeout=timeout)
# The status knows the file's locks from the first transaction on.
board.execute("SELECT count(*) FROM tasks").fetchone()


def status():
    """What the VFS says, with this process's word size."""
    said = json.loads(board.execute("PRAGMA kanban_status").fetchone()[0])
    return dict(said, bits=64 if sys.maxsize > 2**32 else 32)


if what == "hold":
    board.execute("BEGIN IMMEDIATE")
    board.execute("INSERT INTO tasks VALUES ('held')")
    print(json.dumps(status()), flush=True)
    sys.stdin.readline()
    board.execute("COMMIT")
elif what == "try":
    said = status()
    try:
        board.execute("BEGIN IMMEDIATE")
        said["refused"] = False
    except sqlite3.OperationalError:
        said["refused"] = True
    print(json.dumps(said))
else:
    for _ in range(int(sys.argv[4])):
        board.execute("BEGIN IMMEDIATE")
        board.execute("INSERT INTO tasks VALUES (?)", (sys.platform,))
        board.execute("COMMIT")
