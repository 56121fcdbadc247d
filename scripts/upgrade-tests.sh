#!/usr/bin/env bash
# Clients with two versions of the extension on one board: this one, and one of an earlier commit, whose sidecar has layout 1.
# docs/installing.md says what is promised.
#
#     scripts/upgrade-tests.sh [COMMIT]
#
# Builds both into target/upgrade; needs the history of the repository, and Debian's Python.
set -euo pipefail
cd "$(dirname "$0")/.."

# The last commit with layout 1 that builds.
commit=${1:-99126928ce6d}
target=${CARGO_TARGET_DIR:-$PWD/target}/upgrade
mkdir -p "$target/source"
git archive "$commit" | tar -x -C "$target/source"
echo "== the extension of $commit"
cargo build --release --lib --manifest-path "$target/source/Cargo.toml" --target-dir "$target/older"
echo '== this extension'
cargo build --release --lib --target-dir "$target/newer"
exec timeout --kill-after=10 5m /usr/bin/python3 scripts/upgrade/scenes.py \
    "$target/older/release/libkanban_vfs.so" "$target/newer/release/libkanban_vfs.so"
