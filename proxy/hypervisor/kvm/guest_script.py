"""What a Linux guest's shell does for ``guest_files``: constant scripts, their input and output. Pure.

The scripts never change and no name is ever put into one: names are data. They are read from a file, one a line::

    =/plain name with $(anything) but newlines, byte for byte
    %/one with \\0012 newlines and bytes that are not ASCII, as printf %b takes it

The scripts keep to POSIX, and to what GNU coreutils and busybox have in common beyond it (``stat -c``, ``touch -d @TIME``,
``readlink``).
"""

import io
import re
import stat
import tarfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from proxy import guest_files as port

STAGING = ".lanfree-push-"
"""How the directory below the root begins that holds what has no name yet."""

BUNDLE = "bundle-"
"""How archives in it begin that ``APPLY`` unpacks."""

LIST = "list"
LISTING = "listing"
SECOND = 10**9

LARGEST_ID = 0o7777777
"""User or group that every tar understands in an archive's header (seven octal digits)."""

NO_DIRECTORY = 7
"""Exit code of ``LOOK``."""

_EXISTS = 17
_DONE = 0

PREPARE = r"""
[ "$(uname -s)" = Linux ] || { uname -s; exit 3; }
mkdir -p -- "$1" && cd -- "$1" || exit 4
find . ! -name . -prune -type d -name '.lanfree-push-*' -mtime +0 -exec rm -rf {} + 2>/dev/null
mkdir -m 700 -- "$2" && cd -- "$2" || exit 4
: >probe || exit 4
touch -d @1.5 probe 2>/dev/null && echo fraction
command -v tar >/dev/null 2>&1 && echo tar
command -v gzip >/dev/null 2>&1 && echo gzip
rm -f probe
echo "user $(id -u):$(id -g)"
df -P -k . 2>/dev/null
exit 0
"""
"""Arguments: root, name of the staging directory. Removes what runs left there that died more than a day ago."""

APPLY = r"""
cd -- "$1" || exit 4
LC_ALL=C; export LC_ALL; umask 077
for bundle in bundle-*; do
    case $bundle in
    *.gz) gzip -dc "$bundle" | tar -xpf - || exit 5 ;;
    *'*') continue ;;
    *) tar -xpf "$bundle" || exit 5 ;;
    esac
    rm -f "$bundle"
done
printf '%s\0' "$(stat -c '%n %u %g %a' [0-9]* 2>/dev/null)"
name() {
    IFS= read -r n <&3
    case $n in
    =*) n=${n#=} ;;
    *) n=$(printf '%b.' "${n#%}"); n=${n%.} ;;
    esac
}
set_attributes() {
    kept=1
    if [ "$owner" != - ] && ! { [ "$owner" = "$us" ] && [ ! -L "$1" ] && [ -O "$1" ] && [ -G "$1" ]; }; then
        chown -h "$owner" "$1" 2>/dev/null || { echo lost:owner; kept=0; }
    fi
    [ -L "$1" ] && return 0
    if [ "$mode" != - ]; then
        chmod "$mode" "$1" 2>/dev/null || echo lost:mode
        [ $kept = 1 ] || chmod ug-s "$1" 2>/dev/null
    fi
    if [ "$time" != - ]; then
        touch -c -m -d "@$time" "$1" 2>/dev/null || echo lost:time
    fi
    return 0
}
may_replace() {
    [ -L "$path" ] || [ -e "$path" ] || return 0
    [ "$over" = 1 ] || return 17
    if [ -d "$path" ] && [ ! -L "$path" ]; then echo "a directory is in its place"; return 1; fi
    return 0
}
do_d() {
    if [ -L "$path" ]; then echo "a symbolic link is in its place"; return 1; fi
    [ -d "$path" ] && return 0
    if [ -e "$path" ]; then echo "something that is no directory is in its place"; return 1; fi
    mkdir -- "$path"
}
do_f() {
    may_replace || return $?
    set_attributes "$id"
    do_p
}
do_p() {
    may_replace || return $?
    # A link takes a free name in one step and no other. It does not go to another file system.
    [ "$over" = 1 ] || { ln -- "$id" "$path" 2>/dev/null && return 0; }
    part=${path%/*}/.lanfree-$stage-$id.part
    mv -f -- "$id" "$part" || { rm -f -- "$part"; return 1; }
    if [ "$over" = 1 ]; then
        [ ! -L "$path" ] || rm -f -- "$path"
        mv -f -- "$part" "$path" && return 0
    else
        mv -n -- "$part" "$path"
        [ -e "$part" ] || return 0
        rm -f -- "$part"
        return 17
    fi
    rm -f -- "$part"
    return 1
}
# What replaces something is made beside it first: where that fails, what was there is still there.
beside() {
    new=$path
    [ "$over" = 1 ] || return 0
    new=${path%/*}/.lanfree-$stage-link.part
    rm -f -- "$new"
}
take_place() {
    [ "$new" != "$path" ] || return 0
    [ ! -L "$path" ] || rm -f -- "$path"
    mv -f -- "$new" "$path" && return 0
    rm -f -- "$new"
    return 1
}
do_l() {
    if [ -L "$path" ] && [ "$(readlink "$path"; echo .)" = "$to
." ]; then return 0; fi
    may_replace || return $?
    beside
    ln -s -- "$to" "$new" || return 1
    if [ "$owner" != - ] && { [ "$owner" != "$us" ] || [ -g "${path%/*}/" ]; }; then
        chown -h "$owner" "$new" 2>/dev/null || echo lost:owner
    fi
    [ "$time" = - ] || touch -h -c -m -d "@$time" "$new" 2>/dev/null || echo lost:time
    take_place
}
do_h() {
    [ "$path" -ef "$to" ] && [ ! -L "$path" ] && return 0
    may_replace || return $?
    beside
    ln -- "$to" "$new" || return 1
    take_place
}
do_a() {
    [ -L "$path" ] || [ -e "$path" ] || { echo "no such file"; return 1; }
    set_attributes "$path"
}
stage=${1##*-} us=$2 used=
exec 3<list
while read -r op id mode owner time over <&3; do
    name; path=$n
    case $op in
    l|h) name; to=$n ;;
    f|p) used="$used $id" ;;
    esac
    "do_$op" >said 2>&1; code=$?
    words=; [ -s said ] && words=$(cat said)
    printf '%s %s\0' "$code" "$words"
done
[ -z "$used" ] || rm -f -- $used
exit 0
"""
"""Arguments: the staging directory, and its user and group as ``uid:gid``. Says first what the small files became, then for
each action of ``list`` an exit code and words, each ended by NUL. Every program that it begins costs a guest some milliseconds
(an emulated one fifteen), so what the shell itself can find out it does not ask."""

LOOK = r"""
cd -- "$1" || exit 4
LC_ALL=C; export LC_ALL
here=$(pwd -P)
n=$(printf '%b.' "${2#%}"); n=${n%.}
[ -d "$n" ] || exit 7
cd -- "$n" || exit 4
find . ! -name . -prune -exec stat -c '/ %f %s %Y %n' {} + >"$here/listing"
exit 0
"""
"""Arguments: the staging directory, the directory to list. The slash in front tells a line that begins an entry from one that a
name's newline began: names have no slash, and ``%n`` is ``./name``."""

UNPACK = r"""LC_ALL=C; export LC_ALL; umask 077; exec gzip -df -- "$1" """
"""Argument: a packed file, which the unpacked one takes the place of, without ``.gz``."""

REMOVE = r"""cd -- "$1" && rm -rf -- "$2"; sync; exit 0"""

_LETTERS: Mapping[type[port.GuestAction], str] = {port.MakeDirectory: "d", port.PlaceFile: "f", port.SetAttributes: "a"}
_LOST = {"lost:owner": port.OWNER, "lost:mode": port.MODE, "lost:time": port.TIME}
_FREE = re.compile(rb"\s\d+\s+\d+\s+(\d+)\s+\d+%\s")
_NOTHING = port.GuestAttributes()


def escaped(name: bytes) -> str:
    """For a script's argument: ASCII alone, whatever the name is."""
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+=@,: "
    return "%" + "".join(chr(byte) if byte in plain else f"\\0{byte:03o}" for byte in name)


def line(name: bytes) -> bytes:
    """For the list of actions."""
    return (escaped(name).encode() if b"\n" in name else b"=" + name) + b"\n"


def encoded(action: port.GuestAction, *, fractions: bool, finished: bool = False) -> bytes:
    """One action as ``APPLY`` reads it. ``fractions``: the guest's ``touch`` takes parts of a second. ``finished``: a file that
    came with its attributes."""
    attributes = getattr(action, "attributes", _NOTHING)
    fields = [
        "p" if finished else _letter(action),
        action.staged.id if isinstance(action, port.PlaceFile) else "-",
        "-" if attributes.mode is None else f"{attributes.mode & 0o7777:04o}",
        _owner(attributes),
        _moment(attributes.mtime_ns, fractions=fractions),
        "1" if getattr(action, "overwrite", False) else "0",
    ]
    names = line(action.path) + (line(action.target) if isinstance(action, port.MakeLink) else b"")
    return " ".join(fields).encode() + b"\n" + names


def outcomes(said: bytes, actions: Sequence[port.GuestAction], finished: Collection[str]) -> list[port.Outcome]:
    """What ``APPLY`` said, which may have ended in the middle. ``finished``: ids of files that came with their attributes."""
    became, *records = said.split(b"\0")[:-1] or [b""]
    facts = {
        words[0]: words[1:] for row in became.decode(errors="replace").splitlines() if len(words := row.split()) == 4
    }
    found = [_outcome(record.decode(errors="replace")) for record in records[: len(actions)]]
    missing = port.Outcome(problem="the guest's shell ended before it came to this")
    found += [missing] * (len(actions) - len(found))
    return [
        replace(outcome, lost=_unset(action.attributes, facts.get(action.staged.id, ())))
        if isinstance(action, port.PlaceFile) and action.staged.id in finished and not outcome.problem
        else outcome
        for action, outcome in zip(actions, found, strict=True)
    ]


def can_come_finished(attributes: port.GuestAttributes) -> bool:
    """Whether an archive can give a file all its attributes. Not set-user-id: that depends on whether its owner can be set."""
    numbers = (attributes.uid, attributes.gid, attributes.mtime_ns)
    small = all(number is None or number >= 0 for number in numbers)
    return small and max(attributes.uid or 0, attributes.gid or 0) <= LARGEST_ID and not (attributes.mode or 0) & 0o6000


def listing(said: bytes) -> dict[bytes, port.GuestFile]:
    """What ``LOOK`` wrote. A line that cannot be understood is left out: its name counts as not there."""
    found = {}
    for record in (b"\n" + said.removesuffix(b"\n")).split(b"\n/ ")[1:]:
        fields = record.split(b" ", 3)
        if len(fields) == 4 and fields[3].startswith(b"./"):
            mode, size, seconds = int(fields[0], 16), int(fields[1]), int(fields[2])
            found[fields[3][2:]] = port.GuestFile(_kind(mode), size, seconds * SECOND)
    return found


def free_bytes(said: bytes) -> int | None:
    """What ``df -P -k`` in ``PREPARE`` says is available."""
    found = _FREE.search(said)
    return int(found[1]) * 1024 if found else None


def bundle(files: Mapping[str, bytes], attributes: Mapping[str, port.GuestAttributes], *, fractions: bool) -> bytes:
    """An archive of small files (names are ours) with the attributes that are known. ``fractions``: of seconds are kept."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT if fractions else tarfile.GNU_FORMAT) as archive:
        for name, content in files.items():
            member, wanted = tarfile.TarInfo(name), attributes.get(name, _NOTHING)
            member.size = len(content)
            member.mode = 0o600 if wanted.mode is None else wanted.mode
            member.uid, member.gid = wanted.uid or 0, wanted.gid or 0
            if wanted.mtime_ns is not None:
                member.mtime = wanted.mtime_ns // SECOND
                if fractions and wanted.mtime_ns % SECOND:
                    member.pax_headers = {"mtime": _moment(wanted.mtime_ns, fractions=True)}
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def _letter(action: port.GuestAction) -> str:
    if isinstance(action, port.MakeLink):
        return "h" if action.hard else "l"
    return _LETTERS[type(action)]


def _owner(attributes: port.GuestAttributes) -> str:
    if attributes.uid is None and attributes.gid is None:
        return "-"
    user = "" if attributes.uid is None else str(attributes.uid)
    return user if attributes.gid is None else f"{user}:{attributes.gid}"


def _moment(mtime_ns: int | None, *, fractions: bool) -> str:
    if mtime_ns is None:
        return "-"
    seconds, rest = divmod(mtime_ns, SECOND)
    return f"{seconds}.{rest:09}" if fractions and rest else str(seconds)


def _outcome(record: str) -> port.Outcome:
    code, _, words = record.partition(" ")
    said = words.splitlines()
    lost = tuple(_LOST[word] for word in said if word in _LOST)
    if code == str(_DONE):
        return port.Outcome(lost=lost)
    if code == str(_EXISTS):
        return port.Outcome(problem=port.EXISTS, exists=True)
    why = " ".join(word for word in said if word not in _LOST)
    return port.Outcome(problem=_printable(why) or f"exit code {code}")


def _unset(wanted: port.GuestAttributes, became: Sequence[str]) -> tuple[str, ...]:
    """What a file that came with its attributes did not get."""
    if len(became) != 3:
        return (port.OWNER, port.MODE)
    lost = []
    if any(want is not None and str(want) != is_ for want, is_ in ((wanted.uid, became[0]), (wanted.gid, became[1]))):
        lost.append(port.OWNER)
    if wanted.mode is not None and f"{wanted.mode:o}" != became[2]:
        lost.append(port.MODE)
    return tuple(lost)


def _printable(text: str) -> str:
    """The guest's words are not trusted with a person's terminal."""
    return "".join(c if c.isprintable() else "?" for c in text[:500])


def _kind(mode: int) -> port.GuestFileKind:
    kinds = {
        stat.S_IFREG: port.GuestFileKind.FILE,
        stat.S_IFDIR: port.GuestFileKind.DIRECTORY,
        stat.S_IFLNK: port.GuestFileKind.SYMLINK,
    }
    return kinds.get(stat.S_IFMT(mode), port.GuestFileKind.OTHER)
