"""Counters of the hypervisor in memory, as a test uses them."""

import pytest

from proxy.hypervisor.memory import MemoryHypervisor
from proxy.ports import PlaceLoad


def test_a_place_can_be_slow_for_as_long_as_a_test_wants() -> None:
    site = MemoryHypervisor()
    meters = site.meters()
    site.counters.steady["gold"] = PlaceLoad(reads=100, read_latency=0.050)

    assert meters.read().places["gold"].read_latency == 0.050
    assert meters.read().places["gold"].read_latency == 0.050
    site.counters.steady.clear()
    assert "gold" not in meters.read().places


def test_what_was_done_before_a_reader_was_made_is_not_its_business() -> None:
    site = MemoryHypervisor()
    site.counters.requests("gold", reads=(100, 10.0))
    meters = site.meters()

    assert meters.read().places["gold"].read_latency is None
    site.counters.requests("gold", reads=(10, 0.1))
    assert meters.read().places["gold"].read_latency == pytest.approx(0.010)
