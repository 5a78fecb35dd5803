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

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=appliance/setup/go_tool.sh
. "$here/go_tool.sh"

# Pinned: conditional puts that hold under concurrency came with 1.8.0. The Go checksum database vouches for its content.
readonly version=v1.8.0
readonly module=github.com/versity/versitygw/cmd/versitygw

# Without symbol tables linking needs half the time. GOBIN: straight into the directory.
compile() {
    GOBIN=$1 GOFLAGS=-mod=mod CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' "$module@$version"
}

go_tool "versitygw-$version/versitygw" "S3 server" "$@"
