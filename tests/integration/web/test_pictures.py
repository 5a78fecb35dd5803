"""The two pictures of README.md, of an appliance that has been at work for a month."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from api.schemas.guest_names import id_of
from tests.integration.web.console import Console, drawn
from tests.integration.web.seeded import Seeded

pytestmark = [pytest.mark.tools, pytest.mark.timeout(600)]

HEIGHT = 800

MOST_BYTES = 250_000
"""Of a picture: README is read over telephones, too."""


def test_the_pictures_of_the_readme_show_a_dashboard_and_the_files_of_a_machine(seeded: Console) -> None:
    page = seeded.signed_in()
    page.set_viewport_size({"width": 1280, "height": HEIGHT})
    seeded.go(page, "/")
    expect(page.get_by_text(re.compile("MiB/s")).first).to_be_visible(timeout=60_000)
    dashboard = picture(seeded, page, "readme-dashboard")
    assert isinstance(seeded.fleet, Seeded)
    folder = id_of(b"/srv/shares/Accounting")
    seeded.go(page, f"/restore-points/{seeded.fleet.listed}/files?path_id={folder}")
    expect(page.get_by_text("Payroll.ods").first).to_be_visible(timeout=60_000)
    files = picture(seeded, page, "readme-files")
    for made in (dashboard, files):
        assert 10_000 < made.stat().st_size < MOST_BYTES


def picture(console: Console, page: Page, name: str) -> Path:
    """What the window shows, with a repository where companies have theirs and not in a directory of a test."""
    drawn(page)
    assert isinstance(console.fleet, Seeded)
    page.evaluate(
        """([from, to]) => {
          const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          while (walker.nextNode()) walker.currentNode.data = walker.currentNode.data.replaceAll(from, to);
        }""",
        [str(console.fleet.base), "/srv/lanfree"],
    )
    console.screenshots.mkdir(parents=True, exist_ok=True)
    file = console.screenshots / f"{name}.png"
    page.screenshot(path=file)
    return file
