"""Users: people, and who they are for a provider of identities."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.access import rows
from catalog.access.tables import UserRow
from catalog.access.values import User
from proxy.errors import UserConflict, UserNotFound

_FACTS = tuple(field.name for field in fields(User))


class Users:
    """All SQL about users. Part of a unit of work. Names are lower case; whoever asks has seen to that."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def any(self) -> bool:
        """Whether there is one."""
        return self._session.scalar(select(UserRow.name).limit(1)) is not None

    def add(self, user: User) -> User:
        """Raises ``UserConflict``: the name, or who it is for a provider, is taken."""
        if self.find(user.name) is not None:
            raise UserConflict(user.name, "there is a user of this name already")
        if user.issuer and user.subject and self.of_provider(user.issuer, user.subject) is not None:
            raise UserConflict(user.name, "this person has another user already")
        self._session.add(UserRow(**_columns(user)))
        self._session.flush()
        return user

    def find(self, name: str) -> User | None:
        """By name. Nobody has one with letters that cannot be seen, and some databases would not be asked for those."""
        row = self._session.get(UserRow, name) if name.isprintable() else None
        return None if row is None else rows.user(row)

    def get(self, name: str) -> User:
        """By name. Raises ``UserNotFound``."""
        found = self.find(name)
        if found is None:
            raise UserNotFound(name)
        return found

    def of_provider(self, issuer: str, subject: str) -> User | None:
        """Who this is for a provider."""
        row = self._session.scalar(select(UserRow).where(UserRow.issuer == issuer, UserRow.subject == subject))
        return None if row is None else rows.user(row)

    def list(self, *, after: str = "", limit: int | None = None) -> Sequence[User]:
        """By name, those behind ``after``."""
        query = select(UserRow).where(UserRow.name > after).order_by(UserRow.name).limit(limit)
        return [rows.user(row) for row in self._session.scalars(query)]

    def put(self, user: User) -> User:
        """Facts in place of those that there are, at one revision more. Raises ``UserNotFound``."""
        row = self._row(user.name)
        for name, value in _columns(user).items():
            setattr(row, name, value)
        row.revision = user.revision + 1
        self._session.flush()
        return rows.user(row)

    def set_password(self, name: str, password: str, at: datetime | None = None) -> None:
        """A PHC string. ``at``: when a person set it; ``None`` where the same password is only kept in another way. Raises
        ``UserNotFound``."""
        row = self._row(name)
        row.password = password
        if at is not None:
            row.password_at = at
        self._session.flush()

    def signed_in(self, name: str, at: datetime) -> None:
        """Raises ``UserNotFound``."""
        self._row(name).signed_in_at = at
        self._session.flush()

    def remove(self, name: str) -> User:
        """With tokens and sessions. Raises ``UserNotFound``."""
        row = self._row(name)
        user = rows.user(row)
        self._session.delete(row)
        self._session.flush()
        return user

    def count(self) -> int:
        """How many there are."""
        return self._session.scalar(select(func.count()).select_from(UserRow)) or 0

    def _row(self, name: str) -> UserRow:
        row = self._session.get(UserRow, name) if name.isprintable() else None
        if row is None:
            raise UserNotFound(name)
        return row


def _columns(user: User) -> dict[str, object]:
    facts = {name: getattr(user, name) for name in _FACTS}
    return {**facts, "roles": list(user.roles), "machines": list(user.machines)}
