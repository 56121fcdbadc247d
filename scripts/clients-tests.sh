#!/usr/bin/env bash
# Clients in other languages, each as docs/clients.md shows it, at once on one board: Ruby, Perl, PHP, and Python's peewee,
# aiosqlite and Alembic.
#
#     scripts/clients-tests.sh
#
# Installs what it needs from Debian, as root, and from PyPI. Writes to target/ only.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

missing=()
for need in ruby:ruby php:php-cli perl:perl; do
    command -v "${need%%:*}" > /dev/null || missing+=("${need##*:}")
done
for package in ruby-sqlite3 libdbd-sqlite3-perl php-sqlite3 python3-venv; do
    dpkg -s "$package" > /dev/null 2>&1 || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
# The extension, and a Python with the package, which has the tool.
python=${CARGO_TARGET_DIR:-$root/target}/clients
[ -x "$python/bin/python" ] || /usr/bin/python3 -m venv "$python"
"$python/bin/pip" install --quiet --disable-pip-version-check "${WHEEL:-./python}" peewee==4.5.3 aiosqlite==0.22.1 alembic==1.20.1
library=$("$python/bin/python" -c 'import kanban_vfs; print(kanban_vfs.loadable_path())')
export KANBAN_VFS=$library

clean=$(mktemp -d)
trap 'rm -rf "$clean"' EXIT
cd "$clean"
clients=$root/scripts/clients
"$python/bin/python" -c 'import kanban_vfs; kanban_vfs.connect("board.db").executescript("PRAGMA journal_mode=wal; CREATE TABLE tasks (who TEXT)")'
running=()
start() { timeout --kill-after=10 2m "$@" & running+=($!); }
start ruby "$clients/board.rb" board.db
start perl "$clients/board.pl" board.db
start php -d "sqlite3.extension_dir=${library%/*}" "$clients/board.php" board.db
start env -u KANBAN_VFS "$python/bin/kanban-vfs" run -- php "$clients/class.php" board.db
start "$python/bin/python" "$clients/frameworks.py" board.db
for process in "${running[@]}"; do wait "$process"; done
sqlite3 board.db 'SELECT who, count(*) FROM tasks GROUP BY who' | tee counted
[ "$(cut -d'|' -f1 counted | paste -sd' ')" = 'aiosqlite alembic peewee perl php php class ruby' ]
[ "$(grep -vc '|20$' counted)" = 1 ]
"$python/bin/kanban-vfs" check board.db > /dev/null
# PHP's class makes a file of a URI, and says nothing.
php -r 'new SQLite3("file:board.db?vfs=kanban");'
[ -e 'file:board.db?vfs=kanban' ]
ruby -e 'require "sqlite3"; puts "Ruby #{RUBY_VERSION}, sqlite3 #{SQLite3::VERSION}, SQLite #{SQLite3::SQLITE_LOADED_VERSION rescue SQLite3::SQLITE_VERSION}"'
perl -MDBD::SQLite -e 'print "Perl $^V, DBD::SQLite $DBD::SQLite::VERSION\n"'
php -r 'echo "PHP ", PHP_VERSION, ", SQLite ", SQLite3::version()["versionString"], "\n";'
