"""Where volumes appear in a mounted restore point.

::

    TREE, Linux guest        TREE, Windows guest          VOLUMES, or no system found
    DIR/                 /   DIR/C/              C:       DIR/sda1/
    DIR/data/        /data   DIR/D/              D:       DIR/guests-data/      /dev/guests/data
    (others: not shown)      DIR/volumes/sda1/   others   DIR/sda1-home/        btrfs subvolume home

A Linux guest's own tree is read-only like all else, so there is no place in it for volumes that the guest mounts nowhere:
they are named as not shown, and ``VOLUMES`` shows every volume.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from mounter.ports import Volume


class Layout(StrEnum):
    """``TREE``: as the guest has its files; ``VOLUMES``: one directory a volume."""

    TREE = "tree"
    VOLUMES = "volumes"


@dataclass(frozen=True, slots=True)
class Place:
    """A volume and the absolute path, within the mount, of its root."""

    volume: Volume
    path: str


def places(volumes: Sequence[Volume], layout: Layout) -> tuple[Place, ...]:
    """Places of all volumes that can be read and shown, parents before what is mounted below them; no two are the same."""
    usable = [v for v in volumes if v.problem is None]
    mounted = {v.mountpoint: v for v in usable if v.mountpoint is not None and _harmless(v.mountpoint)}
    if layout is Layout.TREE and "/" in mounted:
        return tuple(Place(mounted[path], path) for path in sorted(mounted, key=_depth) if path.startswith("/"))
    drives = {v.id: Place(v, f"/{m[0]}") for m, v in mounted.items() if re.fullmatch(r"[A-Za-z]:", m)}
    if layout is Layout.TREE and drives:
        others = [Place(p.volume, f"/volumes{p.path}") for p in _by_device(usable) if p.volume.id not in drives]
        return (*drives.values(), *others)
    return _by_device(usable)


def directories(paths: Sequence[str]) -> tuple[str, ...]:
    """All directories that must be there, parents first, but for the root."""
    found: dict[str, None] = {}
    for path in paths:
        parts = path.strip("/").split("/")
        found.update({"/" + "/".join(parts[: n + 1]): None for n in range(len(parts)) if parts[0]})
    return tuple(found)


def _by_device(volumes: Sequence[Volume]) -> tuple[Place, ...]:
    made: dict[str, Volume] = {}
    for volume in volumes:
        # btrfsvol:/dev/sda1/sub/volume: the name of a subvolume is the guest's own.
        device = volume.device.removeprefix("btrfsvol:").removeprefix("/dev/").removeprefix("mapper/")
        name = re.sub(r"[^A-Za-z0-9._+@-]+", "-", device).lstrip(".-") or "volume"
        unique, number = name, 1
        while unique in made:
            number += 1
            unique = f"{name}-{number}"
        made[unique] = volume
    return tuple(Place(volume, f"/{name}") for name, volume in made.items())


def _harmless(mountpoint: str) -> bool:
    """Whether a guest's mount point stays where it seems to be: it comes out of the guest's own files."""
    return "\0" not in mountpoint and not {".", ".."} & set(mountpoint.split("/"))


def _depth(mountpoint: str) -> tuple[int, str]:
    return len([part for part in mountpoint.split("/") if part]), mountpoint
