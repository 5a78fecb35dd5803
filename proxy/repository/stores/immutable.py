"""The proxy's side of local immutability: asks the privileged helper (``appliance/immutable``), which does the rest.

The proxy runs without privileges and cannot set or clear the immutable attribute; it can only ask that a file of the
repository be kept for a time, and that one whose time is over be let go. The helper trusts neither its words nor its clock.

One request and one answer a connection, each a line of JSON::

    {"op": "retain", "root": "/backup", "name": "packs/00/…", "seconds": 2592000}  -> {"ok": true, "seconds": 2592000}
    {"op": "release", "root": "/backup", "name": "packs/00/…"}                     -> {"ok": true}
                                                {"ok": false, "code": "retained", "why": "…", "seconds": 86400}
"""

import errno
import fcntl
import json
import os
import socket
import struct
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from proxy.errors import ConfigurationError, FormatError, ObjectRetained, RepositoryUnavailable

# <linux/fs.h>, as x86 and ARM encode _IOR('f', 1, long); the kernel stores an int all the same.
FS_IOC_GETFLAGS = 0x80086601 if struct.calcsize("l") == 8 else 0x80046601
FS_IMMUTABLE_FL = 0x10

# The helper syncs its record of the deadline before it answers; a busy disk may take seconds. Longer would hold a backup
# up behind a helper that hangs.
TIMEOUT = 30.0

# Answers are one short line; anything longer is not the helper.
LONGEST_ANSWER = 4096

_HINT = "check the service lanfree-immutable; appliance/STORAGE.md describes it"


class Retainer(Protocol):
    """Whoever can keep a file from deletion, by object name."""

    def retain(self, name: str, duration: timedelta) -> None:
        """Keep it for at least so long from now. Extends, never shortens. Raises ``FileNotFoundError``."""
        ...

    def release(self, name: str) -> None:
        """Let it be deleted. Raises ``ObjectRetained`` while its time is not over."""
        ...


class ImmutabilityClient:
    """The helper behind ``socket_path``, for the repository at ``root`` (as the helper's configuration names it)."""

    def __init__(self, socket_path: Path, root: Path) -> None:
        self._socket_path = socket_path
        self._root = root

    def retain(self, name: str, duration: timedelta) -> None:
        self._ask({"op": "retain", "name": name, "seconds": duration.total_seconds()})

    def release(self, name: str) -> None:
        self._ask({"op": "release", "name": name})

    def status(self) -> dict[str, float]:
        """For the doctor: ``time`` (trusted seconds), ``kept`` (number of files), ``minimum`` (seconds)."""
        answer = self._ask({"op": "status", "name": "status"})
        return {word: float(answer[word]) for word in ("time", "kept", "minimum")}

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        name = str(request["name"])
        answer = self._exchange({**request, "root": str(self._root)})
        if answer.get("ok") is True:
            return answer
        code, why = answer.get("code"), str(answer.get("why", ""))
        if code == "missing":
            raise FileNotFoundError(name)
        if code == "retained":
            raise ObjectRetained(name, _until(answer.get("seconds")))
        if code in ("unsupported", "limit", "root", "denied"):
            raise ConfigurationError("retention", f"the immutability helper refuses object {name}: {why}", hint=_HINT)
        raise RepositoryUnavailable(str(self._root), f"immutability helper, object {name}: {why or code}", hint=_HINT)

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(TIMEOUT)
                connection.connect(str(self._socket_path))
                connection.sendall(json.dumps(request).encode() + b"\n")
                with connection.makefile("rb") as lines:
                    line = lines.readline(LONGEST_ANSWER)
        except OSError as error:
            why = f"the immutability helper does not answer at {self._socket_path}: {error.strerror or error}"
            raise RepositoryUnavailable(str(self._root), why, hint=_HINT) from None
        with suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                return answer
        raise FormatError(f"immutability helper at {self._socket_path}", "answers what is not one line of JSON")


def is_immutable(path: Path) -> bool:
    """Whether the file has the immutable attribute; false on file systems that know none."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        flags = struct.unpack("i", fcntl.ioctl(file, FS_IOC_GETFLAGS, b"\0" * 8)[:4])[0]
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            return False
        raise
    finally:
        os.close(file)
    return bool(flags & FS_IMMUTABLE_FL)


def _until(seconds: object) -> datetime | None:
    if not isinstance(seconds, int | float) or not 0 <= seconds < timedelta(days=36525).total_seconds():
        return None
    return datetime.now(UTC) + timedelta(seconds=seconds)
