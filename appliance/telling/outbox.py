"""Messages that wait to be told: files, so that neither a kill nor a power cut loses one.

::

    outbox/
        told.json                    which trouble was told when, so that it is not told every minute
        operators/                   one directory a way
            lock                     held by who delivers: two processes never tell the same at once
            1795393716565309950-….json

A message is removed after it was taken: a kill in between tells it twice, with the same id.
"""

import contextlib
import fcntl
import itertools
import json
import os
import uuid
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from appliance.telling.events import Event
from appliance.telling.kinds import EventKind
from proxy.durable import replace_durably

# Messages that wait for one way. A way that is away for a week must not fill the disk; the newest are those that matter.
MOST = 200

_COUNT = itertools.count()

# How long told trouble is remembered, so that its end is told too; and job runs, whose end may be told again by who goes on
# with the work of somebody that was killed.
REMEMBERED = timedelta(days=30)
REMEMBERED_RUNS = timedelta(days=3)
_RUN = "run "


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message in its file. ``attempts``: so many failed. ``told``: see ``ways.way.Message``."""

    file: Path
    id: str
    event: Event
    made_at: datetime
    not_before: datetime
    attempts: int = 0
    told: frozenset[str] = frozenset()


class Outbox:
    """A directory of them; any number of processes may use it. All of it raises ``OSError``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, way: str, event: Event, now: datetime, not_before: datetime) -> int:
        """On disk when this returns. Gives back how many older messages had to go for it."""
        folder = self._folder(way)
        identity = uuid.uuid4().hex
        # Ordered by time, within a moment by this process's count; the id keeps those of two processes apart.
        file = folder / f"{int(now.timestamp() * 1e6):020d}-{next(_COUNT):06d}-{identity}.json"
        _write(Waiting(file, identity, event, now, not_before))
        surplus = sorted(folder.glob("*.json"))[:-MOST]
        for old in surplus:
            old.unlink(missing_ok=True)
        return len(surplus)

    def waiting(self, way: str) -> list[Waiting]:
        """Oldest first. A file that is no message (a power cut, another version) is put aside as ``….broken``."""
        found = []
        for file in sorted(self._folder(way).glob("*.json")):
            try:
                found.append(_read(file))
            except FileNotFoundError:
                continue  # delivered meanwhile
            except (ValueError, KeyError, TypeError):
                file.replace(file.with_suffix(".broken"))
        return found

    def taken(self, message: Waiting) -> None:
        """It was told, or given up."""
        message.file.unlink(missing_ok=True)

    def again(self, message: Waiting, not_before: datetime, told: frozenset[str]) -> None:
        """It was not told (to all); nothing if it is gone meanwhile."""
        if message.file.exists():
            _write(replace(message, attempts=message.attempts + 1, not_before=not_before, told=told))

    def later(self, message: Waiting, not_before: datetime) -> None:
        """It was not even tried; nothing if it is gone meanwhile."""
        if message.file.exists():
            _write(replace(message, not_before=not_before))

    @contextlib.contextmanager
    def delivering(self, way: str) -> Iterator[bool]:
        """Whether nobody else delivers this way now; keeps others off meanwhile."""
        with _locked(self._folder(way) / "lock", wait=False) as ours:
            yield ours

    @contextlib.contextmanager
    def news(self, kind: str, about: Collection[str], now: datetime, repeat: timedelta) -> Iterator[frozenset[str]]:
        """Which of these were not told within ``repeat``. Remembered as told when the block ends well: a kill within it tells
        them twice rather than never."""
        with self._remembered(now) as told:
            keys = {name: f"{kind} {name}" for name in about}
            fresh = frozenset(name for name, key in keys.items() if not _recent(told.get(key), now, repeat))
            yield fresh
            told.update((keys[name], now) for name in fresh)

    @contextlib.contextmanager
    def over(self, kind: str, about: Collection[str], now: datetime) -> Iterator[frozenset[str]]:
        """Which of these were told and are over now. Forgotten when the block ends well."""
        with self._remembered(now) as told:
            known = frozenset(name for name in about if f"{kind} {name}" in told)
            yield known
            for name in known:
                told.pop(f"{kind} {name}", None)

    def told(self, kind: str) -> frozenset[str]:
        """All of a kind that were told and are not over."""
        return frozenset(key.removeprefix(f"{kind} ") for key in self._read_told() if key.startswith(f"{kind} "))

    @contextlib.contextmanager
    def _remembered(self, now: datetime) -> Iterator[dict[str, datetime]]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(self._directory / "lock", wait=True):
            before = self._read_told()
            told = dict(before)
            yield told
            kept = {name: at for name, at in told.items() if now - at < _remembered_for(name)}
            if kept != before:
                text = json.dumps({name: at.isoformat() for name, at in kept.items()})
                replace_durably(self._directory / "told.json", text.encode())

    def _read_told(self) -> dict[str, datetime]:
        try:
            document = json.loads((self._directory / "told.json").read_bytes())
            return {str(key): datetime.fromisoformat(at) for key, at in document.items()}
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return {}  # the worst that can come of it is that something is told again

    def _folder(self, way: str) -> Path:
        folder = self._directory / way
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder


def _recent(last: datetime | None, now: datetime, repeat: timedelta) -> bool:
    # A clock that was put back must not silence anybody.
    return last is not None and timedelta(0) <= now - last < repeat


def _remembered_for(name: str) -> timedelta:
    return REMEMBERED_RUNS if name.startswith(_RUN) else REMEMBERED


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[bool]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(fd)


def _write(message: Waiting) -> None:
    event = asdict(replace(message.event, facts={})) | {"facts": dict(message.event.facts)}
    document = {
        "id": message.id,
        "made_at": message.made_at.isoformat(),
        "not_before": message.not_before.isoformat(),
        "attempts": message.attempts,
        "told": sorted(message.told),
        "event": event | {"at": message.event.at.isoformat()},
    }
    replace_durably(message.file, json.dumps(document).encode())


def _read(file: Path) -> Waiting:
    document = json.loads(file.read_bytes())
    event = document["event"]
    facts = {**event, "kind": EventKind(event["kind"]), "at": datetime.fromisoformat(event["at"])}
    return Waiting(
        file=file,
        id=str(document["id"]),
        event=Event(**{**facts, "lines": tuple(event["lines"])}),
        made_at=datetime.fromisoformat(document["made_at"]),
        not_before=datetime.fromisoformat(document["not_before"]),
        attempts=int(document["attempts"]),
        told=frozenset(document["told"]),
    )
