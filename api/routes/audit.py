"""``/audit``: who did what, and whether the log is whole."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.auth.roles import Caller, Permission
from api.deps import TheDesk, requires
from api.errors import PROBLEMS
from api.paging import Cursor, Limit, Page, decode, encode, foreign
from api.ports.audit import AuditFilter
from api.refusals import BeyondReach
from api.schemas.audit import AuditCheck, AuditEntry
from api.schemas.common import Moment

router = APIRouter(prefix="/audit", tags=["audit"], responses=PROBLEMS)

Auditor = Annotated[Caller, requires(Permission.VIEW_AUDIT)]
Words = Annotated[str | None, Query(max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]


@router.get("", name="list", summary="Entries of the access log")
def list_(
    *,
    caller: Auditor,
    desk: TheDesk,
    who: Annotated[Words, Query(description="How the name begins.")] = None,
    action: Words = None,
    machine: Annotated[Words, Query(description="Identity of a machine.")] = None,
    restore_point: Words = None,
    since: Moment | None = None,
    until: Annotated[Moment | None, Query(description="The first moment that is too late.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[AuditEntry]:
    """The newest first. Whoever reaches some machines only names one of them: other entries are about people, settings and
    machines of others."""
    if not caller.sees_all:
        if machine is None:
            raise BeyondReach(caller.name, "read the whole access log; name a machine")
        desk.machines.get(caller, machine)  # raises for one that is out of reach
    wanted = AuditFilter(who, action, machine, restore_point, since, until)
    found = desk.audit.entries(wanted, before=_number(cursor), limit=limit + 1)
    items = list(found[:limit])
    return Page(items=items, next=encode(items[-1].number) if len(found) > limit else None)


@router.post("/check", summary="Check that nothing was changed or taken out")
def check(caller: Auditor, desk: TheDesk) -> AuditCheck:
    """Follows the chain from the first entry; reads all of them."""
    desk.audit.record(caller.who, "audit-check")
    return desk.audit.check()


def _number(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    number = decode(cursor, 1)[0]
    if not isinstance(number, int) or not 0 <= number < 2**63:
        raise foreign()
    return number
