"""What a listing says of sizes while emulators keep the question; libvirt's test driver, whose answers are held back."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import libvirt
import pytest

from proxy.hypervisor.kvm import disk_sizes
from proxy.hypervisor.kvm.connection import STUCK_AFTER, Domain, Host
from proxy.hypervisor.kvm.disk_sizes import MOST_OWED, DiskSizes
from proxy.hypervisor.kvm.settings import KvmHost

pytestmark = pytest.mark.slow

SIZE = 4096
KEYS = ["vda"]


class Arrays:
    """Emulators as libvirt shows them: ``hang`` keeps every question that is asked from then on."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.stuck = False
        self._answers = threading.Event()
        self._answers.set()

    def hang(self) -> None:
        self._answers.clear()

    def thaw(self) -> None:
        self._answers.set()

    def info(self, domain: libvirt.virDomain, _key: str) -> tuple[int, int, int]:
        self.asked.append(domain.UUIDString())
        assert self._answers.wait(30)
        return SIZE, 0, 0

    def control(self, _domain: libvirt.virDomain, _flags: int) -> tuple[int, int, int]:
        busy = (libvirt.VIR_DOMAIN_CONTROL_OCCUPIED, 0, STUCK_AFTER)
        return busy if self.stuck else (libvirt.VIR_DOMAIN_CONTROL_OK, 0, 0)


def _method(work: Callable[..., tuple[int, int, int]]) -> Callable[..., tuple[int, int, int]]:
    """A function takes its object as its first argument when it is called as a method; a bound method does not."""

    def called(domain: libvirt.virDomain, asked: str | int) -> tuple[int, int, int]:
        return work(domain, asked)

    return called


@pytest.fixture
def arrays(monkeypatch: pytest.MonkeyPatch) -> Iterator[Arrays]:
    found = Arrays()
    monkeypatch.setattr(libvirt.virDomain, "blockInfo", _method(found.info))
    monkeypatch.setattr(libvirt.virDomain, "controlInfo", _method(found.control))
    monkeypatch.setattr(disk_sizes, "PATIENCE", 0.1)
    monkeypatch.setattr(disk_sizes, "PATIENCE_LATER", 0.02)
    yield found
    found.thaw()
    for thread in threading.enumerate():
        if thread.name.startswith("sizes-"):
            thread.join(10)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Domain]]:
    """More machines on one host than it may owe answers for. Each connection to the test driver finds all of them."""
    monkeypatch.setattr(libvirt.virConnect, "setKeepAlive", lambda *_: 0)
    machines = [str(UUID(int=number)) for number in range(1, MOST_OWED + 3)]
    rest = "<memory>1024</memory><os><type>hvm</type></os>"
    domains = [f"<domain type='test'><name>m{m[-1]}</name><uuid>{m}</uuid>{rest}</domain>" for m in machines]
    node = tmp_path / "node.xml"
    node.write_text(f"<node>{''.join(domains)}</node>")
    host = Host(KvmHost("h1", f"test://{node}", "/o"))
    yield [Domain(host, machine) for machine in machines]
    host.close()


def test_sizes_are_told(arrays: Arrays, places: list[Domain]) -> None:
    assert DiskSizes().of(places[0], ["vda", "vdb"]) == {"vda": SIZE, "vdb": SIZE}
    assert len(arrays.asked) == 2


def test_what_is_not_told_in_time_is_as_it_was_told_last(arrays: Arrays, places: list[Domain]) -> None:
    sizes = DiskSizes()
    sizes.of(places[0], KEYS)
    arrays.hang()
    assert sizes.of(places[0], KEYS) == {"vda": SIZE}
    assert sizes.of(places[1], KEYS) == {}


def test_while_a_question_is_kept_the_host_still_answers_others(arrays: Arrays, places: list[Domain]) -> None:
    arrays.hang()
    DiskSizes().of(places[0], KEYS)
    assert places[0].state() == places[1].state()


def test_an_emulator_that_hangs_is_not_asked_again(arrays: Arrays, places: list[Domain]) -> None:
    arrays.stuck = True
    assert DiskSizes().of(places[0], KEYS) == {}
    assert arrays.asked == []


def test_a_host_that_owes_many_answers_is_asked_no_more_until_it_gives_them(
    arrays: Arrays, places: list[Domain]
) -> None:
    sizes = DiskSizes()
    arrays.hang()
    assert [dict(sizes.of(place, KEYS)) for place in places] == [{}] * len(places)
    assert len(arrays.asked) == MOST_OWED
    arrays.thaw()
    for thread in threading.enumerate():
        if thread.name.startswith("sizes-"):
            thread.join(10)
    later = [dict(sizes.of(place, KEYS)) for place in places]
    assert later == [{"vda": SIZE}] * len(places)
    assert len(arrays.asked) == MOST_OWED + len(places)
