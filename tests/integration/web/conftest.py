"""Real processes, a real browser."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from api.auth.roles import Role
from appliance import inventory
from tests.integration.serving.fleet import Fleet, until
from tests.integration.web.console import Console
from tests.integration.web.seeded import Seeded

CHROMIUM = os.environ.get("LANFREE_CHROMIUM", "/usr/bin/chromium")

SCREENSHOTS = Path(__file__).parents[3] / "build" / "screenshots"

MACHINES = {
    "web-01": ("kvm1", "gold"),
    "web-02": ("kvm2", "gold"),
    "db-01": ("kvm1", "silver"),
    "db-02": ("kvm2", "silver"),
    "mail-01": ("kvm1", "gold"),
    "files-01": ("kvm2", "bronze"),
}
"""Name -> host, place of the disks."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. It runs as root in containers, so without its sandbox. Of a module and not of the session: while
    Playwright runs, its thread has an event loop, and what tests in the same process run with asyncio is refused."""
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def console(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """An appliance with some machines, the administrator alice, and a proxy that serves, whose reads take their time."""
    base = tmp_path_factory.mktemp("console")
    (base / "site").mkdir()
    (base / "site" / "hosts").write_text(json.dumps(sorted({host for host, _ in MACHINES.values()})))
    fleet = Fleet(base, more='[web]\naddress = "127.0.0.1:0"\n')
    made = Console(fleet, browser, SCREENSHOTS)
    try:
        for name, (host, place) in MACHINES.items():
            fleet.site.add(name, {"vda": os.urandom(256 * 1024)}, host=host, place=place)
        inventory.refresh(fleet.services)
        made.user("alice", Role.ADMINISTRATOR)
        proxy = fleet.start("--delay", "0.02")
        made.start()
        until(lambda: fleet.serves(proxy), "the proxy serves")
        yield made
    finally:
        made.stop()
        fleet.close()


@pytest.fixture(scope="module")
def seeded(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """An appliance with forty machines and a month of history, a run that goes on, and the administrator alice."""
    fleet = Seeded(tmp_path_factory.mktemp("seeded"))
    made = Console(fleet, browser, SCREENSHOTS, "tests.integration.web.seeded_process")
    try:
        fleet.seed()
        made.user("alice", Role.ADMINISTRATOR)
        made.start()
        yield made
    finally:
        made.stop()
        fleet.close()
