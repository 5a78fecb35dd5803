"""The access store's tables, typed. SCHEMA.md draws them; ``migrations/`` makes them. Columns are named as in ``values``.

They are no part of the catalog: nothing makes them again. No secret is in them: of passwords there is an Argon2id hash, of
tokens, sessions and set-up codes the SHA-256 digest, which suffices for 256 random bits.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Boolean, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from catalog.tables import NAMES, UtcTime


class Base(DeclarativeBase):
    """The access store's tables."""

    metadata = MetaData(naming_convention=NAMES)


class UserRow(Base):
    """A person. ``name``: lower case. ``password``: a PHC string, none for who signs in elsewhere. ``issuer``, ``subject``:
    who they are there."""

    __tablename__ = "users"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    display_name: Mapped[str] = mapped_column(Text)
    password: Mapped[str | None] = mapped_column(Text)
    roles: Mapped[list[str]] = mapped_column(JSON)
    machines: Mapped[list[str]] = mapped_column(JSON)
    disabled: Mapped[bool] = mapped_column(Boolean)
    revision: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    password_at: Mapped[datetime | None] = mapped_column(UtcTime)
    signed_in_at: Mapped[datetime | None] = mapped_column(UtcTime)
    issuer: Mapped[str | None] = mapped_column(Text)
    subject: Mapped[str | None] = mapped_column(Text)
    __table_args__ = (UniqueConstraint("issuer", "subject"),)


class TokenRow(Base):
    """A way in for a program, with at most what its owner may."""

    __tablename__ = "access_tokens"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    owner: Mapped[str] = mapped_column(ForeignKey("users.name", ondelete="CASCADE"))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    permissions: Mapped[list[str]] = mapped_column(JSON)
    machines: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcTime)
    used_at: Mapped[datetime | None] = mapped_column(UtcTime)
    __table_args__ = (UniqueConstraint("owner", "name"),)


class SessionRow(Base):
    """A browser that somebody signed in with. ``id``: SHA-256 of what its cookie holds."""

    __tablename__ = "sessions"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    user: Mapped[str] = mapped_column(ForeignKey("users.name", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    seen_at: Mapped[datetime] = mapped_column(UtcTime)
    expires_at: Mapped[datetime] = mapped_column(UtcTime)
    remote: Mapped[str] = mapped_column(Text)
    agent: Mapped[str] = mapped_column(Text)
    __table_args__ = (Index(None, "user"), Index(None, "expires_at"))


class SetupCodeRow(Base):
    """The one code that makes the first administrator; a newer one takes its place."""

    __tablename__ = "setup_code"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[datetime] = mapped_column(UtcTime)


class FailedSignInRow(Base):
    """Attempts that nobody was let in for. ``key``: what they have in common, as a digest: people type passwords into the field
    for the name."""

    __tablename__ = "failed_sign_ins"
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    attempts: Mapped[int] = mapped_column(Integer)
    last_at: Mapped[datetime] = mapped_column(UtcTime)
    until: Mapped[datetime] = mapped_column(UtcTime)
    __table_args__ = (Index(None, "last_at"),)


class IdempotencyRow(Base):
    """What a request was answered, for who sends it again. ``status``: none while it is being answered."""

    __tablename__ = "idempotency"
    caller: Mapped[str] = mapped_column(String(128), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    status: Mapped[int | None] = mapped_column(Integer)
    headers: Mapped[dict[str, str]] = mapped_column(JSON)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    expires_at: Mapped[datetime] = mapped_column(UtcTime)
    __table_args__ = (Index(None, "expires_at"),)


class ApprovalRow(Base):
    """Something that one person asked for and another has to confirm."""

    __tablename__ = "approvals"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    action: Mapped[str] = mapped_column(String(64))
    summary: Mapped[str] = mapped_column(Text)
    machine: Mapped[str] = mapped_column(String(64))
    machine_name: Mapped[str] = mapped_column(Text)
    params: Mapped[dict[str, Any]] = mapped_column(JSON)
    asked_by: Mapped[str] = mapped_column(String(64))
    asked_at: Mapped[datetime] = mapped_column(UtcTime)
    expires_at: Mapped[datetime] = mapped_column(UtcTime)
    state: Mapped[str] = mapped_column(String(16))
    decided_by: Mapped[str | None] = mapped_column(String(64))
    decided_at: Mapped[datetime | None] = mapped_column(UtcTime)
    outcome: Mapped[str] = mapped_column(Text)
    __table_args__ = (Index(None, "asked_at", "id"),)
