"""The wizard of a whole-machine restore: only what was foreseen of the plan on the screen can be ordered."""

import asyncio
import json
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from api.client import AsyncClient
from api.paging import Page
from api.schemas.common import MachineRef
from api.schemas.machines import Machine, Protection
from api.schemas.restores import PlannedMachine, RestorePreview
from api.ui.parts.part import Act
from api.ui.visit import Visit
from api.ui.words import Clock
from tests.unit.api.ui.shown_points import MOMENT, image, point

pytestmark = pytest.mark.slow  # the console's library takes a second to load


POINT = point()

PREVIEW = RestorePreview(
    point="p1",
    machine=MachineRef(id="id-db", name="db-07"),
    taken_at=MOMENT,
    consistency="crash",
    result=PlannedMachine(name="again", host="h1", effect="new"),
    disks=[],
    total_bytes=1,
    confirm="a word of this preview",
    valid_until=MOMENT,
)


class Slow:
    """An API that foresees once it may, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.reached, self.may = asyncio.Event(), asyncio.Event()

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        self.reached.set()
        await self.may.wait()
        return httpx.Response(200, text=PREVIEW.model_dump_json())


async def restored(*, changed: bool) -> tuple[list[str], str]:
    """What was asked of the API, and what was shown in the end, when somebody looks, perhaps changes the form, and orders."""
    from nicegui import Client, ui  # noqa: PLC0415

    from api.ui.pages.restore_machine import _Wizard  # noqa: PLC0415

    api = Slow()
    client = AsyncClient("https://test", transport=httpx.MockTransport(api.answer))
    visit = Visit(client, "alice", frozenset(), "", Clock(ZoneInfo("UTC")))
    with Client(ui.page("/wizard"), request=None) as page:
        wizard = _Wizard(visit, POINT)
        looking = asyncio.create_task(wizard._acted(Act("preview", form={"name": ("again",)})))
        await api.reached.wait()
        if changed:
            await wizard._acted(Act("changed"))
        api.may.set()
        await looking
        shown = wizard._summary.element.content
        await wizard._acted(Act("restore"))
        page.delete()
    await client.close()
    return api.asked, shown


def test_what_was_foreseen_is_shown_and_ordered() -> None:
    asked, shown = asyncio.run(restored(changed=False))
    assert "Restore db-07" in shown
    assert asked == ["/api/v1/restores/preview", "/api/v1/restores"]


def test_what_was_foreseen_of_a_form_that_was_changed_meanwhile_is_not_ordered() -> None:
    asked, shown = asyncio.run(restored(changed=True))
    assert shown == ""
    assert asked == ["/api/v1/restores/preview"]


VSPHERE = POINT.model_copy(
    update={
        "configuration": "vsphere-json",
        "images": [image("scsi0:0", transport="lan")],
    }
)

WEB = Machine(id="id-web", name="web-07", host="esx2", hypervisor="vc-a", protection=Protection.NEVER)


class Answers:
    """An API that knows one machine, and foresees as it was told to; keeps what it was asked."""

    def __init__(self, preview: RestorePreview) -> None:
        self.preview = preview
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v1")
        self.asked.append((path, json.loads(request.content or "{}") or dict(request.url.params)))
        if path == "/machines":
            return httpx.Response(200, text=Page[Machine](items=[WEB]).model_dump_json())
        return httpx.Response(200, text=self.preview.model_dump_json())


async def looked(effect: str, **values: str) -> tuple[Answers, str]:
    """What the API was asked, and what is shown, when somebody looks and orders."""
    from nicegui import Client, ui  # noqa: PLC0415

    from api.ui.pages.restore_machine import _Wizard  # noqa: PLC0415

    result = {**PREVIEW.result.model_dump(), "name": "db-07", "effect": effect}
    named = {"result": PlannedMachine.model_validate(result), "left_out": ("disk scsi0:1: no place was named for it",)}
    api = Answers(PREVIEW.model_copy(update=named))
    client = AsyncClient("https://test", transport=httpx.MockTransport(api.answer))
    visit = Visit(client, "alice", frozenset(), "", Clock(ZoneInfo("UTC")))
    form = {"place-0": '["datastore", "ds1"]', **values}
    with Client(ui.page("/wizard"), request=None) as page:
        wizard = _Wizard(visit, VSPHERE)
        await wizard._acted(Act("preview", form={name: (value,) for name, value in form.items()}))
        shown = wizard._summary.element.content
        await wizard._acted(Act("restore", form={"typed": ("db-07",)}))
        page.delete()
    await client.close()
    return api, shown


def test_the_summary_names_where_in_vcenter_the_machine_goes() -> None:
    api, shown = asyncio.run(looked("new", folder="/DC/vm/Prod", networks="VM Network = Isolated", name="again"))
    (_, previewed), (_, ordered) = api.asked
    assert (previewed["folder"], previewed["networks"]) == ("/DC/vm/Prod", {"VM Network": "Isolated"})
    assert ordered == {**previewed, "confirm": PREVIEW.confirm}
    for words in ("/DC/vm/Prod", "VM Network → Isolated; the others by their saved names", "none of its pools"):
        assert words in shown


def test_what_is_as_it_was_is_said_of_a_machine_that_steps_aside() -> None:
    _, shown = asyncio.run(looked("replaced", **{"as": "itself"}))
    assert "steps aside under another name" in shown
    assert "the saved one, where it still exists" in shown
    assert "by their saved names" in shown


def test_a_disk_is_given_to_the_machine_of_that_name() -> None:
    api, shown = asyncio.run(looked("attached", **{"as": "attach", "attach": "WEB-07"}))
    (_, machines), (_, previewed), (_, ordered) = api.asked
    assert machines["q"] == "WEB-07"
    assert (previewed["attach"], ordered["attach"]) == ("id-web", "id-web")
    assert "<b>web-07</b> on esx2" in shown
    assert "Give the disk to web-07" in shown
    assert "Folder" not in shown
    assert "will not have" not in shown, "the other disks stay in the restore point"


def test_a_disk_for_a_machine_that_is_not_there_is_no_plan_and_is_not_ordered() -> None:
    api, shown = asyncio.run(looked("attached", **{"as": "attach", "attach": "web-0"}))
    assert "There is no machine “web-0”" in shown
    assert [path for path, _ in api.asked] == ["/machines"]
