"""Where ``lanfree files get`` puts files, and which restore point it takes them from."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from appliance import operations
from appliance.wiring import Services
from mounter.ports import shown
from mounter.restore.directory import Existing
from mounter.restore.new_file import NewFile
from mounter.restore.sink import PlainSink, Sink, Writable, ZstdSink
from mounter.restore.tar import TarTarget
from mounter.restore.zip import ZipTarget
from mounter.targets import FileTarget
from proxy.errors import ConfigurationError, GuestFileNotFound, RestoreRefused, TargetFailed
from proxy.model import RestorePoint

STDOUT = Path("-")

LIFETIME = timedelta(days=2)
"""Of a session that restores: some TiB through software emulation. Its program ends it; this is for when that hangs."""

# Headers are small; this many bytes are collected before the system is called.
_BUFFER = 1 << 20


class Format(StrEnum):
    """Kinds of archives. Tar holds everything, zip what most people's programs can open."""

    TAR = "tar"
    TAR_ZST = "tar.zst"
    ZIP = "zip"


_SUFFIXES = {".tar": Format.TAR, ".tar.zst": Format.TAR_ZST, ".tzst": Format.TAR_ZST, ".zip": Format.ZIP}


def format_of(archive: Path, wanted: Format | None) -> Format:
    """As asked for, else by the name's end; standard output gets a tar. Raises ``ConfigurationError``."""
    if wanted is not None:
        return wanted
    if archive == STDOUT:
        return Format.TAR
    for suffix, found in _SUFFIXES.items():
        if archive.name.lower().endswith(suffix):
            return found
    hint = f"end it in {', '.join(_SUFFIXES)}, or say --format"
    raise ConfigurationError(str(archive), "its name does not tell what archive it shall be", hint=hint)


@contextmanager
def archive_target(archive: Path, kind: Format, existing: Existing) -> Iterator[FileTarget]:
    """A target that writes an archive. A file gets its name when the body ends without an error, also when some of the
    guest's files could not be read (the archive itself tells); readable for its owner only, as the guest's secrets are in
    it. Raises ``RestoreRefused``."""
    if archive == STDOUT:
        with _target(kind, sys.stdout.buffer, "standard output") as target:
            yield target
        return
    replace = existing is Existing.OVERWRITE
    if archive.is_dir() or (os.path.lexists(archive) and not replace):
        raise RestoreRefused(str(archive), "it exists", hint="choose another name, or --existing overwrite for a file")
    with ExitStack() as held:
        try:
            folder = os.open(archive.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            held.callback(os.close, folder)
            new = held.enter_context(NewFile(folder))
            stream = held.enter_context(os.fdopen(os.dup(new.descriptor), "wb", buffering=_BUFFER))
        except OSError as error:
            raise RestoreRefused(str(archive), str(error.strerror), hint="name a file in a directory") from None
        with _target(kind, stream, str(archive)) as target:
            yield target
        try:
            stream.flush()
            os.fsync(new.descriptor)
            new.publish(os.fsencode(archive.name), replace=replace)
            os.fsync(folder)
        except OSError as error:
            raise TargetFailed(str(archive), str(error.strerror)) from None


def point_with(services: Services, name: str, path: bytes | None, version: int | None) -> RestorePoint:
    """The restore point called ``name``; with ``version``, ``name`` is a machine and the newest point that holds so old a
    version of the file is taken: 1 is the newest version, 2 the one before. Raises ``GuestFileNotFound``,
    ``RestorePointNotFound``, ``MachineNotFound``."""
    if version is None or path is None:
        return services.repository.point(name)
    machine = operations.points_of(services, name)[-1].machine
    with services.catalog.transaction(write=False) as unit:
        versions = unit.files.versions(machine, path)
    if len(versions) < version:
        known = f"{len(versions)} versions of it are recorded"
        raise GuestFileNotFound(shown(path), f"{known}, so that there is no version {version}")
    return services.repository.point(versions[version - 1].last_point)


def _target(kind: Format, stream: Writable, name: str) -> FileTarget:
    sink: Sink = ZstdSink(stream, name) if kind is Format.TAR_ZST else PlainSink(stream, name)
    return ZipTarget(sink) if kind is Format.ZIP else TarTarget(sink)
