"""The configuration file changed by the program: checked before, whole or not at all, and never two changes at once.

What a person wrote stays: comments, order, mode and owner of the file; the file before a change is kept beside it as
``<name>.previous``. Other processes of the machine see a change by ``Watched``, and take what is new when they can.
"""

import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance import config, config_editing
from appliance.config import Host, Settings, Vcenter
from appliance.config_editing import Kind
from proxy.durable import create_durably, sync_directory
from proxy.errors import ConfigurationError, TellPerson

PREVIOUS = ".previous"
"""Suffix of the file as it was before the last change."""

_PRIVATE = 0o600


class ConfigurationChanged(TellPerson):
    """Somebody else changed the file meanwhile. Nothing was written."""

    code = "configuration-changed"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} was changed meanwhile",
            hint="look at what it says now, and make the change anew if it is still right",
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """What the file says, and its digest: the same digest, the same bytes."""

    text: str
    digest: str


class ConfigurationFile:
    """One file. Any number of threads and processes may change it: one after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()  # a link stays a link; what it names is replaced

    def read(self) -> Stored:
        """Raises ``ConfigurationError``."""
        try:
            data = self.path.read_bytes()
            return Stored(data.decode(), digest_of(data))
        except UnicodeDecodeError:
            raise ConfigurationError(str(self.path), "is no text in UTF-8") from None
        except OSError as error:
            raise ConfigurationError(str(self.path), error.strerror or "cannot be read") from None

    def add(self, section: Host | Vcenter) -> Settings:
        """One more hypervisor. Raises ``ConfigurationError``, also where there is one of this name."""
        kind: Kind = "host" if isinstance(section, Host) else "vcenter"
        name = section.name

        def edit(text: str) -> str:
            known = config.parse(text, self.path)
            if name in {*(host.name for host in known.host), *(vcenter.name for vcenter in known.vcenter)}:
                raise ConfigurationError(
                    str(self.path), f"there is a hypervisor {name} already", hint="choose another name"
                )
            return config_editing.with_hypervisor(text, kind, section)

        return self.edit(edit)

    def remove(self, name: str) -> Settings:
        """Without this hypervisor. Raises ``ConfigurationError``, also where there is none of this name."""

        def edit(text: str) -> str:
            known = config.parse(text, self.path)
            kinds: dict[str, Kind] = {each.name: "vcenter" for each in known.vcenter}
            kinds.update({each.name: "host" for each in known.host})
            if name not in kinds:
                raise ConfigurationError(
                    str(self.path), f"there is no hypervisor {name}", hint=f"there are: {', '.join(kinds) or 'none'}"
                )
            return config_editing.without_hypervisor(text, kinds[name], name)

        return self.edit(edit)

    def change(self, values: Mapping[tuple[str, ...], Any], *, expected: str | None = None) -> Settings:
        """With these values, see ``config_editing.with_values``. ``expected``: the digest of what the change was made from.
        Raises ``ConfigurationError`` where it would not be valid, ``ConfigurationChanged``."""
        return self.edit(lambda text: config_editing.with_values(text, values), expected=expected)

    def edit(self, change: Callable[[str], str], *, expected: str | None = None) -> Settings:
        """The file with its text changed, unless it would not be valid then. Raises ``ConfigurationError``,
        ``ConfigurationChanged``."""
        try:
            with self._locked():
                stored = self.read()
                if expected is not None and expected != stored.digest:
                    raise ConfigurationChanged(self.path)
                text = change(stored.text)
                settings = config.parse(text, self.path)
                if text != stored.text:
                    self._replace(stored.text.encode(), text.encode())
        except OSError as error:
            raise ConfigurationError(
                str(self.path),
                f"cannot be changed: {error.strerror}",
                hint="its directory must be writable for Lanfree",
            ) from None
        return settings

    def _replace(self, old: bytes, new: bytes) -> None:
        known = self.path.stat()
        for place, data in ((self.path.with_name(f"{self.path.name}{PREVIOUS}"), old), (self.path, new)):
            draft = place.with_name(f"{place.name}.new")
            draft.unlink(missing_ok=True)  # of a process that was killed here
            create_durably(draft, data, mode=_PRIVATE)
            if (os.geteuid(), os.getegid()) != (known.st_uid, known.st_gid):
                os.chown(draft, known.st_uid, known.st_gid)
            draft.chmod(stat.S_IMODE(known.st_mode))
            draft.replace(place)
        sync_directory(self.path.parent)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The directory is locked, since the file itself is replaced."""
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


class Watched:
    """Tells when a file says something new. A look costs one ``stat``. Not for several threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] = (-1,)  # it may have changed since it was read
        self.refused: ConfigurationError | None = None
        """Why what the file says now cannot be taken."""

    def look(self) -> Settings | None:
        """What it says, the first time and after each change. ``None``: nothing new, or nothing valid: then ``refused`` says
        why."""
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return None
        try:
            found = config.load(self._path)
        except ConfigurationError as error:
            self._seen, self.refused = stamp, error
            return None
        self._seen, self.refused = stamp, None
        return found


def digest_of(data: bytes) -> str:
    """Of the file's bytes, as an ETag has it."""
    return hashlib.sha256(data).hexdigest()[:32]


def store_secret(state: Path, name: str, secret: str) -> Path:
    """A secret that was given to the API, in a file of its own (0600) in the state directory; what is there under the same name
    is replaced. Raises ``ConfigurationError`` for a name or a secret that cannot be a file, ``OSError``."""
    if not name or "/" in name or name.startswith(".") or "\0" in name:
        raise ConfigurationError("secret", f"{name!r} cannot be the name of a file")
    data = one_line(secret)
    directory = state / "secrets"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = directory / f"{name}.new"
    draft.unlink(missing_ok=True)
    create_durably(draft, data, mode=_PRIVATE)
    draft.replace(directory / name)
    sync_directory(directory)
    return directory / name


def one_line(secret: str) -> bytes:
    """What a file with a secret holds. Raises ``ConfigurationError`` for what is more than its first line."""
    if not secret or "\n" in secret or "\r" in secret or "\0" in secret:
        raise ConfigurationError("secret", "is one line, and not empty")
    return f"{secret}\n".encode()


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns
