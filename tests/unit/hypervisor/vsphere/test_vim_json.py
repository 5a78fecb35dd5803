"""Data objects of the API go into JSON and come back; nothing else comes back."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.errors import FormatError
from proxy.hypervisor.vsphere.connection import vim
from proxy.hypervisor.vsphere.vim_json import DEEPEST, decode, encode
from tests.unit.hypervisor.vsphere.vim_objects import D, disk, flat, nic, raw, scsi


@pytest.mark.parametrize(
    "value",
    [
        scsi(kind=D.VirtualLsiLogicSASController),
        nic(),
        disk(flat("[LUN1] a.vmdk", flat())),
        disk(raw("virtualMode")),
        D.VirtualTPM(key=11000, endorsementKeyCertificate=[b"\x00\xff"]),
        vim.vm.ConfigInfo.DatastoreUrlPair(name="a", url="ds:///x"),
        vim.option.OptionValue(key="a", value=True),
        vim.vm.BootOptions(
            bootDelay=5, efiSecureBootEnabled=True, bootOrder=[vim.vm.BootOptions.BootableCdromDevice()]
        ),
        vim.SharesInfo(level="high", shares=4000),
        vim.vm.ToolsConfigInfo(lastInstallInfo=vim.vm.ToolsConfigInfo.ToolsLastInstallInfo(counter=1)),
    ],
)
def test_an_object_is_the_same_after_json(value: Any) -> None:
    saved = json.loads(json.dumps(encode(value)))
    again = decode(saved)
    assert type(again) is type(value)
    assert encode(again) == saved
    assert len(saved) > 1


def test_times_and_bytes_come_back() -> None:
    moment = datetime(2026, 11, 22, 18, tzinfo=UTC)
    assert decode(json.loads(json.dumps(encode([moment, b"\x00\x01"])))) == [moment, b"\x00\x01"]


def test_references_to_managed_objects_are_left_out() -> None:
    assert "datastore" not in encode(flat())
    assert encode([vim.Network("network-1", None), "a"]) == ["a"]


def test_a_property_that_only_a_newer_api_has_is_left_out() -> None:
    again = decode({"_type": "vim.Description", "label": "a", "summary": "b", "colour": "red"})
    assert (again.label, again.summary) == ("a", "b")


@pytest.mark.parametrize(
    "saved",
    [
        {"_type": "vim.VirtualMachine"},
        {"_type": "vim.vm"},
        {"_type": "os.system"},
        {"_type": "vim.__class__"},
        {"_type": "vim.vm.device.VirtualDisk.__init__"},
        {"_type": ""},
        {"label": "no type"},
        {"_type": "vim.Description", "label": 7},
        {"_type": "vim.Description", "label": {"_type": "vim.Description"}},
        {"_type": "vim.vm.device.VirtualDisk", "backing": {"_type": "vim.Description"}},
        {"_time": "yesterday"},
        {"_time": 7},
        {"_bytes": "§"},
    ],
)
def test_what_is_no_data_object_is_refused(saved: Any) -> None:
    with pytest.raises(FormatError):
        decode(saved)


def test_objects_within_objects_without_end_are_refused() -> None:
    saved: Any = {"_type": "vim.Description", "label": "a"}
    for _ in range(DEEPEST + 2):
        saved = [saved]
    with pytest.raises(FormatError, match="too deep"):
        decode(saved)
