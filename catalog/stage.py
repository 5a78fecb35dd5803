"""One walk on its way into the database: rows made from records, in bulk, with directories and names told once."""

import struct
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    delete,
    exists,
    insert,
    select,
    text,
    update,
)

from catalog.tables import DirectoryRow, FileRow, NameRow, PathRow, VolumeRow
from catalog.text import digest, searchable, split
from catalog.values import IndexedFile
from proxy.model import MachineId

# Rows handed to the database at once. Fewer cost round trips, more cost memory (about 1 KiB each).
ROWS_AT_ONCE = 10_000

# What databases and ``_CONTENT`` hold. Nanoseconds reach it in the year 2262; file systems, and guests that set times as
# they like, go further.
LARGEST = 2**63 - 1

# size, mode, uid, gid, mtime, ctime, inode: what a change of a file is seen by, beside type and link target.
_CONTENT = struct.Struct("<7q")

_COLUMNS = (
    *("directory", "name", "content", "type"),
    *("size", "mode", "uid", "gid", "mtime_ns", "ctime_ns", "inode", "link_target"),
)

_Key = BigInteger().with_variant(Integer(), "sqlite")

# Where one walk is collected before it is compared; lives for the connection, emptied for each use.
TEMPORARY = MetaData()
STAGE = Table(
    "lanfree_stage",
    TEMPORARY,
    Column("id", _Key, primary_key=True),
    Column("directory", Integer, nullable=False),
    Column("name", LargeBinary, nullable=False),
    Column("file_id", BigInteger),
    Column("content", LargeBinary(16), nullable=False),
    Column("type", String(20), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mode", Integer, nullable=False),
    Column("uid", BigInteger, nullable=False),
    Column("gid", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("ctime_ns", BigInteger, nullable=False),
    Column("inode", BigInteger, nullable=False),
    Column("link_target", LargeBinary),
    Index("ix_lanfree_stage_file", "file_id"),
    prefixes=["TEMPORARY"],
)
"""One row a file of the restore point that is being indexed. ``directory``: a number in ``STAGE_DIRECTORIES``."""

STAGE_DIRECTORIES = Table(
    "lanfree_stage_directories",
    TEMPORARY,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("volume_id", BigInteger, nullable=False),
    Column("digest", LargeBinary(16), nullable=False),
    Column("path", LargeBinary, nullable=False),
    Column("folded", Text, nullable=False),
    Column("directory_id", BigInteger),
    prefixes=["TEMPORARY"],
)
"""What the staged rows' directories are in the database; known only when it is written to."""

STAGE_NAMES = Table(
    "lanfree_stage_names",
    TEMPORARY,
    Column("name", LargeBinary, nullable=False),
    Column("folded", Text, nullable=False),
    prefixes=["TEMPORARY"],
)
"""Names that are new, on their way into the database: in one statement, since SQLite's full-text index writes out what it
has at the beginning of every statement that a trigger belongs to, which costs twenty times the work itself."""

STAGE_GONE = Table(
    "lanfree_stage_gone",
    TEMPORARY,
    Column("file_id", BigInteger, primary_key=True, autoincrement=False),
    prefixes=["TEMPORARY"],
)
"""Files of carried volumes that are not there any more (``catalog.carry``)."""

ENDED = Table(
    "lanfree_ended",
    TEMPORARY,
    Column("version_id", BigInteger, primary_key=True, autoincrement=False),
    prefixes=["TEMPORARY"],
)
"""Versions that the restore point being indexed does not hold."""

UNUSED = Table(
    "lanfree_unused",
    TEMPORARY,
    Column("file_id", BigInteger, primary_key=True, autoincrement=False),
    Column("directory_id", BigInteger, nullable=False),
    Column("name_id", BigInteger, nullable=False),
    prefixes=["TEMPORARY"],
)
"""Files that lost a version when a restore point was forgotten."""


def emptied(connection: Connection, *tables: Table) -> None:
    """The temporary tables, made if this connection has none yet, without rows: it goes back to a pool and lives on."""
    for table in tables:
        table.create(connection, checkfirst=True)
        connection.execute(table.delete())


def counted(connection: Connection, *tables: Table) -> None:
    """Let PostgreSQL count what is in temporary tables: it never does by itself, and plans for empty ones."""
    if connection.dialect.name == "postgresql":
        for table in tables:
            connection.execute(text(f"ANALYZE {table.name}"))


class Stage:
    """Collects the files of one restore point in temporary tables of one connection.

    ``add`` touches nothing that others see and holds no lock, so a walk may take its time; ``resolve`` comes after the
    last ``add``, inside the transaction that writes.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._directories: dict[tuple[str, bytes], int] = {}
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
        """Give every staged row the id of its file; volumes, directories, names and files are made where they are new."""
        volumes = {name: self.volume_id(machine, name) for name in {volume for volume, _ in self._directories}}
        rows = [
            {"number": number, "volume_id": volumes[v], "digest": digest(p), "path": p, "folded": searchable(p)}
            for (v, p), number in self._directories.items()
        ]
        if rows:
            self._connection.execute(insert(STAGE_DIRECTORIES), rows)
        counted(self._connection, STAGE, STAGE_DIRECTORIES)
        self._resolve_directories()
        self._make_names()
        self._resolve_files()

    def clear(self) -> None:
        """Empty the tables."""
        emptied(self._connection, STAGE, STAGE_DIRECTORIES)

    def volume_id(self, machine: MachineId, name: str) -> int:
        """The row of a volume of the machine, made when it is new."""
        query = select(VolumeRow.id).where(VolumeRow.machine_id == machine, VolumeRow.name == name)
        found = self._connection.scalar(query)
        if found is None:
            made = insert(VolumeRow).values(machine_id=machine, name=name).returning(VolumeRow.id)
            found = self._connection.execute(made).scalar_one()
        return found

    def _resolve_directories(self) -> None:
        s, run = STAGE_DIRECTORIES.c, self._connection.execute
        new = select(s.digest, s.path, s.folded).where(~exists().where(PathRow.digest == s.digest))
        run(insert(PathRow).from_select(["digest", "path", "folded"], new.distinct()))
        d = DirectoryRow
        known = exists().where(d.volume_id == s.volume_id, d.path_id == PathRow.id)
        unknown = select(s.volume_id, PathRow.id).join(PathRow, PathRow.digest == s.digest).where(~known)
        run(insert(d).from_select(["volume_id", "path_id"], unknown))
        its = select(d.id).join(PathRow, PathRow.id == d.path_id)
        its = its.where(PathRow.digest == s.digest, d.volume_id == s.volume_id)
        run(update(STAGE_DIRECTORIES).values(directory_id=its.scalar_subquery()))

    def _make_names(self) -> None:
        new = select(STAGE.c.name).where(~exists().where(NameRow.name == STAGE.c.name)).distinct()
        names: Iterable[bytes] = self._connection.scalars(new).all()
        rows = [{"name": name, "folded": searchable(name)} for name in names]
        if rows:
            emptied(self._connection, STAGE_NAMES)
            self._connection.execute(insert(STAGE_NAMES), rows)
            every = select(STAGE_NAMES.c.name, STAGE_NAMES.c.folded)
            self._connection.execute(insert(NameRow).from_select(["name", "folded"], every))
            emptied(self._connection, STAGE_NAMES)

    def _resolve_files(self) -> None:
        s, d, f, run = STAGE.c, STAGE_DIRECTORIES.c, FileRow, self._connection.execute
        known = exists().where(f.directory_id == d.directory_id, f.name_id == NameRow.id)
        new = select(d.directory_id, NameRow.id).select_from(STAGE).join(NameRow, NameRow.name == s.name)
        new = new.join(STAGE_DIRECTORIES, d.number == s.directory).where(~known)
        run(insert(f).from_select(["directory_id", "name_id"], new.distinct()))
        its = select(f.id).join(STAGE_DIRECTORIES, d.directory_id == f.directory_id)
        its = its.join(NameRow, NameRow.id == f.name_id).where(d.number == s.directory, NameRow.name == s.name)
        run(update(STAGE).values(file_id=its.scalar_subquery()))
        # A damaged directory can hold a name twice; the first one is what the guest would open.
        first = STAGE.alias()
        run(delete(STAGE).where(exists().where(first.c.file_id == s.file_id, first.c.id < s.id)))

    def _row(self, f: IndexedFile) -> tuple[object, ...]:
        """Values in the order of ``_COLUMNS``."""
        directory, name = split(f.path)
        number = self._directories.setdefault((f.volume, directory), len(self._directories))
        told = (f.size, f.mode, f.uid, f.gid, f.mtime_ns, f.ctime_ns, f.inode)
        facts = tuple(max(-LARGEST, min(number, LARGEST)) for number in told)
        kind, link = str(f.type), f.link_target
        seen = _CONTENT.pack(*facts) + kind.encode() + (b"" if link is None else b"\0" + link)
        return (number, name, blake2b(seen, digest_size=16).digest(), kind, *facts, link)
