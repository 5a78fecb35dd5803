"""Tokens: ways in for programs."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from catalog.access import rows
from catalog.access.tables import TokenRow
from catalog.access.values import Token
from proxy.errors import UserConflict

_FACTS = tuple(field.name for field in fields(Token))


class Tokens:
    """All SQL about tokens. Part of a unit of work."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, token: Token) -> Token:
        """Raises ``UserConflict``: the owner has one of this name."""
        taken = select(TokenRow.id).where(TokenRow.owner == token.owner, TokenRow.name == token.name)
        if self._session.scalar(taken) is not None:
            raise UserConflict(token.owner, f"there is a token {token.name!r} of theirs already")
        facts = {name: getattr(token, name) for name in _FACTS}
        self._session.add(
            TokenRow(**{**facts, "permissions": list(token.permissions), "machines": list(token.machines)})
        )
        self._session.flush()
        return token

    def of_digest(self, digest: str) -> Token | None:
        """Whose secret has this digest."""
        row = self._session.scalar(select(TokenRow).where(TokenRow.digest == digest))
        return None if row is None else rows.token(row)

    def get(self, token: str) -> Token | None:
        """By identity."""
        row = self._session.get(TokenRow, token)
        return None if row is None else rows.token(row)

    def list(
        self, owner: str | None = None, *, after: tuple[str, str] = ("", ""), limit: int | None = None
    ) -> Sequence[Token]:
        """By name, then identity; of one owner, or of all."""
        query = select(TokenRow).order_by(TokenRow.name, TokenRow.id).limit(limit)
        name, identity = after
        query = query.where((TokenRow.name > name) | ((TokenRow.name == name) & (TokenRow.id > identity)))
        if owner is not None:
            query = query.where(TokenRow.owner == owner)
        return [rows.token(row) for row in self._session.scalars(query)]

    def used(self, token: str, at: datetime) -> None:
        """Note the use."""
        self._session.execute(update(TokenRow).where(TokenRow.id == token).values(used_at=at))

    def remove(self, token: str) -> bool:
        """Whether there was one."""
        gone = delete(TokenRow).where(TokenRow.id == token).returning(TokenRow.id)
        return self._session.scalar(gone) is not None
