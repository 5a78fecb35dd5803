"""What waits for a second pair of eyes."""

from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from datetime import datetime

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.orm import Session

from catalog.access import rows
from catalog.access.tables import ApprovalRow
from catalog.access.values import Approval, ApprovalState
from proxy.errors import ApprovalNotFound, ApprovalRefused

_FACTS = tuple(field.name for field in fields(Approval))


class Approvals:
    """All SQL about approvals. Part of a unit of work."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, approval: Approval) -> None:
        """A new one."""
        facts = {name: getattr(approval, name) for name in _FACTS}
        self._session.add(ApprovalRow(**{**facts, "params": dict(approval.params), "state": approval.state.value}))
        self._session.flush()

    def get(self, identity: str, now: datetime) -> Approval:
        """As it is now: one that waited for too long has expired. Raises ``ApprovalNotFound``."""
        row = self._session.get(ApprovalRow, identity, populate_existing=True)
        if row is None:
            raise ApprovalNotFound(identity)
        return _as_of(rows.approval(row), now)

    def list(
        self,
        now: datetime,
        states: Collection[ApprovalState] = (),
        *,
        before: tuple[datetime, str] | None = None,
        limit: int | None = None,
    ) -> Sequence[Approval]:
        """The newest first. ``before``: time and identity of the last one of the page before."""
        query = select(ApprovalRow).order_by(ApprovalRow.asked_at.desc(), ApprovalRow.id.desc()).limit(limit)
        if states:
            query = query.where(_are(states, now))
        if before is not None:
            at, identity = before
            same = and_(ApprovalRow.asked_at == at, ApprovalRow.id < identity)
            query = query.where(or_(ApprovalRow.asked_at < at, same))
        return [_as_of(rows.approval(row), now) for row in self._session.scalars(query)]

    def decide(self, identity: str, state: ApprovalState, by: str, now: datetime, why: str = "") -> Approval:
        """Approve or refuse, once. Raises ``ApprovalNotFound``, ``ApprovalRefused``: it does not wait any more."""
        found = self.get(identity, now)
        if found.state is not ApprovalState.WAITING:
            raise ApprovalRefused(found.summary, f"it is {found.state.value} already")
        values = {"state": state.value, "decided_by": by, "decided_at": now, "outcome": why}
        self._session.execute(update(ApprovalRow).where(ApprovalRow.id == identity).values(**values))
        return self.get(identity, now)

    def ended(self, identity: str, state: ApprovalState, outcome: str, now: datetime) -> Approval:
        """What became of one that was approved. Raises ``ApprovalNotFound``."""
        done = update(ApprovalRow).where(ApprovalRow.id == identity, ApprovalRow.state == ApprovalState.APPROVED.value)
        self._session.execute(done.values(state=state.value, outcome=outcome))
        return self.get(identity, now)


def _as_of(approval: Approval, now: datetime) -> Approval:
    late = approval.state is ApprovalState.WAITING and approval.expires_at <= now
    return replace(approval, state=ApprovalState.EXPIRED) if late else approval


def _are(states: Collection[ApprovalState], now: datetime) -> ColumnElement[bool]:
    """Nothing is written when one expires: it is one that waits, and whose time is over."""
    waits = ApprovalRow.state == ApprovalState.WAITING.value
    wanted: list[ColumnElement[bool]] = [
        ApprovalRow.state.in_([state.value for state in states if state is not ApprovalState.WAITING])
    ]
    if ApprovalState.WAITING in states:
        wanted.append(and_(waits, ApprovalRow.expires_at > now))
    if ApprovalState.EXPIRED in states:
        wanted.append(and_(waits, ApprovalRow.expires_at <= now))
    return or_(*wanted)
