"""Every ``Transport`` against the contract of its port."""

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.errors import TransportRefused
from proxy.extents import is_map
from proxy.units import KiB
from tests.contract.block_adapters import TRANSPORTS, MakeTransport, Way

pytestmark = pytest.mark.slow

DATA = random.Random(3).randbytes(256 * KiB) + bytes(256 * KiB) + b"end".ljust(512, b".")


@pytest.fixture(params=TRANSPORTS)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Way]:
    make: MakeTransport = request.param
    with make(tmp_path, DATA) as made:
        yield made


def content(way: Way) -> bytes:
    with way.transport.open(way.disk) as source:
        buffer = bytearray(b"\xee" * source.size)
        source.read_into(0, memoryview(buffer))
        return bytes(buffer)


def test_it_has_one_of_the_known_modes(way: Way) -> None:
    assert way.transport.mode in {"san", "lan", "raw"}


def test_what_a_probe_promises_can_be_opened_and_read(way: Way) -> None:
    way.transport.probe(way.disk)
    assert content(way) == DATA


def test_the_source_has_the_size_of_the_disk_and_a_map(way: Way) -> None:
    with way.transport.open(way.disk) as source:
        assert source.size == len(DATA)
        assert is_map(source.extents(), len(DATA))


def test_a_disk_that_it_cannot_serve_is_refused_with_a_reason(way: Way) -> None:
    for call in (way.transport.probe, way.transport.open):
        with pytest.raises(TransportRefused) as refused:
            call(way.foreign)
        assert refused.value.reason
        assert refused.value.mode == way.transport.mode


def test_a_disk_larger_than_what_is_there_is_refused(way: Way) -> None:
    with pytest.raises(TransportRefused) as refused:
        way.transport.open(replace(way.disk, size=way.disk.size + 1024 * KiB))
    assert refused.value.reason


def test_a_disk_without_layers_is_refused(way: Way) -> None:
    with pytest.raises(TransportRefused) as refused:
        way.transport.open(replace(way.disk, layers=()))
    assert refused.value.reason


def test_the_same_disk_has_the_same_identity_each_time(way: Way) -> None:
    names = set()
    for _ in range(2):
        with way.transport.open(way.disk) as source:
            names.add(source.identity)
    assert len(names) == 1


def test_a_disk_can_be_opened_by_several_at_once(way: Way) -> None:
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(content(way))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [DATA] * 4
