CREATE TABLE IF NOT EXISTS tasks (
    id INTEGER PRIMARY KEY,
    title TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'ready'
        CHECK (status IN ('ready', 'running', 'done', 'failed')),
    worker TEXT,
    heartbeat_ms INTEGER
);
CREATE TABLE IF NOT EXISTS dependencies (
    task INTEGER NOT NULL REFERENCES tasks,
    needs INTEGER NOT NULL REFERENCES tasks,
    PRIMARY KEY (task, needs)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY,
    task INTEGER NOT NULL REFERENCES tasks,
    at_ms INTEGER NOT NULL,
    what TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY,
    task INTEGER NOT NULL REFERENCES tasks,
    worker TEXT NOT NULL,
    started_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    outcome TEXT
);
CREATE INDEX IF NOT EXISTS tasks_by_status ON tasks (status);
