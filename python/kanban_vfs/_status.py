"""What ``PRAGMA kanban_status`` says; docs/configuration.md explains the fields."""

from typing import Dict, List, Optional, TypedDict


class _Guarantee(TypedDict):
    active: bool


class Guarantee(_Guarantee, total=False):
    """Whether a guarantee holds on this connection and, if not, ``why``."""

    why: str


class _Holder(TypedDict):
    pid: int
    held_ms: int
    this_process: bool
    this_connection: bool
    gone: bool


class Process(TypedDict):
    """A process that has a lock."""

    pid: int
    program: str


class Holder(_Holder, total=False):
    """The process that has the write lock; ``program`` where this process may know it. If the holder is ``gone``,
    ``kept_by`` are the processes that inherited the lock, and ``missing`` says what would show more."""

    program: str
    kept_by: List[Process]
    missing: str


class Waiter(TypedDict):
    """A process that waits for the write lock."""

    pid: int
    program: str
    waited_ms: int


class Counters(TypedDict):
    """Counts of this database in this process, since its first connection."""

    acquired: int
    refused: int
    waits: int
    waited_ms: int
    longest_wait_ms: int
    gave_up: int
    sidecars_replaced: int
    stale_checkpoints: int
    restarts_deferred: int
    short_files: int
    displaced: int
    syncs_led: int
    commits_covered: int
    syncs_failed: int


class Status(TypedDict):
    """The status of a board."""

    version: str
    vfs: str
    base_vfs: str
    sqlite: str
    database: str
    sidecar: str
    begin: str
    busy_timeout_default_ms: int
    persist_wal: bool
    guarantees: Dict[str, Guarantee]
    group_commit: Guarantee
    holder: Optional[Holder]
    waiters: int
    queue: List[Waiter]
    counters: Counters
