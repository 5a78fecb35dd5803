"""Sessions: browsers that somebody signed in with."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from catalog.access import rows
from catalog.access.tables import SessionRow
from catalog.access.values import SignedIn


class Sessions:
    """All SQL about sessions. Part of a unit of work. ``id``: digest of what the cookie holds."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def begin(self, signed_in: SignedIn) -> None:
        """Those that ended are forgotten meanwhile."""
        self._session.execute(delete(SessionRow).where(SessionRow.expires_at <= signed_in.created_at))
        facts = (signed_in.id, signed_in.user, signed_in.created_at, signed_in.seen_at, signed_in.expires_at)
        names = ("id", "user", "created_at", "seen_at", "expires_at")
        self._session.add(
            SessionRow(**dict(zip(names, facts, strict=True)), remote=signed_in.remote, agent=signed_in.agent)
        )
        self._session.flush()

    def find(self, session: str) -> SignedIn | None:
        """By identity."""
        row = self._session.get(SessionRow, session)
        return None if row is None else rows.session(row)

    def of(self, user: str) -> Sequence[SignedIn]:
        """A user's, the newest first."""
        query = select(SessionRow).where(SessionRow.user == user).order_by(SessionRow.created_at.desc(), SessionRow.id)
        return [rows.session(row) for row in self._session.scalars(query)]

    def seen(self, session: str, at: datetime) -> None:
        """Somebody used it. Never goes back."""
        later = update(SessionRow).where(SessionRow.id == session, SessionRow.seen_at < at)
        self._session.execute(later.values(seen_at=at))

    def end(self, session: str) -> bool:
        """Whether there was one."""
        gone = delete(SessionRow).where(SessionRow.id == session).returning(SessionRow.id)
        return self._session.scalar(gone) is not None

    def end_all(self, user: str, *, besides: str = "") -> int:
        """All of a user's but one; how many there were."""
        gone = delete(SessionRow).where(SessionRow.user == user, SessionRow.id != besides).returning(SessionRow.id)
        return len(self._session.scalars(gone).all())
