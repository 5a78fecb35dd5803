"""What administrators do by mouse and by keyboard in a real browser: begin, add, change and remove; and what others may not."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from api.auth.roles import Role
from appliance.web.access import setup_code
from catalog.jobs.values import Job
from proxy.errors import JobNotFound
from tests.integration.serving.fleet import Fleet, until
from tests.integration.web.console import PASSWORD, Console, settled

pytestmark = [pytest.mark.tools, pytest.mark.timeout(600)]

expect.set_options(timeout=60_000)

SCREENSHOTS = Path(__file__).parents[3] / "build" / "screenshots"

SURE = 120_000
"""Milliseconds for what a slow machine has to work for."""


@pytest.fixture(scope="module")
def fresh(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """An appliance that nobody has used yet: no user, no machine, no job."""
    fleet = Fleet(tmp_path_factory.mktemp("fresh"), more='[web]\naddress = "127.0.0.1:0"\n')
    made = Console(fleet, browser, SCREENSHOTS)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        fleet.close()


def stored(console: Console, name: str) -> Job | None:
    """The job as it is in the store."""
    with console.fleet.services.jobs.transaction(write=False) as unit:
        try:
            return unit.jobs.get(name)
        except JobNotFound:
            return None


def done(page: Page, said: str) -> None:
    """Wait until the page says so."""
    expect(page.get_by_text(said).first).to_be_visible(timeout=SURE)


def test_the_first_administrator_is_made_with_the_code_and_told_what_to_do_first(fresh: Console) -> None:
    code = setup_code(fresh.fleet.services)
    assert code is not None
    page = fresh.page()
    page.goto(fresh.url)
    page.wait_for_url(re.compile("/setup"))
    page.get_by_label("One-time code").fill("AAAA-AAAA-AAAA-AAAA")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("The same password again").fill(PASSWORD)
    page.get_by_role("button").first.click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label("One-time code").fill(code)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("The same password again").fill(PASSWORD)
    page.get_by_role("button").first.click()
    settled(page)
    expect(page.get_by_role("heading", level=1, name="Dashboard")).to_be_visible()
    expect(page.get_by_text("No machines are known yet")).to_be_visible()
    fresh.keep(page, "journey-first-dashboard")
    page.get_by_role("link", name="Add a hypervisor").click()
    settled(page)
    expect(page.get_by_text("No hypervisor yet")).to_be_visible()
    assert setup_code(fresh.fleet.services) is None


def test_a_hypervisor_that_must_not_be_asked_is_not_added_and_what_was_typed_stays(fresh: Console) -> None:
    fresh.user("abel", Role.ADMINISTRATOR)
    page = fresh.signed_in("abel", "/hypervisors")
    page.get_by_role("button", name="Add KVM host").first.click()
    dialog = page.get_by_role("dialog")
    for name, address in (
        ("inside", "qemu+tcp://127.0.0.1:5432/system"),
        ("cloud", "qemu+tcp://169.254.169.254/system"),
    ):
        dialog.get_by_label("Name").fill(name)
        dialog.get_by_label("Address").fill(address)
        dialog.get_by_role("button", name="Try and add").click()
        expect(dialog.get_by_role("alert")).to_contain_text(f"{name} was not added", timeout=SURE)
        expect(dialog.get_by_label("Name")).to_have_value(name)
        expect(dialog.get_by_label("Address")).to_have_value(address)
    fresh.keep(page, "journey-hypervisor-refused")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)
    assert "[[host]]" not in fresh.fleet.configuration("looking-on").read_text()


def test_a_job_is_changed_disabled_enabled_and_deleted(console: Console) -> None:
    console.fleet.job("weekly", due=False, select={"include": ("name=db-*",)})
    page = console.signed_in(path="/jobs/weekly/edit")
    page.get_by_label("Description").fill("Only on Sundays")
    page.get_by_label("Schedule").select_option("By a cron line")
    page.get_by_label("Cron line").fill("0 4 * * 0")
    page.get_by_label("Newest", exact=True).fill("5")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1, name="weekly")).to_be_visible()
    expect(page.get_by_text("Only on Sundays").first).to_be_visible()
    job = stored(console, "weekly")
    assert job is not None
    assert job.policy.schedule is not None
    assert (job.policy.schedule.cron, job.revision, job.policy.description) == ("0 4 * * 0", 2, "Only on Sundays")

    page.get_by_role("button", name="Disable").click()
    page.get_by_role("dialog").get_by_role("button", name="Disable").click()
    done(page, "weekly is disabled")
    job = stored(console, "weekly")
    assert job is not None
    assert not job.enabled
    page.get_by_role("button", name="Enable").click()
    done(page, "weekly is enabled")

    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert stored(console, "weekly") is not None
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete job").click()
    page.wait_for_url(re.compile("/console/jobs$"), timeout=SURE)
    assert stored(console, "weekly") is None


def test_a_change_that_somebody_else_made_meanwhile_is_not_overwritten(console: Console) -> None:
    console.fleet.job("shared", due=False, select={"include": ("name=db-*",)})
    page = console.signed_in(path="/jobs/shared/edit")
    other = console.signed_in(path="/jobs/shared/edit")
    other.get_by_label("Description").fill("first")
    other.get_by_role("button", name="Save").click()
    expect(other.get_by_role("heading", level=1, name="shared")).to_be_visible()
    page.get_by_label("Description").fill("second")
    page.get_by_role("button", name="Save").click()
    done(page, "The job was not saved")
    job = stored(console, "shared")
    assert job is not None
    assert job.policy.description == "first"


def tab_to(page: Page, label: str) -> None:
    """Press Tab until the field of this label has the focus."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if (
            page.evaluate("document.activeElement.labels?.[0]?.textContent ?? document.activeElement.textContent")
            == label
        ):
            return
    raise AssertionError(f"no way to {label} by Tab")


def test_a_job_is_made_with_the_keyboard_alone(console: Console) -> None:
    page = console.signed_in(path="/jobs/new")
    expect(page.get_by_text(re.compile("Selects [0-9]+ machines now"))).to_be_visible()
    tab_to(page, "Name")
    page.keyboard.type("by keyboard")
    tab_to(page, "Machines that fit any of")
    page.keyboard.press("Control+a")
    page.keyboard.type("name=mail-*")
    tab_to(page, "But none of")
    expect(page.get_by_text("Selects 1 machine now")).to_be_visible()
    tab_to(page, "Times of day")
    page.keyboard.press("Control+a")
    page.keyboard.type("04:15")
    tab_to(page, "Sat")
    page.keyboard.press("Space")
    tab_to(page, "Create job")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="by keyboard")).to_be_visible()
    job = stored(console, "by keyboard")
    assert job is not None
    assert job.policy.schedule is not None
    assert [f"{time:%H:%M}" for time in job.policy.schedule.at] == ["04:15"]
    assert "sat" not in job.policy.schedule.days
    assert len(job.policy.schedule.days) == 6
    assert job.policy.select.include == ("name=mail-*",)


def test_an_operator_runs_jobs_and_neither_restores_nor_configures(console: Console) -> None:
    console.user("oscar", Role.OPERATOR)
    page = console.signed_in("oscar", "/machines?q=web-01")
    expect(page.get_by_role("button", name="Protect now")).to_be_visible()
    page.get_by_role("link", name="web-01").first.click()
    settled(page)
    expect(page.get_by_role("button", name="Protect now")).to_be_visible()
    assert page.get_by_role("link", name=re.compile("^(Restore|Files)$")).count() == 0
    console.go(page, "/hypervisors")
    assert page.get_by_role("button", name=re.compile("^Add")).count() == 0
    console.go(page, "/jobs")
    expect(page.get_by_role("link", name="New job")).to_be_visible()


def test_a_restore_operator_of_databases_sees_no_other_machine(console: Console) -> None:
    console.user("rita", Role.RESTORE_OPERATOR, machines=("db-*",))
    page = console.signed_in("rita", "/machines")
    names = page.locator("tbody tr td:first-child").all_inner_texts()
    assert names == ["db-01", "db-02"]
    assert page.get_by_role("button", name="Protect now").count() == 0
    for path in ("/", "/machines?view=host", "/search?q=web", "/running"):
        console.go(page, path)
        until(lambda: page.locator(".lf-count", has_text="…").count() == 0, "the page is drawn")
        shown = page.locator(".lf-page").inner_text()
        assert "web-0" not in shown.replace("Find a machine", "")
        assert "mail-01" not in shown
    hidden = next(one.id for one in console.fleet.site.machines() if one.name == "web-01")
    answer = page.goto(f"{console.url}/console/machines/{hidden}")
    assert answer is not None
    assert answer.status == 404
    assert "web-01" not in page.locator("body").inner_text()
