"""What somebody does in a part that is drawn anew meanwhile: the script alone, without an appliance behind."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from api.ui.guard import ASSETS
from api.ui.markup import Markup, join, tag

pytestmark = [pytest.mark.tools, pytest.mark.timeout(300)]


def drawn(figure: int) -> Markup:
    """A part that changes: a link that is also elsewhere, folds, something that is scrolled."""
    lines = [tag("li", f"line {n} of {figure}") for n in range(200)]
    return join(
        tag("p", str(figure), id="figure"),
        tag("a", "Details", href="/console/runs/1"),
        tag("details", tag("summary", "Why"), "a", data_keep="why-1"),
        tag("details", tag("summary", "Why not"), "b", data_keep="why-2", open=True),
        tag("ol", *lines, data_keep="log", style="height:60px;overflow:auto", tabindex=0),
    )


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """The part, below a bar that has the same link."""
    made = browser.new_page()
    bar = tag("div", tag("a", "In the bar", href="/console/runs/1"), cls="lf")
    part = tag("div", drawn(0), cls="lf", id="part")
    whole = f'<!doctype html><script src="/console.js"></script><body>{bar}{part}</body>'
    made.route("**/*", lambda route: route.fulfill(content_type="text/html", body=whole))
    made.route("**/console.js", lambda route: route.fulfill(path=ASSETS / "console.js"))
    made.goto("http://console.test/")
    yield made
    made.close()


def draw(page: Page, figure: int) -> None:
    page.evaluate("([one, all]) => (document.querySelector(one).innerHTML = all)", ["#part", drawn(figure)])
    expect(page.locator("#figure")).to_have_text(str(figure))


def test_a_link_keeps_the_focus_and_not_the_same_one_elsewhere(page: Page) -> None:
    page.get_by_role("link", name="Details").focus()
    draw(page, 1)
    expect(page.get_by_role("link", name="Details")).to_be_focused()


def test_what_was_opened_and_shut_stays_so_and_the_focus_on_it(page: Page) -> None:
    opened, shut = page.locator("[data-keep=why-1]"), page.locator("[data-keep=why-2]")
    page.get_by_text("Why not", exact=True).click()
    page.get_by_text("Why", exact=True).focus()
    page.keyboard.press("Enter")
    for figure in (1, 2):
        expect(opened).to_have_attribute("open", "")
        expect(shut).not_to_have_attribute("open", "")
        draw(page, figure)
    expect(opened).to_have_attribute("open", "")
    expect(shut).not_to_have_attribute("open", "")
    expect(page.get_by_text("Why", exact=True)).to_be_focused()


def test_what_was_scrolled_stays_where_it_is(page: Page) -> None:
    page.evaluate(
        """() => new Promise((done) => {
          const log = document.querySelector("[data-keep=log]");
          log.addEventListener("scroll", done, { once: true });
          log.scrollTop = 700;
        })"""
    )
    draw(page, 1)
    assert page.evaluate("document.querySelector('[data-keep=log]').scrollTop") == 700
