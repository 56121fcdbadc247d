"""One worker of the board application hermes-agent. It creates, comments, claims and completes each task over a
connection of its own, all by the application's code as it is installed. Only the question on which VFS a board is
knows of a VFS.

    worker.py TASKS

Prints one JSON line: how many tasks it made, how many of them on this VFS, the errors, and how long the longest task took, in
ms.
"""

import json
import os
import sys
import time

from hermes_cli import kanban_db

made = 0
protected = 0
errors = []
longest = 0.0
for task in range(int(sys.argv[1])):
    began = time.monotonic()
    try:
        with kanban_db.connect_closing() as board:
            title = f"task {os.getpid()} {task}"
            created = kanban_db.create_task(board, title=title, assignee=None)
            made += 1
            protected += board.execute("PRAGMA kanban_status").fetchone() is not None
            kanban_db.add_comment(board, created, "worker", "a comment")
            if kanban_db.claim_task(board, created):
                kanban_db.complete_task(board, created, result="done")
    except Exception as error:  # Whatever the application's user would see.
        errors.append(f"{type(error).__name__}: {error}")
    longest = max(longest, time.monotonic() - began)
print(json.dumps({"made": made, "protected": protected, "errors": errors, "longest_ms": round(longest * 1000)}))
