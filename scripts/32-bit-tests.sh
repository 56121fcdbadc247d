#!/usr/bin/env bash
# The VFS for 32-bit x86 and ARM, on a Debian machine of x86-64: clippy finds nothing, the unit tests pass (x86), and clients
# say in the status and the log that closing a file drops locks there, as on the stock VFS. They share a board with this
# machine's 64-bit clients.
#
#     scripts/32-bit-tests.sh [--only "clippy unit clients"]
#
# The clients are Pythons of a Debian of each architecture. x86 runs by itself, ARM under qemu-user, which shows
# nothing of that processor's memory order. Needs Rust by rustup, Python with venv and, but for clippy, root: it installs
# qemu-user and debootstrap. Writes to target/ only.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
# shellcheck source=scripts/foreign.sh
. scripts/foreign.sh
# shellcheck source=scripts/parts.sh
. scripts/parts.sh

parts 'clippy unit clients' "$@"

x86=i686-unknown-linux-gnu
arm=armv7-unknown-linux-gnueabihf
target=${CARGO_TARGET_DIR:-$PWD/target}
work=$target/package-for-release
mkdir -p "$work"
rustup target add $x86 $arm

if wants clippy; then
    for triple in $x86 $arm; do
        step "clippy: $triple"
        cargo clippy --release --lib --target "$triple" -- -D warnings
    done
fi
wants unit || wants clients || exit 0

step 'tools, and a Debian of each'
[ -x "$work/tools/bin/python" ] || python3 -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet --disable-pip-version-check -r scripts/package-tools.txt
export PATH=$work/tools/bin:$PATH
need_emulator
i386=$(foreign i386 "$work")
loader=("$i386/lib/ld-linux.so.2" --library-path "$i386/lib/i386-linux-gnu:$i386/usr/lib/i386-linux-gnu")

if wants unit; then
    step "unit tests: $x86"
    # The programs that it makes are started by that loader; the tests start themselves.
    export CARGO_TARGET_I686_UNKNOWN_LINUX_GNU_RUNNER="${loader[*]}"
    timeout --kill-after=10 30m cargo-zigbuild test --release --locked --lib --target $x86.2.17
fi

if wants clients; then
    armhf=$(foreign armhf "$work")
    for triple in $x86 $arm; do
        step "build: $triple"
        cargo zigbuild --release --locked --lib --target "$triple.2.17"
    done
    cargo build --release --locked --lib
    step 'clients'
    # The loader does not say where Python lies.
    timeout --kill-after=10 10m /usr/bin/python3 scripts/32-bit/tests.py "$target/release/libkanban_vfs" \
        "env PYTHONHOME=$i386/usr ${loader[*]} $i386/usr/bin/python3" "$target/$x86/release/libkanban_vfs" \
        "qemu-arm -L $armhf $armhf/usr/bin/python3" "$target/$arm/release/libkanban_vfs"
fi
step "passed: $what"
