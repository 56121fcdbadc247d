#!/usr/bin/env bash
# Builds the extension, the kanban application and the tests for Windows (x86_64-pc-windows-gnu), and
# runs them under Wine, on a Debian machine: that is not Windows, see docs/windows.md.
#
#     scripts/windows-tests.sh [build | run]
#
# Without an argument it does both. Installs what it needs, as root. Writes to target/windows only. The first
# build takes 5 to 6 minutes on 2 cores, since it also builds Rust's standard library; a run takes half a minute.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
what=${1:-all}

step() { printf '\n== %s\n' "$*"; }

step install
packages=(rustc-web cargo-web rust-web-src gcc-mingw-w64-x86-64-posix wine64)
if ! dpkg --status "${packages[@]}" > /dev/null 2>&1; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi

# Debian's compiler, whichever Rust is first on the PATH. Debian has no binary of the standard library
# for Windows, but the sources of the library for its compiler.
export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc RUSTC_BOOTSTRAP=1
export CARGO_UNSTABLE_BUILD_STD=std,panic_unwind,test
export CARGO_BUILD_TARGET=x86_64-pc-windows-gnu CARGO_TARGET_DIR=$root/target/windows
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc-posix
export CC_x86_64_pc_windows_gnu=x86_64-w64-mingw32-gcc-posix
export AR_x86_64_pc_windows_gnu=x86_64-w64-mingw32-gcc-ar-posix
built=$CARGO_TARGET_DIR/$CARGO_BUILD_TARGET/release
extension=$CARGO_TARGET_DIR/kanban_vfs.dll

cargo() { /usr/bin/cargo "$@"; }

# The program of a test target that was built.
program() { find "$1" -maxdepth 1 -name "$2-*.exe" -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2-; }

if [ "$what" != run ]; then
    step 'build: extension'
    cargo build --release --lib
    # What follows builds the library with more features.
    cp "$built/kanban_vfs.dll" "$extension"
    step 'build: kanban application, tests'
    cargo build --release --example kanban
    cargo test --release --no-run --package kanban-vfs --lib
    cargo test --release --no-run --package vfs-tests --test portable
    step 'build: an SQLite that has the WAL-reset bug'
    (cd vfs-tests/older && cargo test --release --no-run)
fi
[ "$what" != build ] || exit 0

step 'Wine'
export WINEPREFIX=$CARGO_TARGET_DIR/wine WINEDEBUG=-all
wine() { timeout --kill-after=10 "$1" /usr/lib/wine/wine64 "${@:2}"; }
system=$WINEPREFIX/drive_c/windows/system32
[ -d "$system" ] || wine 300 wineboot --init
x86_64-w64-mingw32-gcc-posix -shared -O1 -Wall -s -o "$system/bcryptprimitives.dll" \
    scripts/windows/bcryptprimitives.c -ladvapi32

# Wine 8 makes no symbolic links, but follows those of the file system.
linked=$(mktemp -d)
trap 'rm -rf "$linked"' EXIT
mkdir "$linked/real" "$linked/elsewhere"
ln -s ../real/board.db "$linked/elsewhere/link.db"
ln -s ../real "$linked/elsewhere/directory"
windows() { printf 'Z:%s' "${1//\//\\}"; }
KANBAN_LINKED_DIRECTORY=$(windows "$linked")
KANBAN_EXTENSION=$(windows "$extension")
export KANBAN_LINKED_DIRECTORY KANBAN_EXTENSION

step 'run: 8 processes create 40 tasks each'
wine 120 "$built/examples/kanban.exe" smoke

step 'run: unit tests'
wine 180 "$(program "$built/deps" kanban_vfs)"

step 'run: portable promises'
wine 300 "$(program "$built/deps" portable)" --test-threads 2

step 'run: WAL reset'
wine 120 "$(program "$built/deps" wal_reset)"
