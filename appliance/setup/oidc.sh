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
# shellcheck source=appliance/setup/go_tool.sh
. "$here/go_tool.sh"

readonly source=$here/../../tests/system/oidc

compile() {
    cd "$source" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags '-s -w' -o "$1/oidc-lab" .
}

go_tool "oidc-$(state_of "$source")/oidc-lab" "OpenID provider" "$@"
