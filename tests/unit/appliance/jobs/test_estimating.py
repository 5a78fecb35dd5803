"""How long a backup will take, and on what that is based."""

import pytest

from appliance.jobs.estimating import OVERHEAD, UNKNOWN_SIZE, Basis, Estimates, Pace, estimate
from catalog.jobs.values import TaskKind
from proxy.model import Disk, Format, PowerState, Reason, ReasonCode, VirtualMachine
from proxy.units import GiB, MiB


def machine(name: str, gib: int, host: str = "a") -> VirtualMachine:
    left_out = Reason(ReasonCode.DISK_SHARED)
    disks = (Disk("vda", gib * GiB, Format.RAW, None), Disk("vdb", 900 * GiB, Format.RAW, None, left_out))
    return VirtualMachine(name, name, host, PowerState.RUNNING, disks)


def test_what_was_measured_of_the_machine_itself_counts_first() -> None:
    found = estimate([9999.0, 100.0, 90.0, 5000.0, 110.0, 80.0, 120.0, 95.0], 10 * GiB, Pace(MiB, 4))
    assert (found.seconds, found.basis) == (100.0, Basis.MEASURED)  # the oldest of eight does not count
    assert "7 runs" in found.detail
    assert estimate([0.0], 10 * GiB).seconds > 0


def test_a_new_machine_is_as_fast_as_the_others_of_its_host_for_its_size() -> None:
    durations = {("one", TaskKind.BACKUP, False): [100.0], ("two", TaskKind.BACKUP, False): [300.0]}
    machines = [machine("one", 10), machine("two", 30), machine("new", 20), machine("far", 20, "b")]
    known = Estimates(durations, machines)
    found = known.of(machines[2], full=False)
    assert (found.seconds, found.basis) == (pytest.approx(200.0), Basis.HOST)
    assert "2 others" in found.detail
    assert known.of(machines[2], full=True).basis is Basis.ASSUMED
    assert known.of(machines[3], full=False).basis is Basis.ASSUMED
    assert known.of(machines[0], full=False).basis is Basis.MEASURED


def test_without_any_measurement_bytes_decide_and_a_full_reads_more() -> None:
    small, large = estimate([], 10 * GiB, full=True), estimate([], 20 * GiB, full=True)
    assert small.seconds == pytest.approx(OVERHEAD + 128)
    assert large.seconds == pytest.approx(OVERHEAD + 256)
    assert estimate([], 10 * GiB).seconds < small.seconds


def test_a_machine_of_unknown_size_is_not_planned_as_if_it_had_none() -> None:
    found = estimate([], 0, Pace(MiB, 1), full=True)
    assert found.seconds == estimate([], UNKNOWN_SIZE, full=True).seconds > OVERHEAD
    assert "size not known" in found.detail and "0 B" not in found.detail.replace("40.0 GiB", "")
