"""A new appliance from what the old one left in its repository: configuration, named files, databases.

::

    newest restore point of the appliance -- damaged? the one before -->  <state>/bootstrap/  (nothing else is touched)
      databases: schema, runs that went on then are ended, points made since are listed
      -- all of it is there and good -->  databases, keys of volumes, named files, configuration last

Killed before the last arrow nothing happened; killed in it, the same command goes on (``<state>/bootstrap.unfinished`` tells).
With ``force`` what was there is kept beside the new, as ``….before-bootstrap-<time>``. A repository in the clear may have been
written by anybody: what comes from it is shown to a person, and chooses no place.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from appliance import config, config_editing, storage
from appliance.protection import restored, unfinished
from appliance.protection.archive import LARGEST_ARCHIVE, Unpacked, unpack
from appliance.protection.backup import STATE, Contents, contents_of, machine_of
from appliance.protection.next_steps import next_steps
from appliance.protection.placing import OLD, Placing, differs, make_sure_that_nobody_works
from catalog import portable
from proxy.clock import SystemClock
from proxy.errors import ConfigurationError, FormatError, IntegrityError, RestorePointNotFound
from proxy.model import RestorePoint, RestorePointId
from proxy.repository import Repository, keys
from proxy.repository.collection.retention import of_future
from proxy.repository.repository import check_keyring, read_settings
from proxy.state_directory import StateDirectory
from proxy.units import MiB

_STEP = 4 * MiB
_STAGING = "bootstrap"
_IMAGES = frozenset({STATE, *(part.name for part in portable.PARTS)})


@dataclass(frozen=True, slots=True)
class Wishes:
    """``configuration``, ``state``: where they go, if not where they were (out of a repository in the clear: where a new
    appliance has them). ``root``: directory that stands for ``/``, for a
    system that is not started yet. ``point``: this one, and no older one. ``force``: what is there may be put aside."""

    configuration: Path | None = None
    state: Path | None = None
    root: Path = Path("/")
    point: RestorePointId = ""
    force: bool = False

    def placed(self, path: Path) -> Path:
        """Where a file of the appliance goes on this machine."""
        return self.root / path.relative_to("/") if path.is_absolute() else self.root / path


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """``point``, ``made_at``: what it was made of, by proxy ``host``. ``written``: files, the configuration first.
    ``put_aside``: what was there before. ``databases``: those that came along. ``passed_over``: newer restore points that are
    damaged, and why. ``added``: restore points that are younger than this state, in the catalog again by themselves.
    ``remarks``: what differs from then. ``to_do``: what only a person can do."""

    point: RestorePointId
    made_at: datetime
    host: str
    configuration: Path
    state: Path
    written: tuple[Path, ...]
    put_aside: tuple[Path, ...]
    databases: tuple[str, ...]
    passed_over: tuple[str, ...]
    added: int
    remarks: tuple[str, ...]
    to_do: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """The repository, as a configuration would name it; ``paper``: what was printed for the safe, in place of its key."""

    section: config.Repository
    paper: str = field(default="", repr=False)


@contextmanager
def opened(source: Source) -> Iterator[Repository]:
    """Raises ``RepositoryUnavailable``, ``KeyRefused``, ``ConfigurationError``."""
    if not source.paper:
        with storage.opened(source.section, cache=None) as repository:
            yield repository
        return
    store = storage.store_of(source.section)
    known = read_settings(store)
    keyring = keys.from_paper(known, source.paper)
    check_keyring(known, keyring)
    with Repository(store, known, keyring, None, SystemClock()) as repository:
        yield repository


def bootstrap(source: Source, wishes: Wishes) -> Bootstrapped:
    """Raises ``RestorePointNotFound`` where no appliance was protected, ``ConfigurationError`` where another one would be
    overwritten (nothing was), ``IntegrityError`` when no restore point of it is whole, and what ``opened`` raises."""
    with opened(source) as repository:
        passed_over: list[str] = []
        found = candidates(repository, wishes.point, passed_over)
        for point in found:
            try:
                work = _Bootstrap(source, repository, point, wishes)
                work.fetch()
            except (IntegrityError, FormatError) as error:
                if wishes.point:
                    raise
                passed_over.append(f"{point.id}: {error.message}")
                continue
            work.remarks += [
                f"{each.id} is dated {each.created_at:%Y-%m-%d %H:%M} UTC, in the future, and was"
                f" {'taken' if each is point else 'not taken; --point does'}: compare the clocks"
                for each in found
                if _of_future(each)
            ]
            return work.install(passed_over)
        raise IntegrityError("the appliance's restore points", f"none of them is whole: {'; '.join(passed_over)}")


def candidates(repository: Repository, named: RestorePointId, unreadable: list[str]) -> Sequence[RestorePoint]:
    """Newest first, those that are dated in the future last: of the appliance whose repository it is, else of the only one
    whose copies are here. Adds to ``unreadable`` manifests that may be newer. Raises ``RestorePointNotFound``,
    ``ConfigurationError``."""
    if named:
        found = repository.point(named)
        if not found.of_appliance:
            raise RestorePointNotFound(f"{found.id} of an appliance: it is of machine {found.machine_name}")
        return [found]
    points, damaged = repository.survey(machine_of(repository))
    if not points:
        everything, damaged = repository.survey()
        points = [point for point in everything if point.of_appliance]
    owners = {point.machine: point for point in points}
    if not owners:
        raise RestorePointNotFound("of an appliance: 'lanfree protect' makes them")
    if len(owners) > 1:
        told = ", ".join(f"{point.id} (made by {point.host})" for point in owners.values())
        raise ConfigurationError(
            "bootstrap", f"several appliances have copies here: {told}", hint="name one with --point"
        )
    unreadable += [f"{each.object}: {each.why}" for each in damaged]
    newest_first = list(reversed(points))
    return sorted(newest_first, key=_of_future)  # keeps the order of those that are alike


class _Bootstrap:
    """One restore point on its way to this machine."""

    def __init__(self, source: Source, repository: Repository, point: RestorePoint, wishes: Wishes) -> None:
        self._source, self._repository, self._point, self._wishes = source, repository, point, wishes
        self._contents: Contents = contents_of(point)
        if STATE not in self._contents.images or not _IMAGES.issuperset(self._contents.images):
            raise FormatError(f"restore point {point.id}", "does not hold what an appliance consists of")
        self._sealed = repository.settings.sealed
        self._target = wishes.placed(
            self._chosen(wishes.configuration, self._contents.configuration, config.path_of(None).absolute())
        )
        self._directory = self._chosen(wishes.state, self._contents.state, config.DEFAULT_STATE)
        self._state = wishes.placed(self._directory)
        self._staging = self._state / _STAGING
        self.remarks: list[str] = []
        stamp = f"{SystemClock().now():%Y%m%dT%H%M%SZ}"
        self._work = unfinished.Begun(
            point=point.id,
            repository=repository.settings.id.hex(),
            target=self._target,
            draft=f".bootstrap-{stamp}-{os.getpid()}.new",
        )
        self._left = unfinished.begun(self._state)
        self._goes_on = self._work.same(self._left) and not self._target.exists()
        left = self._left.draft if self._left is not None else ""
        self._placing = Placing(f"before-bootstrap-{stamp}", self._work.draft, left)

    def _chosen(self, wish: Path | None, told: Path, default: Path) -> Path:
        """A place: what is wished, else what the restore point tells, if only the appliance can have made it."""
        if wish is not None or not self._sealed:
            return wish or default
        if not told.is_absolute() or ".." in told.parts:
            raise FormatError(f"restore point {self._point.id}", f"names {str(told)[:80]!r}")
        return told

    def fetch(self) -> None:
        """Bring all of it to where nobody looks yet. Raises ``ConfigurationError`` before, where an appliance is."""
        if not (self._wishes.force or self._goes_on):
            self._refuse([self._target, *(self._state / name for name in OLD)])
        self._make_sure_that_nobody_works()
        self._unpacked = self._fetched()

    def install(self, passed_over: Sequence[str]) -> Bootstrapped:
        """Make an appliance of what was fetched."""
        try:
            text = self._text()
            settings = config.parse(text, self._target)
            files = self._named_files() | self._own_key(settings)
            if not self._wishes.force:
                self._refuse([path for path, data in files.items() if path.exists() and differs(path, data)])
            added = restored.prepare(self._staging, self._point, self._repository, own=self._is_own)
            self._make_sure_that_nobody_works()
        except BaseException:
            shutil.rmtree(self._staging, ignore_errors=True)
            raise
        unfinished.note(self._state, self._work)
        folder = self._state / restored.FOLDER if settings.database.url else self._state
        databases = self._placing.databases(self._staging, folder)
        for name, record in self._unpacked.records.items():
            StateDirectory(self._state).put(name, record)
        for path, data in files.items():
            self._placing.file(path, data)
        self._key_of_paper(settings)
        if settings.database.url:
            # A server that somebody else may have named is told nothing, its password least of all.
            here = self._is_here and self._sealed
            self.remarks += restored.to_server(settings, folder, self._unpacked.records, here=here)
        self._placing.file(self._target, text.encode())
        shutil.rmtree(self._staging)
        unfinished.ended(self._state)
        return Bootstrapped(
            point=self._point.id,
            made_at=self._point.created_at,
            host=self._point.host,
            configuration=self._target,
            state=self._state,
            written=tuple(reversed(self._placing.written)),
            put_aside=tuple(self._placing.put_aside),
            databases=tuple(sorted(databases)),
            passed_over=tuple(passed_over),
            added=added,
            remarks=tuple(self.remarks),
            to_do=tuple(self._to_do(settings, added)),
        )

    @property
    def _is_here(self) -> bool:
        """Whether the new appliance is this machine."""
        return self._wishes.root == Path("/")

    @property
    def _is_own(self) -> bool:
        """Whether it is read from the appliance's first repository, and not from a copy."""
        return self._point.machine == machine_of(self._repository)

    def _refuse(self, places: Sequence[Path]) -> None:
        there = [str(place) for place in places if place.exists()]
        if there:
            hint = "--force puts that aside, not away"
            if self._left is not None and not self._target.exists():
                hint = f"a bootstrap of {self._left.point} to {self._left.target} had begun: --point goes on with it; {hint}"
            raise ConfigurationError("bootstrap", f"there is an appliance already: {', '.join(there)}", hint=hint)

    def _make_sure_that_nobody_works(self) -> None:
        make_sure_that_nobody_works(self._state, self._target if self._is_here else None)

    def _fetched(self) -> Unpacked:
        """Every image, checked chunk by chunk, to where nobody looks yet."""
        shutil.rmtree(self._staging, ignore_errors=True)
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._staging.mkdir(mode=0o700)
        try:
            for key in self._contents.images:
                if key == STATE:
                    unpacked = unpack(self._bytes(key))
                else:
                    self._file(key, self._staging / f"{key}.db")
        except BaseException:
            shutil.rmtree(self._staging, ignore_errors=True)
            raise
        return unpacked

    def _bytes(self, key: str) -> bytes:
        with self._repository.open_image(self._point, key) as image:
            if image.size > LARGEST_ARCHIVE:
                raise FormatError(f"restore point {self._point.id}", f"its {key} has {image.size} bytes")
            out = bytearray(image.size)
            image.read_into(0, memoryview(out))
        return bytes(out)

    def _file(self, key: str, path: Path) -> None:
        with self._repository.open_image(self._point, key) as image, path.open("xb") as file:
            for offset in range(0, image.size, _STEP):
                piece = bytearray(min(_STEP, image.size - offset))
                image.read_into(offset, memoryview(piece))
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    def _text(self) -> str:
        """The configuration as it was, unless its places are others now. Raises ``FormatError``."""
        try:
            text = self._unpacked.configuration.decode()
        except UnicodeDecodeError:
            raise FormatError(f"restore point {self._point.id}", "its configuration is no text") from None
        settings = config.parse(text, self._target)
        known, given = settings.repository, self._source.section
        moved: Path | None = None
        if self._is_own and self._is_here:
            if _bucket(given) != _bucket(known):
                self.remarks.append(f"[repository] names {known.place}, this was read from {given.place}: compare them")
            elif given.s3 is None and given.path.resolve() != known.path.resolve():
                moved = given.path.absolute()
                self.remarks.append(f"[repository] path is {moved} now, it was {known.path}")
        was = settings.state.directory
        state = self._directory if self._directory not in (was, was.absolute()) else None
        if state is not None and (self._wishes.state is not None or not self._sealed):
            self.remarks.append(f"[state] directory is {state} now, it was {was}")
        else:
            state = None
        if moved is None and state is None:
            return text
        return config_editing.with_places(text, repository=moved, state=state)

    def _named_files(self) -> dict[Path, bytes]:
        """Out of a repository in the clear, which anybody may have made up, no file goes to a place of its own choice."""
        if not self._sealed:
            self.remarks.append(
                "the repository is not encrypted: whoever writes to its storage can forge all of this; look at the"
                " configuration, and at the hooks of jobs, before anything is started"
            )
            return {}
        return {self._wishes.placed(path): data for path, data in self._unpacked.files.items()}

    def _own_key(self, settings: config.Settings) -> dict[Path, bytes]:
        """The key that opened the repository, for where the configuration looks for it."""
        known, given = settings.repository, self._source.section
        if self._is_own:
            for place, file in ((known.key_file, given.key_file), (known.passphrase_file, given.passphrase_file)):
                if place is not None and file is not None:
                    return {self._wishes.placed(place): file.read_bytes()}
        return {}

    def _key_of_paper(self, settings: config.Settings) -> None:
        """What was on paper becomes a key file, if the configuration wants one."""
        known = settings.repository.key_file
        if not (self._source.paper and self._is_own and known is not None):
            return
        place, repository = self._wishes.placed(known), self._repository
        if not place.exists():
            storage.write_key_file(place)
            self._placing.written.append(place)
        label, now = f"{place.name} since the bootstrap", SystemClock().now()
        keys.add_slot(
            repository.store, repository.settings, repository.keyring, storage.key_in(place), label=label, now=now
        )
        self.remarks.append(f"{place} opens the repository by a new slot; 'lanfree key list' shows those that are lost")

    def _to_do(self, settings: config.Settings, added: int) -> Iterator[str]:
        yield from next_steps(settings, self._contents, own=self._is_own, placed=self._wishes.placed)
        if added:
            yield f"'lanfree catalog rebuild --files' records the files of {added} restore points that the catalog had not"


def _of_future(point: RestorePoint) -> bool:
    return of_future(point.created_at, SystemClock().now())


def _bucket(section: config.Repository) -> tuple[str, str, str] | None:
    """Where it is; how one gets in may differ."""
    return (section.s3.endpoint, section.s3.bucket, section.s3.prefix) if section.s3 is not None else None
