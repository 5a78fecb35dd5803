"""What the lan transport refuses without any server."""

from pathlib import Path

import pytest

from proxy.errors import TransportRefused
from proxy.model import DeviceAddress, FileAddress, Format, FrozenDisk, Layer, Location, LunAddress, NbdAddress
from proxy.transport.lan import LanTransport

NBD = NbdAddress("nbd+unix:///vda?socket=/nowhere")


@pytest.mark.parametrize(
    "locations",
    [
        [],
        [FileAddress("/a")],
        [LunAddress("iqn", 1)],
        [DeviceAddress("/dev/sda")],
        [NBD, NBD],
        [FileAddress("/a"), NBD],
    ],
)
def test_a_disk_that_is_not_one_export_is_refused_with_a_reason(locations: list[Location]) -> None:
    disk = FrozenDisk("vda", 512, tuple(Layer(location, Format.RAW) for location in locations))
    for call in (LanTransport().probe, LanTransport().open):
        with pytest.raises(TransportRefused) as refused:
            call(disk)
        assert (refused.value.mode, refused.value.reason) == ("lan", "not-exported")


def test_an_export_is_never_taken_for_an_image(tmp_path: Path) -> None:
    disk = FrozenDisk("vda", 512, (Layer(NbdAddress(f"nbd+unix:///?socket={tmp_path}/s"), Format.QCOW2),))
    with pytest.raises(TransportRefused) as refused:
        LanTransport().open(disk)
    assert refused.value.reason == "not-exported"


@pytest.mark.parametrize("uri", ["nbd+unix:///vda?socket={place}/s", "nonsense", "nbd+ssh://host/", "file:///etc"])
def test_a_server_that_is_not_there_is_a_refusal(uri: str, tmp_path: Path) -> None:
    disk = FrozenDisk("vda", 512, (Layer(NbdAddress(uri.format(place=tmp_path)), Format.RAW),))
    for call in (LanTransport().probe, LanTransport().open):
        with pytest.raises(TransportRefused) as refused:
            call(disk)
        assert refused.value.reason == "nbd-unreachable"
