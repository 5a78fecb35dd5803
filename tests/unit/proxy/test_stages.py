"""Where the time of a backup went: each stage slowed in turn, and named."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.backup import BackupPorts, BackupRequest, BackupResult, back_up
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.interlock import Interlock
from proxy.repository import MemoryStore, create
from proxy.stages import StageTimes
from proxy.transfer import PACE_STEP
from proxy.transport.memory import MemoryTransport
from proxy.units import KiB

pytestmark = pytest.mark.slow

CHUNK = 4 * KiB


def slow(call: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """So slow that all calls of a backup together take a second at least: whatever else a busy machine does takes less."""

    def slower(*arguments: Any, **named: Any) -> Any:
        time.sleep(seconds)
        return call(*arguments, **named)

    return slower


def backed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str = "", mode: str = "san") -> BackupResult:
    hypervisor, store = MemoryHypervisor(), MemoryStore()
    machine = hypervisor.add("web1", {"vda": bytes(range(256)) * 1024, "vdb": b"b" * 64 * KiB})
    transport = MemoryTransport(hypervisor.disk_bytes)
    transport.mode = mode
    waits = iter([PACE_STEP] * 8)

    def pace(_count: int) -> float:
        return next(waits, 0.0)

    with create(store, chunk_size=CHUNK, pack_size=64 * KiB, cache=tmp_path / "cache", secret=None) as repository:
        if stage == "repository":
            monkeypatch.setattr(store, "put", slow(store.put, 0.5))
        if stage == "proxy":
            monkeypatch.setattr(repository.chunker, "id", slow(repository.chunker.id, 0.03))
        if stage == "source":
            monkeypatch.setattr(transport, "open", slow_reads(transport.open))
        ports = BackupPorts(
            hypervisor,
            [transport],
            repository,
            Interlock(tmp_path / "locks"),
            segment=16 * KiB,
            pace=(lambda _machine, _disk: pace) if stage == "pace" else None,
        )
        return back_up(ports, BackupRequest("run-1", machine))


def slow_reads(opened: Callable[..., Any]) -> Callable[..., Any]:
    def slower(*arguments: Any) -> Any:
        source = opened(*arguments)
        source.read_into = slow(source.read_into, 0.1)
        return source

    return slower


@pytest.mark.parametrize("stage", ["source", "proxy", "repository", "pace"])
def test_the_stage_that_is_slow_is_the_bottleneck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    result = backed_up(tmp_path, monkeypatch, stage)

    whole = sum(result.stages.values(), StageTimes())
    assert whole.bottleneck == stage
    assert set(result.stages) == {"vda", "vdb"}
    assert whole.seconds > 0


def test_stage_times_are_plain_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = backed_up(tmp_path, monkeypatch)

    read_back = json.loads(json.dumps(result.stages["vda"].as_json()))
    assert set(read_back) == {"seconds", "source", "proxy", "repository", "paced", "bottleneck"}


@pytest.mark.parametrize(("mode", "over_host"), [("san", 0), ("lan", 320 * KiB)])
def test_bytes_cross_a_host_only_over_the_lan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, over_host: int
) -> None:
    assert backed_up(tmp_path, monkeypatch, mode=mode).over_host == over_host


def test_stages_of_several_disks_add_up() -> None:
    both = StageTimes(1.0, 2.0, 3.0, 4.0, 5.0) + StageTimes(seconds=1.0, paced=1.0)

    assert both == StageTimes(2.0, 2.0, 3.0, 4.0, 6.0)
    assert both.bottleneck == "pace"
    assert StageTimes().bottleneck == ""
