#!/usr/bin/env bash
# The promises of lock cancellation, fork, queue and WAL reset on AArch64, under qemu-user, on a
# Debian machine of x86-64. The clients are Pythons of a Debian of AArch64, which load the extension
# that scripts/package.sh has built. The tests themselves run as this machine's programs.
#
#     scripts/aarch64-tests.sh [TEST ...]
#
# The script shows that the code is right for AArch64's calling convention, structs and system calls, as qemu translates these.
# It tests neither that processor's memory order, which qemu does not have, nor its kernel: system calls go to this machine's.
# Tests whose clients are in Rust run these clients as this machine's programs, so that both kinds share a board.
#
# Needs root, and dist/ with both wheels of AArch64. Installs qemu-user and debootstrap; writes to target/ only.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/foreign.sh
. scripts/foreign.sh

target=${CARGO_TARGET_DIR:-$PWD/target}
place=$target/package-for-release/arm64
if [ -z "${AARCH64_TESTS:-}" ]; then
    # Unpacks that Debian, and tries the wheel.
    scripts/package-tests.sh --only aarch64
    extension=$target/aarch64-tests/kanban_vfs/libkanban_vfs.so
    mkdir -p "$target/aarch64-tests"
    python3 -m zipfile -e dist/kanban_vfs-*manylinux2014_aarch64.whl "$target/aarch64-tests"

    echo '== the tests, and what their clients load'
    built=$(cargo test --release --package vfs-tests --test promises --no-run --message-format=json-render-diagnostics)
    promises=$(sed -n 's/.*"executable":"\([^"]*promises-[^"]*\)".*/\1/p' <<< "$built" | tail -n 1)
    source=$(sqlite_source)
    "$target/package-for-release/tools/bin/python" -m ziglang cc -target aarch64-linux-gnu.2.31 -shared -fPIC -O1 -I "$source" \
        -o "$target/aarch64-tests/pause.so" vfs-tests/src/pause.c
    # The second copy of SQLite in a client, as vfs-tests/build.rs builds it.
    "$target/package-for-release/tools/bin/python" -m ziglang cc -target aarch64-linux-gnu.2.31 -shared -fPIC -O1 -Wl,-soname,libsqlite3.so.0 \
        -DSQLITE_ENABLE_SETLK_TIMEOUT=1 -DSQLITE_ENABLE_COLUMN_METADATA -DSQLITE_USE_URI=1 \
        -o "$target/aarch64-tests/libsqlite3.so.0" "$source/sqlite3.c"
    # Python starts itself by the name that -0 sets: that runs this emulator again.
    printf '#!/bin/sh\nexec qemu-aarch64 -L %s -0 /usr/bin/python3 %s "$@"\n' "$place" "$place/usr/bin/python3" > "$target/aarch64-tests/python3"
    chmod +x "$target/aarch64-tests/python3"
    AARCH64_TESTS=$promises KANBAN_EXTENSION=$extension exec unshare --mount --propagation private "$PWD/scripts/aarch64-tests.sh" "$@"
fi

# In this namespace, Debian's Python is the other one, and so are the extension that stops a client and the second SQLite.
mount --bind "$target/aarch64-tests/python3" "$(realpath /usr/bin/python3)"
for out in "$target"/release/build/vfs-tests-*/out; do
    mount --bind "$target/aarch64-tests/pause.so" "$out/pause.so"
    mount --bind "$target/aarch64-tests/libsqlite3.so.0" "$out/setlk/libsqlite3.so.0"
done
[ "$(/usr/bin/python3 -c 'import platform; print(platform.machine())')" = aarch64 ]
[ $# -gt 0 ] || set -- lock_cancellation:: fork:: queue:: wal_reset::
cd vfs-tests
# qemu's /proc/self/maps does not say where the heap is.
exec timeout --kill-after=10 60m "$AARCH64_TESTS" --test-threads 2 --skip no_child_dies_of_an_index_in_the_heap "$@"
