"""What changed on a disk: ``QueryChangedDiskAreas``, asked until the whole disk is covered, and never believed half.

A host answers with at most some thousand areas a call and tells which part of the disk they cover::

    disk     0 |------------------------------------------------| size
    call 1     |#  ##   #   |                       covered: [0, a)
    call 2                  |  #      ##  |         covered: [a, b)
    call 3                                |   #  # |covered: [b, size)

An answer that covers nothing more, leaves a gap, or names an area beyond the disk is no answer: ``ChangesUnknown``, and the
run reads everything and says why.

Our ``ChangeId`` is vSphere's with the facts that it silently depends on, ``<epoch>/<number>;size=…;disk=…;hardware=…``: a disk
that was grown or made anew, and a machine whose virtual hardware was upgraded, still have change ids that look alright.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

from proxy.errors import ChangesUnknown
from proxy.extents import Extent, aligned, normal
from proxy.hypervisor.vsphere.faults import Refused
from proxy.model import ChangeId, ReasonCode
from proxy.units import KiB

ALLOCATED = "*"
"""In place of a change id: every area that is allocated."""

# A disk of 62 TiB in pieces of 64 KiB would be a thousand million areas. Above this many they are made coarser, which reads
# more and misses nothing: a million extents are some 100 MB in memory.
MOST_EXTENTS = 1_000_000

# Changes are tracked in pieces of 64 KiB and more; the first step of making them coarser.
GRAIN = 64 * KiB

# Calls for one disk. A host that covers less than a millionth of the disk with each is not going to end.
MOST_CALLS = 1_000_000


@dataclass(frozen=True, slots=True)
class DiskMark:
    """A change id with what has to be the same when it is used. ``disk``: UUID that a virtual disk got when it was made."""

    change: str
    size: int
    disk: str
    hardware: str

    @property
    def epoch(self) -> str:
        """The part of vSphere's change id that is new whenever tracking began anew."""
        return self.change.rpartition("/")[0]

    def __str__(self) -> str:
        return f"{self.change};size={self.size};disk={self.disk};hardware={self.hardware}"

    @classmethod
    def parse(cls, mark: ChangeId) -> Self | None:
        """``None`` for anything else."""
        change, *facts = mark.split(";")
        known = dict(fact.partition("=")[::2] for fact in facts)
        size = known.get("size", "")
        if "/" not in change or not (size.isascii() and size.isdigit()) or not {"disk", "hardware"} <= known.keys():
            return None
        return cls(change, int(size), known["disk"], known["hardware"])


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: areas (start, length) in ``[start, start + length)`` of the disk, bytes."""

    start: int
    length: int
    areas: tuple[tuple[int, int], ...]


Ask = Callable[[int], Answer]
"""The answer from an offset on. Raises ``Refused``."""


def usable(disk: str, since: ChangeId, now: ChangeId | None) -> str:
    """vSphere's change id in ``since``, if nothing happened since then that makes it worthless. Raises ``ChangesUnknown``."""
    old, new = DiskMark.parse(since), DiskMark.parse(now or "")
    if old is None:
        raise ChangesUnknown(disk, ReasonCode.TRACKING_LOST, f"{since!r} is no change id of vSphere's")
    if new is None:
        raise ChangesUnknown(disk, ReasonCode.TRACKING_LOST, "this snapshot has no change id")
    if old.size != new.size:
        raise ChangesUnknown(disk, ReasonCode.DISK_RESIZED, f"was {old.size} bytes, is {new.size}")
    if old.disk != new.disk:
        raise ChangesUnknown(disk, ReasonCode.DISK_NEW, f"the disk was made anew: it was {old.disk}, is {new.disk}")
    if old.epoch != new.epoch:
        raise ChangesUnknown(disk, ReasonCode.TRACKING_LOST, f"tracking began anew: {old.epoch} became {new.epoch}")
    if old.hardware != new.hardware:
        why = f"the virtual hardware was changed from {old.hardware} to {new.hardware}"
        raise ChangesUnknown(disk, ReasonCode.TRACKING_LOST, why)
    return old.change


def collect(disk: str, size: int, ask: Ask) -> list[Extent]:
    """All areas of the disk: normal, DATA, within it. Raises ``ChangesUnknown`` for a refusal or an answer that cannot be."""
    found: list[Extent] = []
    covered = grain = 0
    for _ in range(MOST_CALLS):
        if covered >= size:
            return normal(found)
        try:
            answer = ask(covered)
        except Refused as error:
            raise ChangesUnknown(disk, ReasonCode.TRACKING_LOST, error.why) from None
        _check(disk, size, covered, answer)
        found += [Extent(start, min(length, size - start)) for start, length in answer.areas if length]
        while len(found) > MOST_EXTENTS and len(found := normal(found)) > MOST_EXTENTS:
            grain = 2 * grain or GRAIN
            found = aligned(found, grain, size)
        covered = answer.start + answer.length
    raise ChangesUnknown(disk, ReasonCode.TRACKING_INCONSISTENT, f"no end after {MOST_CALLS} calls")


def _check(disk: str, size: int, covered: int, answer: Answer) -> None:
    end = answer.start + answer.length
    wrong = ""
    if answer.start > covered:
        wrong = f"bytes {covered} to {answer.start} are left out"
    elif end <= covered:
        wrong = f"asked from {covered} on, it covers {answer.start} to {end}"
    else:
        for start, length in answer.areas:
            if start < 0 or length < 0 or start >= size:
                wrong = f"an area of {length} bytes at {start} is not on a disk of {size}"
    if wrong:
        raise ChangesUnknown(disk, ReasonCode.TRACKING_INCONSISTENT, wrong)


def query(machine: Any, snapshot: Any, device: int, change: str) -> Ask:
    """How ``machine`` is asked about the disk with this device key. ``snapshot``: ``None`` for a machine that is off."""

    def ask(offset: int) -> Answer:
        told = machine.QueryChangedDiskAreas(snapshot, device, offset, change)
        return Answer(int(told.startOffset), int(told.length), _areas(told.changedArea or ()))

    return ask


def _areas(told: Iterable[Any]) -> tuple[tuple[int, int], ...]:
    return tuple((int(area.start), int(area.length)) for area in told)
