"""A pace on a real array: no copy is ahead of it, together or alone, and a change is felt while they run."""

import threading
import time
from pathlib import Path

import pytest

from appliance.serving.pacing import SAVED, Paces
from proxy.extents import Extent
from proxy.model import Format, FrozenDisk, Layer, LunAddress
from proxy.places import place_of
from proxy.ports import Progress
from proxy.transfer import SEGMENT, WORKERS, copy
from proxy.transport.san import SanFabric, SanTransport
from proxy.units import MiB
from tests.integration.transport.tgt_array import BACKUP, HOSTS, Array

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root")]

LUN = LunAddress(HOSTS, 1)
RATE = 8 * MiB
SIZE = 32 * MiB


class Nowhere:
    """A sink that costs nothing."""

    def write(self, offset: int, data: memoryview) -> None: ...

    def zero(self, offset: int, length: int) -> None: ...


def test_copies_from_one_lun_keep_its_pace_together_until_it_is_lifted(served: Array, tmp_path: Path) -> None:
    transport = SanTransport(SanFabric([served.san_target(BACKUP, tmp_path / "secret")]))
    paces = Paces()
    place = place_of(LUN)
    paces.set({place: RATE})
    done = {"one": 0, "other": 0}
    ahead: list[float] = []
    lifted = threading.Event()
    begin = time.monotonic()

    def progress(told: Progress) -> None:
        done[told.disk] = told.done
        if not lifted.is_set():
            # What may be read by now, what may be saved up, and a segment each that is paid for afterwards.
            ahead.append(sum(done.values()) - RATE * (time.monotonic() - begin + SAVED) - 2 * WORKERS * SEGMENT)

    def read(name: str) -> None:
        with transport.open(FrozenDisk("vda", SIZE, (Layer(LUN, Format.RAW),))) as source:
            copy(source, Nowhere(), [Extent(0, SIZE)], disk=name, pace=paces.of([place]), progress=progress)

    threads = [threading.Thread(target=read, args=(name,)) for name in done]
    for thread in threads:
        thread.start()
    while sum(done.values()) < 16 * MiB:
        assert time.monotonic() - begin < 60
        time.sleep(0.05)
    lifted.set()
    slow = sum(done.values())
    paces.set({})
    since = time.monotonic()
    for thread in threads:
        thread.join(60)
    rest = time.monotonic() - since

    assert max(ahead) <= 0
    assert slow <= 32 * MiB
    assert sum(done.values()) == 2 * SIZE
    assert rest < (2 * SIZE - slow) / RATE / 2, "twice as fast at least"
    assert paces.taken() == {place: 2 * SIZE}
