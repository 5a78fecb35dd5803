"""What people do every day is no error in the log of the console."""

import time

import pytest
from playwright.sync_api import expect

from api.ui.mounting import RECONNECT_SECONDS
from tests.integration.web.console import NARROW, Console, settled

GONE_SECONDS = RECONNECT_SECONDS + 10
"""After which the console has let go of a page whose browser is gone. Nothing else tells, so nothing can be polled."""

pytestmark = [pytest.mark.tools, pytest.mark.timeout(600)]


def test_leaving_pages_in_the_middle_of_something_is_no_error(console: Console) -> None:
    page = console.signed_in(path="/hypervisors", width=NARROW)
    page.get_by_role("button", name="Navigation").click()
    expect(page.get_by_role("link", name="Machines", exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    for path, opens in (("/hypervisors", "Add KVM host"), ("/users", "Add user"), ("/account", "Make a token")):
        page.goto(f"{console.url}/console{path}")
        settled(page)
        page.get_by_role("button", name=opens).first.click()
        expect(page.get_by_role("dialog")).to_be_visible()
        page.goto(f"{console.url}/console/machines")  # with the dialog open
    page.goto(f"{console.url}/console/jobs", wait_until="commit")  # and before a page is drawn
    page.goto(f"{console.url}/console/hypervisors")
    settled(page)
    page.get_by_role("button", name="Add KVM host").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    page.close()
    time.sleep(GONE_SECONDS)
    assert console.said() == ""
