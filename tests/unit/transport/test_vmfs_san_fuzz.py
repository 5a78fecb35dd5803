"""Whatever a datastore says, opening and reading a disk ends soon: with bytes, with a refusal, or with a failed read."""

import random
from collections.abc import Callable

import pytest

from proxy.errors import ReadFailed, TransportRefused
from proxy.units import KiB, MiB
from tests.unit.transport.vmfs_builder import DATA, HOLE
from tests.unit.transport.vmfs_site import Site, site, some_bytes, thin_site

TRIES = 80

MOSTLY_ZERO = bytes(MiB) + some_bytes(32 * KiB) + bytes(MiB)
"""So that most of what is damaged says where things are."""

SITES: dict[str, Callable[[], Site]] = {
    "chain": lambda: site(MOSTLY_ZERO, [("se", {n: bytes([n]) * 4096 for n in range(1, 200, 3)})]),
    "chain on VMFS 5": lambda: site(MOSTLY_ZERO, [("vmfs", dict.fromkeys(range(60), b"x" * 512))], version=5),
    "over two LUNs": lambda: thin_site([DATA, HOLE] * 4, extents=(1, 1)),
}


def metadata(made: Site) -> list[tuple[int, int]]:
    """(LUN, page of 4 KiB on it) of all that is not zero and not the disk's own bytes."""
    return [
        (index, page * 64 * KiB + part)
        for index, lun in enumerate(made.volume.luns)
        for page, data in lun.pages.items()
        for part in range(0, 64 * KiB, 4096)
        if any(data[part : part + 4096])
    ]


def attempt(made: Site) -> str:
    try:
        with made.transport().open(made.disk()) as source:
            buffer = bytearray(min(source.size, 4 * MiB))
            source.read_into(0, memoryview(buffer))
    except (TransportRefused, ReadFailed) as error:
        return type(error).__name__
    return "read"


@pytest.mark.slow
@pytest.mark.parametrize("make", SITES.values(), ids=SITES.keys())
@pytest.mark.parametrize("seed", range(2))
def test_no_damage_is_more_than_a_refusal_or_a_failed_read(make: Callable[[], Site], seed: int) -> None:
    chance, made = random.Random(seed), make()
    assert attempt(made) == "read"
    pages = metadata(made)
    outcomes = set()
    for _ in range(TRIES):
        index, page = chance.choice(pages)
        lun = made.volume.luns[index]
        before = lun.read(page, 4096)
        damaged = bytearray(before)
        for _ in range(chance.choice([1, 1, 4, 64])):
            at = chance.choice([n for n, byte in enumerate(before) if byte] or [0])
            damaged[at] = chance.choice([0, 1, 0xFF, damaged[at] ^ 1 << chance.randrange(8)])
        lun.write(page, bytes(damaged))
        outcomes.add(attempt(made))
        lun.write(page, before)
    assert outcomes >= {"read", "TransportRefused"}
    assert attempt(made) == "read"
