"""What a restore point keeps of a machine's configuration, and what it must not keep."""

import json
from typing import Any

import pytest

from proxy.errors import FormatError
from proxy.hypervisor.vsphere import configuration
from proxy.hypervisor.vsphere.configuration import KIND, SavedDisk, SavedNic
from proxy.hypervisor.vsphere.connection import vim
from proxy.hypervisor.vsphere.tags import Tag
from proxy.model import MachineConfiguration
from proxy.units import GiB
from tests.unit.hypervisor.vsphere.saved_machine import BIOS, IDENTITY, config, document, every_device, saved
from tests.unit.hypervisor.vsphere.vim_objects import found


def test_identity_place_and_labels_are_kept() -> None:
    kept = saved()
    assert (kept.name, kept.identity, kept.bios_uuid, kept.hardware) == ("web", IDENTITY, BIOS, "vmx-19")
    assert (kept.tags, kept.attributes) == ((Tag("backup", "gold"),), {"owner": "team-a"})
    assert kept.place == {
        "vcenter": "vcenter1",
        "datacenter": "DC0",
        "folder": "/DC0/vm/Prod",
        "pool": "/DC0/host/Cluster1/Resources",
        "cluster": "Cluster1",
        "host": "esx1",
        "datastores": ["LUN1"],
        "vmx": "[LUN1] web/web.vmx",
    }


def test_disks_are_told_by_their_bottom_file_and_whether_they_are_in_the_restore_point() -> None:
    assert saved().disks == (
        SavedDisk("scsi0:0", 2000, 40 * GiB, thin=False, eager=True, uuid="6000C29a", excluded=False),
        SavedDisk("nvme0:0", 32000, GiB + 512, thin=True, eager=False, uuid="", excluded=False),
        SavedDisk("scsi0:1", 2001, 40 * GiB, thin=False, eager=False, uuid="", excluded=True),
    )


def test_network_cards_are_told_with_the_names_of_their_networks() -> None:
    kept = saved()
    assert kept.nics == (
        SavedNic(4000, "00:50:56:9a:00:01", "VM Network", "standard"),
        SavedNic(4001, "00:50:56:01:02:03", "prod-net", "distributed"),
    )
    assert kept.networks == ("VM Network", "prod-net")


def test_every_device_is_kept_without_files_below_the_newest() -> None:
    kept = saved()
    assert [d["key"] for d in kept.devices] == [d.key for d in every_device()]
    [first] = [d for d in kept.devices if d["key"] == 2000]
    assert "parent" not in first["backing"]


def test_settings_are_those_that_a_new_machine_can_be_given() -> None:
    settings = saved().settings
    known = {p.name for p in vim.vm.ConfigSpec()._GetPropertyList()}
    assert set(settings) <= known
    assert (settings["numCPUs"], settings["numCoresPerSocket"], settings["memoryMB"]) == (4, 2, 8192)
    assert (settings["firmware"], settings["guestId"], settings["annotation"]) == (
        "efi",
        "debian12_64Guest",
        "the shop",
    )
    assert settings["bootOptions"]["efiSecureBootEnabled"] is True
    assert settings["powerOpInfo"]["powerOffType"] == "soft"
    assert settings["tools"] == {
        "_type": "vim.vm.ToolsConfigInfo",
        "syncTimeWithHost": True,
        "toolsUpgradePolicy": "manual",
    }
    assert "changeTrackingEnabled" not in settings


def test_every_setting_that_is_taken_over_by_name_exists_on_both_sides() -> None:
    info = {p.name: p.type for p in vim.vm.ConfigInfo()._GetPropertyList()}
    spec = {p.name: p.type for p in vim.vm.ConfigSpec()._GetPropertyList()}
    hardware = {p.name: p.type for p in vim.vm.VirtualHardware()._GetPropertyList()}
    assert all(info[name] is spec[name] for name in configuration.SETTINGS)
    assert all(there in spec and here in hardware for here, there in configuration.HARDWARE.items())


def test_secrets_are_left_out_and_named() -> None:
    text = json.dumps(document())
    assert "geheim" not in text
    assert "I2Nsb3Vk" not in text
    assert saved().left_out == ("RemoteDisplay.vnc.password", "guestinfo.userdata")
    assert saved().extra["disk.EnableUUID"] == "TRUE"


def test_the_firmwares_variables_are_where_vcenter_lists_them_or_beside_the_vmx() -> None:
    listed = vim.vm.FileLayoutEx.FileInfo(key=1, name="[LUN2] other/x.nvram", type="nvram", size=1)
    log = vim.vm.FileLayoutEx.FileInfo(key=2, name="[LUN1] web/vmware.log", type="log", size=1)
    values = {"config": config(), "layoutEx.file": [log, listed]}
    assert configuration.nvram_path(found(vim.VirtualMachine, "vm-1", values)) == "[LUN2] other/x.nvram"
    assert saved().nvram_path == "[LUN1] web/web.nvram"
    assert saved(extraConfig=[]).nvram_path == ""
    outside = [vim.option.OptionValue(key="nvram", value="../../etc/x")]
    assert saved(extraConfig=outside).nvram_path == ""


@pytest.mark.parametrize(
    "gone", ["format", "name", "identity", "devices", "disks", "nics", "settings", "nvram", "tags"]
)
def test_a_document_without_one_of_its_parts_is_refused(gone: str) -> None:
    made = document()
    del made[gone]
    with pytest.raises(FormatError):
        configuration.parse(MachineConfiguration(KIND, json.dumps(made)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", 2),
        ("devices", [7]),
        ("disks", [{}]),
        ("attributes", []),
        ("tags", [["one"]]),
        ("nics", [{"device": "x"}]),
    ],
)
def test_a_document_of_another_shape_is_refused(name: str, value: Any) -> None:
    made = document() | {name: value}
    with pytest.raises(FormatError):
        configuration.parse(MachineConfiguration(KIND, json.dumps(made)))


@pytest.mark.parametrize("text", ["", "[]", "7", "{", '{"format": 1}', "[" * 100_000])
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        configuration.parse(MachineConfiguration(KIND, text))


def test_another_hypervisors_configuration_is_refused() -> None:
    with pytest.raises(FormatError, match="libvirt-xml"):
        configuration.parse(MachineConfiguration("libvirt-xml", "<domain/>"))


def test_what_is_no_device_is_refused() -> None:
    with pytest.raises(FormatError, match="no virtual device"):
        configuration.saved_device({"_type": "vim.Description", "label": "x"})
