"""Who may do what with something that waits for a second person."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import httpx

from api.auth.roles import Permission
from api.client import AsyncClient
from api.schemas.access import Approval
from api.ui.pages.approvals import _acts
from api.ui.visit import Visit
from api.ui.words import Clock
from catalog.access.values import ApprovalState

MOMENT = datetime(2026, 11, 1, 1, 0, tzinfo=UTC)


def offered(me: str, asked_by: str) -> str:
    """Buttons of mine for what they asked for."""
    api = AsyncClient("https://test", transport=httpx.MockTransport(lambda _: httpx.Response(204)))
    visit = Visit(api, me, frozenset({Permission.APPROVE.value}), "", Clock(ZoneInfo("UTC")))
    one = Approval(
        id="a1",
        action="delete-point",
        summary="delete a restore point",
        params={},
        machine=None,
        machine_name=None,
        state=ApprovalState.WAITING,
        asked_by=asked_by,
        asked_at=MOMENT,
        expires_at=MOMENT,
        decided_by=None,
        decided_at=None,
        outcome="",
    )
    return str(_acts(visit, one) or "")


def test_one_takes_back_what_is_ones_own_and_decides_about_the_rest() -> None:
    for me in ("ada", "ada@corp.example"):
        assert "Take back" in offered(me, me)
        assert "Approve" not in offered(me, me)
    for me, other in (("ada", "bob"), ("ada", "ada@corp.example"), ("ada@corp.example", "ada")):
        assert "Approve" in offered(me, other)
        assert "Take back" not in offered(me, other)
