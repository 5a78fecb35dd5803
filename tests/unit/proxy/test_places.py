"""One name for a place, whatever kind of disk lies there."""

from pathlib import Path

import pytest

from proxy.model import (
    DeviceAddress,
    Disk,
    FileAddress,
    Format,
    LunAddress,
    NbdAddress,
    PowerState,
    VirtualMachine,
    VmdkAddress,
)
from proxy.places import place_of, places_of

SHARED = (Path("/srv/shared"),)


@pytest.mark.parametrize(
    ("location", "name"),
    [
        pytest.param(LunAddress("iqn.a", 3), "iqn.a/3", id="LUN without a name"),
        pytest.param(LunAddress("iqn.a", 3, (), "naa.6001"), "naa.6001", id="LUN with its name"),
        pytest.param(DeviceAddress("/dev/mapper/x"), "h1:/dev/mapper/x", id="device without a name"),
        pytest.param(DeviceAddress("/dev/mapper/36001", "naa.6001"), "naa.6001", id="device with its name"),
        pytest.param(FileAddress("/images/a.qcow2"), "h1:/images", id="file of a host"),
        pytest.param(FileAddress("/srv/shared/deep/a.raw"), "/srv/shared", id="file in a shared directory"),
        pytest.param(VmdkAddress("gold", "vm/vm.vmdk", site="vc1"), "vc1/gold", id="datastore"),
        pytest.param(VmdkAddress("gold", "vm/vm.vmdk"), "gold", id="datastore without a site"),
        pytest.param(
            VmdkAddress("gold", "vm/rdm.vmdk", kind="RDM", devices=("naa.6002",), site="vc1"), "naa.6002", id="RDM"
        ),
        pytest.param(NbdAddress("nbd://h1"), "", id="export"),
        pytest.param(None, "", id="unknown"),
    ],
)
def test_a_place_is_called_by_what_serves_it(location, name):
    assert place_of(location, "h1", SHARED) == name


def test_a_machine_occupies_each_of_its_places_once_and_those_of_images_below():
    disks = (
        Disk("vda", 1, Format.RAW, LunAddress("iqn.a", 1)),
        Disk("vdb", 1, Format.QCOW2, FileAddress("/images/b"), below=(FileAddress("/templates/t"),)),
        Disk("vdc", 1, Format.QCOW2, FileAddress("/images/c")),
        Disk("hda", 0, Format.RAW, None),
    )
    machine = VirtualMachine("id", "web", "h2", PowerState.RUNNING, disks)

    assert places_of(machine) == ("h2:/images", "h2:/templates", "iqn.a/1")
