#!/bin/sh
# What the VFS says about a board: its name, sidecar, guarantees, holder and counters, as JSON.
set -eu
: "${KANBAN_VFS:=./target/release/libkanban_vfs}"

sqlite3 :memory: -cmd ".load $KANBAN_VFS" -cmd '.open file:board.db?vfs=kanban' <<'SQL' | tee status
CREATE TABLE t (x);
CREATE TEMP TABLE status AS SELECT 1;
PRAGMA kanban_status;
SQL
# SQLite's own JSON functions read it.
sqlite3 :memory: "SELECT key || ' = ' || value FROM json_each(readfile('status'))" | tee fields
grep -q '^holder' fields || grep -q 'sidecar = .*/board.db-lock' fields
