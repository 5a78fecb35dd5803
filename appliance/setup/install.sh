#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Install the distribution's packages that Lanfree needs; do nothing when they are all there.
#
#   install.sh [GROUP...]           install what is missing (root needed only then)
#   install.sh --list [GROUP...]    print the package names for this distribution
#   install.sh --missing [GROUP...] print what is missing; exit 1 if anything is
#
# Groups: runtime (a proxy), build (compiles the libiscsi binding), lab (built-in lab and tests), kernel (containers
# without one). Default: all. Exit status: 0 done, 1 failed, 2 wrong usage, 3 this distribution has no list.
#
# LANFREE_SKIP_PACKAGES=1 leaves the system alone: for distributions without a list, once their packages are installed
# by hand. LANFREE_OS_RELEASE and LANFREE_ROOT name another os-release file and another root directory (tests).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly root=${LANFREE_ROOT:-}
readonly os_release=${LANFREE_OS_RELEASE:-/etc/os-release}
# Lists older than this many minutes name versions that the archive may have dropped: refresh first.
readonly lists_max_age=1440

say() { printf '%s\n' "lanfree setup: $*" >&2; }

usage() {
    sed -n '3,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

# The distribution's list, or a message that a person can act on.
list_file() {
    local name file
    name=$(. "$os_release" 2>/dev/null && printf '%s-%s' "${ID:-unknown}" "${VERSION_ID:-unknown}") || name=unknown-unknown
    file=$here/packages/$name.txt
    if [[ ! -r $file ]]; then
        say "no package list for '$name'. Lists exist for: $(cd "$here/packages" && printf '%s ' *.txt | sed 's/\.txt//g')"
        say "install your distribution's counterparts of these Debian packages by hand:"
        say "  $(packages "$here/packages/debian-12.txt" runtime build lab | tr '\n' ' ')"
        say "then run again with LANFREE_SKIP_PACKAGES=1; 'lanfree doctor' tells what is still missing"
        exit 3
    fi
    printf '%s' "$file"
}

# packages FILE GROUP... : the names of those groups, one a line.
packages() {
    local file=$1
    shift
    awk -v groups=" $* " '
        /^[ \t]*(#|$)/ { next }
        /^\[.*\]$/     { wanted = index(groups, " " substr($0, 2, length($0) - 2) " "); next }
        wanted         { print $1 }
    ' "$file"
}

# A kernel of whatever flavour, with its modules, serves libguestfs and the lab's guest. Installing one beside it would
# add an entry to the machine's boot menu, so that is done only where there is none.
have_kernel() {
    local image
    for image in "$root"/boot/vmlinuz-*; do
        [[ -r $image && -d $root/lib/modules/${image##*/vmlinuz-} ]] && return 0
    done
    return 1
}

# The packages among those on standard input that are not installed.
missing() {
    local wanted installed
    wanted=$(cat)
    # dpkg-query exits 1 when it does not know a name: that is an answer.
    installed=$(xargs -r dpkg-query -W -f '${db:Status-Status} ${Package}\n' <<<"$wanted" 2>/dev/null | sed -n 's/^installed //p') || true
    grep -Fxv -f <(printf '%s\n' "$installed") <<<"$wanted" || true
}

lists_are_old() {
    [[ -z $(find "$root/var/lib/apt/lists" -maxdepth 1 -name '*_Packages*' -mmin "-$lists_max_age" -print -quit 2>/dev/null) ]]
}

apt() {
    DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold -o Dpkg::Use-Pty=0 "$@" </dev/null
}

# The lab runs private daemons of its own. The packages' system-wide ones must not come up because of us: they would take
# port 3260 and set up a bridge. Daemons that were installed before stay as they are.
readonly policy=$root/usr/sbin/policy-rc.d
hold_services() {
    if [[ ! -e $policy ]]; then
        printf '%s\n' '#!/bin/sh' '# Lanfree set-up: removed when it ends' \
            'case "$1" in libvirt* | virt* | tgt*) exit 101 ;; esac' 'exit 0' >"$policy"
        chmod 755 "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
}

# What was held back now must not come up at the next boot either.
disable_services() {
    command -v systemctl >/dev/null || return 0
    local unit
    for unit in "$@"; do
        systemctl -q disable "$unit" >/dev/null 2>&1 || true
    done
}

install_packages() {
    say "installing $(wc -w <<<"$*") packages: $*"
    hold_services
    if lists_are_old; then
        apt update >&2 || say "apt-get update failed: going on with the lists that are here"
    fi
    if ! apt install -y --no-install-recommends "$@" >&2; then
        say "apt-get install failed: refreshing the lists and trying once more"
        sleep 5
        apt update >&2 || true
        apt install -y --no-install-recommends "$@" >&2 || {
            say "apt-get cannot install them: check the network and the package sources (Ubuntu: main and universe)"
            exit 1
        }
    fi
    case " $* " in
        *' tgt '*) disable_services tgt.service ;;&
        *' libvirt-daemon-system '*)
            disable_services libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket \
                libvirt-guests.service virtlogd.service virtlogd.socket virtlogd-admin.socket \
                virtlockd.service virtlockd.socket virtlockd-admin.socket
            ;;
    esac
}

main() {
    local mode=install groups=() lacking list word
    for word in "$@"; do
        case $word in
            --list | --missing) mode=${word#--} ;;
            runtime | build | lab | kernel) groups+=("$word") ;;
            *) usage ;;
        esac
    done
    ((${#groups[@]})) || groups=(runtime build lab kernel)
    if [[ $mode == install && ${LANFREE_SKIP_PACKAGES:-} == 1 ]]; then
        say "LANFREE_SKIP_PACKAGES=1: the distribution's packages are left as they are"
        exit 0
    fi
    list=$(list_file) || exit $?
    if [[ $mode == list ]]; then
        packages "$list" "${groups[@]}"
        exit 0
    fi
    if [[ " ${groups[*]} " == *' kernel '* ]] && have_kernel; then
        groups=("${groups[@]/kernel/}")
    fi
    lacking=$(packages "$list" "${groups[@]}" | missing)
    [[ -n $lacking ]] || exit 0
    if [[ $mode == missing ]]; then
        printf '%s\n' "$lacking"
        exit 1
    fi
    if [[ $(id -u) != 0 ]]; then
        say "these packages are missing: $(tr '\n' ' ' <<<"$lacking")"
        say "installing them needs root. Run: sudo $here/install.sh $*"
        exit 1
    fi
    # shellcheck disable=SC2086  # package names, one word each
    install_packages $lacking
    lacking=$(packages "$list" "${groups[@]}" | missing)
    if [[ -n $lacking ]]; then
        say "still missing after the installation: $(tr '\n' ' ' <<<"$lacking")"
        exit 1
    fi
    say "all packages are installed"
}

main "$@"
