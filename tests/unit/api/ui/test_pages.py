"""The list of pages."""

import re

from api.ui.pages import PAGES
from api.ui.pages.addresses import job_page, run_page


def test_no_page_hides_another_one() -> None:
    seen: list[re.Pattern[str]] = []
    for page in PAGES:
        sample = re.sub(r"\{[^}]*\}", "x-1", page.path)
        hiding = [pattern.pattern for pattern in seen if pattern.fullmatch(sample)]
        assert not hiding, f"{page.path} is never reached: {hiding}"
        seen.append(re.compile(re.sub(r"\{[^}]*\}", "[^/]+", page.path)))


def test_each_page_in_the_navigation_has_an_icon_and_no_parameter() -> None:
    shown = [page for page in PAGES if page.group]
    assert len(shown) >= 5
    assert all(page.sign and "{" not in page.path for page in shown)


def test_pages_that_others_lead_to_show_a_navigation_entry_as_current() -> None:
    entries = {page.path for page in PAGES if page.group}
    assert all(page.under in entries for page in PAGES if page.under)


def test_names_are_escaped_in_addresses() -> None:
    assert job_page("a/b?c") == "/console/jobs/a%2Fb%3Fc"
    assert run_page("../x") == "/console/runs/..%2Fx"
