"""Damage found, and mended with what a second repository has."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from appliance.keeping.maintenance import copy_repository
from appliance.wiring import Services
from proxy.errors import Cancelled
from proxy.model import RestorePointId
from proxy.ports import Progress, ProgressSink

if TYPE_CHECKING:
    from proxy.repository import VerifyProgress
    from proxy.repository.checking.repair import Repaired


def repair_run(
    services: Services,
    name: str,
    point: RestorePointId | None = None,
    *,
    cancelled: Callable[[], bool] | None = None,
    progress: ProgressSink | None = None,
) -> list["Repaired"]:
    """Verify our own repository, or one restore point of it (the beginning of its id is enough), and mend what is damaged
    with the ``[[copy_to]]`` of this name. What became of each damage; how restore points stand is told by their next
    verification. To run it again is to go on. Raises ``Cancelled``, ``RestorePointNotFound``, and what keeps one of both
    repositories from being used."""
    from proxy.repository.checking.repair import repair  # noqa: PLC0415  # brings numpy, which most commands do without
    from proxy.repository.checking.verify import verify  # noqa: PLC0415

    def note(event: "VerifyProgress") -> None:
        if cancelled is not None and cancelled():
            raise Cancelled("the repair")
        if progress is not None:
            progress(Progress("chunks", event.done, event.total, event.done))

    with copy_repository(services, name) as other:
        repository = services.repository
        wanted = repository.point(point).id if point else None
        mended = []
        for each in repair(repository, other, verify(repository, wanted, progress=note)):
            mended.append(each)
            if cancelled is not None and cancelled():
                raise Cancelled("the repair")
        return mended
