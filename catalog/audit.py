"""Who looked into which restore point, and what was done: entries that cannot be changed or taken out unnoticed.

Each entry holds the digest of the one before it, so that a changed or missing one breaks the chain, and the head (number and
digest of the newest) is kept beside it, so that missing ones at the end are noticed too. This shows accidents and meddling
with single rows. Who may write the whole database can make a new chain: against him, keep heads elsewhere (the appliance gives
each to the system's log, and ``check`` compares).

It is no part of the catalog: nothing makes it again. It has a database of its own beside SQLite's catalog, tables of its own
in PostgreSQL's, and a rebuild never touches either.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

from sqlalchemy import BigInteger, Connection, Engine, MetaData, String, Text, insert, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from catalog import database
from catalog.tables import NAMES, UtcTime
from proxy.closing import Closeable
from proxy.errors import AuditFailed
from proxy.model import MachineId, RestorePointId

_LOG = logging.getLogger(__name__)

_ROWS_AT_ONCE = 1_000

BEGINNING = "0" * 64
"""What the first entry has in place of the digest before it."""


class Base(DeclarativeBase):
    """The audit log's tables: not the catalog's, which can be made again."""

    metadata = MetaData(naming_convention=NAMES)


class EntryRow(Base):
    """One entry. ``detail``: canonical JSON, as it was digested."""

    __tablename__ = "audit_entries"
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(UtcTime, index=True)
    who: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(String(64))
    machine: Mapped[str | None] = mapped_column(String(64), index=True)
    point: Mapped[str | None] = mapped_column(String(128))
    detail: Mapped[str] = mapped_column(Text)
    before: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))


class HeadRow(Base):
    """The one row about the newest entry; who appends holds it."""

    __tablename__ = "audit_head"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(64))


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """``number``: from 1, without gaps. ``who``: as the caller knows them (``user@host``). ``action``: ``browse``,
    ``restore-files``, …. ``before``: digest of the entry before. ``digest``: over all else, hexadecimal."""

    number: int
    at: datetime
    who: str
    action: str
    machine: MachineId | None
    point: RestorePointId | None
    detail: Mapping[str, Any]
    before: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The newest entry: kept elsewhere, it tells later whether everything up to it is still as it was."""

    number: int
    digest: str


@dataclass(frozen=True, slots=True)
class AuditFault:
    """What is wrong, from which entry on."""

    number: int
    why: str


class Audit(Closeable):
    """The audit log in the database of an engine that is prepared for it. May be shared by threads and processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(
        self,
        who: str,
        action: str,
        machine: MachineId | None = None,
        point: RestorePointId | None = None,
        detail: Mapping[str, Any] = MappingProxyType({}),
        *,
        at: datetime | None = None,
    ) -> AuditEntry:
        """Append an entry; it is on disk when this returns, whatever becomes of the caller's own transaction. ``detail``:
        what JSON can hold. Raises ``AuditFailed``: then what was to be recorded should not be done."""
        moment = (at or datetime.now(UTC)).astimezone(UTC)
        with self._connected(write=True) as connection:
            head = _head(connection, hold=True)
            entry = AuditEntry(head.number + 1, moment, who, action, machine, point, dict(detail), head.digest)
            entry = replace(entry, digest=_digest(entry, _canonical(detail)))
            values = {name: getattr(entry, name) for name in AuditEntry.__dataclass_fields__}
            connection.execute(insert(EntryRow).values({**values, "detail": _canonical(detail)}))
            newest = update(HeadRow).where(HeadRow.id == 1).values(number=entry.number, digest=entry.digest)
            connection.execute(newest)
        _LOG.info("audit entry %d: %s %s, digest %s", entry.number, who, action, entry.digest)
        return entry

    def list(
        self,
        machine: MachineId | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        before: int | None = None,
        limit: int = 100,
        who: str | None = None,
        action: str | None = None,
        point: str | None = None,
    ) -> Sequence[AuditEntry]:
        """Newest first. ``before``: only entries of lower numbers, for the next page. ``who``: how it begins; ``until``: the
        first moment that is too late. Raises ``AuditFailed``."""
        query = select(EntryRow).order_by(EntryRow.number.desc()).limit(limit)
        for column, wanted in ((EntryRow.machine, machine), (EntryRow.action, action), (EntryRow.point, point)):
            if wanted is not None:
                query = query.where(column == wanted)
        if who is not None:
            query = query.where(EntryRow.who.startswith(who, autoescape=True))
        if until is not None:
            query = query.where(EntryRow.at < until)
        if since is not None:
            query = query.where(EntryRow.at >= since)
        if before is not None:
            query = query.where(EntryRow.number < before)
        with self._connected(write=False) as connection:
            return [_entry(row) for row in connection.execute(query)]

    def head(self) -> AuditHead:
        """The newest entry; number 0 when there is none. Raises ``AuditFailed``."""
        with self._connected(write=False) as connection:
            return _head(connection)

    def check(self, known: AuditHead | None = None) -> Sequence[AuditFault]:
        """Follow the chain from the first entry to the head; what is wrong with it. ``known``: a head that was kept
        elsewhere, which must be in the chain. Reads all entries, with little memory. Raises ``AuditFailed``."""
        faults: list[AuditFault] = []
        number, before = 0, BEGINNING
        with self._connected(write=False) as connection:
            rows = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(
                select(EntryRow).order_by(EntryRow.number)
            )
            for row in rows:
                faults += _faults_of(row, number, before)
                number, before = row.number, row.digest
                if known is not None and known.number == number and known.digest != before:
                    faults.append(AuditFault(number, "not the entry that was known elsewhere"))
            head = _head(connection)
        if (head.number, head.digest) != (number, before):
            faults.append(AuditFault(number + 1, f"entries up to number {head.number} are missing at the end"))
        if known is not None and known.number > number:
            faults.append(AuditFault(number + 1, f"entries up to number {known.number}, known elsewhere, are missing"))
        return faults

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _connected(self, *, write: bool) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                connection.execution_options(lanfree_writes=write)
                with connection.begin():
                    yield connection
        except SQLAlchemyError as error:
            raise database.refusal(error, self._engine, AuditFailed) from error


def _head(connection: Connection, *, hold: bool = False) -> AuditHead:
    query = select(HeadRow.number, HeadRow.digest).where(HeadRow.id == 1)
    row = connection.execute(query.with_for_update() if hold else query).one()
    return AuditHead(row.number, row.digest)


def _faults_of(row: Any, number: int, before: str) -> Iterator[AuditFault]:
    if row.number != number + 1:
        yield AuditFault(number + 1, f"entries {number + 1} to {row.number - 1} are missing")
    elif row.before != before:
        yield AuditFault(row.number, "does not follow the entry before it")
    if _digest(row, row.detail) != row.digest:
        yield AuditFault(row.number, "was changed after it was written")


def _canonical(detail: Mapping[str, Any]) -> str:
    return json.dumps(dict(detail), sort_keys=True, separators=(",", ":"))


def _digest(entry: Any, detail: str) -> str:
    """``entry``: a row or a value. Lengths are in it, so that nothing can be moved from one fact to the next."""
    facts = [entry.number, entry.at.isoformat(timespec="microseconds"), entry.who, entry.action]
    facts += [entry.machine, entry.point, detail, entry.before]
    return blake2b(json.dumps(facts).encode(), digest_size=32).hexdigest()


def _entry(row: Any) -> AuditEntry:
    facts = (row.number, row.at, row.who, row.action, row.machine, row.point, json.loads(row.detail))
    return AuditEntry(*facts, row.before, row.digest)
