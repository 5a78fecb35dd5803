"""What people do on their first days, by mouse, in a real browser; and what must not be possible."""

import re

import pytest
from playwright.sync_api import Page, expect

from api.auth.roles import Role
from api.auth.sessions import COOKIE
from catalog.jobs.policy import Policy, RetryOn
from tests.integration.web.console import NARROW, Console, findings, settled

pytestmark = [pytest.mark.tools, pytest.mark.timeout(600)]

expect.set_options(timeout=60_000)


def chip(page: Page, state: str) -> None:
    """Wait until the heading says that it is so."""
    said = page.locator(".lf-head .lf-chip > span:last-child", has_text=re.compile(f"^{state}$"))
    expect(said.first).to_be_visible(timeout=120_000)


def test_a_wrong_password_is_refused_and_says_so(console: Console) -> None:
    page = console.page()
    page.goto(f"{console.url}/console/jobs")
    page.get_by_label(re.compile("name", re.IGNORECASE)).first.fill("alice")
    page.get_by_label(re.compile("password", re.IGNORECASE)).first.fill("not this one")
    page.get_by_role("button", name=re.compile("sign in", re.IGNORECASE)).first.click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert "/console" not in page.url
    console.keep(page, "sign-in-refused")


def test_whoever_signs_in_comes_back_to_where_they_were(console: Console) -> None:
    page = console.signed_in(path="/machines?sort=-name")
    assert page.url.endswith("/console/machines?sort=-name")
    names = page.locator("tbody tr td:first-child").all_inner_texts()
    assert names == sorted(names, reverse=True)
    assert len(names) == 6


def test_a_job_is_made_run_watched_and_its_restore_points_are_on_the_time_axis(console: Console) -> None:
    page = console.signed_in(path="/jobs")
    page.get_by_role("link", name=re.compile("new job|create a job", re.IGNORECASE)).first.click()
    settled(page)
    expect(page.get_by_text("Selects 6 machines now")).to_be_visible()
    page.get_by_label("Name", exact=True).fill("web servers")
    page.get_by_label("Machines that fit any of").fill("name=web-*")
    page.get_by_label("Schedule").select_option("At times of day")
    expect(page.get_by_text("Selects 2 machines now")).to_be_visible()
    page.get_by_label("Times of day").fill("25:00")
    page.get_by_label("Description").click()
    expect(page.get_by_text("This is not a policy yet")).to_be_visible()
    page.get_by_label("Times of day").fill("23:30")
    page.get_by_label("Description").click()
    expect(page.get_by_text("23:30 CET").first).to_be_visible()
    console.keep(page, "journey-job-new")
    page.get_by_role("button", name="Create job").click()

    expect(page.get_by_role("heading", level=1, name="web servers")).to_be_visible()
    console.keep(page, "journey-job")
    page.get_by_role("button", name="Run now").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("All machines that its rules select now are backed up")
    console.keep(page, "journey-run-now")
    dialog.get_by_role("button", name="Run now").click()
    page.get_by_role("link", name="Watch the run").click()
    settled(page)
    console.keep(page, "journey-run-begun")
    chip(page, "Done")
    console.keep(page, "journey-run-done")
    page.get_by_role("link", name="web-01").first.click()
    settled(page)
    expect(page.locator(".lf-axis > a")).to_have_count(1)
    expect(page.get_by_role("region", name="Restore points")).to_contain_text("consistent")
    console.keep(page, "journey-machine")


def test_protect_now_leads_to_a_task_that_ends(console: Console) -> None:
    page = console.signed_in(path="/machines?q=mail-01")
    page.get_by_role("button", name="Protect now").click()
    page.get_by_role("dialog").get_by_role("button", name="Protect now").click()
    page.get_by_role("link", name="Watch it").click()
    settled(page)
    page.reload()
    settled(page)
    chip(page, "Done")
    console.keep(page, "journey-task")


def test_the_history_of_a_job_moves_on_by_itself_while_it_runs(console: Console) -> None:
    console.fleet.job("by itself", due=False, select={"include": ("name=db-*",)})
    page = console.signed_in(path="/jobs/by%20itself")
    page.get_by_role("button", name="Run now").click()
    page.get_by_role("dialog").get_by_role("button", name="Run now").click()
    row = page.get_by_role("region", name="Runs of this job").locator("tbody tr")
    expect(row).to_contain_text("Done", timeout=120_000)
    expect(row).to_contain_text("2 of 2")


def policy_of(console: Console, name: str) -> Policy:
    """As it is stored."""
    with console.fleet.services.jobs.transaction(write=False) as unit:
        return unit.jobs.get(name).policy


def test_what_few_jobs_need_is_unfolded_by_keyboard_and_set(console: Console) -> None:
    console.fleet.job("rich", due=False, select={"include": ("name=db-*",)}, window=("22:00:30-06:00",))
    before = policy_of(console, "rich")
    page = console.signed_in(path="/jobs/rich/edit")
    expect(page.get_by_text("Selects 2 machines now")).to_be_visible()
    expect(page.get_by_label("Priority")).to_be_hidden()
    console.keep(page, "journey-job-more-folded")
    page.locator("summary", has_text="More").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Priority")).to_be_visible()
    page.get_by_label("Days without backup").fill("2026-12-24 to 2026-12-26: holidays\n2027-05-01")
    page.get_by_label("Verify, every").fill("30")
    page.get_by_label("Attempts").fill("50")
    page.get_by_label("Priority").fill("7")
    expect(page.get_by_text("Attempts: Input should be less than or equal to 20")).to_be_visible()
    page.get_by_label("Attempts").fill("5")
    page.get_by_label("A host or the repository cannot be used").uncheck()
    commands = page.get_by_role("group", name="Commands before a run")
    commands.get_by_label("Command 1").fill("/opt/it's")
    commands.get_by_label("Seconds at most").fill("60")
    expect(page.get_by_text("a quote or a backslash in it has no end")).to_be_visible()
    commands.get_by_label("Command 1").fill("/bin/echo 'two words'")
    page.get_by_role("group", name="Commands after a run").get_by_label("Command 1").fill("/bin/true")
    page.get_by_label("Description").click()
    expect(page.get_by_text("Selects 2 machines now")).to_be_visible()
    console.keep(page, "journey-job-more")
    page.get_by_role("button", name="Save").click()

    expect(page.get_by_role("heading", level=1, name="rich", exact=True)).to_be_visible()
    expect(page.get_by_text("24 Dec 2026 to 26 Dec 2026 (holidays), 1 May 2027")).to_be_visible()
    after = policy_of(console, "rich")
    assert [hook.command for hook in (*after.before, *after.after)] == [("/bin/echo", "two words"), ("/bin/true",)]
    assert [(hook.timeout, hook.required) for hook in after.before] == [(60, True)]
    assert (after.verify.days, after.priority, after.retries.attempts) == (30, 7, 5)
    assert RetryOn.STOP_ALL not in after.retries.on
    assert len(after.retries.on) == 3
    changed = {"blackout", "verify", "priority", "retries", "before", "after"}
    assert after.model_dump(exclude=changed) == before.model_dump(exclude=changed)


def test_an_operator_reads_commands_and_changes_all_else(console: Console) -> None:
    console.user("oliver", Role.OPERATOR)
    hooks = ({"command": ("/bin/echo", "two words"), "timeout": 60},)
    console.fleet.job("hooked", due=False, select={"include": ("name=db-*",)}, before=hooks)
    before = policy_of(console, "hooked")
    page = console.signed_in("oliver", "/jobs/hooked/edit", width=NARROW)
    page.locator("summary", has_text="More").click()
    expect(page.get_by_text("Before a run: /bin/echo 'two words' (at most 1 min, and has to succeed)")).to_be_visible()
    expect(page.get_by_text("only who may configure the appliance changes them")).to_be_visible()
    assert page.get_by_label("Command 1").count() == 0
    assert not findings(page)
    page.get_by_label("Priority").fill("3")
    console.keep(page, "journey-job-more-narrow")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1, name="hooked", exact=True)).to_be_visible()
    assert policy_of(console, "hooked") == before.model_copy(update={"priority": 3})


def test_a_run_goes_on_through_a_reload_and_can_be_stopped(console: Console) -> None:
    for number in range(4):
        console.fleet.noise(f"big-{number}", 24 * 1024 * 1024)
    job = console.fleet.job("big ones", due=False, select={"include": ("name=big-*",)})
    page = console.signed_in(path=f"/jobs/{job.name}")
    page.get_by_role("button", name="Run now").click()
    page.get_by_role("dialog").get_by_role("button", name="Run now").click()
    page.get_by_role("link", name="Watch the run").click()
    expect(page.get_by_role("progressbar").first).to_be_visible()
    page.reload()
    settled(page)
    chip(page, "Running")
    expect(page.get_by_text(re.compile("MiB/s|KiB/s")).first).to_be_visible()
    console.keep(page, "journey-run-running")
    console.go(page, "/running")
    expect(page.get_by_text("Run of big ones")).to_be_visible()
    console.keep(page, "journey-running")
    page.get_by_role("button", name="Stop").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Stop the run").click()
    expect(page.get_by_text("It is being stopped").first).to_be_visible()
    page.get_by_role("link", name="Details").first.click()
    settled(page)
    chip(page, "Stopped")
    console.keep(page, "journey-run-stopped")


def test_an_auditor_sees_no_buttons_and_is_politely_refused(console: Console) -> None:
    console.user("audrey", Role.AUDITOR)
    page = console.signed_in("audrey", "/jobs")
    assert page.get_by_role("link", name="New job").count() == 0
    assert page.get_by_role("button", name=re.compile("^(Run|Disable)")).count() == 0
    answer = page.goto(f"{console.url}/console/jobs/new")
    assert answer is not None
    assert answer.status == 403
    settled(page)
    expect(page.get_by_text("Your role does not include this page")).to_be_visible()
    console.keep(page, "refused")


def test_an_ended_session_is_led_to_the_sign_in_page_and_back(console: Console) -> None:
    page = console.signed_in(path="/machines")
    other = page.context.new_page()
    console.go(other, "/")
    other.locator(".lf-menu > summary").click()
    other.get_by_role("button", name="Sign out").click()
    page.wait_for_url(re.compile(r"/login\?next=%2Fconsole%2Fmachines"), timeout=60_000)


def test_no_socket_is_opened_without_the_session_of_its_page(console: Console) -> None:
    page = console.signed_in(path="/machines")
    number = page.evaluate("window.clientId || new URLSearchParams(window.socket.io.opts.query).get('client_id')")
    address = f"{console.url.replace('https', 'wss')}/console/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    script = """async (address) => new Promise((done) => {
      const socket = new WebSocket(address);
      socket.onmessage = () => done("open");
      socket.onclose = (event) => done("refused");
    })"""
    assert page.evaluate(script, f"{address}&client_id={number}") == "open"
    cookies = page.context.cookies()
    page.context.clear_cookies(name=COOKIE)
    assert page.evaluate(script, f"{address}&client_id={number}") == "refused"
    console.user("mallory", Role.ADMINISTRATOR)
    stranger = console.signed_in("mallory")
    assert stranger.evaluate(script, f"{address}&client_id={number}") == "refused"
    assert any(cookie["name"] == COOKIE for cookie in cookies)


def test_a_page_is_used_by_keyboard_alone(console: Console) -> None:
    page = console.signed_in(path="/machines")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.className").startswith("lf-page")
    page.get_by_role("button", name=re.compile("^Name")).focus()
    page.keyboard.press("Enter")
    expect(page.locator("th[aria-sort=descending]")).to_be_visible()
    assert page.evaluate("document.activeElement.textContent").startswith("Name")
    page.locator(".lf-menu > summary").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Sign out")).to_be_hidden()


def test_what_is_no_page_or_no_thing_says_so_and_leads_back(console: Console) -> None:
    page = console.signed_in()
    for path, said in (
        ("/nothing/here", "There is no such page"),
        ("/jobs/none", "no job 'none'"),
        ("/machines/x", "x"),
    ):
        answer = page.goto(f"{console.url}/console{path}")
        assert answer is not None
        assert answer.status == 404
        settled(page)
        expect(page.get_by_text(re.compile(said, re.IGNORECASE)).last).to_be_visible()
    console.keep(page, "not-found")
