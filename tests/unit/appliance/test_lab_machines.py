"""Definitions and configuration of a lab that was never started: they need no tool."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from appliance import config
from appliance.lab.array import BACKUP, HOSTS, TARGETS, Array
from appliance.lab.guest import GuestImage
from appliance.lab.lab import Lab
from appliance.lab.machines import MACHINES, domain_xml, machine_named
from appliance.lab.state import State, StateFile
from proxy.errors import ConfigurationError


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    StateFile(tmp_path).create(State("1a2b3c4d", tmp_path / "run", 13300, ("h1", "h2")))
    return Lab(tmp_path)


def parsed(array: Array, name: str, directory: Path, *, kvm: bool = False) -> ET.Element:
    boot = GuestImage(directory / "guest")
    console = directory / "a & b.console"
    text = domain_xml(MACHINES[name], array=array, boot=boot, shared=directory, console=console, kvm=kvm)
    return ET.fromstring(text)


@pytest.mark.parametrize("name", MACHINES)
def test_each_machine_has_the_disks_that_its_name_says(lab: Lab, tmp_path: Path, name: str) -> None:
    root = parsed(lab.array, name, tmp_path)
    disks = root.findall("devices/disk")
    assert [disk.find("target").get("dev") for disk in disks] == [disk.key for disk in MACHINES[name].disks]  # type: ignore[union-attr]
    for found, disk in zip(disks, MACHINES[name].disks, strict=True):
        source, driver = found.find("source"), found.find("driver")
        assert source is not None
        assert driver is not None
        assert driver.get("type") == disk.format
        if disk.lun:
            assert source.get("name") == f"{HOSTS.iqn}/{disk.lun}"
            assert found.find("auth") is not None
        else:
            assert Path(source.get("file") or "").parent == tmp_path


def test_no_two_machines_share_a_lun() -> None:
    luns = [disk.lun for machine in MACHINES.values() for disk in machine.disks if disk.lun]
    assert sorted(luns) == list(range(1, len(luns) + 1))


def test_no_definition_holds_a_secret(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    secret = lab.array.secret_file(HOSTS).read_text()
    texts = [ET.tostring(parsed(lab.array, name, tmp_path), encoding="unicode") for name in MACHINES]
    assert len(secret) >= 12
    assert not [text for text in texts if secret in text]


def test_hardware_virtualisation_is_used_only_where_it_works(lab: Lab, tmp_path: Path) -> None:
    assert parsed(lab.array, "raw-lun", tmp_path, kvm=True).get("type") == "kvm"
    assert parsed(lab.array, "raw-lun", tmp_path, kvm=False).get("type") == "qemu"


def test_an_unknown_machine_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ConfigurationError) as caught:
        machine_named("windows")
    assert "raw-lun" in caught.value.hint


def test_secrets_are_random_private_and_stable(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    first = {target.account: lab.array.secret_file(target).read_text() for target in TARGETS}
    assert len(set(first.values())) == len(TARGETS)
    assert {lab.array.secret_file(target).stat().st_mode & 0o777 for target in TARGETS} == {0o600}
    assert {target.account: lab.array.secret_file(target).read_text() for target in TARGETS} == first


def test_the_configuration_names_hosts_targets_and_secret_files(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    settings = config.parse(lab.configuration(), tmp_path / "lanfree.toml")
    assert [host.name for host in settings.host] == ["h1", "h2"]
    assert [target.access for target in settings.san.target] == ["backup", "restore"]
    assert settings.san.target[0].iqn == BACKUP.iqn
    assert settings.san.target[0].portals == ("127.0.0.1:13300", "127.0.0.2:13300")
    assert settings.repository.path == tmp_path / "repository"
    assert lab.array.secret_file(BACKUP).read_text() not in lab.configuration()


def test_lun_names_differ_between_luns_and_labs_and_fit_the_array(tmp_path: Path, lab: Lab) -> None:
    other_place = tmp_path / "other"
    other_place.mkdir()
    StateFile(other_place).create(State("99999999", tmp_path / "run2", 13301, ("h1",)))
    names = []
    for directory, array in ((tmp_path, lab.array), (other_place, Lab(other_place).array)):
        (directory / "luns").mkdir()
        names += [array.add_lun(512) for _ in range(2)]
    assert len({lun.identity for lun in names}) == 4
    assert len({lun.serial for lun in names}) == 4
    assert all(len(lun.identity) <= 36 and len(lun.serial) <= 36 for lun in names)
    assert [lun.number for lun in lab.array.luns()] == [1, 2]
