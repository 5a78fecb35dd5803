"""The appliance protects itself like a machine: its state becomes restore points of ``lanfree`` in its own repository.

::

    configuration, named files, keys of volumes  -> image state    (a tar)           }  restore point
    databases, each of one moment                -> image catalog, audit, jobs       }  of machine appliance-<repository>
                                                    (SQLite files)                   }  in the repository and every copy_to

So it is encrypted, signed, chained, deduplicated, verified and copied like everything else; ``bootstrap.py`` makes an
appliance of it. Each repository gets it straight from here: one that is not encrypted gets no secrets. The engine's own
records are left out: what goes on now will not go on after a disaster.
"""

import importlib.metadata
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, ValidationError

from appliance import databases, operations, storage
from appliance.config import CopyRepository
from appliance.protection.archive import Archive, archive, plain
from appliance.wiring import Services
from catalog import portable
from proxy.errors import (
    CatalogFailed,
    DeleteRefused,
    FormatError,
    LanfreeError,
    MachineBusy,
    ObjectRetained,
    RestorePointNotFound,
)
from proxy.model import (
    APPLIANCE,
    Consistency,
    ImageInfo,
    Level,
    MachineConfiguration,
    MachineId,
    Reason,
    ReasonCode,
    RestorePoint,
    RestorePointId,
)
from proxy.repository import Repository
from proxy.repository.collection.retention import PointFacts, Policy, decide, of_future
from proxy.repository.parallel import each
from proxy.repository.records import Health
from proxy.units import MiB, align_up, format_size

NAME = "lanfree"
STATE = "state"
VERSION = 1

# Read and hashed at once; more would be no faster, less would ask the repository more often.
_STEP = 4 * MiB

# Beside the databases' own size: what else may come to the state directory meanwhile.
_ROOM = 64 * MiB


class Content(BaseModel):
    """One image of such a restore point. ``digest``: BLAKE3 of its bytes, hexadecimal."""

    model_config = ConfigDict(frozen=True)
    size: int
    digest: str


class Contents(BaseModel):
    """What a restore point of the appliance says of itself, in place of a machine's definition. ``secrets``: whether the named
    files are in it; ``missing``: those that could not be read, and databases that were left out, with the reason."""

    model_config = ConfigDict(frozen=True)
    version: int = VERSION
    software: str
    configuration: Path
    state: Path
    secrets: bool
    missing: tuple[str, ...]
    images: Mapping[str, Content]


@dataclass(frozen=True, slots=True)
class Protected:
    """What became of one repository. ``point``: the newest that holds this state, ``made`` now or before; ``removed``: by the
    rules of ``[protect]``; ``problem``: why there is none."""

    repository: str
    point: RestorePointId | None = None
    made: bool = False
    secrets: bool = False
    bytes_new: int = 0
    bytes_stored: int = 0
    removed: tuple[RestorePointId, ...] = ()
    problem: str = ""

    @property
    def outcome(self) -> str:
        """``made``, ``failed``, or ``unchanged``: the newest one holds this state already."""
        return "made" if self.made else "failed" if self.problem else "unchanged"


@dataclass(frozen=True, slots=True)
class ProtectReport:
    """``files``: what the configuration names and is protected; ``missing``: see ``Contents``; ``size``: of all images, bytes.
    ``enabled``: false when the configuration does not want it; then nothing was done."""

    enabled: bool
    targets: tuple[Protected, ...] = ()
    files: tuple[Path, ...] = ()
    missing: tuple[str, ...] = ()
    size: int = 0

    @property
    def made(self) -> bool:
        """Whether any repository got a restore point: nothing had changed otherwise."""
        return any(target.made for target in self.targets)

    @property
    def problems(self) -> tuple[str, ...]:
        """What a person has to mend."""
        failed = [f"{each.repository}: {each.problem}" for each in self.targets if each.problem]
        return (*failed, *(f"not protected: {each}" for each in self.missing))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a person has to know, and may want so."""
        clear = [each.repository for each in self.targets if not each.secrets and not each.problem]
        without = "passwords, keys, and what follows the host in addresses of [[witness]] and [[notify]] are not in it"
        return tuple(f"{each} is not encrypted: {without}; all else of the configuration file is" for each in clear)


def machine_of(repository: Repository) -> MachineId:
    """The identity under which the appliance of a repository is protected."""
    return f"appliance-{repository.settings.id.hex()}"


def place_of(services: Services) -> portable.Place:
    """Where this appliance's databases are."""
    return portable.Place(services.catalog_url, databases.password(services.settings))


def contents_of(point: RestorePoint) -> Contents:
    """Raises ``FormatError`` for one that is damaged, or was made by a newer Lanfree."""
    try:
        found = Contents.model_validate_json(point.configuration.text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise FormatError(f"restore point {point.id}", f"does not say what it holds: {first['msg']}") from None
    if found.version > VERSION:
        raise FormatError(f"restore point {point.id}", f"was made by a newer Lanfree ({found.software})")
    return found


def protect(services: Services, now: datetime | None = None) -> ProtectReport:
    """Bring the state of now into the repository and every ``[[copy_to]]``, where it is not the newest there already, and
    remove old ones by the rules of ``[protect]``. Can be repeated at any time, and killed: restore points are whole.

    A repository that fails is told in the report, and the others go on. Raises ``MachineBusy`` while another process is at
    it; ``RepositoryUnavailable`` and the like when the first one cannot be opened; ``CatalogFailed``, ``ConfigurationError``.
    """
    settings = services.settings
    if not settings.protect.enabled:
        return ProtectReport(enabled=False)
    machine, run = machine_of(services.repository), operations.new_run("p")
    with services.interlock.run(machine, run), portable.alone(place_of(services), "protect") as alone:
        if not alone:
            raise MachineBusy(machine, "another proxy")
        with _room(settings.state.directory) as directory:
            work = _Work(services, machine, run, now or services.clock.now(), directory)
            return work.report([work.into(None), *(work.into(section) for section in settings.copy_to)])


class _Work:
    """One protection: what is protected is read once, for all repositories."""

    def __init__(self, services: Services, machine: MachineId, run: str, now: datetime, directory: Path) -> None:
        self._services = services
        self._machine, self._run, self._now = machine, run, now
        self._sealed = archive(services.settings, services.shared, secrets=True)
        self._databases, left_out = _databases(services, directory)
        self._missing = (*self._sealed.missing, *left_out)

    @cached_property
    def _clear(self) -> Archive:
        return archive(self._services.settings, self._services.shared, secrets=False)

    def report(self, targets: Sequence[Protected]) -> ProtectReport:
        size = len(self._sealed.data) + sum(file.stat().st_size for file in self._databases.values())
        return ProtectReport(True, tuple(targets), self._sealed.files, self._missing, size)

    def into(self, other: CopyRepository | None) -> Protected:
        """The first repository, or a second one. What fails keeps nobody from the next."""
        services = self._services
        place = other.name if other is not None else services.settings.repository.place
        try:
            if other is None:
                return self._into(services.repository, place)
            with storage.opened(other, services.settings.state.directory / "cache", services.clock) as repository:
                return self._into(repository, place)
        except LanfreeError as error:
            return Protected(place, problem=error.message)

    def _into(self, repository: Repository, place: str) -> Protected:
        secrets = repository.settings.sealed
        contents = self._contents(secrets=secrets)
        newest = _newest(repository, self._machine, self._now)
        if newest is not None and _holds(newest, contents):
            return Protected(place, newest.id, secrets=secrets, removed=self._prune(repository))
        images = [self._image(repository, key, secrets=secrets) for key in contents.images]
        detail = "" if secrets else "without passwords and keys: the repository is not encrypted"
        point = RestorePoint(
            id="",
            machine=self._machine,
            machine_name=NAME,
            host=socket.gethostname(),
            run=self._run,
            created_at=self._now,
            level=Level.FULL,
            consistency=Consistency.APPLICATION,
            images=tuple(images),
            configuration=MachineConfiguration(APPLIANCE, contents.model_dump_json()),
            reasons=(Reason(ReasonCode.SELF_PROTECTION, detail),),
        )
        made = repository.seal(point)
        return Protected(
            place,
            made.id,
            made=True,
            secrets=secrets,
            bytes_new=sum(image.bytes_new for image in images),
            bytes_stored=sum(image.bytes_stored for image in images),
            removed=self._prune(repository),
        )

    def _contents(self, *, secrets: bool) -> Contents:
        settings = self._services.settings
        images = {STATE: self._open(STATE, secrets=secrets)}
        images |= {key: file.open("rb") for key, file in self._databases.items()}
        try:
            told = {key: _content(file) for key, file in images.items()}
        finally:
            for file in images.values():
                file.close()
        return Contents(
            software=importlib.metadata.version("lanfree"),
            configuration=plain(settings.source),
            state=plain(settings.state.directory),
            secrets=secrets,
            missing=self._missing,
            images=told,
        )

    def _image(self, repository: Repository, key: str, *, secrets: bool) -> ImageInfo:
        with self._open(key, secrets=secrets) as file:
            size = file.seek(0, 2)
            file.seek(0)
            with repository.image_writer(key, size, None) as writer:
                step, offset = align_up(_STEP, writer.granularity), 0
                while data := file.read(step):
                    writer.write(offset, memoryview(data))
                    offset += len(data)
                written = writer.seal()
        return replace(written, source=f"{NAME}/{key}", bytes_read=size)

    def _open(self, key: str, *, secrets: bool) -> BinaryIO:
        if key == STATE:
            return BytesIO((self._sealed if secrets else self._clear).data)
        return self._databases[key].open("rb")

    def _prune(self, repository: Repository) -> tuple[RestorePointId, ...]:
        """By ``[protect]``, for each proxy by itself. What is held, promised or the last good one stays."""
        rules = self._services.settings.protect
        policy = Policy(last=rules.last, monthly=rules.monthly)
        points, damaged = repository.survey(self._machine)
        facts = _facts(repository, points, whole=not damaged)
        by_id = {point.id: point for point in points}
        removed = []
        for decision in decide(facts, policy, self._now):
            if decision.keep:
                continue
            try:
                repository.ledger.delete(by_id[decision.point.id], f"protect: {decision}")
                removed.append(decision.point.id)
            except (DeleteRefused, ObjectRetained, RestorePointNotFound):
                continue  # it stays until whoever wants it lets it go
        return tuple(removed)


def _facts(repository: Repository, points: Sequence[RestorePoint], *, whole: bool) -> list[PointFacts]:
    ledger = repository.ledger
    held = ledger.holds.names()

    def facts(point: RestorePoint) -> PointFacts:
        known = ledger.health(point)
        return PointFacts(
            id=point.id,
            # A proxy that makes one every night must not crowd out those of a proxy that was asked last week.
            machine=f"{point.machine} {point.host}",
            created_at=point.created_at,
            held=ledger.name(point) in held,
            health=known.health if known is not None else Health.UNKNOWN,
            listed_whole=whole,
        )

    return list(each(facts, points))


def _newest(repository: Repository, machine: MachineId, now: datetime) -> RestorePoint | None:
    """Of this proxy, if nothing is known against it. One that is dated in the future is not what a bootstrap takes."""
    host = socket.gethostname()
    mine = [point for point in repository.survey(machine)[0] if point.host == host]
    points = [point for point in mine if not of_future(point.created_at, now)]
    if not points:
        return None
    known = repository.ledger.health(points[-1])
    return points[-1] if known is None or known.health.trusted else None


def _holds(point: RestorePoint, wanted: Contents) -> bool:
    try:
        there = contents_of(point)
    except FormatError:
        return False
    same = ("images", "secrets", "configuration", "state")
    return all(getattr(there, name) == getattr(wanted, name) for name in same)


def _content(file: BinaryIO) -> Content:
    digest, size = blake3(), 0
    while data := file.read(_STEP):
        digest.update(data)
        size += len(data)
    return Content(size=size, digest=digest.hexdigest())


def _databases(services: Services, directory: Path) -> tuple[Mapping[str, Path], Sequence[str]]:
    """Copies by name, and why the catalog is not among them: alone of all it comes again from the repository."""
    found: dict[str, Path] = {}
    left_out: list[str] = []
    wanted = [part for part in portable.PARTS if part is not portable.CATALOG or services.settings.protect.catalog]
    with portable.saving(place_of(services)) as save:
        for part in wanted:
            file = directory / f"{part.name}.db"
            try:
                _make_sure_of_room(services, part, directory)
                if save(part, file):
                    found[part.name] = file
            except CatalogFailed as error:
                if part is not portable.CATALOG:
                    raise
                file.unlink(missing_ok=True)
                left_out.append(f"the index of files: {error.message}")
    return found, left_out


def _make_sure_of_room(services: Services, part: portable.Part, directory: Path) -> None:
    """Raises ``CatalogFailed`` rather than fill the disk that the appliance itself lives on."""
    size, free = portable.size_of(place_of(services), part), shutil.disk_usage(directory).free
    if size + _ROOM > free:
        raise CatalogFailed(str(directory), f"{format_size(free)} free, a copy takes {format_size(size)}")


@contextmanager
def _room(state: Path) -> Iterator[Path]:
    """A directory of its own. What a killed process left goes with the next one; no secret is ever in it."""
    parent = state / "protect"
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir(mode=0o700)
    try:
        with tempfile.TemporaryDirectory(dir=parent) as directory:
            yield Path(directory)
    finally:
        shutil.rmtree(parent, ignore_errors=True)
