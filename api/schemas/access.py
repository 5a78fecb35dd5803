"""Sessions, users, tokens and approvals on the wire. Nothing here ever holds a secret but what is told once."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, StringConstraints

from api.auth.identify import permissions_of, roles_of
from api.auth.passwords import LONGEST, SHORTEST
from api.auth.roles import EVERY_MACHINE, Permission, Role, Via
from api.schemas.common import Answer, Model, Moment
from catalog.access import values
from catalog.access.values import ApprovalState

_PRINTABLE = r"^[^\x00-\x1f\x7f]*$"

Text = Annotated[str, StringConstraints(min_length=1, max_length=128, strip_whitespace=True, pattern=_PRINTABLE)]
"""Of one line, for people."""

Pattern = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=_PRINTABLE)]
"""Of names of machines (``db-*``), or an identity."""

Patterns = Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=1000)]

UserName = Annotated[
    str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")
]
"""Kept in lower case."""

Password = Annotated[SecretStr, Field(min_length=1, max_length=LONGEST)]
"""One that is there already."""

NewPassword = Annotated[
    SecretStr,
    Field(
        max_length=LONGEST,
        description=f"At least {SHORTEST} characters, of any kind; refused when it is easy to guess.",
    ),
]


class SetupState(Answer):
    """``needed``: there is nobody yet who could sign in."""

    needed: bool


class Setup(Model):
    """``code``: as ``lanfree web code`` shows it; ``name``, ``password``: of the first administrator."""

    code: Annotated[SecretStr, Field(min_length=1, max_length=64)]
    name: UserName
    password: NewPassword


class SignIn(Model):
    """``name``: in any case."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    password: Password


class Session(Answer):
    """Who is signed in, and what they may. ``csrf``: what goes with each change as ``X-CSRF-Token``; null for a token, which
    needs none. ``expires_at``: when it ends in any case; ``idle_seconds``: it ends after so long without use. ``four_eyes``:
    deleting restore points and shortening retention wait for a second person."""

    name: str
    display_name: str
    roles: list[Role]
    permissions: list[Permission]
    machines: list[str]
    via: Via
    csrf: str | None = None
    expires_at: datetime | None = None
    idle_seconds: float | None = None
    four_eyes: bool
    provider: str | None = Field(None, description="Issuer of the OpenID provider that they sign in with.")


class User(Answer):
    """``provider``: issuer of the OpenID provider that they sign in with, whose groups say roles and machines at each sign-in.
    ``revision`` is also the ``ETag``."""

    name: str
    display_name: str
    roles: list[Role]
    machines: list[str]
    disabled: bool
    has_password: bool
    created_at: datetime
    signed_in_at: datetime | None
    provider: str | None
    revision: int

    @classmethod
    def of(cls, user: values.User) -> Self:
        """The store's."""
        return cls(
            name=user.name,
            display_name=user.display_name,
            roles=roles_of(user.roles),
            machines=list(user.machines),
            disabled=user.disabled,
            has_password=user.password is not None,
            created_at=user.created_at,
            signed_in_at=user.signed_in_at,
            provider=user.issuer,
            revision=user.revision,
        )


class NewUser(Model):
    """``machines``: those that they reach, by patterns; all, if not said."""

    name: UserName
    password: NewPassword
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    display_name: Text | None = None
    machines: Patterns = EVERY_MACHINE


class UserChange(Model):
    """What is not there, or null, stays."""

    display_name: Text | None = None
    roles: tuple[Role, ...] | None = None
    machines: Patterns | None = None
    disabled: bool | None = None


class PasswordChange(Model):
    """``current``: the caller's own, where it is their own that they change."""

    password: NewPassword
    current: Password | None = None


class Token(Answer):
    """``permissions``, ``machines``: at most; what its owner may not, it may not either."""

    id: str
    name: str
    owner: str
    permissions: list[Permission]
    machines: list[str]
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None

    @classmethod
    def of(cls, token: values.Token) -> Self:
        """The store's."""
        return cls(
            id=token.id,
            name=token.name,
            owner=token.owner,
            permissions=sorted(permissions_of(token.permissions)),
            machines=list(token.machines),
            created_at=token.created_at,
            expires_at=token.expires_at,
            used_at=token.used_at,
        )


class NewToken(Model):
    """``expires_at``: in a year at most is a good habit; null for never. ``machines``: all of the owner's, if not said."""

    name: Text
    permissions: Annotated[tuple[Permission, ...], Field(min_length=1)]
    machines: Patterns = EVERY_MACHINE
    expires_at: Moment | None = None


class MadeToken(Token):
    """``secret``: what programs send as ``Authorization: Bearer``. It is shown this once."""

    secret: str


class Approval(Answer):
    """``action``, ``params``: what is performed; ``summary``: the same for people. ``outcome``: why it failed, or was not
    confirmed."""

    id: str
    action: str
    summary: str
    params: dict[str, Any]
    machine: str | None
    machine_name: str | None
    state: ApprovalState
    asked_by: str
    asked_at: datetime
    expires_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    outcome: str

    @classmethod
    def of(cls, approval: values.Approval) -> Self:
        """The store's."""
        return cls(
            id=approval.id,
            action=approval.action,
            summary=approval.summary,
            params=dict(approval.params),
            machine=approval.machine or None,
            machine_name=approval.machine_name or None,
            state=approval.state,
            asked_by=approval.asked_by,
            asked_at=approval.asked_at,
            expires_at=approval.expires_at,
            decided_by=approval.decided_by,
            decided_at=approval.decided_at,
            outcome=approval.outcome,
        )


class Refusing(Model):
    """Why not; whoever asked is shown it."""

    why: Annotated[str, StringConstraints(max_length=500, strip_whitespace=True, pattern=_PRINTABLE)] = ""
