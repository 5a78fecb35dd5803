"""Registry hives: made by us, read by us, and by hivex where it is installed."""

import random
import struct
from pathlib import Path

import pytest

from mounter.volumes.registry import Hive
from proxy.errors import FormatError
from tests.unit.mounter.hive import hive, number, text

TREE = {
    "Select": {"Current": number(2), "Default": number(1)},
    "ControlSet002": {"Services": {"Tcpip": {"Parameters": {"Hostname": text("WÜRFEL"), "Empty": text("")}}}},
    "MountedDevices": {
        "\\DosDevices\\C:": (3, bytes(range(12))),
        "\\??\\Volume{ä}": (3, bytes(24)),
        "big": (3, bytes(9000)),
    },
    "Ключ": {"x": number(7)},
}


def opened(data: bytes) -> Hive:
    return Hive(lambda offset, length: data[offset : offset + length])


@pytest.mark.parametrize("kind", [b"lh", b"li", b"ri"])
def test_values_are_found_by_path_whatever_the_case(kind: bytes) -> None:
    found = opened(hive(TREE, kind))
    assert found.values("select")["current"].number == 2
    assert found.values("ControlSet002\\SERVICES\\Tcpip\\Parameters")["hostname"].text == "WÜRFEL"
    devices = found.values("MountedDevices")
    assert devices["\\dosdevices\\c:"].data == bytes(range(12))
    assert (devices["\\??\\volume{ä}"].type, len(devices["big"].data)) == (3, 9000)
    assert found.values("ключ")["x"].number == 7


def test_what_is_not_there_is_empty() -> None:
    assert opened(hive(TREE)).values("Select\\No\\Such") == {}
    assert opened(hive({})).values("Select") == {}


def test_what_is_no_hive_is_refused() -> None:
    for data in (b"", b"regf", bytes(8192), hive(TREE)[:4100]):
        with pytest.raises(FormatError):
            opened(data).values("Select")


@pytest.mark.slow
def test_a_damaged_hive_never_does_more_than_refuse() -> None:
    good = hive(TREE, b"ri")
    chance = random.Random(5)
    refused = 0
    for _ in range(2000):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(36, 7000)] = chance.choice((0, 0xFF, chance.randrange(256)))
        try:
            for path in ("Select", "ControlSet002\\Services\\Tcpip\\Parameters", "MountedDevices"):
                opened(bytes(data)).values(path)
        except (FormatError, struct.error):
            refused += 1
    assert refused > 50


def test_a_list_of_keys_that_holds_itself_ends() -> None:
    data = bytearray(hive({"a": {}}, b"ri"))
    at = data.index(b"ri\x01\x00")
    struct.pack_into("<I", data, at + 4, at - 4 - 4096)
    assert opened(bytes(data)).values("a") == {}


@pytest.mark.requires("module:hivex")
def test_hivex_reads_the_same(tmp_path: Path) -> None:
    import hivex  # noqa: PLC0415  # only where it is installed

    (tmp_path / "hive").write_bytes(hive(TREE))
    other = hivex.Hivex(str(tmp_path / "hive"))
    node = other.node_get_child(other.root(), "MountedDevices")
    theirs = {other.value_key(v).lower(): other.value_value(v) for v in other.node_values(node)}
    ours = opened(hive(TREE)).values("MountedDevices")
    assert {name: (v.type, v.data) for name, v in ours.items()} == theirs
