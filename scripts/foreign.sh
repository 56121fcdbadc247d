# shellcheck shell=bash
# For scripts that run clients of another processor or C library: `foreign` unpacks a Debian of another architecture,
# `need_emulator` installs what that takes, and `sqlite_source` says where there is an SQLite to build for it.

# Where a Debian of that architecture is, unpacked below that directory and never started: its libraries and a Python.
foreign() {
    local architecture=$1 place=$2/$1
    if ! [ -e "$place/unpacked" ]; then
        local release mirror package
        release=$(. /etc/os-release && echo "$VERSION_CODENAME")
        # shellcheck disable=SC2016 # apt expands them
        mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' |
            awk -v release="$release" '$2 == release { print $1; exit }')
        rm -rf "$place"
        mkdir -p "$place"
        debootstrap --foreign --variant=minbase --arch="$architecture" --include=python3,libsqlite3-0,musl "$release" "$place" \
            "$mirror" > "$place.log" 2>&1 || { cat "$place.log" >&2; exit 1; }
        for package in "$place"/var/cache/apt/archives/*.deb; do dpkg-deb --extract "$package" "$place"; done
        touch "$place/unpacked"
    fi
    echo "$place"
}

# Debian's packages for `foreign` and for qemu-user.
need_emulator() {
    [ "$(id -u)" = 0 ] || { echo "${0##*/}: run it as root" >&2; exit 1; }
    local -a missing=()
    command -v debootstrap > /dev/null || missing+=(debootstrap)
    command -v qemu-aarch64 > /dev/null || missing+=(qemu-user)
    [ ${#missing[@]} = 0 ] || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; }
}

# The directory of sqlite3.c in the newest libsqlite3-sys that cargo has fetched, or in the one of that version.
sqlite_source() {
    local found
    found=$(find "${CARGO_HOME:-$HOME/.cargo}"/registry/src -path "*/libsqlite3-sys-${1:-*}/sqlite3/sqlite3.c" | sort -V | tail -n 1)
    [ -n "$found" ] || { echo "${0##*/}: run cargo fetch: there is no libsqlite3-sys" >&2; exit 1; }
    echo "${found%/*}"
}
