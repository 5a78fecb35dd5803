"""Restore points mounted at directories of this machine: each kept by a process of its own, all of them listed.

::

    <state>/mounts/<pid>.json     one a mount: what, where, by which process; locked by that process as long as it lives
    <state>/mounts/log            what went wrong in mounts that nobody watched

A record that nobody locks is what a killed keeper left. The processes of the mount itself have ended with it
(``mounter/fuse/mounted.py``); whoever looks next removes the record.
"""

import errno
import fcntl
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import monotonic, sleep, time

from appliance.kvm import kvm_works
from appliance.wiring import Services
from mounter.fuse import place as fuse_place
from mounter.fuse.mounted import Mounted, MountOptions
from mounter.keys import Key
from mounter.remote import libguestfs
from proxy.errors import ConfigurationError, MountBusy
from proxy.model import RestorePoint

# Seconds between looks at a mount that is kept.
LOOK = 0.5

# Seconds: a keeper writes its record in a moment.
UNFINISHED = 60.0

# A keeper that was told to end unmounts at once and then waits for its appliance, some ten seconds at worst.
END_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class MountRecord:
    """One mount. ``directory`` as the kernel names it; ``process``: its keeper; ``shown`` and ``hidden``: devices of volumes
    with the paths below the directory where they are, and with why they are nowhere; both empty while it is opened."""

    directory: str
    point: str
    machine: str
    process: int
    since: str
    shown: dict[str, str] = field(default_factory=dict)
    hidden: dict[str, str] = field(default_factory=dict)


@contextmanager
def mounted(
    services: Services, point: RestorePoint, directory: Path, options: MountOptions, keys: Sequence[Key] = ()
) -> Iterator[tuple[Mounted, MountRecord]]:
    """Mount a restore point and record it; nothing of it is collected meanwhile. ``keys``: for encrypted volumes, beside those
    that are kept for the machine. Raises as ``Mounted``."""
    works, _ = kvm_works()
    memory = services.settings.files.appliance_memory
    known = [*keys, *services.unlock.keys(point.machine)]
    opens = partial(libguestfs, accelerate=works, memory_mib=memory, keys=known)
    begun = MountRecord(
        directory=str(fuse_place.check(directory)),
        point=point.id,
        machine=point.machine_name,
        process=os.getpid(),
        since=services.clock.now().isoformat(timespec="seconds"),
    )
    with (
        _recorded(_place(services), begun) as note,
        services.repository.reading(f"restore point {point.id}"),
        Mounted(services.images(point), directory, opens, options) as mount,
    ):
        record = _opened(begun, mount)
        note(record)
        yield mount, record


def keep(mount: Mounted, span: timedelta | None, ended: threading.Event) -> str:
    """Stay until the mount ends, for ``span`` at most, or until ``ended``. Returns why."""
    deadline = None if span is None else monotonic() + span.total_seconds()
    while not ended.wait(LOOK):
        why = mount.ended()
        if why is not None:
            return why
        if deadline is not None and monotonic() > deadline:
            return "its time was over"
    return "it was told to end"


def records(services: Services) -> list[MountRecord]:
    """All mounts of this appliance, oldest first. What killed keepers have left is tidied up."""
    found: list[MountRecord] = []
    for path in sorted(_place(services).glob("*.json"), key=lambda p: p.name):
        with suppress(FileNotFoundError):  # it ended while we looked
            living = fuse_place.is_locked(path)
            try:
                record = MountRecord(**json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError):  # its keeper is just writing it, or was killed while it did
                if not living and time() - path.stat().st_mtime > UNFINISHED:
                    path.unlink(missing_ok=True)
                continue
            if living:
                found.append(record)
            else:
                _tidy(Path(record.directory))
                path.unlink(missing_ok=True)
    return sorted(found, key=lambda r: r.since)


def unmount(services: Services, directory: Path, *, force: bool = False) -> MountRecord:
    """End a mount; returns when its processes are gone. Raises ``MountBusy`` (never with ``force``: then programs that use
    it get errors), ``ConfigurationError`` when none of ours is there."""
    wanted = str(directory.parent.resolve() / directory.name)  # the last part may hang, if its server does
    record = next((r for r in records(services) if r.directory == wanted), None)
    if record is None:
        hint = "'lanfree mounts' lists what is mounted"
        raise ConfigurationError(str(directory), "no restore point is mounted there", hint=hint)
    place = Path(record.directory)
    if fuse_place.connection(place) is None:
        os.kill(record.process, signal.SIGTERM)  # it is about to open, or to end
    elif force:
        fuse_place.unmount_now(place)
    else:
        fuse_place.unmount(place)
    path = _place(services) / f"{record.process}.json"
    deadline = monotonic() + END_SECONDS
    while fuse_place.is_locked(path):
        if monotonic() > deadline:
            raise MountBusy(wanted, f"it is unmounted, but process {record.process} does not end")
        sleep(0.1)
    return record


def log_of(services: Services) -> Path:
    """Where keepers without a terminal write."""
    return _place(services) / "log"


def _opened(begun: MountRecord, mount: Mounted) -> MountRecord:
    return replace(
        begun,
        shown={v.device: v.mountpoint for v in mount.volumes if v.mountpoint is not None},
        hidden={v.device: v.problem or "the guest mounts it nowhere" for v in mount.volumes if v.mountpoint is None},
    )


@contextmanager
def _recorded(place: Path, record: MountRecord) -> Iterator[Callable[[MountRecord], None]]:
    """Locked until all of the mount has ended. Gives what replaces the record by a later one."""
    path = place / f"{record.process}.json"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def note(newer: MountRecord) -> None:
        path.write_text(json.dumps(asdict(newer)), encoding="utf-8")

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        note(record)
        yield note
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _place(services: Services) -> Path:
    place = services.settings.state.directory / "mounts"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


def _tidy(place: Path) -> None:
    """Unmount what no server answers for. What answers is a later mount, of another appliance perhaps."""
    try:
        place.stat()
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            fuse_place.unmount_now(place)
