"""A site with one restore point whose files are read from its opened disk, and clients that begin to read and do not end."""

import http.client
import os
import secrets
import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from api.auth.roles import Role, allowed
from api.auth.sessions import digest
from appliance.config import load
from appliance.wiring import Services
from catalog.access.values import Token, User
from proxy.units import MiB
from tests.integration.appliance.point_maker import PointMaker
from tests.integration.web.process.web_process import LONG, WebSite, until

NOISE = 64 * MiB
"""Of the file that is downloaded: more than all buffers on the way hold together, so that a client that stops to read keeps
the answer open."""

_ROOT = ("etc", "bin", "dev", "home", "lib", "proc", "sbin", "usr/bin", "srv/data")


class FileSite(WebSite):
    """``point``: its identity; its files are not recorded, so that a session with a disk server is opened for them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.token = f"lft_{secrets.token_urlsafe(32)}"
        self._open: list[http.client.HTTPSConnection] = []
        with Services(load(self.file)) as services:
            point = PointMaker(services.repository).make("web1", {"vda": _disk(self.base)})
            with services.catalog.transaction() as unit:
                unit.restore_points.add(point)
            may, now = tuple(sorted(each.value for each in allowed([Role.RESTORE_OPERATOR]))), datetime.now(UTC)
            with services.access.transaction() as access:
                access.users.add(User("alice", "alice", None, (Role.RESTORE_OPERATOR.value,), ("*",), now))
                access.tokens.add(Token(secrets.token_hex(8), "t", "alice", digest(self.token), may, ("*",), now))
        self.point = point.id

    def begun(self, port: int, path: str) -> http.client.HTTPResponse:
        """An answer of which something has come, and that nobody reads on."""
        context = ssl.create_default_context(cafile=str(self.authority))
        connection = http.client.HTTPSConnection("localhost", port, timeout=LONG, context=context)
        self._open.append(connection)
        connection.request("GET", f"/api/v1{path}", headers={"Authorization": f"Bearer {self.token}"})
        answer = connection.getresponse()
        assert answer.status == http.client.OK, answer.read()
        assert answer.read(16)
        return answer

    def busy(self, port: int) -> "Busy":
        """Let an event stream and a download be open."""
        download = f"/restore-points/{self.point}/files/download?path=/srv/data/noise.bin"
        return Busy(self.begun(port, "/events"), self.begun(port, download), self.disk_servers())

    def disk_servers(self) -> list[int]:
        """Processes that the console has serve disks."""
        console = self.running()["pid"]
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                status, words = (place / "stat").read_text(), (place / "cmdline").read_bytes()
            except OSError:
                continue
            if b"nbdkit" in words.split(b"\0", 1)[0] and int(status.rpartition(")")[2].split()[1]) == console:
                found.append(int(place.name))
        return found

    def close(self) -> None:
        """End clients and processes."""
        for connection in self._open:
            connection.close()
        super().close()


class Busy:
    """Two answers that are under way."""

    def __init__(
        self, events: http.client.HTTPResponse, download: http.client.HTTPResponse, disk_servers: list[int]
    ) -> None:
        self._events, self._download = events, download
        assert disk_servers, "the disk is served by a process of its own"
        self._disk_servers = disk_servers

    def assert_cut_off(self) -> None:
        """Both came to an end, the file is not taken for whole, and nothing serves its disk any more."""
        _rest(self._events)
        came = 16 + _rest(self._download)
        assert came < NOISE
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in self._disk_servers), "disk servers ended")


def _rest(answer: http.client.HTTPResponse) -> int:
    """Bytes until the connection ends, however it does."""
    came = 0
    try:
        while piece := answer.read1(MiB):
            came += len(piece)
    except (http.client.HTTPException, ConnectionError, ssl.SSLError) as broken:
        assert not isinstance(broken, TimeoutError)
    return came


def _disk(base: Path) -> Path:
    """An ext4 file system of a Debian with one large file."""
    root, image = base / "root", base / "disk.img"
    for directory in _ROOT:
        (root / directory).mkdir(parents=True)
    (root / "etc/os-release").write_text('ID=debian\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\n')
    (root / "etc/fstab").write_text("LABEL=ROOT / ext4 defaults 0 1\n")
    (root / "srv/data/noise.bin").write_bytes(os.urandom(NOISE))
    image.touch()
    os.truncate(image, NOISE + 64 * MiB)
    argv: list[Any] = ["mke2fs", "-q", "-t", "ext4", "-L", "ROOT", "-d", root, image]
    subprocess.run(argv, check=True, capture_output=True)
    return image
