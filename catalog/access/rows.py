"""Rows of the access store as values."""

from catalog.access.tables import ApprovalRow, SessionRow, TokenRow, UserRow
from catalog.access.values import Approval, ApprovalState, SignedIn, Token, User


def user(row: UserRow) -> User:
    """A user as a value."""
    return User(
        name=row.name,
        display_name=row.display_name,
        password=row.password,
        roles=tuple(row.roles),
        machines=tuple(row.machines),
        created_at=row.created_at,
        disabled=row.disabled,
        revision=row.revision,
        password_at=row.password_at,
        signed_in_at=row.signed_in_at,
        issuer=row.issuer,
        subject=row.subject,
    )


def token(row: TokenRow) -> Token:
    """A token as a value."""
    at_most = (tuple(row.permissions), tuple(row.machines))
    return Token(row.id, row.name, row.owner, row.digest, *at_most, row.created_at, row.expires_at, row.used_at)


def session(row: SessionRow) -> SignedIn:
    """A session as a value."""
    return SignedIn(row.id, row.user, row.created_at, row.seen_at, row.expires_at, row.remote, row.agent)


def approval(row: ApprovalRow) -> Approval:
    """An approval as a value."""
    return Approval(
        id=row.id,
        action=row.action,
        summary=row.summary,
        params=dict(row.params),
        asked_by=row.asked_by,
        asked_at=row.asked_at,
        expires_at=row.expires_at,
        machine=row.machine,
        machine_name=row.machine_name,
        state=ApprovalState(row.state),
        decided_by=row.decided_by,
        decided_at=row.decided_at,
        outcome=row.outcome,
    )
