"""Attempts to sign in, and the code of the first start.

An attempt is counted *before* the password is looked at, in a transaction of its own, so that many at once count as many, over
all processes. Who was let in has the count of their name taken back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from catalog.access.tables import FailedSignInRow, SetupCodeRow

# Who waits so long between two guesses gains nothing by it, and rows of names that nobody has do not stay.
_FORGOTTEN = timedelta(hours=24)

# 2**30 seconds are longer than any limit; the power is not taken further.
_STEEPEST = 30


@dataclass(frozen=True, slots=True)
class Patience:
    """``free`` attempts, then one second, two, four … at most ``longest`` seconds between attempts."""

    free: int
    longest: float

    def wait(self, attempts: int) -> timedelta:
        """After so many failed attempts."""
        over = attempts - self.free
        return timedelta(seconds=0 if over < 0 else min(2.0 ** min(over, _STEEPEST), self.longest))


class SignIns:
    """All SQL about attempts. Part of a unit of work."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def attempt(self, limits: Mapping[str, Patience], now: datetime) -> timedelta:
        """Count an attempt under each of these keys. How long its maker has to wait before one counts again; nothing is
        counted then. Zero: go on."""
        self._session.execute(delete(FailedSignInRow).where(FailedSignInRow.last_at < now - _FORGOTTEN))
        found = {key: self._session.get(FailedSignInRow, key) for key in sorted(limits)}
        longest = max((row.until - now for row in found.values() if row is not None), default=timedelta())
        if longest > timedelta():
            return longest
        for key, row in found.items():
            attempts = 1 if row is None else row.attempts + 1
            until = now + limits[key].wait(attempts)
            if row is None:
                self._session.add(FailedSignInRow(key=key, attempts=attempts, last_at=now, until=until))
            else:
                row.attempts, row.last_at, row.until = attempts, now, until
        self._session.flush()
        return timedelta()

    def succeeded(self, name: str, *others: str) -> None:
        """The count of ``name`` is taken back as a whole, of the other keys only the one attempt that was none."""
        self._session.execute(delete(FailedSignInRow).where(FailedSignInRow.key == name))
        for key in others:
            row = self._session.get(FailedSignInRow, key)
            if row is not None and row.attempts > 0:
                row.attempts, row.until = row.attempts - 1, row.last_at
        self._session.flush()


class SetupCode:
    """The one code that makes the first administrator. Part of a unit of work."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def put(self, digest: str, expires_at: datetime) -> None:
        """In place of the one before."""
        self._session.merge(SetupCodeRow(id=1, digest=digest, expires_at=expires_at))
        self._session.flush()

    def holds(self, now: datetime) -> str | None:
        """Digest of the one that can be used."""
        row = self._session.get(SetupCodeRow, 1)
        return None if row is None or row.expires_at <= now else row.digest

    def use(self) -> None:
        """It is no good any more."""
        self._session.execute(delete(SetupCodeRow))
