"""How configured vCenters are wired beside KVM hosts. Nothing connects here: that happens with the first question."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.config import load, parse
from appliance.vsphere import vddk_settings
from appliance.wiring import Services
from proxy.errors import ConfigurationError, RestoreRefused
from proxy.model import Consistency, Level, LunAddress, MachineConfiguration, RestorePoint, VmdkAddress
from proxy.ports import DiskPlace, NewMachine
from proxy.restore import RestoreRequest
from proxy.transport.nfc import NfcTransport
from proxy.transport.nfc_target import ImportTargets
from proxy.transport.target import SiteTargets
from proxy.transport.vddk import VddkTransport

CONFIG = """
[repository]
path = "{home}/repository"
unencrypted = true
[state]
directory = "{home}/state"
"""
HOST = """
[[host]]
name = "h1"
uri = "qemu+ssh://h1/system"
"""
VCENTER = """
[[vcenter]]
name = "{name}"
host = "192.0.2.1"
user = "backup@vsphere.local"
password_file = "{home}/password"
thumbprint = "{digits}"
"""


def services(home: Path, *vcenters: str, host: bool = True) -> Services:
    text = CONFIG.format(home=home) + (HOST if host else "")
    text += "".join(VCENTER.format(name=name, home=home, digits="ab" * 32) for name in vcenters)
    return Services(parse(text, home / "lanfree.toml"))


def point(hypervisor: str = "", kind: str = "vsphere-json") -> RestorePoint:
    return RestorePoint(
        "p", "m", "db1", "esx1", "r", datetime(2026, 1, 1, tzinfo=UTC), Level.FULL, Consistency.CRASH, (),
        MachineConfiguration(kind, "{}"), hypervisor=hypervisor,
    )  # fmt: skip


def request(place: DiskPlace) -> RestoreRequest:
    return RestoreRequest("r2", "p", NewMachine("db1", "esx1", {"scsi0:0": place}))


def test_hosts_and_vcenters_are_sites_side_by_side(tmp_path: Path) -> None:
    with services(tmp_path, "vc1", "vc2") as made:
        assert made.hypervisor.name.endswith("vc1, vc2")
        assert made.vcenters is not None
        assert list(made.vcenters.sites) == ["vc1", "vc2"]


def test_each_disk_has_the_transports_of_its_own_site(tmp_path: Path) -> None:
    with services(tmp_path, "vc1", "vc2") as made:
        assert [transport.mode for transport in made.transports] == ["san", "raw", "lan"]
        assert made.vcenters is not None
        first, second, foreign = (VmdkAddress("ds", "vm/vm.vmdk", site=name) for name in ("vc1", "vc2", "vc3"))
        for chosen in (made.vcenters.san, made.vcenters.lan):
            assert chosen(first) is not None
            assert chosen(first) is not chosen(second)
            assert chosen(foreign) is None
            assert chosen(LunAddress("iqn.2026-01.example:hosts", 1)) is None


def test_vddk_is_taken_where_it_is_configured(tmp_path: Path) -> None:
    with services(tmp_path, "vc1") as plain:
        assert plain.vcenters is not None
        assert isinstance(plain.vcenters.lan(VmdkAddress("ds", "vm/vm.vmdk", site="vc1")), NfcTransport)
        with pytest.raises(ConfigurationError, match="vddk_library"):
            vddk_settings(plain.settings.vcenter[0], plain.vcenters.sites["vc1"])
    text = plain.settings.source.with_name("other.toml")
    text.write_text(
        CONFIG.format(home=tmp_path)
        + VCENTER.format(name="vc1", home=tmp_path, digits="ab" * 32)
        + f'vddk_library = "{tmp_path}"\n'
    )
    with Services(load(text)) as made:
        assert made.vcenters is not None
        assert isinstance(made.vcenters.lan(VmdkAddress("ds", "vm/vm.vmdk", site="vc1")), VddkTransport)


def test_without_a_vcenter_nothing_of_vsphere_is_loaded(tmp_path: Path) -> None:
    with services(tmp_path) as made:
        assert made.vcenters is None
        assert len(made.transports) == 3


def test_without_any_hypervisor_the_way_out_is_told(tmp_path: Path) -> None:
    with services(tmp_path, host=False) as made, pytest.raises(ConfigurationError, match="no hypervisor"):
        made.hypervisor.machines()


def test_a_restore_goes_to_the_vcenter_that_the_machine_came_from(tmp_path: Path) -> None:
    with services(tmp_path, "vc1", "vc2") as made:
        assert made.vcenters is not None
        assert made.vcenters.of(point("vc2")) is made.vcenters.sites["vc2"]
        with pytest.raises(ConfigurationError, match="none of the vCenters"):
            made.vcenters.of(point("an old one"))
    with services(tmp_path, "vc1") as made:
        assert made.vcenters is not None
        assert made.vcenters.of(point("an old one")) is made.vcenters.sites["vc1"]


def test_disks_of_a_datastore_are_imported_and_others_are_written(tmp_path: Path) -> None:
    with services(tmp_path, "vc1") as made:
        made.make_repository()
        with made.restoring(request(DiskPlace(datastore="ds1", disk="scsi0:0")), point("vc1")) as ports:
            assert isinstance(ports.targets, ImportTargets)
        with made.restoring(request(DiskPlace(path="/shared/a.raw")), point("vc1")) as ports:
            assert isinstance(ports.targets, SiteTargets)


def test_a_machine_saved_by_libvirt_needs_a_host(tmp_path: Path) -> None:
    with services(tmp_path, "vc1", host=False) as made:
        made.make_repository()
        kvm = point("", "libvirt-xml")
        wanted = request(DiskPlace(path="/shared/a.raw"))
        with made.restoring(wanted, kvm) as ports, pytest.raises(ConfigurationError, match="libvirt-xml"):
            ports.hypervisor.check_define(kvm.configuration, wanted.machine)


@pytest.mark.parametrize(
    ("vcenters", "place"),
    [
        ((), DiskPlace(target="iqn.2026-01.example:hosts", lun=7)),
        (("vc1",), DiskPlace(target="iqn.2026-01.example:hosts", lun=7)),
        (("vc1",), DiskPlace(path="/srv/images/a.raw")),
        (("vc1",), DiskPlace(datastore="gold", path="web/web.vmdk", disk="scsi0:0")),
    ],
)
def test_what_no_machine_can_be_given_is_refused_before_anything_is_opened(
    tmp_path: Path, vcenters: tuple[str, ...], place: DiskPlace
) -> None:
    wanted = replace(request(place), define=False, attach="m2")
    with services(tmp_path, *vcenters) as made, pytest.raises(RestoreRefused), made.restoring(wanted, point("vc1")):
        raise AssertionError("it was opened")
