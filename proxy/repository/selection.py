"""Which restore points are meant: by machine, id, age or number, from the names of their manifests alone.

Ids begin with the moment of the snapshot, so no manifest is read, but one of each machine when a machine is given by its name.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

from proxy.errors import FormatError, RestorePointNotFound
from proxy.model import RestorePointId
from proxy.repository import manifest
from proxy.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class Selection:
    """Everything, without any of these. ``machines``: ids, or names (as of the newest restore point). ``points``: ids, or
    beginnings of which only one point has. ``since``: made then or later, with time zone. ``newest``: so many of each machine,
    of those that are left."""

    machines: frozenset[str] = frozenset()
    points: tuple[RestorePointId, ...] = ()
    newest: int | None = None
    since: datetime | None = None


def select(repository: Repository, wanted: Selection) -> list[str]:
    """Names of manifests, by machine, oldest first, readable or not. Raises ``RestorePointNotFound`` for a machine or a point
    that is not there, ``RepositoryUnavailable``."""
    names = repository.ledger.names()
    folders = _folders(repository, names, wanted.machines) if wanted.machines else None
    return choose(names, wanted, folders)


def choose(names: Sequence[str], wanted: Selection, folders: Collection[str] | None) -> list[str]:
    """Of the manifests' names those that are meant. ``folders``: of the machines, ``None`` for all."""
    named = _meant([point_of(name) for name in names], wanted.points)
    moment = wanted.since.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ") if wanted.since is not None else ""
    chosen: list[str] = []
    for folder, group in groupby(sorted(names), key=folder_of):
        if folders is not None and folder not in folders:
            continue
        own = [name for name in group if point_of(name) >= moment and (not named or point_of(name) in named)]
        chosen.extend(own if wanted.newest is None else own[max(len(own) - wanted.newest, 0) :])
    return chosen


def point_of(name: str) -> RestorePointId:
    """The restore point that a manifest's name means."""
    return name.rpartition("/")[2]


def folder_of(name: str) -> str:
    """The machine's folder in a manifest's name."""
    return name.split("/")[1]


def _folders(repository: Repository, names: Iterable[str], machines: Iterable[str]) -> set[str]:
    by_folder = {folder: list(group) for folder, group in groupby(names, key=folder_of)}
    found: set[str] = set()
    by_name: dict[str, set[str]] = {}
    for machine in sorted(machines):
        folder = manifest.machine_name(repository.keys, machine)
        if folder in by_folder:
            found.add(folder)
            continue
        if not by_name:
            for other, own in by_folder.items():
                by_name.setdefault(_name_of(repository, own), set()).add(other)
        if not machine or machine not in by_name:
            raise RestorePointNotFound(f"of a machine {machine}")
        found |= by_name[machine]
    return found


def _name_of(repository: Repository, names: Sequence[str]) -> str:
    """What a machine is called in its newest manifest that can be read; nothing, if none can."""
    for name in reversed(names):
        with suppress(FormatError, FileNotFoundError):
            return repository.read_manifest(name).machine_name
    return ""


def _meant(points: Sequence[RestorePointId], wanted: Iterable[RestorePointId]) -> set[RestorePointId]:
    """Whole ids are looked up: a job names thousands of them."""
    counts = Counter(points)
    return {start if counts[start] == 1 else _only(points, start) for start in wanted}


def _only(points: Sequence[RestorePointId], start: RestorePointId) -> RestorePointId:
    exact = [point for point in points if point == start] or [p for p in points if start and p.startswith(start)]
    if len(exact) != 1:
        raise RestorePointNotFound(f"{start} ({len(exact)} begin so)" if exact else start or "''")
    return exact[0]
