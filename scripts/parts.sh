# shellcheck shell=bash
# For scripts that have parts, which `--only "PART ..."` chooses. Their usage is the comment that they begin with.

# The parts to run: the first argument, unless the others say `--only`.
parts() {
    what=$1
    shift
    while [ $# -gt 0 ]; do
        case $1 in
            --only) what=$2; shift ;;
            *) usage ;;
        esac
        shift
    done
}

wants() { [[ " $what " == *" $1 "* ]]; }

step() { printf '\n== %s\n' "$*"; }

usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit 2
}
