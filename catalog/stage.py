"""One walk on its way into the database: rows made from records, in bulk, with directories named once."""

import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from catalog.history import STAGE
from catalog.tables import DirectoryRow, VolumeRow
from proxy.model import MachineId

# Rows handed to the database at once. Fewer cost round trips, more cost memory (about 1 KiB each).
ROWS_AT_ONCE = 10_000

# size, mode, uid, gid, mtime, ctime, inode: what a change of a file is seen by, beside type and link target.
_CONTENT = struct.Struct("<7q")

_COLUMNS = (
    *("directory_id", "name", "search", "volume_id", "content", "type"),
    *("size", "mode", "uid", "gid", "mtime_ns", "ctime_ns", "inode", "link_target"),
)


class IndexedFile(Protocol):
    """What a walk must tell of a file (``mounter.walk.FileRecord``). ``path``: the guest's own, absolute; ``volume``: id."""

    @property
    def volume(self) -> str: ...
    @property
    def path(self) -> bytes: ...
    @property
    def type(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def mode(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def mtime_ns(self) -> int: ...
    @property
    def ctime_ns(self) -> int: ...
    @property
    def inode(self) -> int: ...
    @property
    def link_target(self) -> bytes | None: ...


class Stage:
    """Collects the files of one restore point of one machine in the stage table."""

    def __init__(self, session: Session, machine: MachineId) -> None:
        self._session = session
        self._machine = machine
        self._volumes: dict[str, int] = {}
        self._directories: dict[tuple[int, bytes], int] = {}
        connection = session.connection()
        STAGE.create(connection, checkfirst=True)
        connection.execute(STAGE.delete())
        # Plain tuples straight to the driver: SQLAlchemy's handling of each value costs six times what the database does.
        mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
        names, marks = ", ".join(_COLUMNS), ", ".join([mark] * len(_COLUMNS))
        self._insert = f"INSERT INTO {STAGE.name} ({names}) VALUES ({marks})"  # noqa: S608  all of it is constant

    def add(self, batch: Sequence[IndexedFile]) -> int:
        """Take over a batch of any size; returns its length."""
        for start in range(0, len(batch), ROWS_AT_ONCE):
            part = batch[start : start + ROWS_AT_ONCE]
            places = [(self.volume_id(f.volume), *_split(f.path)) for f in part]
            self._name_directories({(volume, directory) for volume, directory, _ in places})
            rows = [self._row(f, *place) for f, place in zip(part, places, strict=True)]
            self._session.connection().exec_driver_sql(self._insert, rows)
        return len(batch)

    def volume_id(self, name: str) -> int:
        """The row of a volume of the machine, made when it is new. Its known directories are remembered."""
        found = self._volumes.get(name)
        if found is None:
            query = select(VolumeRow.id).where(VolumeRow.machine_id == self._machine, VolumeRow.name == name)
            found = self._session.scalar(query)
            if found is None:
                row = VolumeRow(machine_id=self._machine, name=name)
                self._session.add(row)
                self._session.flush()
                found = row.id
            self._volumes[name] = found
            known = select(DirectoryRow.path, DirectoryRow.id).where(DirectoryRow.volume_id == found)
            self._directories.update({(found, path): id_ for path, id_ in self._session.execute(known).tuples()})
        return found

    def _name_directories(self, wanted: set[tuple[int, bytes]]) -> None:
        new = sorted(wanted - self._directories.keys())
        if not new:
            return
        made = insert(DirectoryRow).returning(DirectoryRow.volume_id, DirectoryRow.path, DirectoryRow.id)
        rows = self._session.connection().execute(made, [{"volume_id": v, "path": p} for v, p in new])
        self._directories.update({(volume, path): id_ for volume, path, id_ in rows.tuples()})

    def _row(self, f: IndexedFile, volume: int, directory: bytes, name: bytes) -> tuple[object, ...]:
        """Values in the order of ``_COLUMNS``."""
        facts = (f.size, f.mode, f.uid, f.gid, f.mtime_ns, f.ctime_ns, f.inode)
        kind, link = str(f.type), f.link_target
        seen = _CONTENT.pack(*facts) + kind.encode() + (b"" if link is None else b"\0" + link)
        content = blake2b(seen, digest_size=16).digest()
        return (self._directories[volume, directory], name, searchable(f.path), volume, content, kind, *facts, link)


def searchable(path: bytes) -> str:
    """A path as searches see it: case-folded text, what is not UTF-8 escaped as ``\\xNN``, NUL too (no database likes it)."""
    return path.decode(errors="backslashreplace").replace("\0", "\\x00").casefold()


def _split(path: bytes) -> tuple[bytes, bytes]:
    directory, _, name = path.rpartition(b"/")
    return directory or b"/", name
