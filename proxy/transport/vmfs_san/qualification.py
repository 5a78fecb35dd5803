"""The first disk of a datastore is read in another way too: if 16 blocks are not the same, the SAN is not used for it again.

Nobody tells us how a datastore is laid out: we read what hosts wrote. Before that is trusted, blocks of a frozen disk are
compared with the same blocks as a host reads them. The verdict is kept as JSON, one file a datastore, and counts for what
was read with it: a disk with something new in it (a delta of another kind, large blocks) is compared as well.

::

    <directory>/68626f2d-90e23158-8a2e-bc2411b17e28.json
    {"version": 1, "reader": 1, "datastore": "68626f2d-…", "devices": ["naa.6…"], "passed": true, "at": "2026-…",
     "features": ["flat"], "disk": "…", "samples": [{"offset": 0, "length": 65536, "kind": "data", "equal": true}, …]}
"""

import hashlib
import json
import random
import re
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from proxy.clock import SystemClock
from proxy.durable import replace_durably
from proxy.errors import LanfreeError
from proxy.extents import Extent, Kind, intersect, total
from proxy.model import FrozenDisk, VmdkAddress
from proxy.ports import BlockSource, Clock
from proxy.transport.vmfs_san.reasons import VmfsSanReason, refused
from proxy.units import KiB, align_down

VERSION = 1
READER = 1
"""Raised whenever the code that maps a datastore changes in a way that an old verdict says nothing about."""

SAMPLES = 16
ZERO_SAMPLES = 4
"""Of them in ranges that are zero for us: a hole that is none would be the most silent of all mistakes."""

SAMPLE = 64 * KiB
"""Bytes compared: some grains of a delta, less than a file block."""

OtherWay = Callable[[FrozenDisk], BlockSource]
"""Opens the same frozen disk through a host (``open`` of a LAN transport). Samples are asked for in ascending order."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One comparison. Offset and length in bytes; ``kind``: as our map has it; ``digest``: BLAKE2b of our bytes."""

    offset: int
    length: int
    kind: str
    digest: str
    equal: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of one datastore."""

    datastore: str
    devices: tuple[str, ...]
    passed: bool
    at: str
    features: tuple[str, ...]
    disk: str
    samples: tuple[Sample, ...]
    version: int = VERSION
    reader: int = READER


class Qualification:
    """Verdicts in ``directory`` (made if missing). Calls may come from many threads; of several proxies each has its own.

    ``reach``: bytes from the beginning of a disk in which samples are taken, for another way that can only read from the
    start to the end (an export as a stream); ``None``: all of it. ``chance`` chooses the blocks.
    """

    def __init__(
        self,
        directory: Path,
        other: OtherWay,
        *,
        reach: int | None = None,
        clock: Clock | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._directory = directory
        self._other = other
        self._reach = reach
        self._clock = clock or SystemClock()
        self._chance = chance or random.SystemRandom()
        self._lock = threading.Lock()

    def verdict(self, datastore: str) -> Verdict | None:
        """What is known; ``None`` where nothing is, or what is kept cannot be read or is of another generation."""
        try:
            found = json.loads(self._path(datastore).read_text(encoding="utf-8"))
            return _verdict(found) if found["version"] == VERSION and found["reader"] == READER else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def check(self, address: VmdkAddress, disk: str) -> None:
        """Cheap. Raises ``TransportRefused`` if the datastore was found unfit."""
        verdict = self.verdict(address.volume)
        if verdict is not None and not verdict.passed:
            wrong = next((s.offset for s in verdict.samples if not s.equal), 0)
            detail = f"datastore {address.datastore}: at {verdict.at} bytes at {wrong} of {verdict.disk} differed"
            hint = f"please report it; to compare once more, remove {self._path(address.volume)}"
            raise refused(disk, VmfsSanReason.DISQUALIFIED, detail, hint=hint)

    def qualify(
        self, disk: FrozenDisk, address: VmdkAddress, source: BlockSource, features: frozenset[str]
    ) -> Verdict | None:
        """Compare, unless the datastore is qualified for disks like this one; ``None`` then. Raises ``TransportRefused``."""
        self.check(address, disk.key)
        known = self.verdict(address.volume)
        if known is not None and features <= set(known.features) and set(address.devices) == set(known.devices):
            return None
        try:
            with self._other(disk) as other:
                samples = self._compare(source, other)
        except LanfreeError as error:
            detail = f"datastore {address.datastore} cannot be compared with what its host reads: {error.message}"
            raise refused(disk.key, VmfsSanReason.NOT_QUALIFIED, detail, hint=error.hint) from error
        same_devices = known is not None and set(known.devices) == set(address.devices)
        verdict = Verdict(
            datastore=address.volume,
            devices=address.devices,
            passed=all(sample.equal for sample in samples),
            at=self._clock.now().isoformat(timespec="seconds"),
            features=tuple(sorted(features | set(known.features if known is not None and same_devices else ()))),
            disk=address.path,
            samples=tuple(samples),
        )
        self._keep(verdict)
        self.check(address, disk.key)
        return verdict

    def _compare(self, source: BlockSource, other: BlockSource) -> list[Sample]:
        compared: list[Sample] = []
        for offset, length, kind in choose(
            source.extents(), min(source.size, self._reach or source.size), self._chance
        ):
            ours, theirs = bytearray(length), bytearray(length)
            source.read_into(offset, memoryview(ours))
            other.read_into(offset, memoryview(theirs))
            digest = hashlib.blake2b(ours, digest_size=16).hexdigest()
            compared.append(Sample(offset, length, kind, digest, ours == theirs))
        return compared

    def _keep(self, verdict: Verdict) -> None:
        path = self._path(verdict.datastore)
        with self._lock:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_durably(path, json.dumps(asdict(verdict), indent=1).encode())

    def _path(self, datastore: str) -> Path:
        # the UUID comes from a hypervisor: it names no other file
        return self._directory / f"{re.sub(r'[^0-9A-Za-z-]', '_', datastore)}.json"


def choose(extents: Sequence[Extent], reach: int, chance: random.Random) -> list[tuple[int, int, str]]:
    """(offset, length, kind) of the blocks to compare, ascending: spread evenly over the data, a few over the zeroes."""
    within = intersect(extents, [Extent(0, reach)]) if reach else []
    zero = [e for e in within if e.kind is Kind.ZERO]
    data = [e for e in within if e.kind is Kind.DATA]
    zeroes = ZERO_SAMPLES if data else SAMPLES
    found = [(*block, str(Kind.ZERO)) for block in _spread(zero, zeroes if zero else 0, chance)]
    found += [(*block, str(Kind.DATA)) for block in _spread(data, SAMPLES - len(found), chance)]
    return sorted(found)


def _spread(extents: Sequence[Extent], count: int, chance: random.Random) -> set[tuple[int, int]]:
    """At most ``count`` blocks, one of each of as many equal parts of what the extents hold together."""
    held = total(extents)
    ends = list(accumulate(e.length for e in extents))
    found: set[tuple[int, int]] = set()
    for number in range(count if held else 0):
        low, high = held * number // count, held * (number + 1) // count
        position = chance.randrange(low, max(low + 1, high))
        index = bisect_right(ends, position)
        extent = extents[index]
        start = extent.start + position - (ends[index] - extent.length)
        start = max(extent.start, align_down(start, SAMPLE))
        found.add((start, min(SAMPLE, extent.end - start)))
    return found


def _verdict(found: dict[str, Any]) -> Verdict:
    found["samples"] = tuple(Sample(**sample) for sample in found["samples"])
    found["devices"] = tuple(map(str, found["devices"]))
    found["features"] = tuple(map(str, found["features"]))
    return Verdict(**found)
