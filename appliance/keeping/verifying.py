"""Verification as jobs do it: restore points in turn, a share of the machines a night."""

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import TYPE_CHECKING

from appliance.keeping.maintenance import standings
from appliance.operations import VerifyReport
from appliance.wiring import Services
from proxy.errors import Cancelled
from proxy.model import MachineId, RestorePointId
from proxy.ports import Progress, ProgressSink
from proxy.repository.collection.retention import of_future
from proxy.repository.selection import point_of

if TYPE_CHECKING:
    from proxy.repository import Damage, VerifyProgress

# What was read and found right within it is not read again: the points of one night share most of their packs, and a
# verification that was killed goes on where it was.
FRESH = timedelta(days=1)

_NEVER = datetime.min.replace(tzinfo=UTC)


def verify_run(
    services: Services,
    points: Sequence[RestorePointId],
    *,
    fresh: timedelta = FRESH,
    deep: bool = True,
    cancelled: Callable[[], bool] | None = None,
    progress: ProgressSink | None = None,
) -> VerifyReport:
    """Verify these restore points; how each stands is recorded with it, damage is told and not raised. Those that are gone by
    now are left out. To run it again is to go on: what was read and right within ``fresh`` is not read again. ``deep``: also
    decompress each chunk. Raises ``Cancelled``, ``RepositoryUnavailable``."""
    verified = checked = 0
    damage: list[Damage] = []
    there = {point_of(name) for name in services.repository.ledger.names()}
    for point in points:
        if point in there:
            found, read = verify_some(services, point, fresh, deep=deep, cancelled=cancelled, progress=progress)
            verified += 1
            checked += read
            damage += found
    return VerifyReport(verified, checked, tuple(damage))


def verify_due(services: Services, machines: Collection[MachineId], days: int) -> list[RestorePointId]:
    """Tonight's share: the newest restore point of each machine of which none was verified for so many days, the longest
    first, at most as many as are a ``days``-th of the machines that have points. 0 days: none."""
    if not days:
        return []
    own = set(machines)
    now = services.clock.now()
    points = [p for p in services.repository.points() if p.machine in own and not of_future(p.created_at, now)]
    stand = standings(services, points)
    newest = {point.machine: point.id for point in points}
    verified = dict.fromkeys(newest, _NEVER)
    for point in points:
        verified[point.machine] = max(verified[point.machine], stand[point.id].verified_at or _NEVER)
    late = now - timedelta(days=days)
    due = sorted((moment, machine) for machine, moment in verified.items() if moment <= late)
    return [newest[machine] for _, machine in due[: ceil(len(newest) / days)]]


def verify_some(
    services: Services,
    point: RestorePointId | None,
    fresh: timedelta,
    *,
    share: float = 1.0,
    deep: bool = True,
    cancelled: Callable[[], bool] | None = None,
    progress: ProgressSink | None = None,
) -> tuple[list["Damage"], int]:
    """One restore point, or a ``share`` of the packs of all: what is damaged, and the bytes that were read."""
    from proxy.repository import verify  # noqa: PLC0415  # brings numpy

    read = 0

    def note(event: "VerifyProgress") -> None:
        nonlocal read
        read = event.done
        if cancelled is not None and cancelled():
            raise Cancelled("the verification")
        if progress is not None:
            name = f"restore point {point}" if point else "chunks"
            progress(Progress(name, event.done, event.total, event.done))

    found = list(verify(services.repository, point, progress=note, share=share, max_age=fresh, deep=deep))
    return found, read
