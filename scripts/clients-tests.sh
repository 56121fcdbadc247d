#!/usr/bin/env bash
# Clients in other languages, each as docs/clients.md shows it, at once on one board: Ruby with ActiveRecord, Perl, PHP, Go, and Python's
# peewee, aiosqlite, Alembic, huey and LangGraph. With --slow also those that are built here: Node's package sqlite3, and sqlx.
#
#     scripts/clients-tests.sh [--slow]
#
# Installs what it needs from Debian, as root, and from PyPI and npm. Writes to target/ only.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}
case ${1:-} in
'') slow= ;;
--slow) slow=1 ;;
*) echo "usage: $0 [--slow]" >&2; exit 2 ;;
esac

missing=()
needs=(ruby:ruby php:php-cli perl:perl sqlite3:sqlite3 go:golang-go)
[ -z "$slow" ] || needs+=(node:nodejs npm:npm g++:g++ make:make)
for need in "${needs[@]}"; do
    command -v "${need%%:*}" > /dev/null || missing+=("${need##*:}")
done
for package in ruby-sqlite3 ruby-activerecord libdbd-sqlite3-perl php-sqlite3 python3-venv golang-github-mattn-go-sqlite3-dev; do
    dpkg -s "$package" > /dev/null 2>&1 || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
# The extension, and a Python with the package, which has the tool.
python=$target/clients
[ -x "$python/bin/python" ] || /usr/bin/python3 -m venv "$python"
"$python/bin/pip" install --quiet --disable-pip-version-check "${WHEEL:-./python}" peewee==4.5.3 aiosqlite==0.22.1 alembic==1.20.1 huey==3.5.4 \
    langgraph==1.2.22 langgraph-checkpoint-sqlite==3.1.2
library=$("$python/bin/python" -c 'import kanban_vfs; print(kanban_vfs.loadable_path())')
export KANBAN_VFS=$library

clean=$(mktemp -d)
trap 'rm -rf "$clean"' EXIT
clients=$root/scripts/clients
# Debian's module, which links Debian's SQLite.
GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$target/clients-go go build -tags libsqlite3 -o "$clean/go" "$clients/board.go"
if [ -n "$slow" ]; then
    # Its prebuilt binaries are no package: built from source, with the headers of this node if they are here.
    [ ! -d /usr/include/node ] || export npm_config_nodedir=/usr
    mkdir -p "$target/clients-node"
    [ -e "$target/clients-node/package.json" ] || echo '{ "allowScripts": { "sqlite3": true } }' > "$target/clients-node/package.json"
    JOBS=2 CFLAGS=-O0 CXXFLAGS=-O0 npm_config_build_from_source=true npm install --prefix "$target/clients-node" --no-audit --no-fund sqlite3@6.0.1
    export NODE_PATH=$target/clients-node/node_modules
    cargo fmt --manifest-path examples/sqlx/Cargo.toml --check
    timeout --kill-after=10 5m cargo test --locked --manifest-path examples/sqlx/Cargo.toml
fi

cd "$clean"
"$python/bin/python" -c 'import kanban_vfs; kanban_vfs.connect("board.db").executescript("PRAGMA journal_mode=wal; CREATE TABLE tasks (who TEXT)")'
running=()
start() { timeout --kill-after=10 2m "$@" & running+=($!); }
run=(env -u KANBAN_VFS "$python/bin/kanban-vfs" run --begin=immediate --)
start ruby "$clients/board.rb" board.db
start ruby "$clients/active_record.rb" board.db
start "${run[@]}" ruby "$clients/active_record.rb" board.db run
start perl "$clients/board.pl" board.db
start php -d "sqlite3.extension_dir=${library%/*}" "$clients/board.php" board.db
start "${run[@]}" php "$clients/class.php" board.db
start ./go board.db
start "${run[@]}" ./go board.db run
start "$python/bin/python" "$clients/frameworks.py" board.db
if [ -n "$slow" ]; then
    start node "$clients/board.js" board.db
    start "${run[@]}" node "$clients/board.js" board.db run
fi
for process in "${running[@]}"; do wait "$process"; done
sqlite3 board.db 'SELECT who, count(*) FROM tasks GROUP BY who' | tee counted
expected='active_record|active_record, run|aiosqlite|alembic|go|go, run|huey|langgraph|'
[ -z "$slow" ] || expected+='node|node, run|'
[ "$(cut -d'|' -f1 counted | paste -sd'|')" = "${expected}peewee|perl|php|php class|ruby" ]
[ "$(grep -vc '|20$' counted)" = 1 ]
"$python/bin/kanban-vfs" check board.db > /dev/null
# PHP's class makes a file of a URI, and says nothing.
php -r 'new SQLite3("file:board.db?vfs=kanban");'
[ -e 'file:board.db?vfs=kanban' ]
ruby -e 'require "sqlite3"; puts "Ruby #{RUBY_VERSION}, sqlite3 #{SQLite3::VERSION}, SQLite #{SQLite3::SQLITE_LOADED_VERSION rescue SQLite3::SQLITE_VERSION}"'
perl -MDBD::SQLite -e 'print "Perl $^V, DBD::SQLite $DBD::SQLite::VERSION\n"'
php -r 'echo "PHP ", PHP_VERSION, ", SQLite ", SQLite3::version()["versionString"], "\n";'
go version
