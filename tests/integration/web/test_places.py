"""Places of a whole-machine restore, as the browser chooses them: the form and its script, without an appliance behind."""

import pytest
from playwright.sync_api import Browser, expect

from api.schemas.common import MachineRef
from api.schemas.restores import Occupant, RestoreTargets, TargetDirectory, TargetLun
from api.ui.guard import ASSETS
from api.ui.pages.restore_plan import form
from proxy.model import PowerState
from tests.unit.api.ui.shown_points import image, point

pytestmark = [pytest.mark.tools, pytest.mark.timeout(300)]


POINT = point(image("vda", "/dev/sdx"), image("vdb", "/disks/of/db.raw"))

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


def test_of_several_directories_the_machine_itself_goes_back_to_the_one_where_it_lay(browser: Browser) -> None:
    two = TARGETS.model_copy(update={"directories": (TargetDirectory(path="/new"), *TARGETS.directories)})
    drawn = f'<!doctype html><script src="/console.js"></script><body>{form(POINT, two)}</body>'
    page = browser.new_page()
    try:
        page.route("**/*", lambda route: route.fulfill(content_type="text/html", body=drawn))
        page.route("**/console.js", lambda route: route.fulfill(path=ASSETS / "console.js"))
        page.goto("http://console.test/")
        place, path = page.locator("[name=place-1]"), page.locator("[name=file-1]")
        place.select_option('["directory", "/new"]')
        expect(path).to_have_value("db-07-vdb.raw")
        page.get_by_label("db-07 itself").check()
        expect(place).to_have_value('["directory", "/disks"]')
        expect(path).to_have_value("/disks/of/db.raw")
        page.get_by_label("A new machine beside the original").check()
        expect(path).to_have_value("db-07-vdb.raw")
    finally:
        page.close()
