#!/usr/bin/env bash
# README's set-up, its first two commands, and its examples for the shell, Python and C, on a
# machine that has nothing else. The machine is a new Debian of this machine's release in a
# directory of its own, with this machine's Rust, the packages of README's apt-get line, and a clone
# of HEAD. All of it is deleted at the end, also after a failure. For the Python examples it also
# installs python3-venv, since Debian's pip installs into an environment only.
#
#     scripts/fresh-machine.sh                                          # as root
#     scripts/fresh-machine.sh --user --only 'gcc libc6-dev python3'    # an ordinary user, without the optional tools
#     scripts/fresh-machine.sh --snippets                               # without the two commands
#
# --minutes 60 says how long the tests may take; --keep-log FILE copies their output.
# Needs root, debootstrap, and a Debian whose apt sources it may use without a password.
set -euo pipefail
cd "$(dirname "$0")/.."

user=root packages=$(sed -n 's/^apt-get install //p' README.md) minutes=60 log='' snippets=''
while [ $# -gt 0 ]; do
    case $1 in
        --user) user=reader ;;
        --only) packages=$2; shift ;;
        --snippets) snippets=1 ;;
        --minutes) minutes=$2; shift ;;
        --keep-log) log=$2; shift ;;
        *) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift
done
[ "$(id -u)" = 0 ] || { echo 'run it as root'; exit 2; }
command -v debootstrap > /dev/null || { echo 'apt-get install debootstrap'; exit 2; }
[ -n "$packages" ] || { echo 'README has no line of apt-get'; exit 1; }

# Mounts and processes are this namespace's: they end with it.
if [ -z "${FRESH_MACHINE:-}" ]; then
    root=$(mktemp -d)
    inside=
    end() {
        [ -z "$inside" ] || { kill "$inside" 2> /dev/null && wait "$inside"; } || true
        rm -rf --one-file-system "$root" "$root.log"
    }
    trap end EXIT
    trap 'exit 130' INT TERM HUP
    export FRESH_MACHINE=$root
    arguments=(--only "$packages" --minutes "$minutes")
    [ "$user" = root ] || arguments+=(--user)
    [ -z "$snippets" ] || arguments+=(--snippets)
    timeout --kill-after=10 "$((minutes + 30))m" unshare --mount --pid --fork --kill-child --propagation private \
        "$0" "${arguments[@]}" < /dev/null > >(tee "${log:-/dev/null}") 2>&1 &
    inside=$!
    wait "$inside" && status=0 || status=$?
    inside=
    exit "$status"
fi

step() { printf '\n== %s\n' "$*"; }
root=$FRESH_MACHINE
unset FRESH_MACHINE

step 'a new Debian'
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' |
    awk -v release="$release" '$2 == release { print $1; exit }')
# What cannot mount is no machine, but a container: mount is a required package.
debootstrap --variant=minbase --include=mount "$release" "$root" "$mirror" > "$root.log" 2>&1 ||
    { cat "$root.log"; exit 1; }
chmod 755 "$root"
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
cp /etc/resolv.conf /etc/hosts "$root/etc/"
echo 'APT::Get::Assume-Yes "1";' > "$root/etc/apt/apt.conf.d/yes"
useradd --root "$root" --create-home reader
# shellcheck disable=SC2154 # passwd's
home=$(awk -F: -v user="$user" '$1 == user { print $6 }' "$root/etc/passwd")

step "Rust: this machine's, and the crates it has fetched"
mkdir "$root/opt/rust"
mount --bind -o ro "$(rustc --print sysroot)" "$root/opt/rust"
mkdir "$root$home/.cargo"
cargo=${CARGO_HOME:-$HOME/.cargo}
for part in config.toml registry; do
    [ ! -e "$cargo/$part" ] || cp -r "$cargo/$part" "$root$home/.cargo/"
done
# The certificates for what has not been fetched: they belong to cargo's own network, not to the tests.
certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
[ ! -e "$certificates" ] || cp -L "$certificates" "$root/opt/certificates.crt"

step 'a clone'
git -c safe.directory='*' clone --quiet "file://$PWD" "$root$home/kanban-vfs"
chroot "$root" chown -R "$user:" "$home"

# Its root becomes this process's: a chroot(2) may not have user namespaces.
mkdir "$root/outside"
cd "$root"
pivot_root . outside
cd "$home/kanban-vfs"
export PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
hash -r
umount -l /outside
rmdir /outside

inside() {
    local who=$1
    shift
    timeout --kill-after=10 "${minutes}m" env -i HOME="$home" TERM=dumb LANG=C.UTF-8 PATH="$PATH" \
        CARGO_HTTP_CAINFO=/opt/certificates.crt PIP_CERT=/opt/certificates.crt DEBIAN_FRONTEND=noninteractive \
        setpriv --reuid="$who" --regid="$who" --init-groups sh -c "$*"
}

step "apt-get install $packages"
inside root "apt-get update -qq && apt-get install -qq $packages > /dev/null"

# The first two lines of README's block that begins with the first command.
[ -n "$snippets" ] || sed -n '/^```sh$/,/^```$/p' README.md | grep '^cargo ' | head -n 2 | while read -r command; do
    step "as $user: $command"
    inside "$user" "$command" < /dev/null
done

# README's first block of that language under "Use it".
shown() { sed -n '/^## Use it/,$p' README.md | awk -v fence="$1" '$0 == "```" fence { inside = 1; next } /^```$/ && inside { exit } inside'; }
left_out=()

step "as $user: what README shows"
inside "$user" 'cargo build --release'

if [ -e /usr/bin/sqlite3 ]; then
    step "as $user: the shell"
    shown sh > "$home/shown.sh"
    inside "$user" "sh -eu $home/shown.sh" < /dev/null
    inside "$user" 'rm -f board.db'
else
    left_out+=('the shell: needs sqlite3')
fi

step "as $user: Python"
inside root 'apt-get install -qq python3-venv > /dev/null'
shown python > "$home/shown.py"
inside "$user" "python3 -m venv $home/environment"
inside "$user" "$home/environment/bin/pip install --quiet ./python"
inside "$user" "cd $home && environment/bin/python shown.py && test -e board.db && environment/bin/kanban-vfs --version"

if [ -e /usr/include/sqlite3.h ]; then
    step "as $user: C"
    {
        printf '%s\n' '#include <sqlite3.h>' '#include <stddef.h>' 'int main(void) {' ' sqlite3 *loader, *board; char *why = 0;' \
            ' sqlite3_open(":memory:", &loader);'
        shown c
        printf '%s\n' ' return sqlite3_exec(board, "PRAGMA journal_mode=wal; CREATE TABLE tasks (title TEXT)", 0, 0, 0);' '}'
    } > "$home/shown.c"
    inside "$user" "cc $home/shown.c -lsqlite3 -o $home/shown && $home/shown && rm board.db"
else
    left_out+=('C: needs sqlite3.h (libsqlite3-dev)')
fi
for what in "${left_out[@]}"; do echo "left out: $what"; done

step "passed as $user with: $packages"
