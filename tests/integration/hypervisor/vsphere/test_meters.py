"""vCenter's counters, as a simulated one shows them: units, several hosts on one datastore, values that are missing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.hypervisor.vsphere import VsphereSettings, VsphereSite
from proxy.hypervisor.vsphere.meters import READ_LATENCY, READS, WRITE_LATENCY, WRITES
from proxy.state_directory import StateDirectory
from proxy.units import KiB, MiB
from tests.system.vcsim.lab import LabDisk, LabMachine, VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("root", "tgtd", "go")]

ONE, OTHER = "DC0_C0_H0", "DC0_C0_H1"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VcsimLab]:
    machines = (LabMachine("web", (LabDisk(size=8 * MiB),)),)
    with VcsimLab(tmp_path_factory.mktemp("meters") / "vcsim", machines) as made:
        yield made


@pytest.fixture
def site(lab: VcsimLab, tmp_path: Path) -> Iterator[VsphereSite]:
    settings = VsphereSettings("vc1", lab.host, lab.user, lab.password_file, port=lab.port, thumbprint=lab.thumbprint)
    made = VsphereSite(settings, state=StateDirectory(tmp_path))
    yield made
    made.close()


def show(lab: VcsimLab, counter: str, value: int, host: str = ONE, instance: str = "") -> None:
    lab.ask("POST", "/readings", host=host, counter=counter, instance=instance, value=value)


def test_shares_rates_and_latencies_come_in_our_units(lab: VcsimLab, site: VsphereSite) -> None:
    for counter, value in (("cpu.usage.average", 2512), ("net.received.average", 300), ("net.transmitted.average", 7)):
        show(lab, counter, value)
    for counter, value in ((READS, 50), (READ_LATENCY, 12), (WRITES, 10), (WRITE_LATENCY, 3)):
        show(lab, counter, value, instance=lab.uuids["san1"])
        show(lab, counter, 0, OTHER, lab.uuids["san1"])

    load = site.meters().read()

    host = load.hosts[ONE]
    assert (host.cpu, host.received, host.sent, host.network) == (0.2512, 300 * KiB, 7 * KiB, "host")
    seen = load.places["vc1/san1"]
    assert (seen.reads, seen.writes, seen.read_latency, seen.write_latency) == (50, 10, 0.012, 0.003)
    assert load.seconds == 20


def test_a_datastore_that_several_hosts_use_is_shown_once_by_their_requests(lab: VcsimLab, site: VsphereSite) -> None:
    for host, reads, latency in ((ONE, 30, 10), (OTHER, 10, 50)):
        show(lab, READS, reads, host, lab.uuids["san1"])
        show(lab, READ_LATENCY, latency, host, lab.uuids["san1"])

    seen = site.meters().read().places["vc1/san1"]

    assert seen.reads == 40
    assert seen.read_latency == pytest.approx(0.020)


def test_a_value_that_the_host_does_not_have_is_not_taken_for_one(lab: VcsimLab, site: VsphereSite) -> None:
    show(lab, "cpu.usage.average", -1)

    assert site.meters().read().hosts[ONE].cpu is None


def test_datastores_that_nobody_tells_anything_of_are_not_shown(lab: VcsimLab, site: VsphereSite) -> None:
    show(lab, READS, 1, ONE, lab.uuids["san1"])
    show(lab, READS, 1, ONE, "no datastore of this vCenter")

    assert set(site.meters().read().places) == {"vc1/san1"}


def test_a_vcenter_that_restarts_is_measured_again(lab: VcsimLab, site: VsphereSite) -> None:
    meters = site.meters()
    meters.read()
    lab.ask("POST", "/expire-sessions")

    assert ONE in meters.read().hosts
