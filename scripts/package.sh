#!/usr/bin/env bash
# Builds what is released, for Linux on x86-64 and AArch64, and leaves it in dist/:
#
#     wheels (glibc from 2.17 on, musl from 1.2 on) and a source distribution    kanban_vfs-*
#     the npm package, with the extension for each of these                      kanban-vfs-*.tgz
#     the crates kanban-vfs and kanban-vfs-cli                                   *.crate
#     Debian packages                                                            *.deb
#
#     scripts/package.sh [--only "wheels sdist npm crates deb"] [--targets "x86_64-unknown-linux-gnu ..."] [--no-build]
#
# --no-build takes the libraries and the tool of an earlier run. scripts/package-tests.sh installs and tries the packages.
# KANBAN_VFS_MORE names directories of libraries that other systems built. The npm package gets these, too, each under the
# name that npm/index.js looks for (darwin-arm64, win32-x64).
#
# Needs Rust by rustup, which gets the standard library of each target, Python with venv, and npm. Writes to dist/ and target/
# only.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
# shellcheck source=scripts/parts.sh
. scripts/parts.sh

what='wheels sdist npm crates deb'
targets='x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-unknown-linux-musl aarch64-unknown-linux-musl'
is_built=
while [ $# -gt 0 ]; do
    case $1 in
        --no-build) is_built=1 ;;
        --only) what=$2; shift ;;
        --targets) targets=$2; shift ;;
        *) usage ;;
    esac
    shift
done

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
work=${CARGO_TARGET_DIR:-$root/target}/package-for-release
dist=$root/dist
mkdir -p "$work" "$dist"

step tools
tools=$work/tools
# Debian's Python may lack venv, and the first on the PATH will do as well.
[ -x "$tools/bin/python" ] || python3 -m venv "$tools"
"$tools/bin/pip" install --quiet --disable-pip-version-check -r scripts/package-tools.txt
export PATH=$tools/bin:$PATH

# What a wheel, a Debian package and Node call a target.
platform_of() {
    case $1 in
        *-linux-gnu) echo "manylinux2014_${1%%-*}" ;;
        *-linux-musl) echo "musllinux_1_2_${1%%-*}" ;;
    esac
}
node_name_of() {
    local name=linux-x64
    [[ $1 == x86_64-* ]] || name=linux-arm64
    [[ $1 != *-musl ]] || name=$name-musl
    echo "$name"
}

# Builds for a target: the extension, the library to preload and the tool, each by itself, since
# cargo would link the extension with what the tool needs.
build() {
    local target=$1 out=$work/$1/release
    local flags=
    # The extension takes the system's musl, as all that loads it does. zig still links one into the
    # tool.
    [[ $target != *-musl ]] || flags='-C target-feature=-crt-static'
    local what
    for what in '--package kanban-vfs --lib' '--package kanban-vfs-preload' '--package kanban-vfs-cli'; do
        # shellcheck disable=SC2086 # Words.
        RUSTFLAGS=$flags CARGO_TARGET_DIR=$work cargo zigbuild --release --locked \
            --target "${target/%-gnu/-gnu.2.17}" $what
        # Before the next one builds it with what it needs.
        [[ $what != *--lib ]] || cp "$out/libkanban_vfs.so" "$work/$target/extension.so"
    done
    local prebuilt=$work/prebuilt/$target
    mkdir -p "$prebuilt"
    cp "$work/$target/extension.so" "$prebuilt/libkanban_vfs.so"
    cp "$out/libkanban_vfs_preload.so" "$out/kanban-vfs" "$prebuilt/"
    # The name by which systems of musl, and auditwheel, know its C library. To its loader both are one.
    [[ $target != *-musl ]] || patchelf --replace-needed libc.so "libc.musl-${target%%-*}.so.1" "$prebuilt"/*
}

if [ -z "$is_built" ] && { wants wheels || wants npm || wants deb; }; then
    # shellcheck disable=SC2086 # Words.
    rustup target add $targets
    for target in $targets; do
        step "build: $target"
        build "$target"
    done
fi

if wants wheels; then
    rm -f "$dist"/*.whl
    for target in $targets; do
        step "wheel: $target"
        rm -rf python/build
        KANBAN_VFS_PREBUILT=$work/prebuilt/$target "$tools/bin/python" -m build --wheel --no-isolation \
            --outdir "$dist" "-C--build-option=--plat-name=$(platform_of "$target")" python > "$work/wheel.log" ||
            { cat "$work/wheel.log"; exit 1; }
    done
    rm -rf python/build
fi

if wants sdist; then
    step 'source distribution'
    rm -f "$dist"/kanban_vfs-*.tar.gz
    "$tools/bin/python" -m build --sdist --no-isolation --outdir "$dist" python > "$work/sdist.log" ||
        { cat "$work/sdist.log"; exit 1; }
fi

if wants npm; then
    step npm
    rm -rf "$dist"/kanban-vfs-*.tgz "$work/npm"
    mkdir -p "$work/npm/prebuilt"
    cp npm/index.js npm/index.d.ts npm/package.json npm/README.md LICENSE-MIT LICENSE-APACHE "$work/npm/"
    for target in $targets; do
        mkdir "$work/npm/prebuilt/$(node_name_of "$target")"
        cp "$work/prebuilt/$target/libkanban_vfs.so" "$work/npm/prebuilt/$(node_name_of "$target")/"
    done
    for more in ${KANBAN_VFS_MORE:-}; do cp -r "$more" "$work/npm/prebuilt/"; done
    npm pack --silent --pack-destination "$dist" "$work/npm"
fi

if wants crates; then
    step crates
    rm -f "$dist"/*.crate
    # Built from what is packed by package-tests.sh.
    cargo package --locked --no-verify --package kanban-vfs --package kanban-vfs-cli --target-dir "$work/crates" \
        ${KANBAN_VFS_DIRTY:+--allow-dirty} 2>&1 | tee "$work/crates.log"
    if grep -i '^warning' "$work/crates.log"; then exit 1; fi
    cp "$work/crates/package/kanban-vfs-$version.crate" "$work/crates/package/kanban-vfs-cli-$version.crate" "$dist/"
fi

if wants deb; then
    step cargo-deb
    [ "$(cargo-deb --version 2> /dev/null)" = 3.8.0 ] || cargo install --quiet --locked --no-default-features --root "$tools" cargo-deb@3.8.0
    rm -f "$dist"/*.deb
    for target in $targets; do
        [[ $target == *-gnu ]] || continue
        step "Debian: $target"
        stage=$work/deb/$target/release
        rm -rf "$stage"
        mkdir -p "$stage"
        cp "$work/prebuilt/$target"/* "$stage/"
        cp cli/src/node.js "$stage/kanban_vfs_node.js"
        ln -s "../${target/-unknown/}/libkanban_vfs.so" "$stage/link.so"
        gzip -9n < cli/kanban-vfs.1 > "$stage/kanban-vfs.1.gz"
        variant=amd64
        [[ $target == x86_64-* ]] || variant=arm64
        (cd cli && CARGO_TARGET_DIR=$work/deb cargo-deb --no-build --no-strip --target "$target" --variant "$variant" --output "$dist/")
    done
fi

step "dist/ of version $version"
ls -l "$dist"
