"""Four eyes: what cannot be undone is asked for by one person and confirmed by another.

::

    alice: DELETE /restore-points/p1  ->  202, Location: /approvals/a1      nothing is done yet
    bob:   POST /approvals/a1/approve ->  the action is performed, in alice's name as far as she still may

Actions register themselves: ``@performs("delete-restore-point", Permission.DELETE_POINTS)`` stands above the function that does
it, which is given the desk, the caller who asked, and what they asked for. A module of routes that asks registers its actions
when it is imported, so that whoever can ask can be answered.
"""

import secrets
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from api.auth.identify import caller_of
from api.auth.roles import Caller, Permission, Via
from api.desk import Desk
from api.refusals import BeyondReach, NotAllowed
from catalog.access.values import Approval, ApprovalState, User
from proxy.errors import ApprovalNotFound, ApprovalRefused, LanfreeError
from proxy.model import MachineId

HOLDS = timedelta(hours=24)
"""What was asked for on Friday is not done on Monday, when nobody remembers why."""

Perform = Callable[[Desk, Caller, Mapping[str, Any]], object]
"""Does what was approved. Raises ``LanfreeError``: then it is known as failed."""

_ACTIONS: dict[str, tuple[Permission, Perform]] = {}


def performs(action: str, permission: Permission) -> Callable[[Perform], Perform]:
    """Registers what performs an action. ``permission``: what the one who asked must still have then."""

    def register(function: Perform) -> Perform:
        _ACTIONS[action] = (permission, function)
        return function

    return register


def four_eyes(
    desk: Desk,
    caller: Caller,
    action: str,
    params: Mapping[str, Any],
    *,
    summary: str,
    machine: str = "",
    machine_name: str = "",
) -> Approval | None:
    """Ask for a second person where the site wants one; ``None``: go on and do it. ``params``: what JSON can hold, given to
    what performs the action; ``summary``: what will happen, for the one who decides. Answer with 202 and its address. Raises
    ``BeyondReach`` for who does not reach all machines and names none: it is performed with the reach of the user, and would be
    done for a token that reaches less."""
    access = desk.access
    if not access.rules().four_eyes:
        return None
    if action not in _ACTIONS:
        raise LookupError(f"nothing performs {action!r}")
    if not (machine or caller.sees_all):
        raise BeyondReach(caller.name, f"ask for what concerns all machines: {summary}")
    now = access.now()
    with access.store.transaction(write=False) as unit:
        waiting = unit.approvals.list(now, {ApprovalState.WAITING})
    for known in waiting:  # asked twice, it is still one wish
        if (known.action, known.params, known.asked_by) == (action, dict(params), caller.name):
            return known
    approval = Approval(
        id=secrets.token_hex(8),
        action=action,
        summary=summary,
        params=dict(params),
        asked_by=caller.name,
        asked_at=now,
        expires_at=now + HOLDS,
        machine=machine,
        machine_name=machine_name,
    )
    desk.audit.record(
        caller.who, "approval-ask", about=_machine(approval), approval=approval.id, asked=action, what=summary
    )
    with access.store.transaction() as unit:
        unit.approvals.add(approval)
    return approval


def approve(desk: Desk, caller: Caller, identity: str) -> Approval:
    """Confirm and perform it; the approval as it is after that, ``failed`` with the reason where it could not be done. Raises
    ``ApprovalNotFound``, ``ApprovalRefused``: this person may not, or it does not wait any more."""
    access = desk.access
    waiting = seen(desk, caller, identity)
    _make_sure_of_two(desk, caller, waiting)
    asker = _still_allowed(desk, waiting)
    desk.audit.record(
        caller.who,
        "approval-approve",
        about=_machine(waiting),
        approval=identity,
        asked_by=waiting.asked_by,
        what=waiting.summary,
    )
    with access.store.transaction() as unit:
        approved = unit.approvals.decide(identity, ApprovalState.APPROVED, caller.name, access.now())
    state, outcome = ApprovalState.PERFORMED, ""
    try:
        _ACTIONS[approved.action][1](desk, asker, approved.params)
    except LanfreeError as error:
        state, outcome = ApprovalState.FAILED, error.message
    with access.store.transaction() as unit:
        return unit.approvals.ended(identity, state, outcome, access.now())


def refuse(desk: Desk, caller: Caller, identity: str, why: str) -> Approval:
    """Say no; who asked may take it back this way. Raises ``ApprovalNotFound``, ``NotAllowed``, ``ApprovalRefused``."""
    waiting = seen(desk, caller, identity)
    if caller.name != waiting.asked_by and not caller.may(Permission.APPROVE):
        raise NotAllowed(caller.name, Permission.APPROVE)
    desk.audit.record(
        caller.who, "approval-refuse", about=_machine(waiting), approval=identity, what=waiting.summary, why=why
    )
    with desk.access.store.transaction() as unit:
        return unit.approvals.decide(identity, ApprovalState.REFUSED, caller.name, desk.access.now(), why)


def seen(desk: Desk, caller: Caller, identity: str) -> Approval:
    """One that concerns a machine within the caller's reach. Raises ``ApprovalNotFound``."""
    with desk.access.store.transaction(write=False) as unit:
        found = unit.approvals.get(identity, desk.access.now())
    if not sees(caller, found):
        raise ApprovalNotFound(identity)
    return found


def sees(caller: Caller, approval: Approval) -> bool:
    """Whether it is within the caller's reach; what concerns no machine is for those who reach all."""
    if not approval.machine:
        return caller.sees_all or approval.asked_by == caller.name
    return caller.sees(MachineId(approval.machine), approval.machine_name)


def _make_sure_of_two(desk: Desk, caller: Caller, approval: Approval) -> None:
    """Two people, not two accounts of one: the second was there, with their own password, before the first asked."""
    if caller.name == approval.asked_by:
        raise ApprovalRefused(approval.summary, "whoever asked for it cannot confirm it", hint="ask somebody else")
    if caller.via is not Via.SESSION:
        raise ApprovalRefused(approval.summary, "a token is no second person", hint="sign in with a browser")
    with desk.access.store.transaction(write=False) as unit:
        user = unit.users.get(caller.name)
    late = user.created_at >= approval.asked_at or (user.password_at or user.created_at) >= approval.asked_at
    if late:
        raise ApprovalRefused(
            approval.summary,
            "your user is newer than what is asked for, or was given a new password since",
            hint="whoever asked has to ask again",
        )


def _still_allowed(desk: Desk, approval: Approval) -> Caller:
    permission, _ = _ACTIONS.get(approval.action, (None, None))
    if permission is None:
        raise ApprovalRefused(approval.summary, f"this version does not know the action {approval.action}")
    with desk.access.store.transaction(write=False) as unit:
        user: User | None = unit.users.find(approval.asked_by)
    asker = caller_of(user) if user is not None and not user.disabled else None
    if asker is None or not asker.may(permission) or not sees(asker, approval):
        raise ApprovalRefused(approval.summary, f"{approval.asked_by} may not do this any more")
    return asker


def _machine(approval: Approval) -> MachineId | None:
    return MachineId(approval.machine) if approval.machine else None
