"""One walk on its way into the database: rows made from records, in bulk, with directories named once."""

import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol

from sqlalchemy import Connection, insert, select

from catalog.history import STAGE, STAGE_DIRECTORIES
from catalog.tables import DirectoryRow, VolumeRow
from proxy.model import MachineId

# Rows handed to the database at once. Fewer cost round trips, more cost memory (about 1 KiB each).
ROWS_AT_ONCE = 10_000

# size, mode, uid, gid, mtime, ctime, inode: what a change of a file is seen by, beside type and link target.
# What databases and ``_CONTENT`` hold. Nanoseconds reach it in the year 2262; file systems, and guests that set times as
# they like, go further.
LARGEST = 2**63 - 1

_CONTENT = struct.Struct("<7q")

_COLUMNS = (
    *("directory", "name", "search", "content", "type"),
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
    """Collects the files of one restore point in temporary tables of one connection.

    ``add`` touches nothing that others see and holds no lock, so a walk may take its time; ``resolve`` comes after the
    last ``add``, inside the transaction that writes.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._directories: dict[tuple[str, bytes], int] = {}
        for table in (STAGE, STAGE_DIRECTORIES):
            table.create(connection, checkfirst=True)
        self.clear()
        # Plain tuples straight to the driver: SQLAlchemy's handling of each value costs six times what the database does.
        mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
        names, marks = ", ".join(_COLUMNS), ", ".join([mark] * len(_COLUMNS))
        self._insert = f"INSERT INTO {STAGE.name} ({names}) VALUES ({marks})"  # noqa: S608  all of it is constant

    def add(self, batch: Sequence[IndexedFile]) -> int:
        """Take over a batch of any size; returns its length."""
        for start in range(0, len(batch), ROWS_AT_ONCE):
            rows = [self._row(f) for f in batch[start : start + ROWS_AT_ONCE]]
            self._connection.exec_driver_sql(self._insert, rows)
        return len(batch)

    def resolve(self, machine: MachineId) -> None:
        """Give every staged directory its row in the database, made when it is new; volumes too."""
        rows: list[dict[str, int]] = []
        for name in sorted({volume for volume, _ in self._directories}):
            volume = self.volume_id(machine, name)
            numbers = {path: number for (of, path), number in self._directories.items() if of == name}
            ids = self._directory_ids(volume, list(numbers))
            rows += [{"number": numbers[p], "directory_id": ids[p], "volume_id": volume} for p in numbers]
        if rows:
            self._connection.execute(insert(STAGE_DIRECTORIES), rows)

    def clear(self) -> None:
        """Empty the tables: the connection goes back to a pool and lives on."""
        for table in (STAGE, STAGE_DIRECTORIES):
            self._connection.execute(table.delete())

    def volume_id(self, machine: MachineId, name: str) -> int:
        """The row of a volume of the machine, made when it is new."""
        query = select(VolumeRow.id).where(VolumeRow.machine_id == machine, VolumeRow.name == name)
        found = self._connection.scalar(query)
        if found is None:
            made = insert(VolumeRow).values(machine_id=machine, name=name).returning(VolumeRow.id)
            found = self._connection.execute(made).scalar_one()
        return found

    def _directory_ids(self, volume: int, paths: Sequence[bytes]) -> dict[bytes, int]:
        known = select(DirectoryRow.path, DirectoryRow.id).where(DirectoryRow.volume_id == volume)
        ids: dict[bytes, int] = {row.path: row.id for row in self._connection.execute(known)}
        new = [{"volume_id": volume, "path": path} for path in paths if path not in ids]
        if new:
            made = insert(DirectoryRow).returning(DirectoryRow.path, DirectoryRow.id)
            ids.update({row.path: row.id for row in self._connection.execute(made, new)})
        return ids

    def _row(self, f: IndexedFile) -> tuple[object, ...]:
        """Values in the order of ``_COLUMNS``."""
        directory, _, name = f.path.rpartition(b"/")
        number = self._directories.setdefault((f.volume, directory or b"/"), len(self._directories))
        told = (f.size, f.mode, f.uid, f.gid, f.mtime_ns, f.ctime_ns, f.inode)
        facts = tuple(max(-LARGEST, min(number, LARGEST)) for number in told)
        kind, link = str(f.type), f.link_target
        seen = _CONTENT.pack(*facts) + kind.encode() + (b"" if link is None else b"\0" + link)
        return (number, name, searchable(f.path), blake2b(seen, digest_size=16).digest(), kind, *facts, link)


def searchable(path: bytes) -> str:
    """A path as searches see it: case-folded text, what is not UTF-8 escaped as ``\\xNN``, NUL too (no database likes it)."""
    return path.decode(errors="backslashreplace").replace("\0", "\\x00").casefold()
