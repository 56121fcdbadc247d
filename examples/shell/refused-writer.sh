#!/bin/sh
# One shell begins a transaction and is slow. Another one waits for it 200 ms at most, is refused,
# and finds out who is to blame.
set -eu
: "${KANBAN_VFS:=./target/release/libkanban_vfs}"

shell() {
    sqlite3 :memory: -cmd ".load $KANBAN_VFS" -cmd '.open file:board.db?vfs=kanban' "$@"
}

shell 'CREATE TABLE t (x)'
mkfifo slow
shell < slow > slow.out &
slow=$!
exec 3> slow
echo "BEGIN IMMEDIATE; SELECT 'begun';" >&3
until grep -q begun slow.out; do sleep 0.01; done

shell '.timeout 200' 'INSERT INTO t VALUES (1)' 2>&1 | tee refused
grep -q 'database is locked' refused
shell 'PRAGMA kanban_status' | tee status
grep -q '"holder":{"pid":[1-9]' status

exec 3>&-
wait $slow
shell 'INSERT INTO t VALUES (1)'
