"""Which paths of a restore point are restored, and where each goes below the target.

By its last name, as ``cp -a`` does, or by its full path, as the guest has it::

    guest path            last name      full path          guest path           last name    full path
    /                     (the target)   (the target)       C:/Users/x           x            C/Users/x
    /etc/ssh              ssh            etc/ssh            C:                   C            C
    /data (a volume)      data           data               /dev/vg/old:/a/x     x            vg-old/a/x
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mounter.ports import Volume, shown
from proxy.errors import RestoreRefused


@dataclass(frozen=True, slots=True)
class Chosen:
    """A path that was asked for. ``above``: its directories from the top, each as guest path and path in the target;
    empty where only the last name counts."""

    guest: bytes
    path: bytes
    above: tuple[tuple[bytes, bytes], ...] = ()


def harmless(path: bytes) -> bool:
    """Whether a relative path stays below where it is used, and every part of it is a name."""
    return all(part not in (b"", b".", b"..") and b"\0" not in part for part in path.split(b"/"))


def joined(directory: bytes, name: bytes) -> bytes:
    """A name below a directory, guest path or relative path; ``/`` and the empty path are roots."""
    if directory in (b"", b"/"):
        return directory + name
    return directory + b"/" + name


def chosen_of(paths: Sequence[bytes], volumes: Sequence[Volume], *, full: bool) -> Sequence[Chosen]:
    """Where every path goes; no paths: all volumes that can be read, by their full paths.

    What lies below another chosen path is left out where it would come twice. Sorted, so that paths with a common
    directory are neighbours. Raises ``RestoreRefused`` when two of them would have one name.
    """
    full = full or not paths
    wanted = dict.fromkeys(path.rstrip(b"/") or b"/" for path in paths) or list(_tops(volumes))
    placed = sorted(((_place(guest, volumes, full=full), guest) for guest in wanted), key=lambda p: p[0].split(b"/"))
    places = {place for place, _ in placed}
    if len(places) < len(placed) or (not full and b"" in places and len(places) > 1):
        hint = "ask for full paths (--full-paths)"
        raise RestoreRefused("the target", "two of the paths would go to one place", hint=hint)
    made: list[Chosen] = []
    for place, guest in placed:
        if not (full and any(_below(guest, one.guest, volumes) for one in made)):
            made.append(Chosen(guest, place, tuple(_above(guest, place)) if full else ()))
    return made


def mountpoints(volumes: Sequence[Volume]) -> dict[bytes, Volume]:
    """Where the guest has its volumes mounted, by guest path; the root, drives and unmounted volumes are below nothing."""
    return {
        place: volume
        for volume in volumes
        if volume.mountpoint is not None and (place := volume.guest_path(b"/")).startswith(b"/") and place != b"/"
    }


def unreadable(volumes: Sequence[Volume]) -> Sequence[Volume]:
    """Volumes that cannot be opened, but for those that going down from the root comes to by itself."""
    rooted = any(v.problem is None and v.guest_path(b"/") == b"/" for v in volumes)
    reached = mountpoints(volumes) if rooted else {}
    return [v for v in volumes if v.problem is not None and v.guest_path(b"/") not in reached]


def _tops(volumes: Sequence[Volume]) -> Iterator[bytes]:
    """Roots of readable volumes that are not reached by going down from another one."""
    roots = {v.guest_path(b"/"): v for v in volumes if v.problem is None}
    below_root = mountpoints(volumes) if b"/" in roots else {}
    for root in roots:
        nested = any(root.startswith(other + b"/") for other in roots if other not in (root, b"/"))
        if root not in below_root and not nested:
            yield root


def _place(guest: bytes, volumes: Sequence[Volume], *, full: bool) -> bytes:
    """Path in the target of a guest path."""
    root = _own_root(guest, volumes)
    top = root[:-1].removeprefix(b"/dev/").strip(b"/").replace(b"/", b"-")
    place = top + guest[len(root) :] if root else guest.strip(b"/")
    place = place if full else place.rsplit(b"/", 1)[-1]
    if place and not harmless(place):
        raise RestoreRefused("the target", f"{shown(place)!r} is no name for a file")
    return place


def _own_root(guest: bytes, volumes: Sequence[Volume]) -> bytes:
    """Of the volume that a path is in, if that is in no other: a drive, or one that the guest does not mount."""
    for volume in volumes:
        root = volume.guest_path(b"/")
        if root.endswith(b":") and (guest == root or guest.startswith(root + b"/")):
            return root
    return b""


def _below(guest: bytes, other: bytes, volumes: Sequence[Volume]) -> bool:
    """Whether going down from the other path leads to this one."""
    same = _own_root(guest, volumes) == _own_root(other, volumes)
    return same and guest.startswith(other.rstrip(b"/") + b"/")


def _above(guest: bytes, place: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Directories above a path. Both have the same number of parts: only the first is spelled differently."""
    parts = place.split(b"/")
    for kept in range(1, len(parts)):
        cut = len(parts) - kept
        yield guest.rsplit(b"/", cut)[0], b"/".join(parts[:kept])
