"""File versions as intervals: the arithmetic of indexing and forgetting restore points, in SQL over whole sets.

A machine's *indexed* restore points, in order of position, are a sequence. For each file, every longest run of
neighbours in it that hold the same content is exactly one row ``[first, until)``: ``first`` is the position of the run's
first point, ``until`` that of the first indexed point behind the run, or OPEN. The rows are a function of the points
alone: indexing in another order, or forgetting and indexing again, gives the same rows.

Indexing N between A and B (either may be missing); one file per line, letters are contents::

            A   N   B            before        after
    1       x   x   x         [A ....... )    [A ....... )     not touched
    2       x   y   x         [A ....... )    [A )[N )[B .. )  gone at N, split for B; y is new
    3       x   -   y         [A   )[B .. )   [A )   [B .. )   gone at N
    4       x   y   y         [A   )[B .. )   [A )[N ...... )  y's row begins earlier
    5       -   x   -                             [N )         new
    6       x   y   (no B)    [A ... OPEN     [A )[N . OPEN

Forgetting D before B moves every ``first`` and ``until`` at D to B (without B: ``until`` opens, rows from D vanish),
drops what became empty, and joins the neighbours that now hold the same content (2 and 3 backwards).
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    String,
    Table,
    Text,
    and_,
    delete,
    exists,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.orm import Session, aliased

from catalog.tables import OPEN, DirectoryRow, FileRow, VersionRow

_ATTRIBUTES = ("content", "type", "size", "mode", "uid", "gid", "mtime_ns", "ctime_ns", "inode", "link_target")

# Where one walk is collected before it is compared; lives for the connection, emptied for each use.
_TEMPORARY = MetaData()
STAGE = Table(
    "lanfree_stage",
    _TEMPORARY,
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True),
    Column("directory", Integer, nullable=False),
    Column("name", LargeBinary, nullable=False),
    Column("search", Text, nullable=False),
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
    _TEMPORARY,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("directory_id", BigInteger, nullable=False),
    Column("volume_id", BigInteger, nullable=False),
    prefixes=["TEMPORARY"],
)
"""What the staged rows' directories are in the database; known only when it is written to."""


class History:
    """The versions of one machine's files. ``volumes``: ids of all its volumes."""

    def __init__(self, session: Session, volumes: list[int]) -> None:
        self._session = session
        self._volumes = volumes

    def insert(self, n: int, b: int | None) -> None:
        """Take what is staged as the state at position ``n``; ``b``: the next indexed position, if there is one."""
        self._name_files()
        self._end_what_is_gone(n, b)
        if b is not None:
            self._begin_earlier(n, b)
        self._add_what_is_new(n, OPEN if b is None else b)

    def remove(self, d: int, b: int | None) -> None:
        """Forget the state at position ``d``; ``b``: the next indexed position, if there is one."""
        v = VersionRow
        mine = v.volume_id.in_(self._volumes)
        run = self._session.execute
        if b is None:
            run(delete(v).where(mine, v.first == d))
            run(update(v).where(mine, v.until == d).values(until=OPEN))
        else:
            run(delete(v).where(mine, v.first == d, v.until == b))
            run(update(v).where(mine, v.until == d).values(until=b))
            run(update(v).where(mine, v.first == d).values(first=b))
            self._join_at(b)
        self._drop_unused()

    def _name_files(self) -> None:
        """Give every staged row the id of its path, new ones where the path was never seen."""
        s, d, f = STAGE.c, STAGE_DIRECTORIES.c, FileRow
        known = exists().where(f.directory_id == d.directory_id, f.name == s.name)
        new = select(d.directory_id, s.name, s.search).join(STAGE_DIRECTORIES, d.number == s.directory).where(~known)
        self._session.execute(insert(f).from_select(["directory_id", "name", "search"], new.distinct()))
        file_id = select(f.id).join(STAGE_DIRECTORIES, d.directory_id == f.directory_id)
        file_id = file_id.where(d.number == s.directory, f.name == s.name)
        self._session.execute(update(STAGE).values(file_id=file_id.scalar_subquery()))
        # A damaged directory can hold a name twice; the first one is what the guest would open.
        first = STAGE.alias()
        self._session.execute(delete(STAGE).where(exists().where(first.c.file_id == s.file_id, first.c.id < s.id)))

    def _end_what_is_gone(self, n: int, b: int | None) -> None:
        v, s = VersionRow, STAGE.c
        same = exists().where(s.file_id == v.file_id, s.content == v.content)
        gone = and_(v.volume_id.in_(self._volumes), v.first <= n, v.until > n, ~same)
        if b is not None:
            rest = select(v.file_id, v.volume_id, literal(b), v.until, *_columns(v)).where(gone, v.until > b)
            self._session.execute(insert(v).from_select(["file_id", "volume_id", "first", "until", *_ATTRIBUTES], rest))
        self._session.execute(update(v).where(gone).values(until=n).execution_options(synchronize_session=False))

    def _begin_earlier(self, n: int, b: int) -> None:
        v, s = VersionRow, STAGE.c
        same = exists().where(s.file_id == v.file_id, s.content == v.content)
        begins = and_(v.volume_id.in_(self._volumes), v.first == b, same)
        self._session.execute(update(v).where(begins).values(first=n).execution_options(synchronize_session=False))

    def _add_what_is_new(self, n: int, until: int) -> None:
        v, s = VersionRow, STAGE.c
        there = exists().where(v.file_id == s.file_id, v.first <= n, v.until > n)
        columns = [getattr(s, name) for name in _ATTRIBUTES]
        new: Select[Any] = select(s.file_id, STAGE_DIRECTORIES.c.volume_id, literal(n), literal(until), *columns)
        new = new.join(STAGE_DIRECTORIES, STAGE_DIRECTORIES.c.number == s.directory).where(~there)
        self._session.execute(insert(v).from_select(["file_id", "volume_id", "first", "until", *_ATTRIBUTES], new))

    def _join_at(self, b: int) -> None:
        """Where a row ends at ``b`` and one of the same content begins there, make them one."""
        v, other = VersionRow, aliased(VersionRow)
        mine = v.volume_id.in_(self._volumes)
        later = and_(other.file_id == v.file_id, other.content == v.content, other.first == b)
        until = select(other.until).where(later).scalar_subquery()
        joined = update(v).where(mine, v.until == b, exists().where(later)).values(until=until)
        self._session.execute(joined.execution_options(synchronize_session=False))
        earlier = and_(other.file_id == v.file_id, other.first < b, other.until > b)
        swallowed = delete(v).where(mine, v.first == b, exists().where(earlier))
        self._session.execute(swallowed.execution_options(synchronize_session=False))

    def _drop_unused(self) -> None:
        """Paths and directories that no version needs any more."""
        mine = select(DirectoryRow.id).where(DirectoryRow.volume_id.in_(self._volumes))
        used = exists().where(VersionRow.file_id == FileRow.id)
        files = delete(FileRow).where(FileRow.directory_id.in_(mine), ~used)
        self._session.execute(files.execution_options(synchronize_session=False))
        used = exists().where(FileRow.directory_id == DirectoryRow.id)
        directories = delete(DirectoryRow).where(DirectoryRow.volume_id.in_(self._volumes), ~used)
        self._session.execute(directories.execution_options(synchronize_session=False))


def _columns(row: type[VersionRow]) -> list[object]:
    return [getattr(row, name) for name in _ATTRIBUTES]
