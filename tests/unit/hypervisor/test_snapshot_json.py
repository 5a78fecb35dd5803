"""Snapshots as JSON: what is written is what is read back, of every kind of place, and what others wrote is an error."""

import json
from datetime import UTC, datetime

import pytest

from proxy.hypervisor.snapshot_json import KINDS, decoded, encoded
from proxy.model import (
    Consistency,
    DeviceAddress,
    FileAddress,
    Format,
    FrozenDisk,
    Layer,
    Location,
    LunAddress,
    NbdAddress,
    Reason,
    ReasonCode,
    Snapshot,
    Tracking,
    VmdkAddress,
)

PLACES: tuple[Location, ...] = (
    LunAddress("iqn.2026-01.example:hosts", 3, ("10.0.0.1:3260", "10.0.0.2:3260"), "naa.6001"),
    FileAddress("/shared/a.qcow2"),
    DeviceAddress("/dev/mapper/a", "naa.6002"),
    NbdAddress("nbd+unix:///a?socket=/s", "qemu:dirty-bitmap:b"),
    VmdkAddress("san1", "vm/vm-000001.vmdk", volume="u", devices=("naa.6003", "naa.6004"), machine="vm-1", device=2000),
)


def frozen(place: Location) -> Snapshot:
    disk = FrozenDisk(
        "vda", 4096, (Layer(place, Format.RAW), Layer(place, Format.QCOW2)), Tracking.IMAGE, "mark", "/over"
    )
    reasons = (Reason(ReasonCode.QUIESCED_NO_HOOKS, "vda"),)
    made = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    return Snapshot("r1", "m1", "web", "h1", "overlay", made, (disk,), Consistency.FILESYSTEM, reasons, 0.25)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: type(place).__name__)
def test_what_is_written_is_what_is_read_back(place: Location) -> None:
    assert decoded(json.loads(json.dumps(encoded(frozen(place))))) == frozen(place)


def test_every_kind_of_place_is_known() -> None:
    assert {type(place) for place in PLACES} == set(KINDS.values())


def test_nothing_is_nothing() -> None:
    assert encoded(None) is None
    assert decoded(None) is None


@pytest.mark.parametrize("change", [{"created_at": "yesterday"}, {"consistency": "fine"}, {"disks": [{}]}, {"more": 1}])
def test_what_others_wrote_is_an_error(change: dict[str, object]) -> None:
    raw = encoded(frozen(PLACES[0]))
    assert raw is not None
    with pytest.raises((ValueError, TypeError, KeyError)):
        decoded({**raw, **change})
