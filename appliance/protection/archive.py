"""What of the appliance's own state is no database: the configuration file, the files that it names, what the site's state has
to remember; as a small tar, so that it can be read without Lanfree.

Which files belong to it is told by the configuration's own keys: whatever ends in ``_file`` or ``ca_bundle``, and all that lies
in a ``tls_directory``. The repository's own key is not among them: it would lie in what only it opens.
"""

import io
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydantic import BaseModel

from appliance.config import Settings
from appliance.config_editing import without_addresses
from proxy.errors import ConfigurationError, FormatError
from proxy.ports import StateStore
from proxy.state_directory import checked_name
from proxy.units import MiB

OWN_KEY = frozenset({"repository.key_file", "repository.passphrase_file"})
"""Keys of the configuration that name what opens the repository itself."""

FOLDERS = ("unlock", "copies")
"""Of the site's state: the sealed keys of encrypted volumes; which repository each ``[[copy_to]]`` is."""

RECORDS = ("vsphere/installation",)
"""Of the site's state: by this name the appliance knows its own snapshots in a vCenter, those of a run that died with it too.
What drivers noted of single runs is left out: hypervisors tell the truth about them, and old notes do not."""

# Keys, passwords and certificates are a few KiB. Whatever is larger was named by mistake, and would be held in memory.
LARGEST = MiB
LARGEST_ARCHIVE = 64 * MiB

_CONFIGURATION = "configuration"
_FILES = "files"
_RECORDS = "records"


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file that the configuration names. ``key``: where (``vcenter.password_file``)."""

    key: str
    path: Path


@dataclass(frozen=True, slots=True)
class Archive:
    """``files``: those that are in it; ``missing``: what the configuration names and could not be read, and why."""

    data: bytes = field(repr=False)
    files: tuple[Path, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What an archive holds. ``records``: of the site's state, by name."""

    configuration: bytes = field(repr=False)
    files: Mapping[Path, bytes] = field(repr=False)
    records: Mapping[str, bytes] = field(repr=False)


def named_files(settings: Settings) -> list[NamedFile]:
    """Every file beside the configuration that this appliance needs, once, but what opens the repository itself; whether it
    is there or not."""
    found = {named.path: named for named in _named(settings, "") if named.key not in OWN_KEY}
    own = {named.path for named in _named(settings, "") if named.key in OWN_KEY}
    return [found[path] for path in sorted(found) if path not in own]


def archive(settings: Settings, state: StateStore, *, secrets: bool) -> Archive:
    """The same bytes for the same state. ``secrets``: with the named files and all of the configuration; without, where anybody
    could read them. Raises ``ConfigurationError`` when the configuration cannot be read, or all of it is larger than it can
    be."""
    out = io.BytesIO()
    files: list[Path] = []
    missing: list[str] = []
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        try:
            configuration = _bytes_of(settings.source)
            _add(tar, _CONFIGURATION, configuration if secrets else without_addresses(configuration, settings.source))
        except OSError as error:
            raise ConfigurationError(str(settings.source), f"cannot be read: {error.strerror or error}") from None
        for named in named_files(settings) if secrets else ():
            try:
                _add(tar, f"{_FILES}{named.path}", _bytes_of(named.path))
                files.append(named.path)
            except OSError as error:
                missing.append(f"{named.path} ({named.key}): {error.strerror or error}")
        records = [f"{folder}/{word}" for folder in FOLDERS for word in state.names(folder)]
        for name in (*records, *RECORDS):
            record = state.get(name)
            if record is not None:
                _add(tar, f"{_RECORDS}/{name}", record)
    if len(out.getvalue()) > LARGEST_ARCHIVE:
        raise ConfigurationError(
            str(settings.source), f"the files that it names take more than {LARGEST_ARCHIVE} bytes"
        )
    return Archive(out.getvalue(), tuple(files), tuple(missing))


def unpack(data: bytes) -> Unpacked:
    """Raises ``FormatError`` for whatever ``archive`` did not make."""
    configuration: bytes | None = None
    files: dict[Path, bytes] = {}
    records: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise FormatError("the appliance's state", f"{member.name[:80]!r} is no regular file")
                folder, _, name = member.name.partition("/")
                match folder:
                    case "configuration" if not name:
                        configuration = content.read()
                    case "files":
                        files[_path(name)] = content.read()
                    case "records":
                        records[_record(name)] = content.read()
                    case _:
                        raise FormatError("the appliance's state", f"it holds {member.name[:80]!r}")
    except tarfile.TarError as error:
        raise FormatError("the appliance's state", str(error)) from None
    if configuration is None:
        raise FormatError("the appliance's state", "it holds no configuration")
    return Unpacked(configuration, files, records)


def plain(path: Path) -> Path:
    """Absolute and without ``..``, which nobody who unpacks follows."""
    return Path(os.path.normpath(path.absolute()))


def _named(section: BaseModel, where: str) -> Iterator[NamedFile]:
    for name, value in section:
        key = f"{where}{name}"
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, BaseModel):
                yield from _named(each, f"{key}.")
            elif isinstance(each, Path) and (name.endswith("_file") or name == "ca_bundle"):
                yield NamedFile(key, plain(each))
            elif isinstance(each, Path) and name == "tls_directory":
                yield from _in_directory(key, plain(each))


def _in_directory(key: str, directory: Path) -> Sequence[NamedFile]:
    if not directory.is_dir():
        return [NamedFile(key, directory)]  # told as missing by whoever wants to read it
    return [NamedFile(key, path) for path in sorted(directory.iterdir()) if path.is_file()]


def _bytes_of(path: Path) -> bytes:
    """Raises ``OSError``."""
    if not path.is_file():  # a device or a pipe would keep whoever reads it waiting
        raise FileNotFoundError(2, "no such file") if not path.exists() else OSError(22, "is not a regular file")
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise OSError(27, f"is larger than {LARGEST} bytes")
    return data


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    # No time and no owner: nothing but content makes two archives differ. Whoever unpacks it owns it.
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o600
    tar.addfile(member, io.BytesIO(data))


def _path(name: str) -> Path:
    if not name or ".." in PurePosixPath(name).parts:
        raise FormatError("the appliance's state", f"it holds a file named {name[:80]!r}")
    return Path("/", name)


def _record(name: str) -> str:
    try:
        checked_name(name)
    except ValueError:
        raise FormatError("the appliance's state", f"it holds a record named {name[:80]!r}") from None
    if name in RECORDS or (name.rpartition("/")[0] in FOLDERS and not name.rpartition("/")[2].startswith(".")):
        return name
    raise FormatError("the appliance's state", f"it holds a record named {name[:80]!r}")
