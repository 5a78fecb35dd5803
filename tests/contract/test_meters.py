"""What every reader of hosts' counters keeps. See ``Meters`` in ``proxy/ports.py``.

A *rig* has a host whose guest asks a place for something, while ``guest_works`` goes on.
"""

import time

import pytest

from appliance.lab.lab import Lab
from proxy.hypervisor.kvm import KvmHost, KvmSite
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.hypervisor.several import Sites
from proxy.hypervisor.vsphere import VsphereSettings, VsphereSite
from proxy.places import places_of
from proxy.ports import Load
from proxy.state_directory import StateDirectory
from proxy.units import MiB
from tests.system.vcsim.lab import LabDisk, LabMachine, VcsimLab


class MemoryMetersRig:
    """The fake; ``several``: behind the adapter that makes one of several sites."""

    def __init__(self, *, several: bool = False):
        self.memory = MemoryHypervisor()
        self.hypervisor = Sites([self.memory], lambda *_: None) if several else self.memory
        self.machine = self.memory.add("runs", {"vda": bytes(4096)})
        self.host = "h1"
        self.memory.counters.work("h1")

    def guest_works(self):
        (place,) = places_of(self.hypervisor.machine(self.machine))
        self.memory.counters.requests(place, reads=(10, 0.2), writes=(5, 0.05))
        self.memory.counters.work("h1", busy=0.001, received=1000, sent=500)

    def silence(self):
        self.memory.silent = {"h1", "h2"}


class KvmMetersRig:
    """libvirt hosts of the lab; the guest of raw-lun writes all the time."""

    def __init__(self, lab: Lab, state):
        self.state = state
        hosts = [KvmHost(h.name, h.uri, str(lab.shared / "overlays")) for h in lab.hosts]
        self.hypervisor = KvmSite(hosts, state=StateDirectory(state))
        self.lab = lab
        self.machine = next(m.id for m in self.hypervisor.machines() if m.name == "raw-lun")
        self.host = "h1"

    def _requests(self) -> int:
        words = self.lab.host("h1").virsh("domblkstat", "raw-lun", "vda").text.split()
        return int(words[words.index("wr_req") + 1]) + int(words[words.index("rd_req") + 1])

    def guest_works(self):
        before, deadline = self._requests(), time.monotonic() + 60
        while self._requests() < before + 3:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def silence(self):
        self.hypervisor.close()
        nowhere = KvmHost("h1", f"qemu+unix:///system?socket={self.state}/none", "/nowhere")
        self.hypervisor = KvmSite([nowhere], state=StateDirectory(self.state))


class VsphereMetersRig:
    """The simulated vCenter: its counters say what a test sets."""

    def __init__(self, lab: VcsimLab, state):
        self.lab = lab
        self.state = state
        self.hypervisor = self._site(lab.port)
        self.machine = lab.instance_uuid("runs")
        self.host = "DC0_C0_H0"
        self.volume = lab.uuids["san1"]

    def _site(self, port: int) -> VsphereSite:
        lab = self.lab
        settings = VsphereSettings("vcsim", lab.host, lab.user, lab.password_file, port=port, thumbprint=lab.thumbprint)
        return VsphereSite(settings, state=StateDirectory(self.state), pause=0.05)

    def show(self, counter: str, value: int, instance: str = "", host: str = "DC0_C0_H0"):
        self.lab.ask("POST", "/readings", host=host, counter=counter, instance=instance, value=value)

    def guest_works(self):
        for counter, value in (("numberReadAveraged", 40), ("totalReadLatency", 12), ("totalWriteLatency", 3)):
            self.show(f"datastore.{counter}.average", value, self.volume)
        self.show("datastore.numberWriteAveraged.average", 10, self.volume)
        self.show("cpu.usage.average", 2500)
        self.show("net.received.average", 2048)

    def silence(self):
        self.hypervisor.close()
        self.hypervisor = self._site(1)


@pytest.fixture(scope="module")
def metered_vcenter(tmp_path_factory):
    machines = (LabMachine("runs", (LabDisk(size=8 * MiB),)),)
    with VcsimLab(tmp_path_factory.mktemp("meters") / "vcsim", machines) as lab:
        yield lab


@pytest.fixture(scope="module")
def metered_lab(tmp_path_factory):
    with Lab.up(tmp_path_factory.mktemp("meters") / "lab", machines=("raw-lun",)) as lab:
        yield lab


@pytest.fixture(
    params=[
        "memory",
        "several",
        pytest.param("kvm", marks=[pytest.mark.tools, pytest.mark.requires("root", "tgtd", "libvirtd")]),
        pytest.param("vsphere", marks=[pytest.mark.tools, pytest.mark.requires("root", "tgtd", "go")]),
    ]
)
def rig(request, tmp_path, monkeypatch):
    if request.param == "kvm":
        # Hosts are counted as silent after some seconds: beside other guests without KVM an answer may take longer.
        monkeypatch.setattr("proxy.hypervisor.kvm.meters.PATIENCE", 60.0)
        made = KvmMetersRig(request.getfixturevalue("metered_lab"), tmp_path / "state")
    elif request.param == "vsphere":
        made = VsphereMetersRig(request.getfixturevalue("metered_vcenter"), tmp_path / "state")
    else:
        made = MemoryMetersRig(several=request.param == "several")
    yield made
    if hasattr(made.hypervisor, "close"):
        made.hypervisor.close()


def worked(rig) -> Load:
    """Of a time in which the guest worked."""
    meters = rig.hypervisor.meters()
    meters.read()
    rig.guest_works()
    return meters.read()


def test_a_place_is_shown_under_the_name_that_its_machines_have_for_it(rig):
    load = worked(rig)

    places = places_of(rig.hypervisor.machine(rig.machine))
    assert places
    for place in places:
        seen = load.places[place]
        assert seen.reads + seen.writes > 0
        latencies = [latency for latency in (seen.read_latency, seen.write_latency) if latency is not None]
        assert latencies
        assert all(0 < latency < 60 for latency in latencies)
    assert load.seconds > 0


def test_a_host_shows_its_processors_and_what_crosses_its_network(rig):
    host = worked(rig).hosts[rig.host]

    assert host.cpu is not None
    assert 0 <= host.cpu <= 1
    assert host.received is not None
    assert host.received >= 0
    assert host.network in {"host", "guests"}


def test_the_first_look_may_know_nothing_and_costs_nothing(rig):
    load = rig.hypervisor.meters().read()

    assert load.silent == {}


def test_two_readers_do_not_take_anything_from_each_other(rig):
    one, other = rig.hypervisor.meters(), rig.hypervisor.meters()
    one.read(), other.read()
    rig.guest_works()

    first, second = one.read(), other.read()

    (place,) = places_of(rig.hypervisor.machine(rig.machine))
    for load in (first, second):
        assert load.places[place].reads + load.places[place].writes > 0


def test_hosts_that_do_not_answer_are_named_and_nothing_is_raised(rig):
    rig.silence()

    load = rig.hypervisor.meters().read()

    assert load.silent
    assert load.hosts == {}
    assert load.places == {}
