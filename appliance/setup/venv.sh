#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make the virtual environment .venv beside pyproject.toml and install the project into it, editable, with its
# development tools; compile the libiscsi binding. Does nothing when none of what it depends on has changed.
#
# It must be the distribution's own Python, with its site packages: libvirt, nbd and guestfs are extension modules of
# exactly that interpreter and are not on any package index.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly python=${LANFREE_PYTHON:-/usr/bin/python3}
readonly venv=.venv
# Inside the environment, so that removing the environment removes the stamp.
readonly stamp=$venv/.lanfree-setup

say() { printf '%s\n' "lanfree setup: $*" >&2; }

# Whatever makes an environment stale: what is asked for, the interpreter, the place (its scripts name it), the binding.
wanted() {
    {
        pwd -P
        "$python" -c 'import sys; print(sys.version)'
        cat pyproject.toml appliance/setup/packages/*.txt appliance/setup/venv.sh
        cat proxy/transport/iscsi/*.py proxy/transport/iscsi/*.[ch] 2>/dev/null || true
    } | sha256sum | cut -d' ' -f1
}

usable() {
    [[ -x $venv/bin/python ]] &&
        grep -qi '^include-system-site-packages *= *true' "$venv/pyvenv.cfg" 2>/dev/null &&
        [[ $("$venv/bin/python" -c 'import sys; print(sys.version)' 2>/dev/null) == "$("$python" -c 'import sys; print(sys.version)')" ]] &&
        [[ $(sed -n '1s/^#!//p' "$venv/bin/pip" 2>/dev/null) == "$PWD/$venv/bin/"* ]]
}

# The compiled binding lies in the tree, not in the environment: "git clean" takes it away and leaves the stamp.
binding_there() {
    [[ ! -e proxy/transport/iscsi/build.py ]] || compgen -G 'proxy/transport/iscsi/_libiscsi*.so' >/dev/null
}

# pip retries lost connections of one download by itself; this covers the index being away for a moment. Its words are
# shown only if it fails: with the system's packages in view it complains about those of them that nobody uses here.
pip_install() {
    local pip=("$venv/bin/python" -m pip --disable-pip-version-check install -q --retries 5)
    "${pip[@]}" "$@" </dev/null >"$venv/pip.log" 2>&1 && return
    say "pip failed: trying once more"
    sleep 5
    "${pip[@]}" "$@" </dev/null >"$venv/pip.log" 2>&1 && return
    cat "$venv/pip.log" >&2
    say "pip cannot install the project's Python packages: check the network, then run again"
    exit 1
}

main() {
    local want
    want=$(wanted)
    [[ -x $venv/bin/lanfree && $(cat "$stamp" 2>/dev/null) == "$want" ]] && binding_there && exit 0
    if ! usable; then
        say "making $venv with $python"
        rm -rf "$venv"
        "$python" -m venv --system-site-packages "$venv"
    fi
    rm -f "$stamp"
    say "installing the project and its development tools into $venv"
    # The build backend goes into the environment itself and builds there (--no-build-isolation): a second set-up then
    # needs no network, and the tests can build the wheel off line.
    pip_install hatchling setuptools
    pip_install --no-build-isolation -e '.[dev]'
    if [[ -e proxy/transport/iscsi/build.py ]]; then
        say "compiling the libiscsi binding"
        "$venv/bin/python" -m proxy.transport.iscsi.build >&2
    fi
    # As pip does with what it copies. Where Python may not write its cache (containers often forbid it), every start of
    # the program would compile all that it imports, a fifth of its time. Without it all works the same.
    "$venv/bin/python" -m compileall -q proxy mounter catalog api appliance >&2 || true
    printf '%s\n' "$want" >"$stamp"
}

main "$@"
