"""Files taken over from the restore point before: an index run that lists only what changed.

A carried volume's files are, in the restore point that is indexed, as they were in ``base``, but for those that the walk
lists and those that are gone. Since versions are intervals and ``base`` is the newest indexed restore point, their rows are
open already: nothing is written for what did not change, however much it is.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, LargeBinary, Table, exists, insert, select
from sqlalchemy.orm import Session

from catalog.stage import STAGE_GONE, TEMPORARY, counted, emptied
from catalog.tables import DirectoryRow, FileRow, NameRow, PathRow
from catalog.text import digest, split
from catalog.values import IndexedVolume, ListedVolume
from proxy.errors import CarryRefused
from proxy.model import RestorePointId

_ENTRIES = Table(
    "lanfree_stage_gone_entries",
    TEMPORARY,
    Column("volume_id", BigInteger, nullable=False),
    Column("digest", LargeBinary(16), nullable=False),
    Column("name", LargeBinary, nullable=False),
    prefixes=["TEMPORARY"],
)
"""Gone entries by the digest of their directory's path."""

_DIRECTORIES = Table(
    "lanfree_stage_gone_directories",
    TEMPORARY,
    Column("directory_id", BigInteger, primary_key=True, autoincrement=False),
    prefixes=["TEMPORARY"],
)
"""Directories of which nothing is left."""


@dataclass(frozen=True, slots=True)
class Carry:
    """What an index run takes over. ``base``: the machine's newest indexed restore point; ``volumes``: ids of those whose
    unlisted files are as in ``base``; ``gone``: (volume id, guest path) of entries of ``base`` that are not there any
    more. It is called after the last batch. With an entry goes all that lay below it, unless the walk lists it."""

    base: RestorePointId
    volumes: frozenset[str]
    gone: Callable[[], Iterable[tuple[str, bytes]]] = tuple


def check_volumes(
    point: RestorePointId, carry: Carry, before: Sequence[ListedVolume], now: Sequence[IndexedVolume] | None = None
) -> None:
    """Whether volumes can be carried from what they were ``before``, in ``base``; ``now``: what the walk says of them, when
    it has ended. Raises ``CarryRefused``."""
    known = {v.id: v for v in before}
    found = None if now is None else {v.id: v for v in now}
    for name in sorted(carry.volumes):
        if name not in known:
            raise CarryRefused(point, carry.base, f"volume {name} was not there")
        if known[name].problem is not None:
            raise CarryRefused(point, carry.base, f"volume {name} was not read whole: {known[name].problem}")
        if found is None:
            continue
        if name not in found:
            raise CarryRefused(point, carry.base, f"volume {name} is not there any more")
        if _place(found[name]) != _place(known[name]):
            raise CarryRefused(point, carry.base, f"volume {name} is mounted elsewhere: its files have other paths")


def stage_gone(session: Session, ids: Mapping[str, int], gone: Iterable[tuple[str, bytes]]) -> None:
    """Fill ``STAGE_GONE``. ``ids``: rows of the carried volumes; entries of others are not looked at."""
    connection = session.connection()
    emptied(connection, STAGE_GONE, _ENTRIES, _DIRECTORIES)
    paths: dict[int, list[bytes]] = {}
    for volume, path in gone:
        if volume in ids:
            paths.setdefault(ids[volume], []).append(path)
    for volume_id, entries in paths.items():
        rows = [(digest(directory), name) for directory, name in map(split, entries)]
        connection.execute(
            insert(_ENTRIES), [{"volume_id": volume_id, "digest": where, "name": name} for where, name in rows]
        )
        below = _directories_below(session, volume_id, entries)
        if below:
            connection.execute(insert(_DIRECTORIES), [{"directory_id": each} for each in below])
    counted(connection, _ENTRIES, _DIRECTORIES)
    _find_files(session)
    counted(connection, STAGE_GONE)


def _find_files(session: Session) -> None:
    f, e = FileRow, _ENTRIES.c
    below = select(f.id).join(_DIRECTORIES, _DIRECTORIES.c.directory_id == f.directory_id)
    session.execute(insert(STAGE_GONE).from_select(["file_id"], below))
    named = select(f.id).select_from(_ENTRIES).join(PathRow, PathRow.digest == e.digest)
    named = named.join(DirectoryRow, (DirectoryRow.path_id == PathRow.id) & (DirectoryRow.volume_id == e.volume_id))
    named = named.join(NameRow, NameRow.name == e.name)
    named = named.join(f, (f.directory_id == DirectoryRow.id) & (f.name_id == NameRow.id))
    named = named.where(~exists().where(STAGE_GONE.c.file_id == f.id)).distinct()
    session.execute(insert(STAGE_GONE).from_select(["file_id"], named))


def _directories_below(session: Session, volume: int, gone: Sequence[bytes]) -> list[int]:
    """The gone entries that were directories, and all directories below them, by row."""
    query = select(PathRow.path, DirectoryRow.id).join(PathRow, PathRow.id == DirectoryRow.path_id)
    # Few of the paths that begin alike are what is looked for, but databases cannot say that with an index on digests.
    known = sorted(
        (path.rstrip(b"/") + b"/", id_) for path, id_ in session.execute(query.where(DirectoryRow.volume_id == volume))
    )
    found: set[int] = set()
    done = b"\0"
    for entry in sorted(path.rstrip(b"/") + b"/" for path in gone):
        if entry.startswith(done):
            continue
        done = entry
        at = bisect_left(known, (entry, 0))
        while at < len(known) and known[at][0].startswith(entry):
            found.add(known[at][1])
            at += 1
    return sorted(found)


def _place(volume: IndexedVolume | ListedVolume) -> str:
    """What a volume's guest paths begin with."""
    return f"{volume.device}:" if volume.mountpoint is None else volume.mountpoint
