#!/usr/bin/env bash
# What users of unchanged applications see: requests that read first and write later, 16 at once, on the stock VFS, on it with
# BEGIN IMMEDIATE, and on this one as `run` makes it the default, with each kanban_begin. A Django site and two of SQLAlchemy,
# which gunicorn serves, and the statements of Rails and of Go's database/sql by hand. Prints a table.
#
#     scripts/sites.sh             5 runs of each, which take 5 minutes
#     scripts/sites.sh --help
#
# It needs a Python with pip and venv, Rust, and the registry of Python's packages once; target/sites keeps what it installs.
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
