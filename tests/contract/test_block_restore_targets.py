"""Every ``RestoreTargets`` against the contract of its port: what it refuses stays as it is, what it opens is written."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from proxy.errors import LanfreeError, RestoreRefused
from proxy.units import KiB, MiB
from tests.contract.block_adapters import NAMELESS, PLACES, MakePlaces, Places

pytestmark = pytest.mark.slow

SIZE = 2 * MiB
EMPTY = bytes(SIZE)
FULL = random.Random(1).randbytes(SIZE)
ONE_BYTE = bytes(700 * KiB) + b"\1" + bytes(SIZE - 700 * KiB - 1)

Make = Callable[[bytes], AbstractContextManager[Places]]


@pytest.fixture(params=PLACES)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    kind: MakePlaces = request.param
    return lambda data: kind(tmp_path, data)


def read(places: Places, size: int) -> bytes:
    with places.targets.read_back(places.place, size) as source:
        assert source.size == size
        data = bytearray(size)
        source.read_into(0, memoryview(data))
        return bytes(data)


@pytest.mark.parametrize("data", [FULL, ONE_BYTE], ids=["full", "one byte"])
def test_a_place_with_data_is_refused_and_stays_as_it_is(make: Make, data: bytes) -> None:
    with make(data) as places:
        with pytest.raises(RestoreRefused) as refused:
            places.targets.open(places.place, SIZE, overwrite=False)
        assert "--overwrite" in refused.value.hint
        assert places.content() == data


@pytest.mark.parametrize("data", [FULL, EMPTY], ids=["full", "empty"])
@pytest.mark.parametrize("size", [SIZE, SIZE - 64 * KiB])
def test_opening_and_closing_changes_nothing(make: Make, data: bytes, size: int) -> None:
    with make(data) as places:
        target = places.targets.open(places.place, size, overwrite=data is FULL)
        assert (target.size, bool(target.identity)) == (size, True)
        target.close()
        target.close()
        assert places.content() == data


def test_an_empty_place_takes_a_disk_unasked_and_gives_it_back(make: Make) -> None:
    with make(EMPTY) as places:
        with places.targets.open(places.place, SIZE, overwrite=False) as target:
            target.write(64 * KiB, memoryview(FULL)[: MiB + 512])
            target.flush()
        model = bytearray(EMPTY)
        model[64 * KiB : 64 * KiB + MiB + 512] = FULL[: MiB + 512]
        assert places.content() == model
        assert read(places, SIZE) == model


def test_data_go_when_a_person_said_so(make: Make) -> None:
    with make(FULL) as places:
        with places.targets.open(places.place, SIZE, overwrite=True) as target:
            target.zero(0, MiB)
            target.write(4096, memoryview(b"x" * 4096))
            target.flush()
        model = bytes(4096) + b"x" * 4096 + bytes(MiB - 8192) + FULL[MiB:]
        assert places.content() == model
        assert read(places, SIZE - MiB // 2) == model[: SIZE - MiB // 2]


def test_what_is_read_back_is_never_made_up(make: Make) -> None:
    with make(FULL) as places:
        assert read(places, SIZE) == FULL
        with pytest.raises(LanfreeError):
            read(places, SIZE + 4096)


def test_a_place_that_restores_may_not_write_to_is_refused(make: Make) -> None:
    with make(FULL) as places:
        with pytest.raises(RestoreRefused):
            places.targets.open(places.foreign, SIZE, overwrite=True)
        assert places.content() == FULL


def test_a_machines_disk_is_known_by_any_of_its_names(make: Make) -> None:
    with make(FULL) as places:
        targets, place = places.targets, places.place
        for disk, there in ((places.disk, True), (places.elsewhere, False), (NAMELESS, False)):
            assert targets.holds(place, disk) is there, disk


def test_a_device_without_a_name_cannot_be_told_from_a_lun(make: Make) -> None:
    with make(FULL) as places:
        known = [places.targets.cannot_tell(places.place, disk) for disk in (places.disk, places.elsewhere)]
        assert known == [False, False]
        assert places.targets.cannot_tell(places.place, NAMELESS) is not places.told
