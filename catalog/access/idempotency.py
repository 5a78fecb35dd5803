"""What requests were answered, for who sends one again because its answer was lost."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from catalog.access.tables import IdempotencyRow
from catalog.access.values import Answer


class Idempotency:
    """All SQL about answers that are kept. Part of a unit of work.

    ::

        known = begin(caller, key, digest, …)    None: do it, then finish(…), or forget(…) when nothing was done
                                                 of another digest: another request; without status: under way
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def begin(self, caller: str, key: str, digest: str, now: datetime, expires_at: datetime) -> Answer | None:
        """Note that a request is being answered; what is known of it when one came with this key before. Old ones are
        forgotten."""
        self._session.execute(delete(IdempotencyRow).where(IdempotencyRow.expires_at <= now))
        row = self._session.get(IdempotencyRow, (caller, key))
        if row is not None:
            return Answer(row.digest, row.status, dict(row.headers), row.body)
        facts = {"caller": caller, "key": key, "digest": digest, "expires_at": expires_at}
        self._session.add(IdempotencyRow(**facts, status=None, headers={}, body=b""))
        self._session.flush()
        return None

    def count(self, caller: str) -> int:
        """How many of a caller's are kept."""
        query = select(func.count()).select_from(IdempotencyRow).where(IdempotencyRow.caller == caller)
        return self._session.scalar(query) or 0

    def finish(self, caller: str, key: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Keep the answer."""
        kept = update(IdempotencyRow).where(IdempotencyRow.caller == caller, IdempotencyRow.key == key)
        self._session.execute(kept.values(status=status, headers=dict(headers), body=body))

    def forget(self, caller: str, key: str) -> None:
        """Nothing was done; the same may be sent again."""
        self._session.execute(delete(IdempotencyRow).where(IdempotencyRow.caller == caller, IdempotencyRow.key == key))
