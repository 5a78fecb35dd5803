"""Guests whose disks are in memory, for tests of what the API says of their files."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

from mounter.keys import Key
from mounter.memory import MemoryFilesystem, MemoryVolume
from mounter.ports import Volume
from mounter.session import LIFETIME, MountSession
from mounter.walk import TreeWalk
from proxy.errors import LanfreeError, MountFailed
from proxy.model import RestorePoint
from tests.unit.api.api_site import ApiSite

SEALED = "it is encrypted, and no key opens it"


def volume(mountpoint: str | None = "/", device: str = "/dev/sda1", **facts: str) -> MemoryVolume:
    """An empty file system."""
    return MemoryVolume(Volume(f"id-{device}", device, facts.get("type", "ext4"), "", "", 1 << 30, mountpoint))


class _Failing(MemoryFilesystem):
    """Its repository is damaged behind the first files."""

    def __init__(self, volumes: Sequence[MemoryVolume], after: int, error: LanfreeError) -> None:
        super().__init__(volumes)
        self._left, self._error = after, error

    def read(self, volume: Volume, path: bytes, offset: int = 0) -> Iterator[bytes]:
        if not self._left:
            raise self._error
        self._left -= 1
        return super().read(volume, path, offset)


@dataclass
class Guests:
    """Restore points that hold these volumes. ``secret``: opens the volumes that are in ``sealed`` (their devices).
    ``opened``: how often a restore point was, with how many keys. ``broken``: why none can be; ``hold_back``: none is before it
    is set; ``fails_after``: so many files that are read come whole, and then this."""

    site: ApiSite
    volumes: dict[str, Sequence[MemoryVolume]] = field(default_factory=dict)
    sealed: set[str] = field(default_factory=set)
    secret: bytes = b"correct horse"
    opened: list[tuple[str, int]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    broken: str = ""
    hold_back: threading.Event | None = None
    fails_after: tuple[int, LanfreeError] | None = None

    def __post_init__(self) -> None:
        self.site.services.__dict__["mount"] = self._mount

    def hold(self, point: RestorePoint, *volumes: MemoryVolume, index: bool = False) -> None:
        """What a restore point holds. ``index``: record its files."""
        self.volumes[point.id] = volumes
        if index:
            self.index(point)

    def index(self, point: RestorePoint) -> None:
        """Record the files of a restore point, as after a backup."""
        with self._mount(point) as session:
            walk = TreeWalk(session)
            self.site.services.catalog.index(point.id, walk, walk.volumes)
        self.opened.clear()
        self.closed.clear()

    @contextmanager
    def _mount(
        self,
        point: RestorePoint,
        *,
        keys: Sequence[Key] = (),
        lifetime: timedelta | None = None,
        direct: bool = True,
    ) -> Iterator[MountSession]:
        del direct
        known = any(key.secret == self.secret for key in keys)
        volumes = [self._seen(each, known=known) for each in self.volumes.get(point.id, ())]
        self.opened.append((point.id, len(keys)))
        with MountSession(
            [], lambda _s, _d: self._filesystem(volumes), clock=self.site.services.clock, lifetime=lifetime or LIFETIME
        ) as session:
            yield session
        self.closed.append(point.id)

    def _filesystem(self, volumes: Sequence[MemoryVolume]) -> MemoryFilesystem:
        if self.hold_back is not None:
            assert self.hold_back.wait(60)
        if self.broken:
            raise MountFailed("the disks", self.broken)
        return MemoryFilesystem(volumes) if self.fails_after is None else _Failing(volumes, *self.fails_after)

    def _seen(self, held: MemoryVolume, *, known: bool) -> MemoryVolume:
        if held.volume.device in self.sealed and not known:
            return MemoryVolume(replace(held.volume, problem=SEALED, mountpoint=None))
        return held
