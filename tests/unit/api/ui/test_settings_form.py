"""Settings as a form, and back."""

import re
from html import unescape

from api.schemas.settings import Changeable
from api.ui.pages.settings_form import SECTIONS, filled_in, form
from api.ui.parts.part import Act

VALUES = Changeable.model_validate(
    {
        "retention": {"keep": {"daily": 7, "weekly": 4}, "zone": "Europe/Berlin", "forgotten_jobs": "follow"},
        "limits": {"per_host": 3, "keys": {"host:kvm1": 1}},
        "latency": {"hold_ms": 20.5, "slow_ms": 10.0, "place": {"a": {"hold_ms": 5, "slow_ms": 2}}},
        "coverage": {"accept": [{"machine": "x", "gap": ["no-job"], "why": "it is a template"}]},
        "backup": {"transports": ["san", "lan"], "quiesce": "never"},
        "files": {"index": False},
    }
)


def as_sent(drawn: str) -> dict[str, tuple[str, ...]]:
    """What a browser sends of it as it stands."""
    sent: dict[str, tuple[str, ...]] = {}
    for words in re.findall(r"<input ([^>]*)>", drawn):
        said = dict(re.findall(r'([\w-]+)="([^"]*)"', words))
        if said["type"] != "checkbox" or re.search(r"\bchecked\b", words):
            sent[said["name"]] = (unescape(said["value"]),)
    for name, options in re.findall(r'<select [^>]*name="([^"]*)"[^>]*>(.*?)</select>', drawn):
        chosen = re.search(r'value="([^"]*)" selected', options)
        assert chosen is not None
        sent[name] = (unescape(chosen.group(1)),)
    return sent


def test_a_form_that_is_sent_as_it_stands_changes_nothing() -> None:
    act = Act("save", form=as_sent(form(VALUES, editable=True)))
    assert Changeable.model_validate(filled_in(VALUES, act)) == VALUES


def test_what_is_changed_in_the_form_is_changed_and_the_rest_stays() -> None:
    sent = as_sent(form(VALUES, editable=True)) | {
        "limits.per_host": ("9",),
        "latency.hold_ms": ("",),
        "files.index": ("on",),
    }
    values = filled_in(VALUES, Act("save", form=sent))

    assert values["limits"]["per_host"] == 9
    assert values["limits"]["keys"] == {"host:kvm1": 1}
    assert values["latency"]["hold_ms"] is None
    assert values["files"]["index"] is True


def test_what_is_no_number_is_left_to_the_api_to_refuse() -> None:
    sent = as_sent(form(VALUES, editable=True)) | {"limits.per_host": ("many",)}
    assert filled_in(VALUES, Act("save", form=sent))["limits"]["per_host"] == "many"


def test_who_may_not_change_them_has_nothing_to_fill_in() -> None:
    drawn = form(VALUES, editable=False)
    settings = sum(len(section) for _, _, section in SECTIONS)
    assert drawn.count("disabled") == settings
    assert "submit" not in drawn
