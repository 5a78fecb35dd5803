"""Serves a restore point whose files are made up as they are read; see ``streaming.py``.

Its first line tells port, tokens and restore point; each line that it is sent it answers with how many downloads go on.
"""

import asyncio
import json
import secrets
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn

from api.app import create_app
from api.auth.roles import Role, allowed
from api.auth.sessions import digest
from api.settings import WebSettings
from appliance.web.desk import desk_of
from appliance.web.files import WebFiles
from appliance.wiring import Services
from catalog.access.values import Token, User
from mounter.memory import MemoryFilesystem, MemoryVolume
from mounter.ports import FileEntry, FileType, Volume
from mounter.session import MountSession
from tests.unit.api.api_site import site_in

GIB = 1 << 30
FILE = GIB // 4
PIECE = 1 << 20
"""Of what a reader of a restore point gives at once."""

USERS = 4
"""Nobody may have more than four downloads at once."""

NOISE = secrets.token_bytes(2 * PIECE)


class Endless(MemoryFilesystem):
    """Files whose content is noise, made up of one block of it."""

    def read(self, volume: Volume, path: bytes, offset: int = 0) -> Iterator[bytes]:
        left = self.entry(volume, path).size - offset
        turn = 0
        while left > 0:
            turn = (turn + 4099) % PIECE
            piece = NOISE[turn : turn + min(left, PIECE)]
            left -= len(piece)
            yield piece


def folder(gib: int) -> MemoryVolume:
    """With files of 256 MiB, together so many GiB."""
    root = MemoryVolume(Volume("v", "/dev/sda1", "ext4", "", "", gib * GIB, "/"))
    root.add_directory(b"/folder")
    for number in range(gib * GIB // FILE):
        path = f"/folder/{number:04d}.bin".encode()
        root.entries[path] = FileEntry(path, FileType.FILE, FILE, 0o644, 0, 0, 0, 0, number + 1000)
    return root


def known(services: Services) -> list[str]:
    """Tokens of several users."""
    made = [f"lft_{secrets.token_urlsafe(32)}" for _ in range(USERS)]
    now = datetime.now(UTC)
    words = tuple(sorted(each.value for each in allowed([Role.ADMINISTRATOR])))
    for number, secret in enumerate(made):
        name = f"u{number}"
        with services.access.transaction() as unit:
            unit.users.add(User(name, name, None, (Role.ADMINISTRATOR.value,), ("*",), now))
            unit.tokens.add(Token(secrets.token_hex(8), "t", name, digest(secret), words, ("*",), now))
    return made


def main(base: Path, gib: int) -> None:
    """Until its standard input ends."""
    site = site_in(base)
    services = site.services
    services.make_repository()
    point = site.point(site.machine("db-1"))
    root = folder(gib)

    @contextmanager
    def mount(*_: Any, keys: Sequence[Any] = (), lifetime: timedelta | None = None) -> Iterator[MountSession]:
        del keys, lifetime
        with MountSession([], lambda _s, _d: Endless([root]), clock=services.clock) as session:
            yield session

    services.__dict__["mount"] = mount
    tokens = known(services)
    desk = desk_of(services)
    app = create_app(desk, WebSettings(https=False, console=False))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    files = desk.files
    assert isinstance(files, WebFiles)

    def answer() -> None:
        for _ in sys.stdin:
            print(json.dumps({"running": files.downloads.running}), flush=True)
        server.should_exit = True

    async def run() -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        print(json.dumps({"port": port, "tokens": tokens, "point": point.id}), flush=True)
        threading.Thread(target=answer, daemon=True).start()
        await serving

    asyncio.run(run())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
