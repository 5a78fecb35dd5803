"""The ``[latency]`` section."""

from pathlib import Path

import pytest

from appliance.config import parse
from appliance.config_serving import Latency
from proxy.errors import ConfigurationError


def latency(text: str) -> Latency:
    return parse(text, Path("lanfree.toml")).latency


def test_nothing_is_governed_unless_somebody_said_what_is_slow() -> None:
    settings = latency("")

    assert not settings.governs
    assert settings.of("gold") is None


def test_thresholds_hold_for_every_place_but_those_that_have_their_own() -> None:
    settings = latency('[latency]\nhold_ms = 20\nslow_ms = 30\n[latency.place."vc1/flash"]\nhold_ms = 3\nslow_ms = 5\n')

    assert settings.governs
    assert settings.of("vc1/gold") == (20, 30)
    assert settings.of("vc1/flash") == (3, 5)


def test_a_place_may_be_the_only_one_with_thresholds() -> None:
    settings = latency('[latency.place."iqn.a/1"]\nhold_ms = 3\nslow_ms = 5\n')

    assert settings.governs
    assert settings.of("iqn.a/2") is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("hold_ms = 20", id="one of two"),
        pytest.param("hold_ms = 30\nslow_ms = 20", id="wrong way round"),
        pytest.param("hold_ms = 0\nslow_ms = 20", id="zero"),
        pytest.param('[latency.place."a"]\nhold_ms = 9\nslow_ms = 5', id="a place the wrong way round"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="latency"):
        latency(f"[latency]\n{text}\n")
