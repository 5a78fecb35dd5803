"""Administration by mouse, in a real browser: people, tokens, settings, the second pair of eyes, the access log."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from api.auth.roles import Role
from appliance import inventory
from proxy.model import MachineId, RestorePoint, RestorePointId
from tests.integration.appliance.point_maker import PointMaker
from tests.integration.serving.fleet import Fleet, until
from tests.integration.web.console import PASSWORD, Console, findings, settled

pytestmark = [pytest.mark.tools, pytest.mark.timeout(900)]

expect.set_options(timeout=60_000)

SCREENSHOTS = Path(__file__).parents[3] / "build" / "screenshots"


@pytest.fixture(scope="module")
def points() -> list[RestorePoint]:
    """Restore points of db-07, oldest first: ``office`` puts them there."""
    return []


@pytest.fixture(scope="module")
def office(browser: Browser, tmp_path_factory: pytest.TempPathFactory, points: list[RestorePoint]) -> Iterator[Console]:
    """Two administrators, two pairs of eyes asked for, a proxy that serves."""
    base = tmp_path_factory.mktemp("office")
    (base / "site").mkdir()
    (base / "site" / "hosts").write_text(json.dumps(["kvm1"]))
    fleet = Fleet(base, more='[web]\naddress = "127.0.0.1:0"\nfour_eyes = true\n')
    made = Console(fleet, browser, SCREENSHOTS)
    try:
        for name in ("db-01", "web-01"):
            fleet.site.add(name, {"vda": os.urandom(64 * 1024)}, host="kvm1")
        inventory.refresh(fleet.services)
        maker, disk = PointMaker(fleet.services.repository), base / "disk.img"
        for _ in range(3):
            disk.write_bytes(os.urandom(256 * 1024))
            points.append(maker.make("db-07", {"vda": disk}))
        with fleet.services.catalog.transaction() as unit:
            for point in points:
                unit.restore_points.add(point)
        for name in ("alice", "bob"):
            made.user(name, Role.ADMINISTRATOR)
        proxy = fleet.start()
        made.start()
        until(lambda: fleet.serves(proxy), "the proxy serves")
        yield made
    finally:
        made.stop()
        fleet.close()


def answer(page: Page, do: str, **fields: str) -> None:
    """Fill in the open dialog and agree."""
    dialog = page.get_by_role("dialog")
    for name, value in fields.items():
        dialog.locator(f"[name={name}]").fill(value)
    dialog.get_by_role("button", name=do, exact=True).click()
    expect(dialog).to_have_count(0)


def test_a_user_is_added_by_mouse_and_sees_only_their_machines(office: Console) -> None:
    page = office.signed_in(path="/users")
    page.get_by_role("button", name="Add user").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Operator", exact=True).uncheck()
    dialog.get_by_label("Restore operator").check()
    office.keep(page, "users-add")
    answer(page, "Add user", name="rita", display="Rita R.", password=PASSWORD, machines="db-*")
    expect(page.get_by_text("rita may sign in")).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("rita"))).to_contain_text("db-*")
    office.keep(page, "users-added")
    assert not findings(page)

    theirs = office.signed_in("rita", "/machines")
    expect(theirs.get_by_role("region", name="Machines").locator("tbody tr")).to_have_count(2)
    expect(theirs.get_by_text("web-01")).to_have_count(0)
    assert theirs.get_by_role("link", name="Users").count() == 0
    refused = theirs.goto(f"{office.url}/console/users")
    assert refused is not None
    assert refused.status == 403

    page.get_by_role("row", name=re.compile("rita")).get_by_role("button", name="Disable").click()
    answer(page, "Disable")
    expect(page.get_by_role("row", name=re.compile("rita"))).to_contain_text("Disabled")
    gone = theirs.goto(f"{office.url}/console/machines")
    assert gone is not None
    assert "/login" in theirs.url


def test_a_weak_password_is_refused_in_words_and_the_name_stays_free(office: Console) -> None:
    page = office.signed_in(path="/users")
    page.get_by_role("button", name="Add user").click()
    dialog = page.get_by_role("dialog")
    dialog.locator("[name=name]").fill("weak")
    dialog.locator("[name=password]").fill("short")
    dialog.get_by_role("button", name="Add user", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("The user was not added")
    expect(dialog.locator("[name=name]")).to_have_value("weak")  # what was typed stays
    office.keep(page, "users-refused")
    answer(page, "Add user", password=PASSWORD)
    expect(page.get_by_role("row", name=re.compile("weak"))).to_have_count(1)


def test_a_token_is_shown_once_and_deleted(office: Console) -> None:
    page = office.signed_in(path="/account")
    page.get_by_role("button", name="Make a token").click()
    office.keep(page, "account-token")
    answer(page, "Make token", name="ci")
    secret = page.locator(".lf-secret")
    expect(secret).to_have_text(re.compile("^lft_"))
    office.keep(page, "account-token-made")
    assert not findings(page)
    said = secret.inner_text()
    page.reload()
    settled(page)
    assert said not in page.content()
    page.get_by_role("row", name=re.compile("ci")).get_by_role("button", name="Delete").click()
    answer(page, "Delete token")
    expect(page.get_by_text("No token", exact=True)).to_be_visible()


def test_deleting_a_restore_point_waits_for_a_second_person(office: Console, points: list[RestorePoint]) -> None:
    page = office.signed_in(path=f"/restore-points/{points[0].id}")
    office.keep(page, "restore-point")
    assert not findings(page)
    page.get_by_role("button", name="Hold").click()
    answer(page, "Hold", why="the auditors want it")
    expect(page.get_by_text("the auditors want it")).to_be_visible()
    assert page.get_by_role("button", name="Delete").count() == 0
    page.get_by_role("button", name="Release").click()
    page.get_by_role("button", name="Delete").click()
    answer(page, "Delete for good", why="it holds a secret")
    expect(page.get_by_text("It waits for a second person")).to_be_visible()
    page.get_by_role("link", name="See what waits").click()
    settled(page)
    assert page.get_by_role("button", name="Approve").count() == 0

    second = office.signed_in("bob", "/approvals")
    office.keep(second, "approvals-waiting")
    assert not findings(second)
    second.get_by_role("button", name="Approve").click()
    answer(second, "Approve")
    expect(second.get_by_text("It was approved and done")).to_be_visible()
    office.go(second, "/restore-points")
    expect(second.get_by_role("region", name="Restore points").locator("tbody tr")).to_have_count(2)


def test_settings_are_saved_and_an_older_page_is_refused(office: Console) -> None:
    page, other = office.signed_in(path="/settings"), office.signed_in("bob", "/settings")
    page.get_by_label("Tasks at once a host").fill("5")
    page.get_by_role("button", name="Save settings").click()
    expect(page.get_by_text("The settings were saved")).to_be_visible()
    page.reload()
    settled(page)
    expect(page.get_by_label("Tasks at once a host")).to_have_value("5")
    other.get_by_label("Tasks at once a host").fill("6")
    other.get_by_role("button", name="Save settings").click()
    expect(other.get_by_role("alert")).to_contain_text("Nothing was saved")


def test_the_access_log_is_filtered_and_its_chain_is_checked(office: Console) -> None:
    page = office.signed_in(path="/audit?action=sign-in")
    rows = page.get_by_role("region", name="Access log").locator("tbody tr")
    expect(rows.first).to_contain_text("Sign in")
    page.get_by_role("button", name="Check the chain").click()
    expect(page.get_by_text(re.compile("entries are as they were written"))).to_be_visible()
    office.keep(page, "audit-checked")
    assert not findings(page)


def test_the_access_log_names_machines_and_moments_and_is_filtered_by_a_name(
    office: Console, points: list[RestorePoint]
) -> None:
    point, log = points[1], office.fleet.services.catalog.audit
    gone = RestorePointId("0123456789abcdef")
    log.record("ada", "browse", point.machine, point.id)
    log.record("ada", "browse", point.machine, gone)
    log.record("ada", "browse", MachineId("fedcba9876543210"))
    page = office.signed_in(path="/audit?who=ada&action=browse")
    rows = page.get_by_role("region", name="Access log").locator("tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(0)).to_contain_text("machine fedcba98")
    expect(rows.nth(1)).to_contain_text(f"{point.machine_name}, restore point 01234567")
    page.get_by_label("Machine: its name").fill(point.machine_name.upper())
    page.get_by_label("Machine: its name").press("Enter")
    expect(rows).to_have_count(2)
    rows.last.get_by_role("link", name=re.compile("^restore point of")).click()
    settled(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text(point.machine_name)


def test_a_repository_is_measured_by_mouse_and_says_what_it_holds(office: Console) -> None:
    page = office.signed_in(path="/repositories/main")
    page.get_by_role("button", name="Measure").click()
    page.get_by_role("link", name="Watch it").click()
    settled(page)
    done = page.locator(".lf-head .lf-chip > span:last-child", has_text=re.compile("^Done$"))
    expect(done.first).to_be_visible(timeout=120_000)
    office.go(page, "/repositories/main")
    expect(page.get_by_text("Each chunk once")).to_be_visible()
    page.wait_for_timeout(300)  # for the picture alone: charts are drawn a moment later
    office.keep(page, "repository-measured")
    assert not findings(page)
    page.get_by_role("button", name="Verify").click()
    answer(page, "Verify")
    page.get_by_role("link", name="Watch it").click()
    settled(page)
    expect(done.first).to_be_visible(timeout=120_000)


def test_an_operator_is_shown_no_settings_to_change_and_no_people(office: Console) -> None:
    office.user("otto", Role.OPERATOR)
    page = office.signed_in("otto", "/settings")
    assert page.get_by_role("button", name="Save settings").count() == 0
    assert page.get_by_role("link", name="Users").count() == 0
    assert page.get_by_role("link", name="Restore files").count() == 0
    for path in ("/users", "/audit", "/doctor", "/restore/files", "/restore/machine"):
        refused = page.goto(f"{office.url}/console{path}")
        assert refused is not None
        assert refused.status == 403, path
