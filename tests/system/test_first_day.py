"""The first day by mouse, on the lab: what 'make demo' leaves people with. Real hypervisors, a real array, a real browser."""

import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Download, Page, ViewportSize, expect, sync_playwright

from appliance.lab.array import HOSTS
from appliance.lab.guest import SYSTEM_SIZE
from appliance.lab.lab import Lab
from appliance.web import listening

pytestmark = [
    pytest.mark.tools,
    pytest.mark.timeout(900),
    pytest.mark.requires("root", "tgtd", "libvirtd", "qemu-system-x86_64", "nbdkit", "chromium"),
]

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots" / "first-day"
CHROMIUM = os.environ.get("LANFREE_CHROMIUM", "/usr/bin/chromium")
PASSWORD = "a heron waits in the rain"
WINDOW: ViewportSize = {"width": 1280, "height": 900}
MACHINE = "raw-lun"
BACK = "raw-lun-back"

LETTER = "/data/letters/to-ada.bin"
"""What somebody keeps in the guest, and loses."""

WRITTEN = random.Random(1815).randbytes(48 * 1024)
"""What is in it."""

LONG = 240_000.0
"""Milliseconds for what a machine under software emulation and its backup may take."""

expect.set_options(timeout=120_000)

WEB = """
[files]
index = true
[web]
address = "127.0.0.1:0"
hypervisor_uris = ["qemu+unix:///system?socket={run}/*"]
restore_directories = ["{restored}"]
"""


@dataclass
class FirstDay:
    """A lab, an appliance that nobody has used yet, and a browser."""

    lab: Lab
    config: Path
    page: Page
    url: str

    def keep(self, name: str) -> None:
        """A picture of the whole page, in a window that is high enough: what is fixed to it would end in its middle else."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        height = self.page.evaluate("document.documentElement.scrollHeight")
        self.page.set_viewport_size({"width": WINDOW["width"], "height": max(WINDOW["height"], height)})
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")
        self.page.set_viewport_size(WINDOW)

    def lanfree(self, *words: str) -> Any:
        """A command's JSON."""
        argv = [sys.executable, "-m", "appliance.cli", "--config", str(self.config), "--json", *words]
        done = subprocess.run(argv, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def go(self, name: str) -> None:
        """By the navigation."""
        self.page.get_by_role("navigation").get_by_role("link", name=name, exact=True).first.click()
        expect(self.page.get_by_role("heading", level=1)).to_be_visible()


def _until(true: Callable[[], Any], what: str, within: float = 120.0) -> Any:
    deadline = time.monotonic() + within
    while not (found := true()):
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirstDay]:
    base = tmp_path_factory.mktemp("first-day")
    with ExitStack() as ending:
        lab = Lab.up(base / "lab", machines=(MACHINE,))
        ending.callback(lab.down)
        config = _prepared(lab, base)
        log = ending.enter_context((base / "serve.log").open("ab"))
        argv = [sys.executable, "-m", "appliance.cli", "--config", str(config)]
        subprocess.run([*argv, "init"], check=True, timeout=120, capture_output=True)
        ending.callback(_end, subprocess.Popen([*argv, "serve"], stdout=log, stderr=log))
        running = _until(lambda: listening.found(lab.directory / "state" / "web"), "the console runs")
        playwright = ending.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(ignore_https_errors=True, viewport=WINDOW, accept_downloads=True)
        context.set_default_timeout(120_000)
        yield FirstDay(lab, config, context.new_page(), f"https://localhost:{running.port}")
        browser.close()


def _prepared(lab: Lab, base: Path) -> Path:
    """A letter in the guest, and the configuration of an appliance that knows the array and no host; returns its file."""
    lab.guest_run(MACHINE, ["/bin/mkdir", "-p", str(Path(LETTER).parent)])
    lab.guest_write(MACHINE, LETTER, WRITTEN)
    config = base / "lanfree.toml"
    without_hosts = re.sub(r"\[\[host\]\]\n(?:[^\[\n].*\n)*", "", lab.configuration())
    restored = base / "restored"
    restored.mkdir()
    config.write_text(without_hosts + WEB.format(run=lab.run, restored=restored))
    assert "[[host]]" not in config.read_text()
    assert "[[san.target]]" in config.read_text()
    return config


def _end(serve: "subprocess.Popen[bytes]") -> None:
    serve.terminate()
    try:
        serve.wait(120)
    finally:
        serve.kill()
        serve.wait()


def test_1_the_first_administrator_is_made_with_the_code(day: FirstDay) -> None:
    code = day.lanfree("web", "code")["code"]
    day.page.goto(day.url)
    day.keep("01-setup")
    day.page.get_by_label(re.compile("code", re.IGNORECASE)).fill(code)
    day.page.get_by_label(re.compile("name", re.IGNORECASE)).first.fill("ada")
    for field in day.page.locator("input[type=password]").all():
        field.fill(PASSWORD)
    day.page.get_by_role("button").first.click()
    expect(day.page.get_by_role("heading", level=1)).to_be_visible()
    assert "/console" in day.page.url
    day.keep("02-first-dashboard")


def test_2_hypervisors_are_added_after_they_were_tried(day: FirstDay) -> None:
    day.go("Hypervisors")
    expect(day.page.get_by_text("No hypervisor yet")).to_be_visible()
    day.page.get_by_role("button", name="Add KVM host").first.click()
    _fill_host(day, "metadata", "qemu+tcp://169.254.169.254/system")
    expect(day.page.get_by_text("metadata was not added")).to_be_visible()
    dialog = day.page.get_by_role("dialog")  # it stays, with what was typed
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)
    for host in day.lab.hosts:
        day.page.get_by_role("button", name="Add KVM host").first.click()
        _fill_host(day, host.name, host.uri)
        expect(day.page.get_by_text(f"{host.name} answers and was added")).to_be_visible()
    day.keep("03-hypervisors")
    assert [host["name"] for host in day.lanfree("host", "list")] == ["h1", "h2"]


def _fill_host(day: FirstDay, name: str, uri: str) -> None:
    dialog = day.page.get_by_role("dialog")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_label("Address").fill(uri)
    dialog.get_by_label("Directory for guest writes").fill(str(day.lab.shared / "overlays"))
    dialog.get_by_role("button", name="Try and add").click()


def test_3_its_machines_are_there_and_none_is_protected(day: FirstDay) -> None:
    day.go("Machines")

    def there() -> bool:
        day.page.reload()
        expect(day.page.get_by_role("heading", level=1)).to_be_visible()
        return day.page.get_by_role("link", name=MACHINE, exact=True).count() > 0

    _until(there, "the console shows the machine")
    day.keep("04-machines")


def test_4_a_job_is_made_run_and_watched(day: FirstDay) -> None:
    day.go("Jobs")
    day.page.get_by_role("link", name=re.compile("new job|create a job", re.IGNORECASE)).first.click()
    day.page.get_by_label("Name", exact=True).fill("nightly")
    day.page.get_by_label("Machines that fit any of").fill(f"name={MACHINE}")
    day.page.get_by_label("Schedule").select_option("At times of day")
    day.page.get_by_label("Times of day").fill("23:30")
    day.page.get_by_label("Description").click()
    expect(day.page.get_by_text("Selects 1 machine now")).to_be_visible()
    day.keep("05-new-job")
    day.page.get_by_role("button", name="Create job").click()
    expect(day.page.get_by_role("heading", level=1, name="nightly")).to_be_visible()
    day.page.get_by_role("button", name="Run now").click()
    day.page.get_by_role("dialog").get_by_role("button", name="Run now").click()
    day.page.get_by_role("link", name="Watch the run").click()
    expect(day.page.locator(".lf-head .lf-chip").first).to_be_visible()
    day.keep("06-running")
    expect(day.page.locator(".lf-head .lf-chip", has_text="Done")).to_be_visible(timeout=LONG)
    day.keep("07-done")
    (point,) = day.lanfree("points", MACHINE)
    assert {image["transport"] for image in point["images"]} == {"san"}
    assert point["consistency"] == "application"


def test_5_its_files_are_browsed_and_searched_and_come_as_the_guest_holds_them(day: FirstDay) -> None:
    _recorded(day)
    files = day.page.get_by_role("region", name="Files", exact=True)
    for folder in Path(LETTER).parent.parts[1:]:
        files.get_by_role("link", name=re.compile(rf"\b{folder}$")).click()
    letter = files.get_by_role("row", name=Path(LETTER).name)
    expect(letter).to_be_visible()
    day.keep("08-files")
    assert _taken(day, letter.get_by_role("button", name="Download").click) == WRITTEN
    day.page.get_by_role("searchbox", name="Find in this restore point").fill("*-ada.bin")
    day.page.get_by_role("button", name="Find", exact=True).click()
    expect(day.page.get_by_text("1 entry with")).to_be_visible()
    day.keep("09-found")
    assert _taken(day, letter.get_by_role("button", name="Download").click) == day.lab.guest_read(MACHINE, LETTER)


def _recorded(day: FirstDay) -> None:
    """The files of the machine's restore point, once they were recorded: that is done after the backup."""
    day.go("Restore files")
    row = day.page.get_by_role("row", name=re.compile(rf"^{MACHINE}\b"))
    row.get_by_role("link", name="Browse files").click()

    def searchable() -> bool:
        day.page.reload()
        expect(day.page.get_by_role("region", name="Files", exact=True)).to_be_visible(timeout=LONG)
        return day.page.get_by_role("searchbox", name="Find in this restore point").count() > 0

    _until(searchable, "the files of the restore point are recorded")


def _taken(day: FirstDay, click: Callable[[], None]) -> bytes:
    with day.page.expect_download() as got:
        click()
    download: Download = got.value
    assert download.suggested_filename == Path(LETTER).name
    return download.path().read_bytes()


def test_6_a_file_that_was_lost_is_found_by_what_is_remembered_of_it(day: FirstDay) -> None:
    day.lab.guest_run(MACHINE, ["/bin/rm", LETTER])
    day.go("I lost a file")
    day.page.get_by_label("1. On which machine was it?").fill(MACHINE)
    day.page.get_by_label("2. What was it called?").fill("to-ada")
    day.page.get_by_role("button", name="Look for it").click()
    expect(day.page.get_by_role("heading", name=re.compile("Likeliest.*to-ada"))).to_be_visible()
    day.keep("10-lost-file")
    assert _taken(day, day.page.get_by_role("button", name="Download this version").first.click) == WRITTEN


def test_7_the_whole_machine_is_put_beside_the_original_on_a_new_lun(day: FirstDay) -> None:
    lun = day.lab.array.add_lun(SYSTEM_SIZE)
    day.go("Restore a machine")
    day.page.get_by_role("row", name=re.compile(rf"^{MACHINE}\b")).get_by_role("link", name="Restore").click()
    day.page.get_by_label("Its new name").fill(BACK)
    place = day.page.get_by_label("Place of vda")
    (offered,) = [
        option.get_attribute("value")
        for option in place.locator("option").all()
        if re.match(rf"LUN {lun.number} of {HOSTS.iqn}\b", option.inner_text())
    ]
    place.select_option(offered)
    day.keep("11-restore-wizard")
    day.page.get_by_role("button", name="Show what will happen").click()
    expect(day.page.get_by_text("A new machine is defined")).to_be_visible(timeout=LONG)
    expect(day.page.get_by_text("Nothing is there")).to_be_visible()
    day.keep("12-what-will-happen")
    assert lun.allocated == 0, "looking writes nothing"
    day.page.get_by_role("button", name=f"Restore {MACHINE}").click()
    day.page.wait_for_url(re.compile("/tasks/"))
    day.keep("13-restoring")
    expect(day.page.locator(".lf-head .lf-chip", has_text=re.compile("Done$"))).to_be_visible(timeout=LONG)
    expect(day.page.get_by_role("link", name=BACK)).to_be_visible()
    day.keep("14-restored")
    assert {host.state_of(BACK) for host in day.lab.hosts} == {"shut off", None}


def test_8_the_restored_machine_is_shown_and_holds_what_was_lost(day: FirstDay) -> None:
    day.go("Machines")
    row = day.page.get_by_role("row", name=re.compile(rf"^{BACK}\b"))
    expect(row).to_contain_text(re.compile("off", re.IGNORECASE))
    day.keep("15-both-machines")
    day.lab.start(BACK)
    assert day.lab.guest_read(BACK, LETTER) == WRITTEN
    day.lab.stop(BACK)
