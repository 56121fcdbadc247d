#!/bin/sh
# Load the VFS into the stock sqlite3 shell and open a board through it.
#
#   KANBAN_VFS: the extension, without its suffix
set -eu
: "${KANBAN_VFS:=./target/release/libkanban_vfs}"

sqlite3 :memory: -cmd ".load $KANBAN_VFS" -cmd '.open file:board.db?vfs=kanban' <<'SQL'
.print VFS:
.vfsname
SELECT 'version ' || kanban_version();
PRAGMA journal_mode=wal;
CREATE TABLE tasks (id INTEGER PRIMARY KEY, title TEXT);
INSERT INTO tasks (title) VALUES ('try the shell');
SELECT * FROM tasks;
SQL
