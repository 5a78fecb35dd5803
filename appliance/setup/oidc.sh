#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build the OpenID provider that the tests start (tests/system/oidc: zitadel's certified library, Apache-2.0, with its example
# storage) into a cache of the user's, once for each state of its source. Lanfree neither ships nor needs it.
#
#   oidc.sh           build it if it is not there (needs Go; a minute of two cores, once)
#   oidc.sh --path    print where it is, or would be, and do nothing
#
# LANFREE_TOOLS names another directory than ${XDG_CACHE_HOME:-~/.cache}/lanfree/tools.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly source=$here/../../tests/system/oidc
# The source, with the versions that go.sum pins: a changed one is another program.
state=$(cd "$source" && cat go.mod go.sum ./*.go | sha256sum | cut -c 1-12)
readonly state
readonly tools=${LANFREE_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/lanfree/tools}
readonly program=$tools/oidc-$state/oidc-lab

say() { printf '%s\n' "lanfree setup: $*" >&2; }

build() {
    local scratch
    command -v go >/dev/null || {
        say "the tests' OpenID provider is built with Go, which is not installed (https://go.dev/doc/install)"
        exit 1
    }
    say "building the tests' OpenID provider with $(go env GOVERSION): takes a minute the first time"
    mkdir -p "$tools"
    scratch=$(mktemp -d "$tools/.build-XXXXXX")
    # shellcheck disable=SC2064  # the value of now
    trap "rm -rf '$scratch'" EXIT
    (cd "$source" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags '-s -w' -o "$scratch/oidc-lab" .) \
        >"$scratch/log" 2>&1 || {
        tail -n 20 "$scratch/log" >&2
        say "go cannot build the OpenID provider: check the network, then run again"
        exit 1
    }
    mkdir -p "${program%/*}"
    mv -f "$scratch/oidc-lab" "$program" # at once: another run never sees half of it
    # Programs of older states of the source are not started again; those of today may be running.
    find "$tools" -mindepth 1 -maxdepth 1 -name 'oidc-*' -mtime +2 ! -path "${program%/*}" -exec rm -rf {} +
}

case ${1:-} in
    --path) printf '%s\n' "$program" ;;
    '') [[ -x $program ]] || build ;;
    *)
        sed -n '3,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
