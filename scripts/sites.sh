#!/usr/bin/env bash
# Measures what users of unchanged applications see: 16 clients at once make requests that read first and write later. They do
# so on the stock VFS, on the stock VFS with BEGIN IMMEDIATE, and on this VFS under `run`, with each kanban_begin. The
# applications are a Django site and two of SQLAlchemy, which gunicorn serves, and programs that run the statements of Rails
# and of Go's database/sql. Prints a table.
#
#     scripts/sites.sh             5 runs of each, which take 5 minutes
#     scripts/sites.sh --help
#
# Needs a Python with pip and venv, Rust, and once the registry of Python's packages; target/sites keeps what it installs.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly PACKAGES=(Django==5.2.19 SQLAlchemy==2.1.9 gunicorn==27.0.1)
venv=target/sites
if ! "$venv/bin/python" -c 'import django, sqlalchemy, gunicorn' 2> /dev/null; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    timeout --kill-after=10 10m "$venv/bin/pip" install --quiet --disable-pip-version-check "${PACKAGES[@]}"
fi
# Each time: the extension may have changed.
timeout --kill-after=10 10m "$venv/bin/pip" install --quiet --disable-pip-version-check --force-reinstall --no-deps ./python
exec timeout --kill-after=10 2h "$venv/bin/python" scripts/sites/run.py "$@"
