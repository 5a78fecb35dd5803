# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by the scripts that build a program in Go, which only the tests start, into a cache of the user's, once for each version:
# "go_tool NAME-VERSION/PROGRAM WHAT [--path]". The script's function "compile DIRECTORY" makes PROGRAM there; WHAT is for people.
# LANFREE_TOOLS names another directory than ${XDG_CACHE_HOME:-~/.cache}/lanfree/tools.

readonly tools=${LANFREE_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/lanfree/tools}

say() { printf '%s\n' "lanfree setup: $*" >&2; }

go_tool() {
    local program=$tools/$1 what=$2
    case ${3:-} in
        --path) printf '%s\n' "$program" ;;
        '') [[ -x $program ]] || build_go_tool "$program" "$what" ;;
        *)
            sed -n '3,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[1]}" >&2
            exit 2
            ;;
    esac
}

# The first characters of a digest of a Go module's source, with the versions that go.sum pins: a changed one is another program.
state_of() {
    (cd "$1" && cat go.mod go.sum ./*.go | sha256sum | cut -c 1-12)
}

build_go_tool() {
    local program=$1 what=$2 scratch place name
    command -v go >/dev/null || {
        say "the tests' $what is built with Go, which is not installed (https://go.dev/doc/install)"
        exit 1
    }
    say "building the tests' $what with $(go env GOVERSION): takes some minutes the first time"
    mkdir -p "$tools"
    scratch=$(mktemp -d "$tools/.build-XXXXXX")
    # shellcheck disable=SC2064  # the value of now
    trap "rm -rf '$scratch'" EXIT
    (compile "$scratch") >"$scratch/log" 2>&1 || {
        say "go cannot build it: trying once more"
        sleep 5
        (compile "$scratch") >"$scratch/log" 2>&1 || {
            tail -n 20 "$scratch/log" >&2
            say "go cannot build the $what: check the network, then run again"
            exit 1
        }
    }
    place=${program%/*} name=${place##*/}
    mkdir -p "$place"
    mv -f "$scratch/${program##*/}" "$program" # at once: another run never sees half of it
    # Programs of older versions are not started again; those of today may be running.
    find "$tools" -mindepth 1 -maxdepth 1 -name "${name%%-*}-*" -mtime +2 ! -path "$place" -exec rm -rf {} +
}
