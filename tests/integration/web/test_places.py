"""Places of a whole-machine restore, as the browser chooses them: the form and its script, without an appliance behind."""

from datetime import UTC, datetime

import pytest
from playwright.sync_api import Browser, expect

from api.schemas.common import MachineRef
from api.schemas.points import Health, Image, RestorePointDetail, Verification
from api.schemas.restores import Occupant, RestoreTargets, TargetDirectory, TargetLun
from api.ui.guard import ASSETS
from api.ui.pages.restore_plan import form
from proxy.model import Consistency, Level, PowerState

pytestmark = [pytest.mark.tools, pytest.mark.timeout(300)]

COUNTED = {"size": 1 << 30, "bytes_read": 1, "bytes_new": 1, "bytes_stored": 1}


def image(key: str, source: str) -> Image:
    return Image(key=key, level=Level.FULL, transport="san", source=source, reasons=[], **COUNTED)


POINT = RestorePointDetail(
    id="p1",
    machine="id-db",
    machine_name="db-07",
    host="h1",
    hypervisor="h1",
    created_at=datetime(2026, 11, 1, 1, 0, tzinfo=UTC),
    level=Level.FULL,
    consistency=Consistency.CRASH,
    transports=["san"],
    disks=2,
    frozen_seconds=0.0,
    files_indexed=False,
    held=False,
    health=Health.UNKNOWN,
    run="r",
    reasons=[],
    images=[image("vda", "/dev/sdx"), image("vdb", "/disks/of/db.raw")],
    configuration="libvirt-xml",
    verification=Verification(health=Health.UNKNOWN),
    **COUNTED,
)

OWN = Occupant(machine=MachineRef(id="id-db", name="db-07"), disk="vda", state=PowerState.OFF, host="h1", same=False)

TARGETS = RestoreTargets(
    luns=(TargetLun(target="iqn.x:a", lun=1), TargetLun(target="iqn.x:a", lun=2, occupants=(OWN,))),
    directories=(TargetDirectory(path="/disks", free=1 << 40),),
)


DRAWN = f'<!doctype html><script src="/console.js"></script><body>{form(POINT, TARGETS)}</body>'


def test_the_machine_itself_goes_back_to_its_own_places_and_a_new_one_never(browser: Browser) -> None:
    page = browser.new_page()
    try:
        page.route("**/*", lambda route: route.fulfill(content_type="text/html", body=DRAWN))
        page.route("**/console.js", lambda route: route.fulfill(path=ASSETS / "console.js"))
        page.goto("http://console.test/")
        lun, file, path = (page.locator(f"[name={name}]") for name in ("place-0", "place-1", "file-1"))
        expect(lun).to_have_value('["lun", "iqn.x:a", "1"]')
        page.get_by_label("db-07 itself").check()
        expect(lun).to_have_value('["lun", "iqn.x:a", "2"]')
        expect(file).to_have_value("elsewhere")
        expect(path).to_have_value("/disks/of/db.raw")
        page.get_by_label("A new machine beside the original").check()
        expect(lun).to_have_value('["lun", "iqn.x:a", "1"]')
        expect(path).to_have_value("/disks/db-07-vdb.raw")
        page.get_by_label("Place of vda").select_option("leave-out")
        page.get_by_label("Only its disks").check()
        expect(lun).to_have_value("leave-out")  # what somebody chose stays
    finally:
        page.close()
