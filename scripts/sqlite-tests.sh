#!/usr/bin/env bash
# SQLite's own tests, with this VFS as the default one of their programs.
#
#     scripts/sqlite-tests.sh                       all, with SQLite 3.40.1 and the newest: some hours on a busy machine
#     scripts/sqlite-tests.sh --quick               a part, with 3.40.1: 3 minutes, from nothing
#     scripts/sqlite-tests.sh --version newest      3.40 or newest
#     scripts/sqlite-tests.sh wal2.test pager4.test these files of the Tcl tests, and nothing else
#     scripts/sqlite-tests.sh --only mptester       tcl, mptester or threadtest3; more than one may be given
#
# Fetches Debian's source package of SQLite (installs tcl-dev first, as root), and builds in
# target/sqlite-tests: delete that to fetch a newer one. Runs each file of the Tcl tests on the stock VFS,
# too, and compares test by test. Fails on a difference that sqlite-tests/expected.txt does not list, and on
# any error of mptester and threadtest3. Files with a difference that is not listed run once more, alone. The
# script reports a difference that does not occur again, but does not fail. Root starts the tests as `nobody`, since
# no permission stops root.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=$PWD/target/sqlite-tests
expected=$PWD/scripts/sqlite-tests/expected.txt
hook=$PWD/scripts/sqlite-tests/default_vfs.c
declare -A suite=([3.40]=bookworm [newest]=sid)

# The files that have to do with locks, journals, WAL and other VFSes; the slow ones last.
tcl_slow='walthread walcrash3 thread003 savepoint6 backup_ioerr'
tcl_all='8_3_names async* atomic* attach* avtrans backup* bestindexC bigfile* busy* cache* chunksize cksumvfs
    crash* ctime dbstatus delete_db diskfull e_wal* exclusive* external_reader filectrl hidden hook*
    incrblob* incrvacuum* io* journal* jrnl* lock* manydb memdb* misuse mmap* multiplex* nockpt nolock notify*
    openv2 oserror pager* quota* rdonly readonly rollback* rowallock savepoint* securedel* shared* shmlock
    sidedelete snapshot* stat stmt superlock swarm* symlink* sync* sysfault tempdb* temptable* thread* tkt-*
    trans* unixexcl uri* vacuum* wal* zerodamage'
tcl_quick='attach2 backup busy exclusive external_reader jrnlmode lock lock4 lock5 pager4 readonly rollback
    savepoint shared superlock uri wal wal2 wal3 wal5 wal6 walro zerodamage'
threads_quick='walthread5 cgt_pager_1 create_drop_index_1'
threads_all='walthread1 walthread2 walthread3 walthread4 walthread5 cgt_pager_1 dynamic_triggers
    checkpoint_starvation_1 checkpoint_starvation_2 create_drop_index_1 lookaside1 vacuum1 stress1 stress2 shared1'

quick=
versions=()
only=
files=()
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=1 ;;
        --version) shift; versions+=("${1:?3.40 or newest}") ;;
        --only) shift; only+=" ${1:?tcl, mptester or threadtest3}" ;;
        *.test) files+=("$1") ;;
        *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
[ ${#files[@]} -eq 0 ] || only=${only:- tcl}
[ ${#versions[@]} -gt 0 ] || { [ -n "$quick" ] && versions=(3.40) || versions=(3.40 newest); }
for version in "${versions[@]}"; do
    [ -n "${suite[$version]-}" ] || { echo "no version $version: 3.40 or newest" >&2; exit 2; }
done
runs() { [ -z "$only" ] || [[ " $only " = *" $1 "* ]]; }
say() { printf '%s  %s\n' "$(date +%T)" "$*"; }

install() {
    local missing=()
    [ -e /usr/include/tcl8.6/tcl.h ] || [ -e /usr/include/tcl/tcl.h ] || missing+=(tcl-dev)
    command -v make > /dev/null || missing+=(make)
    command -v gcc > /dev/null || missing+=(gcc)
    command -v xz > /dev/null || missing+=(xz-utils)
    command -v sqlite3 > /dev/null || missing+=(sqlite3)
    [ -e /usr/include/zlib.h ] || missing+=(zlib1g-dev)
    if [ ${#missing[@]} -gt 0 ]; then
        timeout -k 10 300 apt-get update -qq
        DEBIAN_FRONTEND=noninteractive timeout -k 10 600 apt-get install -y -qq --no-install-recommends "${missing[@]}"
    fi
}

# fetch SUITE DIR: the source package of that suite, from where this machine has its packages from, without
# a change to its list of sources. Into a private list of packages; apt checks the signatures.
fetch() {
    local lists=$2.lists uri
    rm -rf "$2" "$lists"
    mkdir -p "$2" "$lists/partial" "$lists.parts"
    # shellcheck disable=SC2016 # apt expands them
    uri=$(apt-get indextargets --format '$(LABEL) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        sed -n 's/^Debian main //p' | sort | head -n 1)
    [ -n "$uri" ] || uri=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' \
        /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources 2> /dev/null | grep -v security | head -n 1)
    local keys=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb-src [signed-by=$keys] $uri $1 main" > "$lists.parts/source.list"
    local options=(-qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$lists.parts"
        -o Dir::State::lists="$lists" -o Acquire::Languages=none -o APT::Sandbox::User=root)
    timeout -k 10 300 apt-get "${options[@]}" update &&
        (cd "$2" && timeout -k 10 300 apt-get "${options[@]}" source --download-only sqlite3)
}

# have VERSION: its sources, unpacked.
have() {
    local place=$cache/$1
    [ ! -e "$place/source/VERSION" ] || return 0
    rm -rf "$place/source" "$place/unpacked"
    mkdir -p "$place/unpacked"
    fetch "${suite[$1]}" "$place/package" &&
        tar -xf "$place"/package/sqlite3_*.orig.tar.xz -C "$place/unpacked" --strip-components=1 &&
        mv "$place/unpacked" "$place/source"
}

# build VERSION: testfixture, mptester and threadtest3, once.
build() {
    local place=$cache/$1 program
    ! cmp -s "$hook" "$place/build/done" || return 0
    say "$1: builds the programs"
    rm -rf "$place/build" "$place/stock"
    mkdir "$place/build"
    (
        cd "$place/build"
        CFLAGS=-O1 timeout -k 10 300 ../source/configure --enable-all
        timeout -k 10 300 make sqlite3.c
        cat "$hook" >> sqlite3.c
        timeout -k 10 1200 make -j"$(nproc)" OPTS=-DSQLITE_EXTRA_INIT=default_vfs_init \
            testfixture mptester threadtest3
    ) > "$place/build.log" 2>&1 < /dev/null || true
    for program in testfixture mptester threadtest3; do
        if ! grep -q DEFAULT_VFS_EXTENSION "$place/build/$program"; then
            tail -n 20 "$place/build.log"
            echo "$program was not built, or not with $hook" >&2
            exit 1
        fi
    done
    cp "$hook" "$place/build/done"
}

# The programs and the extension, where `nobody` may read them even if this clone is private.
scratch=$(mktemp -d)
# On a disk in memory, SQLite's tests take half the time.
data=/dev/shm
[ "$(df --output=avail -k "$data" 2> /dev/null | tail -n 1)" -gt 2000000 ] 2> /dev/null || data=$scratch
data=$(mktemp -d "$data/sqlite-tests.XXXXXX")
mkdir "$data/running"
# Each test has a group of processes of its own, which an interrupt of this script does not reach.
ended() {
    local test
    for test in "$data"/running/*; do
        [ ! -e "$test" ] || kill "$(basename "$test")" 2> /dev/null || true
    done
    rm -rf "$scratch" "$data"
}
trap ended EXIT
trap 'exit 130' INT TERM
chmod 755 "$scratch" "$data"
as=()
[ "$(id -u)" -ne 0 ] || as=(setpriv --reuid=nobody --clear-groups --inh-caps=-all)

# test_program SECONDS LOG COMMAND...: in an empty directory, left as $data/last. Returns how it ended.
test_program() {
    local limit=$1 log=$2 directory process code=0
    shift 2
    directory=$(mktemp -d "$data/XXXXXX")
    [ "$(id -u)" -ne 0 ] || chown nobody "$directory"
    # The tests expect SQLite's own busy timeout, and its files' lengths.
    (cd "$directory" && export KANBAN_BUSY_TIMEOUT=0 KANBAN_FILE_AHEAD=0 KANBAN_RECORD=0 && exec timeout -k 5 "$limit" "$@") > "$log" 2>&1 < /dev/null &
    process=$!
    : > "$data/running/$process"
    # It may have crashed, of which the shell has a line to say.
    wait $process 2> /dev/null || code=$?
    rm -f "$data/running/$process"
    if [ -n "${after-}" ]; then (cd "$directory" && eval "$after") || true; fi
    rm -rf "$directory"
    return $code
}
export -f test_program

# run_file VFS FILE: one file of the Tcl tests in a directory of its own. Leaves $results/VFS/FILE: how it
# ended, the number of its tests, and a line for each that failed.
run_file() {
    local vfs=$1 file=$2 out=$results/$1/$2 code=0
    [ "$vfs" = stock ] && [ -e "$out" ] && return
    [ "$vfs" = stock ] || local -x DEFAULT_VFS_EXTENSION=$scratch/libkanban_vfs.so
    # shellcheck disable=SC2086 # these are words
    test_program "$seconds" "$out.log" $as_words "$scratch/testfixture" "$scratch/source/test/$file.test" || code=$?
    awk -v code="$code" '
        /^[0-9]+ errors out of [0-9]+ tests/ { errors = $1; tests = $5 }
        /^!Failures on these tests:/ { sub(/^!Failures on these tests: */, ""); failed = $0 }
        END {
            if (code == 124 || code == 137) print "timeout"
            else if (tests == "") print "abort"
            else print tests
            n = split(failed, names, " ")
            for (i = 1; i <= n; i++) print names[i]
        }' "$out.log" > "$out.new"
    # Only what has passed on the stock VFS is kept for the next time.
    if [ "$vfs" = stock ] && grep -qvxE '[0-9]+' "$out.new"; then mv "$out.new" "$out.failed"; else mv "$out.new" "$out"; fi
}
export -f run_file

# differences FILE: the tests that this VFS fails and the stock VFS does not. `abort`, `timeout` and `count` (another
# number of tests) stand for the whole file.
differences() {
    local stock=$results/stock/$1 ours=$results/kanban/$1
    [ -e "$stock" ] || stock=$stock.failed
    local was is
    was=$(head -n 1 "$stock")
    is=$(head -n 1 "$ours")
    if [ "$was" != "$is" ]; then
        case $is in abort | timeout) echo "$1/$is" ;; *) echo "$1/count" ;; esac
    fi
    tail -n +2 "$ours" | grep -vxFf <(tail -n +2 "$stock") | sed "s|^|$1/|" || true
}

# What may differ, and with which version.
declare -A seen=()
patterns=()
while read -r for_version pattern _; do
    case $for_version in '' | '#'*) continue ;; esac
    patterns+=("$for_version $pattern")
done < "$expected"

# is_expected VERSION TEST
is_expected() {
    local entry pattern
    for entry in "${patterns[@]}"; do
        pattern=${entry#* }
        # shellcheck disable=SC2053 # it is a pattern
        if [[ ${entry%% *} = both || ${entry%% *} = "$1" ]] && [[ $2 = $pattern ]]; then
            seen["$entry"]=1
            return 0
        fi
    done
    return 1
}

failed=0
fail() { printf '  FAILED: %s\n' "$*"; failed=$((failed + 1)); }

# names LIST: the files of a list of patterns that this version has.
names() {
    local pattern path
    for pattern in $1; do
        for path in "$scratch/source/test/"$pattern.test; do
            [ ! -e "$path" ] || basename "$path" .test
        done
    done | awk '!seen[$0]++'
}

tcl() {
    local version=$1 list jobs
    export results=$cache/$version seconds=600 scratch data as_words="${as[*]}"
    mkdir -p "$results/stock"
    rm -rf "$results/kanban" "$results"/stock/*.failed
    mkdir "$results/kanban"
    jobs=$(nproc)
    if [ ${#files[@]} -gt 0 ]; then list=$(names "${files[*]%.test}")
    elif [ -n "$quick" ]; then list=$(names "$tcl_quick")
    else list=$(names "$tcl_all"); list=$(grep -vxFf <(names "$tcl_slow") <<< "$list"; names "$tcl_slow"); fi
    say "$version: $(wc -w <<< "$list") files of the Tcl tests"
    local vfs
    for vfs in stock kanban; do
        printf '%s\n' "$list" | xargs -P "$jobs" -I '{}' bash -c 'run_file "$@"' run_file "$vfs" '{}'
        say "$version: have run on $vfs"
    done
    local file test count=0 tests=0 expected_here=0 new once
    for file in $list; do
        count=$((count + 1))
        test=$(head -n 1 "$results/kanban/$file")
        case $test in abort | timeout) printf '  %s: %s\n' "$file" "$test" ;; *) tests=$((tests + test)) ;; esac
        new=
        while read -r test; do
            if is_expected "$version" "$test"; then expected_here=$((expected_here + 1)); else new+="$test "; fi
        done < <(differences "$file")
        [ -n "$new" ] || continue
        rm -f "$results/stock/$file"*
        run_file stock "$file"
        run_file kanban "$file"
        once=$new
        new=
        while read -r test; do is_expected "$version" "$test" || new+="$test "; done < <(differences "$file")
        for test in $new; do fail "$version: $test differs from the stock VFS: $results/{stock,kanban}/$file.log"; done
        for test in $once; do [[ " $new" = *" $test "* ]] || echo "  differed once, and not alone: $test"; done
    done
    say "$version: $tests tests in $count files; $expected_here differ as expected.txt says"
    local entry
    for entry in "${patterns[@]}"; do
        [[ ${entry%% *} = both || ${entry%% *} = "$version" ]] || continue
        [ -z "${seen["$entry"]-}" ] || continue
        file=${entry#* }
        file=${file%%/*}
        # A pattern for several files is known to be needless after a run of all.
        if grep -qxF "$file" <<< "$list" || [ -z "$quick" ] && [ ${#files[@]} -eq 0 ]; then
            echo "  does not differ any more: $entry"
        fi
    done
    seen=()
}

mptester() {
    local test mode code summary whole bad=0 runs=0
    local tests=(crash01 multiwrite01 config01 config02) modes=(DELETE WAL PERSIST TRUNCATE)
    [ -z "$quick" ] || { tests=(crash01 multiwrite01); modes=(WAL TRUNCATE); }
    # It would skip its tests under any VFS but `unix`.
    sed -i '/^--if vfsname()/d' "$scratch/source/mptest/config01.test"
    for test in "${tests[@]}"; do
        for mode in "${modes[@]}"; do
            # They change the journal mode themselves, and fail in WAL on the stock VFS, too.
            case $test-$mode in config*-WAL) continue ;; esac
            code=0
            after="timeout 60 sqlite3 mptest.db 'PRAGMA integrity_check' > '$scratch/whole' 2>&1" \
                DEFAULT_VFS_EXTENSION=$scratch/libkanban_vfs.so test_program 300 "$scratch/mptester.log" \
                "${as[@]}" "$scratch/mptester" mptest.db "$scratch/source/mptest/$test.test" \
                --journalmode "$mode" --timeout 120000 || code=$?
            summary=$(grep -a '^Summary' "$scratch/mptester.log" | tail -n 1) || true
            whole=$(tail -n 1 "$scratch/whole")
            runs=$((runs + 1))
            if [ $code -ne 0 ] || [ "$whole" != ok ] || ! [[ $summary =~ ': 0 errors out of '[1-9] ]]; then
                bad=$((bad + 1))
                fail "$1: mptester $test $mode: ended with $code, integrity $whole, ${summary:-no summary}"
                grep -a -iE 'error|fail' "$scratch/mptester.log" | head -n 5
            fi
        done
    done
    say "$1: mptester: $runs runs, $bad with errors"
}

# thread_test NAME
thread_test() {
    local code=0 log=$scratch/threadtest3.log
    DEFAULT_VFS_EXTENSION=$scratch/libkanban_vfs.so test_program 180 "$log" \
        "${as[@]}" "$scratch/threadtest3" "$1" || code=$?
    if [ $code -ne 0 ] || ! grep -aqE '(^| )0 errors out of [1-9]' "$log"; then
        grep -av 'says: ok' "$log" | tail -n 20
        return 1
    fi
}

threadtest3() {
    local test list bad=0 runs=0
    list=$threads_all
    [ -z "$quick" ] || list=$threads_quick
    for test in $list; do
        runs=$((runs + 1))
        thread_test "$test" && continue
        # stress2 changes the journal mode, which is refused at times on the stock VFS, too.
        echo "  $1: threadtest3 $test had errors, and runs once more"
        thread_test "$test" && continue
        bad=$((bad + 1))
        fail "$1: threadtest3 $test"
    done
    say "$1: threadtest3: $runs runs, $bad with errors"
}

install
say 'builds the extension'
cargo build --release --lib --quiet
mkdir -p "$cache"
tried=0
for version in "${versions[@]}"; do
    if ! have "$version"; then
        echo "  not tried: SQLite $version could not be fetched"
        continue
    fi
    tried=$((tried + 1))
    build "$version"
    rm -rf "$scratch/source"
    mkdir "$scratch/source"
    cp -r "$cache/$version/source/"{test,ext,mptest,src,VERSION} "$scratch/source/"
    cp "$cache/$version/build/"{testfixture,mptester,threadtest3} "${CARGO_TARGET_DIR:-target}/release/libkanban_vfs.so" "$scratch/"
    chmod -R a+rX "$scratch"
    say "$version: SQLite $(cat "$scratch/source/VERSION")"
    ! runs mptester || mptester "$version"
    ! runs threadtest3 || threadtest3 "$version"
    ! runs tcl || tcl "$version"
done
[ $tried -gt 0 ] || { echo 'no SQLite to test with' >&2; exit 1; }
[ $failed -eq 0 ] || { say "$failed failed"; exit 1; }
say passed
