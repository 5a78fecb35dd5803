#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build the simulated vCenter that the tests start (tests/system/vcsim: govmomi's simulator, Apache-2.0, with our extensions)
# into a cache of the user's, once for each state of its source. Lanfree neither ships nor needs it.
#
#   vcsim.sh           build it if it is not there (needs Go; about two minutes of two cores, once)
#   vcsim.sh --path    print where it is, or would be, and do nothing
#
# LANFREE_TOOLS names another directory than ${XDG_CACHE_HOME:-~/.cache}/lanfree/tools.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=appliance/setup/go_tool.sh
. "$here/go_tool.sh"

readonly source=$here/../../tests/system/vcsim

compile() {
    cd "$source" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags '-s -w' -o "$1/vcsim-lab" .
}

go_tool "vcsim-$(state_of "$source")/vcsim-lab" "vCenter" "$@"
