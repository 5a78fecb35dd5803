"""Files that may be what a search means, in an order that does not change, portion by portion."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, Subquery, column, exists, literal, select, table, text, tuple_
from sqlalchemy.orm import Session, aliased

from catalog.patterns import END, GRAM, Lookup, Rank, Where
from catalog.tables import DirectoryRow, FileRow, NameRow, PathRow

Key = tuple[int | str, ...]
"""A candidate's place in the order of its lookup."""

LAST = 2**63 - 1
"""Behind every row number."""

# Names or paths tested at once: few at first, since a few are often enough for a page.
FIRST_TEXTS = 64
MOST_TEXTS = 4096

# Directories whose files are looked through rather than the names that begin as they should.
FEW = 256

# Behind every text that begins with the same characters.
_HIGHEST = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Portion:
    """Some candidates. ``keys``: a subquery of their ``file_id``, ``directory_id``, ``name_id`` and the columns of the key,
    ``None`` when there are none. ``last``: the key to go on from, ``None`` when there is nothing behind."""

    keys: Subquery | None
    key_names: Sequence[str]
    ranks: frozenset[Rank]
    last: Key | None
    looked_at: int


class Candidates:
    """The candidates of one lookup. ``volumes``: only those, where that can be known early; ``None``: all."""

    def __init__(self, session: Session, lookup: Lookup, volumes: Sequence[int] | None) -> None:
        self._session = session
        self._lookup = lookup
        self._volumes = volumes
        self._texts_at_once = FIRST_TEXTS

    def portion(self, after: Key | None, size: int) -> Portion:
        """At most ``size`` candidates behind a key."""
        match self._lookup.where:
            case Where.BEGINNING:
                return self._beginning(after, size)
            case Where.NAMES:
                return self._holding(after or (0, 0), size, NameRow, self._files_of_names, ("name_id", "file_id"))
            case Where.PATHS:
                names = ("path_id", "directory_id", "name_id")
                return self._holding(after or (0, 0, 0), size, PathRow, self._files_of_paths, names)

    def are_few(self) -> bool:
        """Whether ``FEW`` texts at most hold what is looked for; not for ``BEGINNING``."""
        texts = NameRow if self._lookup.where is Where.NAMES else PathRow
        return len(self._session.execute(self._texts(texts, 0, FEW + 1)).all()) <= FEW

    def _beginning(self, after: Key | None, size: int) -> Portion:
        """Names in alphabetical order: the index has them so, and of one name the files in order of their rows."""
        (start,) = self._lookup.texts
        f, n = FileRow, NameRow
        end = start if self._lookup.ranks == {Rank.EXACT} else start + _HIGHEST
        query = _select(n.folded)
        query = query.select_from(n).join(f, f.name_id == n.id).where(n.folded >= start, n.folded <= end)
        query = self._in_directory(self._of_volumes(query))
        if after is not None:
            query = query.where(_behind((n.folded, n.id, f.id), after))
        query = query.order_by(n.folded, n.id, f.id)
        return self._cut(query, size, ("folded", "name_id", "file_id"), None, 0)

    def _holding(self, after: Key, size: int, texts: Any, files_of: Any, key_names: Sequence[str]) -> Portion:
        """Names or paths that hold the texts, in order of their rows, and the files that have them."""
        at_once = self._texts_at_once
        self._texts_at_once = min(2 * at_once, MOST_TEXTS)
        rows = self._session.execute(self._texts(texts, int(after[0]), at_once)).all()
        full = len(rows) == at_once
        ids = [row.id for row in rows if self._lookup.accepts(row.folded)]
        rest: Key | None = (rows[-1].id, *[LAST] * (len(key_names) - 1)) if full else None
        if not ids:
            return Portion(None, key_names, self._lookup.ranks, rest, len(rows))
        return self._cut(files_of(ids, after), size, key_names, rest, len(rows) + len(ids))

    def _texts(self, texts: Any, start: int, at_once: int) -> Select[Any]:
        query = select(texts.id, texts.folded)
        if not self._lookup.texts:
            return query.where(texts.id >= start).order_by(texts.id).limit(at_once)
        if self._session.get_bind().dialect.name == "postgresql":
            holds = _holds(texts, self._lookup.texts)
            if start:  # a condition that means nothing would be one more plan to choose from
                holds.append(texts.id >= start)
            return query.where(*holds).order_by(texts.id).limit(at_once)
        rowid = column("rowid", Integer)
        hits = _matches(texts, self._lookup.texts).where(rowid >= start).order_by(rowid).limit(at_once)
        return query.where(texts.id.in_(hits)).order_by(texts.id)

    def _in_directory(self, query: Select[Any]) -> Select[Any]:
        """Only files in directories that hold the lookup's texts."""
        if not self._lookup.directory:
            return query
        if self._session.get_bind().dialect.name == "postgresql":
            paths = select(PathRow.id).where(*_holds(PathRow, self._lookup.directory))
        else:
            paths = _matches(PathRow, self._lookup.directory)
        d = aliased(DirectoryRow)
        return query.join(d, d.id == FileRow.directory_id).where(d.path_id.in_(paths))

    def _files_of_names(self, ids: Sequence[int], after: Key) -> Select[Any]:
        f = FileRow
        query = self._of_volumes(_select().where(f.name_id.in_(ids)))
        return query.where(_behind((f.name_id, f.id), after)).order_by(f.name_id, f.id)

    def _of_volumes(self, query: Select[Any]) -> Select[Any]:
        """Only files of the wanted volumes: a lookup each, which is less than what follows for those that are not."""
        if self._volumes is None:
            return query
        d = aliased(DirectoryRow)
        return query.where(exists().where(d.id == FileRow.directory_id, d.volume_id.in_(self._volumes)))

    def _files_of_paths(self, ids: Sequence[int], after: Key) -> Select[Any]:
        f, d = FileRow, DirectoryRow
        query = _select(d.path_id).select_from(d)
        query = query.join(f, f.directory_id == d.id).where(d.path_id.in_(ids))
        if self._volumes is not None:
            query = query.where(d.volume_id.in_(self._volumes))
        query = query.where(_behind((d.path_id, d.id, f.name_id), after))
        return query.order_by(d.path_id, d.id, f.name_id)

    def _cut(self, query: Select[Any], size: int, key_names: Sequence[str], rest: Key | None, tested: int) -> Portion:
        """The query's first ``size`` rows; ``rest``: where to go on when it has no more."""
        keys = query.limit(size).subquery("candidates")
        edge = self._session.execute(query.limit(1).offset(size - 1)).first()
        last = rest if edge is None else tuple(getattr(edge, name) for name in key_names)
        return Portion(keys, key_names, self._lookup.ranks, last, tested if edge is None else tested + size)


def _select(*more: Any) -> Select[Any]:
    columns: list[Any] = [FileRow.id.label("file_id"), FileRow.directory_id, FileRow.name_id, *more]
    return select(*columns)


def _behind(columns: Sequence[Any], key: Key) -> ColumnElement[bool]:
    return tuple_(*columns) > tuple_(*(literal(part) for part in key))


def _matches(texts: Any, wanted: Sequence[str]) -> Select[Any]:
    """SQLite: rows of those that have all trigrams of the texts."""
    name = f"{texts.__tablename__}_search"
    grams = " AND ".join(sorted({_quoted(gram) for t in wanted for gram in _grams(t)}))
    match = text(f"{name} MATCH :grams").bindparams(grams=grams)
    return select(column("rowid")).select_from(table(name, column("rowid"))).where(match)


def _holds(texts: Any, wanted: Sequence[str]) -> list[ColumnElement[bool]]:
    """PostgreSQL: conditions that its trigram index answers."""
    return [texts.folded.like(_like(t), escape="\\") for t in wanted]


def _like(wanted: str) -> str:
    """A pattern, with ``\\`` to escape, for what holds a text, or ends with it."""
    plain = wanted.removesuffix(END).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{plain}" if wanted.endswith(END) else f"%{plain}%"


def _grams(wanted: str) -> Iterable[str]:
    return (wanted[i : i + GRAM] for i in range(len(wanted) - GRAM + 1))


def _quoted(gram: str) -> str:
    return '"' + gram.replace('"', '""') + '"'
