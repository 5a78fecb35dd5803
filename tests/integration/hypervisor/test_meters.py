"""Counters of real libvirt hosts: what a guest's requests look like, and what does not disturb them."""

import time

import libvirt
import pytest

from proxy.hypervisor.kvm import meters
from proxy.places import places_of

pytestmark = [pytest.mark.tools, pytest.mark.requires("root", "tgtd", "libvirtd")]


def test_the_numbers_of_libvirt_s_interface_are_the_library_s():
    assert meters.STATS_BLOCK == libvirt.VIR_DOMAIN_STATS_BLOCK
    assert meters.STATS_INTERFACE == libvirt.VIR_DOMAIN_STATS_INTERFACE
    assert meters.DOMAINS_ACTIVE == libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
    assert meters.DOMAINS_NOWAIT == libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    assert meters.ALL_CPUS == libvirt.VIR_NODE_CPU_STATS_ALL_CPUS


@pytest.fixture
def patient(monkeypatch):
    """Beside other guests without KVM a host may take longer to answer than one that is looked after would."""
    monkeypatch.setattr(meters, "PATIENCE", 60.0)


def test_writes_do_not_count_for_the_lun_while_an_overlay_takes_them(bench, patient):
    bench.use("raw-lun")
    (place,) = places_of(bench.site.machine(bench.id("raw-lun")))
    reader = bench.site.meters()
    reader.read()
    bench.writes_go_on("raw-lun")
    before = reader.read().places[place]

    snapshot = bench.take("raw-lun")
    reader.read()
    bench.writes_go_on("raw-lun")
    meanwhile = reader.read().places[place]
    bench.site.release(snapshot, sealed=False)
    reader.read()
    bench.writes_go_on("raw-lun")
    after = reader.read().places[place]

    assert before.writes > 0
    assert meanwhile.writes == 0
    assert meanwhile.write_latency is None
    assert after.writes > 0
    assert 0 < after.write_latency < 10


def test_a_machine_that_is_started_anew_is_left_out_once(bench, patient):
    bench.use("raw-lun")
    (place,) = places_of(bench.site.machine(bench.id("raw-lun")))
    reader = bench.site.meters()
    bench.writes_go_on("raw-lun")
    reader.read()
    bench.lab.host("h1").virsh("destroy", "raw-lun")
    bench.lab.start("raw-lun")

    load = reader.read()

    seen = load.places.get(place)
    assert seen is None or seen.reads + seen.writes == 0
    assert all(0 <= host.received < 1e12 for host in load.hosts.values())


def test_while_the_array_hangs_the_hosts_are_measured_without_waiting_for_it(bench):
    bench.use("raw-lun")
    (place,) = places_of(bench.site.machine(bench.id("raw-lun")))
    reader = bench.site.meters()
    bench.writes_go_on("raw-lun")
    reader.read()
    bench.lab.array.freeze()
    looks = []
    try:
        for _ in range(3):
            begin = time.monotonic()
            load = reader.read()
            looks.append(time.monotonic() - begin)
    finally:
        bench.lab.array.thaw()
    assert max(looks) < 10
    ours = bench.site.machine(bench.id("raw-lun")).host
    others = {host.name for host in bench.lab.hosts} - {ours}
    assert others and others <= set(load.hosts), "no other host waits for it"
    assert ours in load.hosts or ours in load.silent
    bench.writes_go_on("raw-lun")
    reader.read()

    def measured() -> bool:
        found = reader.read().places.get(place)
        return found is not None and found.writes > 0

    bench.wait(measured)
