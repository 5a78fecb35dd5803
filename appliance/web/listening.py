"""Where the process of API and console listens, and where others find it."""

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from appliance.config_web import Web
from proxy.durable import replace_durably
from proxy.errors import ConfigurationError

BACKLOG = 128
"""Connections that wait to be taken; more than a browser or two open at once while the process is busy."""


@dataclass(frozen=True, slots=True)
class Running:
    """``url``: for people; ``port``: the one that was taken; ``pid``: of the process."""

    url: str
    port: int
    pid: int


def listen(web: Web) -> socket.socket:
    """On the configured address; on all of them over IPv4 and IPv6 where none is said. Raises ``ConfigurationError``."""
    host, port = web.listen
    try:
        if host:
            return _bound(host, port)
        try:
            return _bound("::", port)
        except OSError as error:
            if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
                raise
            return _bound("0.0.0.0", port)  # noqa: S104  # the kernel has no IPv6; see ``Web`` for why everywhere
    except OSError as error:
        where = f"[web] address {web.address}"
        if error.errno == errno.EADDRINUSE:
            hint = f"'ss -ltnp sport = :{port}' shows what listens there; end that, or say another address in [web]"
            raise ConfigurationError(where, f"port {port} is taken", hint=hint) from None
        hint = "say an address of this machine in [web], or leave it out: ':9728' is all of them"
        raise ConfigurationError(where, f"cannot listen: {error.strerror or error}", hint=hint) from None


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    made = socket.socket(family, kind, protocol)
    try:
        # A port whose last connections only wait for their end is free; one on which somebody listens is not.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(address)
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _file(directory: Path) -> Path:
    return directory / "running.json"


@contextmanager
def told(directory: Path, running: Running) -> Iterator[None]:
    """Others of this machine find it as long as this goes on. ``directory``: ``web/`` of the state directory."""
    file = _file(directory)
    replace_durably(file, json.dumps(asdict(running)).encode())
    try:
        yield
    finally:
        # A process that was started anew has written its own by now.
        if found(directory) == running:
            file.unlink(missing_ok=True)


def found(directory: Path) -> Running | None:
    """The process that runs here, if one does."""
    try:
        running = Running(**json.loads(_file(directory).read_bytes()))
        with contextlib.suppress(PermissionError):  # it runs, as another user
            os.kill(running.pid, 0)
    except (OSError, ValueError, TypeError):
        return None
    with contextlib.suppress(OSError):
        if b"python" not in Path(f"/proc/{running.pid}/cmdline").read_bytes():
            return None  # its number is another program's by now
    return running
