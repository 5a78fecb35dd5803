"""A restore point as disks that other programs can open: NBD on Unix sockets, for as long as somebody wants them."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event

from appliance.wiring import Services
from mounter.export import CopyOnWrite, Export, ImageToExport
from proxy.errors import LanfreeError, MountFailed
from proxy.model import RestorePoint

# Seconds between looks whether the servers still run. Whoever reads meets their end at once; this is for telling why.
LOOK = 0.5


def chosen(services: Services, point: RestorePoint, keys: Sequence[str]) -> list[ImageToExport]:
    """The disks with these keys, all without. Raises ``MountFailed`` for a key that the restore point does not have."""
    images = services.images(point)
    known = [image.key for image in images]
    for key in keys:
        if key not in known:
            raise MountFailed(f"disk {key}", f"the restore point has {', '.join(known) or 'none'}")
    title = f"{point.machine_name} as of {point.created_at:%Y-%m-%d %H:%M:%S} UTC, restore point {point.id}, disk "
    return [replace(image, title=title + image.key) for image in images if not keys or image.key in keys]


@contextmanager
def exported(
    services: Services,
    point: RestorePoint,
    images: Sequence[ImageToExport],
    *,
    cow: CopyOnWrite | None = None,
    directory: Path | None = None,
) -> Iterator[Export]:
    """Serve the disks; nothing of the restore point is collected meanwhile. Raises as ``Export``."""
    with services.repository.reading(f"restore point {point.id}"), Export(images, directory, cow=cow) as export:
        yield export


def keep(export: Export, span: timedelta | None, ended: Event, tell: Callable[[LanfreeError], None]) -> None:
    """Stay until ``ended``, for ``span`` at most; ``tell`` gets every problem of the readers once, while it is new.
    Raises ``MountFailed`` when a server has ended before."""
    deadline = None if span is None else time.monotonic() + span.total_seconds()
    told = 0
    while not ended.wait(LOOK) and (deadline is None or time.monotonic() < deadline):
        problems = export.problems()
        for problem in problems[told:]:
            tell(problem)
        told = len(problems)
        why = export.ended()
        if why is not None:
            raise why
