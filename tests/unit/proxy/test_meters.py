"""Several readers of counters as one."""

from datetime import UTC, datetime

import pytest

from proxy.meters import SeveralMeters, Unmetered, together
from proxy.ports import HostLoad, Load, PlaceLoad


class Fixed:
    """A site whose counters stand still."""

    def __init__(self, load: Load) -> None:
        self._load = load

    def read(self) -> Load:
        return self._load


def test_a_place_that_several_hosts_see_has_their_requests_added_up_and_latencies_weighed() -> None:
    seen = together(
        [
            ("gold", PlaceLoad(reads=90, writes=1, read_latency=0.010, write_latency=0.001)),
            ("gold", PlaceLoad(reads=10, writes=0, read_latency=0.110)),
            ("silver", PlaceLoad()),
        ]
    )

    assert seen["gold"].reads == 100
    assert seen["gold"].read_latency == pytest.approx(0.020)
    assert seen["gold"].write_latency == pytest.approx(0.001)
    assert seen["silver"].read_latency is None


def test_latencies_without_a_rate_count_as_the_worst_of_them() -> None:
    seen = together([("gold", PlaceLoad(read_latency=0.010)), ("gold", PlaceLoad(read_latency=0.030))])

    assert seen["gold"].read_latency == 0.030


def test_sites_are_shown_side_by_side_with_all_that_is_silent() -> None:
    now = datetime.now(UTC)
    load = SeveralMeters(
        [
            Fixed(Load(now, 20.0, {"h1": HostLoad(cpu=0.5)}, {"a": PlaceLoad(reads=1)}, {"h2": "silent"})),
            Fixed(Load(now, 5.0, {"esx1": HostLoad(cpu=0.1)}, {"b": PlaceLoad(reads=2)})),
            Unmetered(),
        ]
    ).read()

    assert set(load.hosts) == {"h1", "esx1"}
    assert set(load.places) == {"a", "b"}
    assert load.silent == {"h2": "silent"}
    assert load.seconds == 20.0
