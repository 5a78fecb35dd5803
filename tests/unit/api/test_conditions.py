"""``If-Match``: which version somebody has seen."""

import pytest

from api.conditions import etag, revision_of, version_of
from api.refusals import ConditionMissing, Outdated


def test_what_was_shown_is_what_is_named() -> None:
    assert (etag(7), revision_of(etag(7), "job x")) == ('"7"', 7)
    assert version_of(f" {etag('9f3c')} ", "the configuration") == "9f3c"


def test_without_it_nothing_is_changed() -> None:
    for of in (version_of, revision_of):
        with pytest.raises(ConditionMissing, match="job x"):
            of(None, "job x")


@pytest.mark.parametrize("said", ["", "7", "*", '""', '"', '"7', 'W/"7"', '"7", "8"'])
def test_what_is_no_version_is_outdated(said: str) -> None:
    for of in (version_of, revision_of):
        with pytest.raises(Outdated):
            of(said, "job x")


@pytest.mark.parametrize("said", ['"x"', '"-1"', '"1.0"', '"1234567890123456789"', '"٣"'])
def test_what_counts_its_versions_has_numbers_only(said: str) -> None:
    with pytest.raises(Outdated):
        revision_of(said, "job x")
