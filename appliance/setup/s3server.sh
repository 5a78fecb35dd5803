#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build the S3 server that the tests start (Versity S3 Gateway, Apache-2.0) into a cache of the user's, once for each version.
# It is a separate program that only tests use; Lanfree neither ships nor needs it.
#
#   s3server.sh           build it if it is not there (needs Go; some minutes of two cores, once)
#   s3server.sh --path    print where it is, or would be, and do nothing
#
# LANFREE_TOOLS names another directory than ${XDG_CACHE_HOME:-~/.cache}/lanfree/tools.
set -euo pipefail

# Pinned: conditional puts that hold under concurrency came with 1.8.0. The Go checksum database vouches for its content.
readonly version=v1.8.0
readonly module=github.com/versity/versitygw/cmd/versitygw
readonly tools=${LANFREE_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/lanfree/tools}
readonly program=$tools/versitygw-$version/versitygw

say() { printf '%s\n' "lanfree setup: $*" >&2; }

build() {
    local scratch
    command -v go >/dev/null || {
        say "the tests' S3 server is built with Go, which is not installed (https://go.dev/doc/install)"
        exit 1
    }
    say "building the tests' S3 server versitygw $version with $(go env GOVERSION): takes some minutes, once"
    mkdir -p "$tools"
    scratch=$(mktemp -d "$tools/.build-XXXXXX")
    # shellcheck disable=SC2064  # the value of now
    trap "rm -rf '$scratch'" EXIT
    # Without symbol tables linking needs half the time. GOBIN: straight into the scratch directory.
    GOBIN=$scratch GOFLAGS=-mod=mod CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' "$module@$version" >"$scratch/log" 2>&1 || {
        say "go cannot build it: trying once more"
        sleep 5
        GOBIN=$scratch GOFLAGS=-mod=mod CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' "$module@$version" >"$scratch/log" 2>&1 || {
            tail -n 20 "$scratch/log" >&2
            say "go cannot build the S3 server: check the network, then run again"
            exit 1
        }
    }
    mkdir -p "${program%/*}"
    mv -f "$scratch/versitygw" "$program" # at once: another run never sees half of it
}

case ${1:-} in
    --path) printf '%s\n' "$program" ;;
    '') [[ -x $program ]] || build ;;
    *)
        sed -n '3,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
