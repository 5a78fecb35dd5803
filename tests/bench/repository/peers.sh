#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs what the repository's bench runs beside: into ~/.cache/lanfree/bench, or $LANFREE_BENCH_CACHE. Does nothing for what
# is there. What cannot be installed leaves NAME.missing with the reason, and the bench names it as missing.
# Libraries to compile against come from the distribution, for which this must run as root. Ten minutes at worst.
set -uo pipefail
renice -n 15 $$ >/dev/null

CACHE=${LANFREE_BENCH_CACHE:-$HOME/.cache/lanfree/bench}
RESTIC=v0.18.1
KOPIA=v0.21.1
BORG=1.4.5
BENJI=0.17.0
HEADERS="libnbd-dev libzstd-dev libssl-dev libacl1-dev liblz4-dev libxxhash-dev python3-dev python3-venv gcc pkg-config qemu-utils zstd nbdkit e2fsprogs"

mkdir -p "$CACHE/bin" "$CACHE/log"

# install NAME FILE COMMAND…: run the command unless FILE is there; keep what went wrong.
install() {
    local name=$1 file=$2
    shift 2
    rm -f "$CACHE/$name.missing"
    if [ -e "$file" ]; then
        echo "$name: there"
        return
    fi
    echo "$name: installing"
    if ! "$@" >"$CACHE/log/$name" 2>&1 || ! [ -e "$file" ]; then
        echo "could not be installed: $(grep -iE 'error|cannot|refused|forbidden|unable' "$CACHE/log/$name" | head -1)" \
            >"$CACHE/$name.missing"
        echo "$name: $(cat "$CACHE/$name.missing")"
    fi
}

headers() {
    # shellcheck disable=SC2086  # a list of words
    dpkg -s $HEADERS >/dev/null 2>&1 || {
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $HEADERS || return 1
    }
    touch "$CACHE/headers"
}

# A module that requires the program's one: "go install" would ask for a list of all versions first, which a proxy may not have.
go_program() {
    local name=$1 module=$2 version=$3 package=$4 folder
    folder=$(mktemp -d)
    printf 'module peers\n\ngo 1.24.0\n\nrequire %s %s\n' "$module" "$version" >"$folder/go.mod"
    (cd "$folder" && go build -buildvcs=false -mod=mod -p=1 -o "$CACHE/bin/$name" "$package")
    local code=$?
    rm -rf "$folder"
    return $code
}

# A virtual environment that is complete or not there.
python_program() {
    local name=$1
    shift
    rm -rf "${CACHE:?}/$name"
    /usr/bin/python3 -m venv "$CACHE/$name" && "$CACHE/$name/bin/pip" install "$@" || {
        rm -rf "${CACHE:?}/$name"
        return 1
    }
}

# Its pinned ruamel.yaml (0.15) does not compile for Python 3.11; 0.17 has the calls that it makes.
benji() {
    python_program benji 'PrettyTable<1' 'sqlalchemy>=1.4.14,<2' 'setproctitle<2' 'python-dateutil<3' 'alembic<2' \
        'ruamel.yaml>0.16,<0.18' 'psycopg2-binary<3' 'argcomplete<2' 'sparsebitfield<1' 'cerberus<2' 'pycryptodome<4' \
        'pyparsing<3' 'semantic_version<3' 'dateparser<2' structlog 'colorama<1' diskcache 'attrs<22' zstandard setuptools &&
        "$CACHE/benji/bin/pip" install --no-deps "benji==$BENJI"
}

# The distribution's package, unpacked beside an environment of its own: nothing of it comes into the system.
virtnbdbackup() {
    rm -rf "$CACHE/virtnbdbackup"
    /usr/bin/python3 -m venv --system-site-packages "$CACHE/virtnbdbackup" &&
        "$CACHE/virtnbdbackup/bin/pip" install lz4 lxml paramiko tqdm typing_extensions &&
        (cd "$CACHE/virtnbdbackup" && apt-get download virtnbdbackup && dpkg -x virtnbdbackup_*.deb deb)
}

install headers "$CACHE/headers" headers
install restic "$CACHE/bin/restic" go_program restic github.com/restic/restic "$RESTIC" github.com/restic/restic/cmd/restic
install kopia "$CACHE/bin/kopia" go_program kopia github.com/kopia/kopia "$KOPIA" github.com/kopia/kopia
install borg "$CACHE/borg/bin/borg" python_program borg "borgbackup==$BORG"
install benji "$CACHE/benji/bin/benji" benji
install virtnbdbackup "$CACHE/virtnbdbackup/deb/usr/bin/virtnbdbackup" virtnbdbackup
