#!/usr/bin/env bash
# Memory errors and leaks over the boundary of Rust and C, by valgrind's memcheck.
#
#     scripts/memory-check.sh          the extension in Debian's sqlite3 shell and Python
#     scripts/memory-check.sh --full   and unit tests and promises, with their client processes
#
# Fails on an invalid access, a use of memory that was not initialised, a bad free, and on memory to which nothing
# points any more. Something still points to what lives for ever by design (the VFS, its method tables, the registry
# of databases). *.supp beside this script lists the exceptions, with their reasons.
#
# --full runs a few tests of each kind, so that it ends in ten minutes. Left out are the model of the queue,
# which has nothing unsafe, and tests that count system calls by ptrace or kill (kills, killed_holder), that
# measure times or run for long (queue, timeout, soak, power_loss), or that become another user. Clients that
# a test kills are checked for accesses, not for leaks.
set -euo pipefail
cd "$(dirname "$0")/.."

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

build() { cargo "$1" --release --target-dir target/memory-check --config profile.release.debug=1 \
    --config 'profile.release.strip="none"' "${@:2}"; }

# check NAME [valgrind's options] COMMAND...
check() {
    local name=$1
    shift
    printf '%s ... ' "$name"
    local code=0
    PYTHONMALLOC=malloc timeout --kill-after=10 600 valgrind --quiet --trace-children=yes \
        --trace-children-skip='*/cargo,*/rustc,*/rustup,*/sh' \
        --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
        --num-callers=40 --error-exitcode=99 --suppressions="$PWD/scripts/memory-check.supp" \
        --log-file="$logs/$name.%p" "$@" > "$logs/$name.out" 2>&1 || code=$?
    # Children have logs of their own. A warning is no error: valgrind does not know every fcntl command.
    if [ $code -ne 0 ] || grep -qhvE '== Warning: (unimplemented fcntl|invalid file descriptor)' "$logs/$name".[0-9]*; then
        echo "failed ($code)"
        tail -n 40 "$logs/$name.out"
        cat "$logs/$name".[0-9]* | head -n 300
        exit 1
    fi
    echo ok
}

build build --lib
extension=$PWD/target/memory-check/release/libkanban_vfs.so

check python /usr/bin/python3 vfs-tests/src/memory.py "$extension"
check python-fork --suppressions="$PWD/scripts/memory-check-fork.supp" \
    /usr/bin/python3 vfs-tests/src/memory.py "$extension" fork
for mode in wal delete; do
    check "shell-$mode" sqlite3 -bail :memory: ".load $extension" ".open file:$logs/$mode.db?vfs=kanban" \
        "PRAGMA journal_mode=$mode; CREATE TABLE t (x); INSERT INTO t VALUES (randomblob(100000));" \
        "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA kanban_status; VACUUM; SELECT count(*) FROM t;"
    grep -qx 1 "$logs/shell-$mode.out"
done

if [ "${1-}" = --full ]; then
    of() { build test --no-run --message-format=json --quiet "${@:2}" |
        grep -o "\"executable\":\"[^\"]*/deps/$1-[^\"]*\"" | cut -d'"' -f4; }
    unit=$(of kanban_vfs --package kanban-vfs --lib)
    promises=$(of promises --package vfs-tests --test promises)
    # Those of `file` have a base in Rust, of which the compiler reads what it then does not use.
    check unit "$unit" --skip lock::model --skip lock::simulation --skip file::
    check promises --suppressions="$PWD/scripts/memory-check-fork.supp" env CARGO="$(command -v cargo)" KANBAN_EXTENSION="$extension" "$promises" \
        --test-threads=2 displaced_files::an_orphaned fork::an_inherited fork::a_child_can_not_free \
        hostile_sidecar::garbage kept_wal::it_goes_when_wal loading::loading_it loading::registering \
        lock_errors::a_look lock_scope::attached lock_scope::a_hot sidecar::it_is_seeded stacking::writers \
        unloading:: file_length::a_torn wal_reset::checkpoints
fi
