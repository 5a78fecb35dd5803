"""Which restore points there are: manifests without a tombstone, their chains, holds, and how they are deleted."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import groupby

from proxy.errors import (
    DeleteRefused,
    FormatError,
    IntegrityError,
    ObjectRetained,
    RepositoryUnavailable,
    RestorePointNotFound,
)
from proxy.model import MachineId, RestorePoint, RestorePointId
from proxy.ports import Clock, DamagedPoint, ObjectStore
from proxy.repository import manifest, records, settings
from proxy.repository.manifest import Link, Manifest
from proxy.repository.manifest_cache import ManifestCache
from proxy.repository.parallel import each
from proxy.repository.records import Health, Hold, Tombstone, Verification
from proxy.repository.sealing import Keys, Sealer

# Records of deleted restore points that a cache file may hold before it is made anew.
_SLACK = 64


class Ledger:
    """The restore points of one repository. All methods may be called from any thread, of any number of proxies."""

    def __init__(
        self, store: ObjectStore, keys: Keys, sealer: Sealer, clock: Clock, cache: ManifestCache | None
    ) -> None:
        self._store = store
        self._keys = keys
        self._sealer = sealer
        self._clock = clock
        self._cache = cache
        self._deleting = threading.Lock()
        self.tombstones = records.tombstones(store, sealer)
        self.holds = records.holds(store, sealer)
        self.verifications = records.verifications(store, sealer)

    def name(self, point: RestorePoint) -> str:
        """Object name of a restore point's manifest."""
        return manifest.manifest_name(self._keys, point.machine, point.id)

    def names(self, machine: MachineId | None = None) -> list[str]:
        """Object names of the manifests, by machine and time. Looks first whether the repository is still there, so that
        a vanished mount never looks like an empty repository."""
        with suppress(FileNotFoundError):
            self._store.size(settings.NAME)
            folder = manifest.PREFIX if machine is None else manifest.machine_folder(self._keys, machine)
            listed = list(self._store.list(folder))
            # Listed after the manifests: a point that is deleted meanwhile is missing in the first list or in this one.
            buried = self.tombstones.names(folder)
            # What is in both lists is being deleted, or somebody without the key put a tombstone there: it hides nothing.
            return [name for name in listed if name not in buried or not self.tombstones.opens(name)]
        raise RepositoryUnavailable(place_of(self._store), "its config object is gone")

    def read(self, name: str) -> Manifest:
        """As it is stored now. Raises ``FormatError``, and ``FileNotFoundError`` for one that was deleted meanwhile."""
        data = self._stored(name)
        if data is None:
            raise FileNotFoundError(name)
        if isinstance(data, FormatError):
            raise data
        return self._decoded(name, data)

    def survey(
        self, machine: MachineId | None = None, *, cached: bool = False
    ) -> tuple[list[RestorePoint], list[DamagedPoint]]:
        """Points, oldest first, and manifests that cannot be read, of one look. Points that are deleted meanwhile are in
        neither. ``cached``: those that were read before may have been damaged since."""
        found: list[RestorePoint] = []
        damaged: list[DamagedPoint] = []
        for folder, names in groupby(self.names(machine), key=machine_of):
            for name, seen in self._all(folder, list(names), cached=cached).items():
                if isinstance(seen, FormatError):
                    damaged.append(DamagedPoint(name, seen.message.removeprefix(f"{name}: ")))
                else:
                    found.append(seen.point)
        return sorted(found, key=lambda p: (p.id, p.machine)), damaged

    def _all(self, folder: str, names: Sequence[str], *, cached: bool) -> dict[str, Manifest | FormatError]:
        """Manifests of one machine: from the cache, else from the store, several at once. Those that vanish are left out."""
        cache = self._cache if cached else None
        kept = cache.known(folder) if cache is not None else {}
        if cache is not None and len(kept) > 2 * len(names) + _SLACK:
            cache.drop(folder)
            kept = {}
        found: dict[str, Manifest | FormatError] = {}
        for name in names:
            with suppress(FormatError):
                if name in kept:
                    found[name] = self._decoded(name, kept[name])
        fresh = self._from_store([name for name in names if name not in found], found)
        if cache is not None:
            cache.keep(folder, fresh)
        return found

    def _from_store(self, names: Sequence[str], found: dict[str, Manifest | FormatError]) -> dict[str, bytes]:
        """Adds to ``found``; the objects of those that are whole."""
        fresh: dict[str, bytes] = {}
        for name, data in zip(names, each(self._stored, names), strict=True):
            try:
                if isinstance(data, FormatError):
                    raise data
                if data is not None:
                    found[name] = self._decoded(name, data)
                    fresh[name] = data
            except FormatError as error:
                found[name] = error
        return fresh

    def _stored(self, name: str) -> bytes | FormatError | None:
        try:
            return self._store.get(name)
        except FileNotFoundError:
            return None
        except IntegrityError as error:
            return FormatError(name, error.message)

    def _decoded(self, name: str, data: bytes) -> Manifest:
        found = manifest.decode(name, data, self._sealer)
        if name != self.name(found.point):
            raise FormatError(name, f"holds restore point {found.point.id} of another name")
        return found

    def find(self, point: RestorePointId) -> RestorePoint:
        """By its id or an unambiguous beginning of it. Raises ``RestorePointNotFound``, and ``FormatError`` for one whose
        manifest is damaged."""
        names = [name for name in self.names() if name.rpartition("/")[2].startswith(point)]
        exact = [name for name in names if name.endswith(f"/{point}")]
        if not point or len(exact or names) != 1:
            raise RestorePointNotFound(f"{point} ({len(names)} begin so)" if point and names else point or "''")
        try:
            return self.read((exact or names)[0]).point
        except FileNotFoundError:
            raise RestorePointNotFound(point) from None

    def has(self, point: RestorePoint) -> bool:
        """Whether its manifest is there, readable or not."""
        try:
            self._store.size(self.name(point))
        except FileNotFoundError:
            return False
        return True

    def withdraw(self, point: RestorePoint, why: str) -> None:
        """Take back a restore point that was sealed a moment ago, and turned out not to be whole: no rule keeps it."""
        name = self.name(point)
        with suppress(RestorePointNotFound):  # somebody deleted it meanwhile
            self._bury(name, why, self._clock.now())
        self._store.delete(name)

    def add(self, point: RestorePoint) -> RestorePoint:
        """Write the manifest, linked to the machine's newest. Sealing the same run's point again returns what is there.
        Raises ``IntegrityError`` if the id is taken, or the point was deleted."""
        name = self.name(point)
        if self.tombstones.get(name) is not None:
            raise IntegrityError(f"restore point {point.id}", "it was sealed before, and deleted")
        data = manifest.encode(Manifest(point, self._link(point.machine, name)), self._sealer, name)
        try:
            self._store.put(name, data)
        except FileExistsError:
            there = self.read(name).point
            if (there.machine, there.run, there.created_at) != (point.machine, point.run, point.created_at):
                raise IntegrityError(f"restore point {point.id}", "the id is taken by another run") from None
            return there
        return point

    def delete(self, found: RestorePoint, why: str) -> None:
        """The tombstone first: from then on there is no such point. The manifest follows; indexes and chunks stay until
        they are collected, for somebody may be reading them. Refuses (``DeleteRefused``) what is held, and a machine's last
        restore point that is not damaged.

        Two proxies that delete a machine's last two points at once both see both tombstones, and both refuse: so it is
        asked again when the tombstone is there. On NFS a listing may be a minute old, and miss the other's tombstone.
        """
        name = self.name(found)
        with self._deleting:
            self.check_deletable(found)
            if not self._bury(name, why, self._clock.now()):
                raise RestorePointNotFound(f"{found.id}, which somebody else is deleting now,")
            try:
                self._keep_one(found)
            except BaseException:
                self.tombstones.delete(name)
                raise
            try:
                self._store.delete(name)
            except ObjectRetained:
                self.tombstones.delete(name)
                raise
        self.verifications.delete(name)

    def check_deletable(self, found: RestorePoint) -> None:
        """Raises ``DeleteRefused`` where ``delete`` would, as things are now; for who has to ask others first."""
        hold = self.holds.get(self.name(found))
        if hold is not None:
            raise DeleteRefused(found.id, f"it is held: {hold.why}", hint="take the hold off first")
        self._keep_one(found)

    def forget(self, name: str, why: str) -> None:
        """Delete a manifest that cannot be read, by its object name, because a person said so. What only it needed is
        collected. Raises ``DeleteRefused`` for one that can be read, ``RestorePointNotFound``."""
        if name not in self.names():
            raise RestorePointNotFound(name)
        with suppress(FormatError):
            readable = self.read(name).point
            raise DeleteRefused(readable.id, "it is whole", hint="delete it by its id")
        self._bury(name, why, self._clock.now())
        self._store.delete(name)

    def hold(self, point: RestorePointId, why: str) -> None:
        """Keep a restore point from being deleted, by retention or by people."""
        found = self.find(point)
        self.holds.put(self.name(found), Hold(found.id, self._clock.now(), why))

    def release_hold(self, point: RestorePointId) -> None:
        """Let it be deleted again."""
        self.holds.delete(self.name(self.find(point)))

    def health(self, point: RestorePoint) -> Verification | None:
        """How its last verification went; ``None`` if there was none, or its record cannot be read."""
        with suppress(FormatError):
            return self.verifications.get(self.name(point))
        return None

    def note_health(self, point: RestorePoint, health: Health, *, coverage: float = 1.0, damaged: int = 0) -> None:
        """Record how a verification went. It reads what was stored, and takes no doubt away about what should have been."""
        last = self.health(point)
        doubt = last.doubt if last is not None else ""
        if doubt and health is Health.GOOD:
            health = Health.SUSPECT
        note = Verification(point.id, health, self._clock.now(), coverage, damaged, doubt)
        self.verifications.put(self.name(point), note)

    def doubt(self, point: RestorePoint, why: str) -> None:
        """Record that what was stored may not be what the machine had. It is for ever."""
        known = self.health(point) or Verification(point.id, Health.GOOD, self._clock.now(), coverage=0.0)
        health = Health.DAMAGED if known.health is Health.DAMAGED else Health.SUSPECT
        self.verifications.put(self.name(point), replace(known, health=health, doubt=why))

    def _keep_one(self, deleted: RestorePoint) -> None:
        """Newest first: the first good one is enough, so that a deletion costs the same however many there are."""
        own = self.name(deleted)
        others = unreadable = False
        for name in reversed(self.names(deleted.machine)):
            if name == own:
                continue
            with suppress(FileNotFoundError):
                try:
                    other = self.read(name).point
                except FormatError:
                    unreadable = True
                    continue
                if self._is_trusted(other):
                    return
                others = True
        if others and not self._is_trusted(deleted):
            return
        which = " that is good" if others else " that can be read" if unreadable else ""
        raise DeleteRefused(deleted.id, f"it is the only restore point of {deleted.machine_name}{which}")

    def _is_trusted(self, point: RestorePoint) -> bool:
        known = self.health(point)
        return known is None or known.health.trusted

    def _bury(self, name: str, why: str, now: datetime) -> bool:
        """Whether the tombstone is ours: nobody takes another's back. Number 0 for a manifest that cannot be read, and the
        hash of nothing for one of which the storage gives nothing. Raises ``RestorePointNotFound``."""
        data = self._stored(name)
        link, point = Link(0), name.rpartition("/")[2]
        if data is None:
            raise RestorePointNotFound(point)
        if isinstance(data, FormatError):
            data = b""
        with suppress(FormatError):
            link = manifest.decode(name, data, self._sealer).link
        stone = Tombstone(point, manifest.object_hash(data), link.number, link.previous, now, why)
        try:
            self.tombstones.put(name, stone, new=True)
        except FileExistsError:
            return False
        return True

    def _link(self, machine: MachineId, name: str) -> Link:
        """To the machine's newest restore point but this one, deleted or not. One that cannot be read keeps no backup from
        being sealed: its number is told from those before it."""
        folder = manifest.machine_folder(self._keys, machine)
        listed = set(self._store.list(folder))
        there = sorted({*listed, *self.tombstones.names(folder)} - {name}, reverse=True)
        while there and there[0] not in listed and not self.tombstones.opens(there[0]):
            del there[0]  # it counts for nothing: damaged, or somebody without the key put it there
        if not there:
            return Link(1)
        point = there[0].rpartition("/")[2]
        newest = self._place(there[0])
        if newest is None:
            raise IntegrityError(f"restore point {point}", "it vanished, without a record, while another was sealed")
        number, hashed = newest
        for steps, older in enumerate(there[1:], 1):
            if number:
                break
            known = self._place(older)
            number = known[0] + steps if known is not None and known[0] else 0
        return Link((number or len(there)) + 1, point, hashed)

    def _place(self, name: str) -> tuple[int, str | None] | None:
        """Number (0: not known) and hash of a restore point, deleted or not; ``None`` if there is no trace of it."""
        data = self._stored(name)
        if isinstance(data, FormatError):
            return 0, None
        if data is not None:
            try:
                return manifest.decode(name, data, self._sealer).link.number, manifest.object_hash(data)
            except FormatError:
                return 0, manifest.object_hash(data)
        try:
            stone = self.tombstones.get(name)
        except (FormatError, IntegrityError):
            return 0, None
        return None if stone is None else (stone.number, stone.hash)


def machine_of(name: str) -> str:
    """The machine's folder in the name of a manifest: all that is known of whose it is, without reading it."""
    return name.split("/")[1]


def resealed(point: RestorePoint, now: datetime) -> RestorePoint:
    """The point as it is written: with its id, and the moment of the seal."""
    identity = point.id or manifest.point_id(point.created_at, point.machine, point.run)
    return replace(point, id=identity, sealed_at=now)


def place_of(store: ObjectStore) -> str:
    """The repository's place, for people."""
    path = store.local_path(settings.NAME)
    return str(path.parent) if path is not None else type(store).__name__


def all_readable(damaged: Sequence[DamagedPoint]) -> None:
    """Raises ``IntegrityError`` unless every manifest could be read: what may be removed is not known otherwise."""
    if damaged:
        raise IntegrityError(
            f"object {damaged[0].object}", f"{damaged[0].why}; {len(damaged)} manifests cannot be read"
        )
