"""HTML out of names that come from outside."""

import pytest

from api.ui.markup import Markup, icon, join, tag, text

EVIL = """<script>alert("1")</script>' onmouseover='x"""


def test_text_is_escaped_in_content_and_attributes() -> None:
    made = tag("td", EVIL, title=EVIL)
    assert "<script>" not in made
    assert made.count("&lt;script&gt;") == 2
    assert "'" not in made.replace("&#x27;", "")


def test_markup_is_not_escaped_twice() -> None:
    inner = tag("b", "a & b")
    assert tag("p", inner) == "<p><b>a &amp; b</b></p>"
    assert text(Markup("<i>")) == "<i>"


def test_attributes_are_left_out_set_bare_or_with_a_value() -> None:
    assert (
        tag("input", disabled=True, checked=False, title=None, for_="x", data_key=3)
        == '<input disabled for="x" data-key="3">'
    )
    assert tag("div", cls="a b") == '<div class="a b"></div>'


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "https://elsewhere", "//elsewhere", "/\\elsewhere", "/\t/elsewhere", "data:x", ""],
)
def test_links_lead_nowhere_else(address: str) -> None:
    with pytest.raises(ValueError, match="leads elsewhere"):
        tag("a", "x", href=address)


@pytest.mark.parametrize("address", ["/console/jobs", "#content", "?sort=name"])
def test_links_within_the_console_are_links(address: str) -> None:
    assert f'href="{address}"' in tag("a", "x", href=address)


def test_nothing_is_left_out_of_a_join() -> None:
    assert join("a", None, tag("br"), between=", ") == "a, <br>"


def test_an_icon_is_for_the_eye_alone_unless_it_has_a_name() -> None:
    assert 'aria-hidden="true"' in icon("menu")
    assert 'aria-label="Menu"' in icon("menu", "Menu")
