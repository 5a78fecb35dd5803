"""What people say of where a machine is restored to."""

import pytest

from appliance.cli.restore_places import place_in, renamed_in
from proxy.errors import RestoreRefused
from proxy.ports import DiskPlace


@pytest.mark.parametrize(
    ("text", "key", "place"),
    [
        ("vda=iqn.2026-01.example.san:hosts/7", "vda", DiskPlace(target="iqn.2026-01.example.san:hosts", lun=7)),
        ("vda=/srv/images/a.raw", "vda", DiskPlace(path="/srv/images/a.raw")),
        ("scsi0:0=[gold]", "scsi0:0", DiskPlace(datastore="gold", disk="scsi0:0")),
        ("scsi0:0=[gold] web/web.vmdk", "scsi0:0", DiskPlace(datastore="gold", path="web/web.vmdk", disk="scsi0:0")),
    ],
)
def test_a_place_is_a_lun_a_file_or_in_a_datastore(text: str, key: str, place: DiskPlace) -> None:
    assert place_in(text) == (key, place)


@pytest.mark.parametrize(
    "text", ["", "vda", "=x/1", "vda=", "vda=iqn.x", "vda=iqn.x/", "vda=iqn.x/a", "vda=[gold", "vda=[]"]
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(RestoreRefused):
        place_in(text)


def test_a_network_takes_the_place_of_another() -> None:
    assert renamed_in("VM Network=Isolated=2") == ("VM Network", "Isolated=2")
    for text in ("", "a", "a=", "=b"):
        with pytest.raises(RestoreRefused):
            renamed_in(text)
