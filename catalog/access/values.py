"""What the access store knows, as values. Roles and permissions are words here: what they mean is ``api.auth.roles``'."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class User:
    """A person. ``password``: PHC string, ``None`` for who signs in elsewhere only. ``machines``: patterns of names, or
    identities, that they reach. ``revision``: of name, roles, machines and whether disabled; 1 at first. ``password_at``: when
    the password was set. ``issuer``, ``subject``: who they are for an OpenID provider."""

    name: str
    display_name: str
    password: str | None = field(repr=False)
    roles: tuple[str, ...]
    machines: tuple[str, ...]
    created_at: datetime
    disabled: bool = False
    revision: int = 1
    password_at: datetime | None = None
    signed_in_at: datetime | None = None
    issuer: str | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A way in for a program. ``digest``: SHA-256 of the secret, hexadecimal. ``permissions``, ``machines``: at most; what the
    owner may not, it may not either. ``expires_at``: ``None`` for never."""

    id: str
    name: str
    owner: str
    digest: str = field(repr=False)
    permissions: tuple[str, ...]
    machines: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None
    used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session. ``id``: SHA-256 of what the cookie holds, hexadecimal. ``expires_at``: whatever is done with it until then."""

    id: str = field(repr=False)
    user: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    remote: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered. ``digest``: SHA-256 of the request, hexadecimal. ``status``: ``None`` while it still is
    being answered."""

    digest: str
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class ApprovalState(StrEnum):
    """``APPROVED``: being performed; it stays so if the process ended meanwhile."""

    WAITING = "waiting"
    EXPIRED = "expired"
    REFUSED = "refused"
    APPROVED = "approved"
    PERFORMED = "performed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Approval:
    """Something that waits for a second person. ``action``: a word that the code knows; ``params``: what JSON can hold, what it
    is performed with; ``summary``: for people. ``machine``: the one that it concerns, or an empty text. ``outcome``: why it
    failed, or was refused."""

    id: str
    action: str
    summary: str
    params: Mapping[str, Any]
    asked_by: str
    asked_at: datetime
    expires_at: datetime
    machine: str = ""
    machine_name: str = ""
    state: ApprovalState = ApprovalState.WAITING
    decided_by: str | None = None
    decided_at: datetime | None = None
    outcome: str = ""
