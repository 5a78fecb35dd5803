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

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Select, and_, delete, exists, insert, literal, select, update
from sqlalchemy.orm import Session, aliased

from catalog.stage import ENDED, STAGE, STAGE_DIRECTORIES, STAGE_GONE, UNUSED, counted, emptied
from catalog.tables import OPEN, DirectoryRow, FileRow, NameRow, PathRow, VersionRow

_ATTRIBUTES = ("content", "type", "size", "mode", "uid", "gid", "mtime_ns", "ctime_ns", "inode", "link_target")


class History:
    """The versions of one machine's files. ``volumes``: ids of all its volumes."""

    def __init__(self, session: Session, volumes: Sequence[int]) -> None:
        self._session = session
        self._volumes = volumes

    def insert(self, n: int, b: int | None, carried: Collection[int] = ()) -> None:
        """Take what is staged as the state at position ``n``; ``b``: the next indexed position, if there is one.

        ``carried``: volumes of which only what changed is staged, and in ``STAGE_GONE`` what is no more; only for the
        newest position.
        """
        connection = self._session.connection()
        emptied(connection, ENDED)
        self._find_ended(n, [v for v in self._volumes if v not in carried])
        if carried:
            self._find_ended_of_carried(n, carried)
        counted(connection, ENDED)
        self._end(n, b)
        if b is not None:
            self._begin_earlier(n, b)
        self._add_what_is_new(n, OPEN if b is None else b)

    def remove(self, d: int, b: int | None) -> None:
        """Forget the state at position ``d``; ``b``: the next indexed position, if there is one."""
        v = VersionRow
        mine = v.volume_id.in_(self._volumes)
        run = self._session.execute
        if b is None:
            self._delete(and_(mine, v.first == d))
            run(update(v).where(mine, v.until == d).values(until=OPEN))
        else:
            self._delete(and_(mine, v.first == d, v.until == b))
            run(update(v).where(mine, v.until == d).values(until=b))
            run(update(v).where(mine, v.first == d).values(first=b))
            self._join_at(b)
        self._drop_unused()

    def _find_ended(self, n: int, volumes: Sequence[int]) -> None:
        v, s = VersionRow, STAGE.c
        same = exists().where(s.file_id == v.file_id, s.content == v.content)
        gone = select(v.id).where(v.volume_id.in_(volumes), v.first <= n, v.until > n, ~same)
        self._session.execute(insert(ENDED).from_select(["version_id"], gone))

    def _find_ended_of_carried(self, n: int, carried: Collection[int]) -> None:
        """Starts from what is staged, which is little, and not from all that the volumes hold."""
        v, s, g = VersionRow, STAGE.c, STAGE_GONE.c
        held = and_(v.volume_id.in_(carried), v.first <= n, v.until > n)
        changed = select(v.id).join(STAGE, s.file_id == v.file_id).where(held, v.content != s.content)
        listed = exists().where(s.file_id == v.file_id)
        gone = select(v.id).join(STAGE_GONE, g.file_id == v.file_id).where(held, ~listed)
        for ended in (changed, gone):
            self._session.execute(insert(ENDED).from_select(["version_id"], ended))

    def _end(self, n: int, b: int | None) -> None:
        v = VersionRow
        ended = v.id.in_(select(ENDED.c.version_id))
        if b is not None:
            rest = select(v.file_id, v.volume_id, literal(b), v.until, *_columns(v)).where(ended, v.until > b)
            self._session.execute(insert(v).from_select(["file_id", "volume_id", "first", "until", *_ATTRIBUTES], rest))
        self._session.execute(update(v).where(ended).values(until=n).execution_options(synchronize_session=False))

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

    def _delete(self, which: Any) -> None:
        """Delete versions, and remember whose they were."""
        emptied(self._session.connection(), UNUSED)
        v, f = VersionRow, FileRow
        files = select(f.id, f.directory_id, f.name_id).where(f.id.in_(select(v.file_id).where(which)))
        self._session.execute(insert(UNUSED).from_select(["file_id", "directory_id", "name_id"], files))
        self._session.execute(delete(v).where(which).execution_options(synchronize_session=False))
        counted(self._session.connection(), UNUSED)

    def _drop_unused(self) -> None:
        """Files, directories, names and paths that no version needs any more, among those that lost one."""
        u = UNUSED.c
        used = exists().where(VersionRow.file_id == FileRow.id)
        self._run(delete(FileRow).where(FileRow.id.in_(select(u.file_id)), ~used))
        used = exists().where(FileRow.name_id == NameRow.id)
        self._run(delete(NameRow).where(NameRow.id.in_(select(u.name_id)), ~used))
        d = DirectoryRow
        empty = and_(d.id.in_(select(u.directory_id)), ~exists().where(FileRow.directory_id == d.id))
        paths = self._session.scalars(select(d.path_id).where(empty)).all()
        self._run(delete(d).where(empty))
        used = exists().where(d.path_id == PathRow.id)
        # Databases limit how many values a question may have.
        for start in range(0, len(paths), 500):
            self._run(delete(PathRow).where(PathRow.id.in_(paths[start : start + 500]), ~used))

    def _run(self, statement: Any) -> None:
        self._session.execute(statement.execution_options(synchronize_session=False))


def _columns(row: type[VersionRow]) -> list[object]:
    return [getattr(row, name) for name in _ATTRIBUTES]
