"""Files and databases take their places: whole or not at all, and what was there is kept beside them.

A database of SQLite is more than its file while somebody has it open, and after a crash: what was committed last lies in
``-wal``. It is brought into the file first; where that cannot be done, ``-wal`` is kept beside the file that is put aside.
"""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from socket import gethostname

from appliance import config, databases
from appliance.serving.liveness import FileLocks
from catalog.jobs.store import JobStore
from proxy.durable import create_durably, sync_directory
from proxy.errors import ConfigurationError, LanfreeError

DATABASES = ("catalog.db", "audit.db", "jobs.db", "access.db")

# With them goes what an older appliance here had begun: nobody shall go on with that.
OLD = (*DATABASES, "workflows.db")

_PRIVATE = 0o600

# Seconds. Whoever writes is done in less; whoever serves keeps the file open for good.
_PATIENCE = 2.0

# What a database begins with (https://www.sqlite.org/fileformat2.html, 1.3).
_MAGIC = b"SQLite format 3\0"

_STOP = "stop the service first"


class Placing:
    """``stamp``: how names end of what is put aside; ``draft``: how those end that are not whole yet; ``left``: how they did
    in a bootstrap that was killed. ``written`` and ``put_aside`` tell what was done."""

    def __init__(self, stamp: str, draft: str, left: str) -> None:
        self._stamp, self._draft, self._left = stamp, draft, left
        self.written: list[Path] = []
        self.put_aside: list[Path] = []

    def file(self, path: Path, data: bytes) -> None:
        """Whole or not at all, readable by its owner alone."""
        if self._left:
            path.with_name(f"{path.name}{self._left}").unlink(missing_ok=True)
        if path.exists() and not differs(path, data):
            self.written.append(path)
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}{self._draft}")
        create_durably(draft, data, mode=_PRIVATE)
        if path.exists():
            self._aside(path)
        draft.replace(path)
        sync_directory(path.parent)
        self.written.append(path)

    def databases(self, staging: Path, folder: Path) -> Sequence[str]:
        """Each takes its place in one step; what was there is put aside with all that belongs to it."""
        folder.mkdir(mode=0o700, exist_ok=True)
        came = [name for name in DATABASES if (staging / name).exists()]
        for name in OLD:
            place = folder / name
            log = place.with_name(f"{name}-wal")
            if place.exists():
                settle(place)
                aside = self._aside(place)
                if log.exists():  # it could not be brought into the file; by this name SQLite finds it
                    self._aside(log, f"{aside.name}-wal")
            elif log.exists():
                self._aside(log)
            for rest in (log, place.with_name(f"{name}-shm")):
                rest.unlink(missing_ok=True)  # of the file before; the new one would believe it
            if name in came:
                settle(staging / name)
                (staging / name).replace(place)
            else:
                place.unlink(missing_ok=True)
        sync_directory(folder)
        return came

    def _aside(self, path: Path, name: str = "") -> Path:
        """A second name for it: at no moment is there none."""
        for number in count(1):
            wanted = name or f"{path.name}.{self._stamp}{f'-{number}' if number > 1 else ''}"
            aside = path.with_name(wanted)
            try:
                os.link(path, aside)
                break
            except FileExistsError:
                if aside.samefile(path):
                    break
                name = ""
        self.put_aside.append(aside)
        return aside


def differs(path: Path, data: bytes) -> bool:
    """Whether there is anything but a file of these bytes."""
    return not path.is_file() or path.read_bytes() != data


def settle(path: Path) -> bool:
    """What is still in the database's log goes into its file, so that the file is all of it; ``False`` for what is no database,
    which stays as it is. Raises ``ConfigurationError`` while anybody has it open."""
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return False  # SQLite would remove a log that fits no database
    with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(path, timeout=_PATIENCE)) as connection:
        try:
            # Out of write-ahead mode gets only who is alone with the file, and with it goes the log.
            return bool(connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",))
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise ConfigurationError(str(path), "another process has it open", hint=_STOP) from None
            raise
    return False


def make_sure_that_nobody_works(state: Path, target: Path | None) -> None:
    """Raises ``ConfigurationError`` while a service of this state directory lives, or has its databases open. ``target``: the
    configuration that this machine has now, whose service may have its state elsewhere."""
    living = _living(state)
    if target is not None:
        with suppress(LanfreeError):  # one that is spoilt, or whose database does not answer, tells nothing
            settings = config.load(target)
            living |= _living(settings.state.directory) | _living_in_server(settings)
    if living:
        raise ConfigurationError("bootstrap", f"at work here: {', '.join(sorted(living))}", hint=_STOP)
    for name in OLD:
        if (state / name).exists():
            settle(state / name)


def _living(state: Path) -> set[str]:
    return set(FileLocks(state / "executors").living()) - {""}


def _living_in_server(settings: config.Settings) -> set[str]:
    """Proxies of this machine. Others of the site may go on."""
    if settings.database.url is None:
        return set()
    place = (databases.catalog_url(settings), databases.password(settings))
    with JobStore(*place) as store, store.transaction(write=False) as unit:
        found = unit.proxies.living(settings.proxy.takeover)
    return {proxy.name for proxy in found if proxy.machine == (settings.proxy.name or gethostname())}
