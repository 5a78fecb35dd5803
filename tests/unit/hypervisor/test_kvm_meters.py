"""What is made of libvirt's counters: differences, and nothing where they do not compare."""

from collections.abc import Mapping

import pytest

from proxy.hypervisor.kvm.meters import _Disk, _disks, _host, _Sample
from proxy.ports import PlaceLoad

GOLD = {"m1": {"vda": _Disk("gold", True), "vdb": _Disk("gold", False)}}


def stats(number: int, name: str, *counters: int) -> dict[str, object]:
    """``counters``: reads, their milliseconds, writes, their milliseconds."""
    reads, read_ms, writes, write_ms = counters
    block = f"block.{number}."
    return {
        f"{block}name": name,
        f"{block}rd.reqs": reads,
        f"{block}rd.times": read_ms * 10**6,
        f"{block}wr.reqs": writes,
        f"{block}wr.times": write_ms * 10**6,
    }


def sample(at: float, *disks: Mapping[str, object], cpu: Mapping[str, int] | None = None, **more: object) -> _Sample:
    machine = {"block.count": len(disks), **{k: v for disk in disks for k, v in disk.items()}, **more}
    return _Sample(at, cpu or {}, {"m1": machine}, GOLD)


def test_latency_is_time_over_requests_of_the_interval() -> None:
    before = sample(0.0, stats(0, "vda", 1000, 9000, 10, 10))
    after = sample(10.0, stats(0, "vda", 1200, 10000, 10, 10))

    assert _disks(before, after, 10.0) == [("gold", PlaceLoad(reads=20.0, writes=0.0, read_latency=0.005))]


def test_writes_that_an_overlay_takes_are_left_out() -> None:
    before = sample(0.0, stats(0, "vda", 0, 0, 0, 0), stats(1, "vdb", 0, 0, 0, 0))
    after = sample(10.0, stats(0, "vda", 0, 0, 10, 100), stats(1, "vdb", 10, 10, 10, 100))

    first, second = _disks(before, after, 10.0)
    assert first == ("gold", PlaceLoad(writes=1.0, write_latency=0.01))
    assert second == ("gold", PlaceLoad(reads=1.0, read_latency=0.001))


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(sample(10.0, stats(0, "vda", 5, 5, 2000, 9000)), id="started anew"),
        pytest.param(sample(10.0, stats(0, "vdb", 1200, 10000, 20, 20)), id="another disk has the number"),
        pytest.param(sample(10.0, stats(0, "hda", 1200, 10000, 20, 20)), id="a disk without a place"),
        pytest.param(_Sample(10.0, {}, {"m2": stats(0, "vda", 1, 1, 1, 1)}, {"m2": {}}), id="another machine"),
    ],
)
def test_what_does_not_compare_is_left_out(after: _Sample) -> None:
    before = sample(0.0, stats(0, "vda", 1000, 9000, 10, 10))

    assert _disks(before, after, 10.0) == []


def test_a_host_is_busy_with_all_that_is_neither_idle_nor_waiting() -> None:
    before = sample(0.0, cpu={"kernel": 100, "user": 100, "idle": 100, "iowait": 100})
    after = sample(10.0, cpu={"kernel": 110, "user": 130, "idle": 140, "iowait": 120})

    assert _host(before, after, 10.0).cpu == 0.4


def test_networks_are_those_of_the_guests_and_a_restarted_one_counts_nothing() -> None:
    first = {"net.count": 2, "net.0.rx.bytes": 1000, "net.0.tx.bytes": 0, "net.1.rx.bytes": 9000}
    second = {"net.count": 2, "net.0.rx.bytes": 3000, "net.0.tx.bytes": 500, "net.1.rx.bytes": 10}

    seen = _host(sample(0.0, **first), sample(10.0, **second), 10.0)

    assert (seen.received, seen.sent, seen.network, seen.cpu) == (200.0, 50.0, "guests", None)
