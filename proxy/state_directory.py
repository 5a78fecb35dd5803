"""``StateStore`` in a directory of this machine: the default, for one proxy (or several processes of one machine)."""

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proxy.durable import replace_durably, sync_directory

# Words between slashes; none of them can leave the directory or be a draft.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:@-]*(/[A-Za-z0-9_][A-Za-z0-9._:@-]*)*")
_DRAFT = ".new"
_LOCK = ".lock"


def checked_name(name: str) -> str:
    """The name, if it is one for a record. Raises ``ValueError``: names are made by us of checked words."""
    if not _NAME.fullmatch(name) or name.endswith((_DRAFT, _LOCK)):
        raise ValueError(f"{name!r} is no name of a state record")
    return name


class StateDirectory:
    """One file a record, below ``directory`` (made when it is needed, 0700)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, name: str, data: bytes) -> None:
        """See the port."""
        path = self._made(name)
        new = not path.exists()
        replace_durably(path, data)
        if new:
            sync_directory(path.parent.parent)  # the folder may be as new as the file

    def get(self, name: str) -> bytes | None:
        """See the port."""
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """See the port."""
        path = self._path(name)
        try:
            path.unlink()
        except FileNotFoundError:
            return
        sync_directory(path.parent)

    def names(self, folder: str) -> list[str]:
        """See the port."""
        place = self._path(folder)
        if not place.is_dir():
            return []
        return sorted(p.name for p in place.iterdir() if p.is_file() and not p.name.endswith((_DRAFT, _LOCK)))

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """See the port. The kernel drops the lock with the process."""
        path = self._made(name)
        with path.with_name(f"{path.name}{_LOCK}").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def folder(self, name: str) -> "StateDirectory":
        """See the port."""
        return StateDirectory(self._path(name))

    def _made(self, name: str) -> Path:
        path = self._path(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def _path(self, name: str) -> Path:
        return self._directory / checked_name(name)
