#!/usr/bin/env bash
# A real board application, unchanged, started by `python -m kanban_vfs run`: hermes-agent from PyPI, whose workers
# create, comment, claim and complete tasks on one board, and check the length of its file after each commit.
#
#     scripts/real-application.sh                   10 runs of 16 processes x 20 tasks
#     scripts/real-application.sh --runs 2 --both   the same on the stock VFS in turn
#
# First runs the application's own checks at each open, in unusual scenes, and compares them with the stock VFS: a new
# board and one opened again, a read-only board, one that is moved away, and a file system on which WAL mode
# is refused. Fails if a board is corrupt, a task is missing, or the application reports any error.
# Needs a Python with pip and venv, and once the registry of Python's packages;
# target/real-application keeps what it installs.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly APPLICATION=hermes-agent==0.19.0
venv=target/real-application
if ! "$venv/bin/python" -c 'import hermes_cli' 2> /dev/null; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    timeout --kill-after=10 10m "$venv/bin/pip" install --quiet --disable-pip-version-check "$APPLICATION"
fi
# Each time: the extension may have changed.
timeout --kill-after=10 10m "$venv/bin/pip" install --quiet --disable-pip-version-check --force-reinstall --no-deps ./python
timeout --kill-after=10 10m "$venv/bin/python" scripts/real-application/health.py
exec timeout --kill-after=10 3h "$venv/bin/python" scripts/real-application/run.py "$@"
