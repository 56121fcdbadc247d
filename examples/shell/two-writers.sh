#!/bin/sh
# Two shells write to one new board at once, 100 transactions each. Neither is refused.
set -eu
: "${KANBAN_VFS:=./target/release/libkanban_vfs}"

shell() {
    sqlite3 -bail :memory: -cmd ".load $KANBAN_VFS" -cmd '.open file:board.db?vfs=kanban' "$@"
}

shell 'PRAGMA journal_mode=wal' 'CREATE TABLE t (who TEXT)'
insert() {
    for n in $(seq 100); do echo "INSERT INTO t VALUES ('$1');"; done
}
insert a | shell &
insert b | shell
wait $!

count=$(shell 'SELECT count(*) FROM t')
echo "$count rows"
test "$count" = 200
