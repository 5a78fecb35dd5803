"""Files over the API as it really runs: its own process, TLS, a repository, file systems that nobody of ours made."""

import http.client
import io
import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from api.auth.roles import Role, allowed
from api.auth.sessions import digest
from appliance.config import load
from appliance.web import listening
from appliance.wiring import Services
from catalog.access.values import Token, User
from proxy.model import RestorePoint
from proxy.units import MiB
from tests.integration.appliance.point_maker import PointMaker
from tests.integration.serving.fleet import until

pytestmark = [pytest.mark.tools, pytest.mark.requires("nbdkit", "mke2fs")]

NOISE = os.urandom(48 * MiB)
"""More than all buffers on the way hold together."""

CONFIGURATION = """
[repository]
path = "{base}/repository"
unencrypted = true
[state]
directory = "{base}/state"
[protect]
enabled = false
[web]
address = "127.0.0.1:0"
"""


@dataclass
class Server:
    """``lanfree web`` over one restore point that holds a root file system; its files are not recorded."""

    base: Path
    services: Services
    point: RestorePoint
    process: "subprocess.Popen[bytes] | None" = None
    port: int = 0
    token: str = ""

    def start(self) -> None:
        argv = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "appliance.cli",
            "--config",
            str(self.base / "lanfree.toml"),
            "web",
        ]
        log = (self.base / "web.log").open("ab")
        self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until(self._answers, "the API answers")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.base / "web.log").read_text()
        running = listening.found(self.base / "state" / "web")
        if running is None or running.pid != self.process.pid:
            return False
        self.port = running.port
        try:
            return self.ask("/api/v1/health/live").status == 200
        except OSError:
            return False

    def connected(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=180, context=context)

    def ask(self, path: str, body: object = None, **headers: str) -> http.client.HTTPResponse:
        """One request; its connection ends with the answer."""
        connection = self.connected()
        said = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", **headers}
        data = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, body=data, headers=said)
        return connection.getresponse()

    def told(self, path: str) -> Any:
        answer = self.ask(f"/api/v1{path}")
        text = answer.read()
        assert answer.status == 200, text
        return json.loads(text)

    def download(self, path: str, **query: str) -> http.client.HTTPResponse:
        more = "".join(f"&{name}={value}" for name, value in query.items())
        return self.ask(f"/api/v1/restore-points/{self.point.id}/files/download?path={path}{more}")

    def servers(self) -> list[int]:
        """Processes that serve this repository's disks."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                status = (place / "stat").read_text()
                words = (place / "cmdline").read_bytes()
            except OSError:
                continue
            if b"nbdkit" in words.split(b"\0", 1)[0] and self._ours(status):
                found.append(int(place.name))
        return found

    def _ours(self, status: str) -> bool:
        assert self.process is not None
        return int(status.rpartition(")")[2].split()[1]) == self.process.pid

    def resident(self) -> int:
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmRSS"))

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(sign)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("files-real")
    (base / "lanfree.toml").write_text(CONFIGURATION.format(base=base))
    root, image = base / "root", base / "disk.img"
    for directory in ("etc", "bin", "dev", "home", "lib", "proc", "sbin", "usr/bin", "srv/data"):
        (root / directory).mkdir(parents=True)
    (root / "etc/os-release").write_text('ID=debian\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\n')
    (root / "etc/fstab").write_text("LABEL=ROOT / ext4 defaults 0 1\n")
    (root / "srv/data/noise.bin").write_bytes(NOISE)
    (root / "srv/data/small.txt").write_text("small\n")
    (root / "srv/data/shadow").symlink_to("../../../../../../etc/shadow")
    image.touch()
    os.truncate(image, 160 * MiB)
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-L", "ROOT", "-d", str(root), str(image)], check=True, capture_output=True
    )
    with Services(load(base / "lanfree.toml")) as services:
        services.make_repository()
        point = PointMaker(services.repository).make("web1", {"vda": image})
        image.unlink()
        with services.catalog.transaction() as unit:
            unit.restore_points.add(point)
        made = Server(base, services, point)
        made.token = f"lft_{secrets.token_urlsafe(32)}"
        words, now = tuple(sorted(each.value for each in allowed([Role.RESTORE_OPERATOR]))), datetime.now(UTC)
        with services.access.transaction() as unit:
            unit.users.add(User("alice", "alice", None, (Role.RESTORE_OPERATOR.value,), ("web*",), now))
            unit.tokens.add(Token(secrets.token_hex(8), "t", "alice", digest(made.token), words, ("*",), now))
        try:
            made.start()
            yield made
        finally:
            made.stop()


def test_a_restore_point_that_is_not_recorded_is_browsed_and_its_file_comes_byte_for_byte(server: Server) -> None:
    listing = server.told(f"/restore-points/{server.point.id}/files?path=/srv/data")
    assert listing["source"] == "session"
    assert [item["name"] for item in listing["items"]] == ["noise.bin", "shadow", "small.txt"]

    before = server.resident()
    answer = server.download("/srv/data/noise.bin")
    assert answer.getheader("Content-Length") == str(len(NOISE))
    assert answer.read() == NOISE
    assert server.resident() - before < 32 * MiB


def test_a_part_of_a_file_is_read_where_it_lies(server: Server) -> None:
    path = f"/api/v1/restore-points/{server.point.id}/files/download?path=/srv/data/noise.bin"
    answer = server.ask(path, Range=f"bytes={40 * MiB}-{40 * MiB + 99}")

    assert answer.status == 206
    assert answer.read() == NOISE[40 * MiB : 40 * MiB + 100]


def test_a_folder_comes_as_a_zip_with_a_report_and_no_link_is_followed(server: Server) -> None:
    with zipfile.ZipFile(io.BytesIO(server.download("/srv/data", format="zip").read())) as archive:
        assert archive.read("data/noise.bin") == NOISE
        assert archive.read("data/shadow") == b"../../../../../../etc/shadow"
        assert b"Complete" in archive.read(archive.namelist()[-1])
    assert server.download("/srv/data/shadow").status == 404


def test_a_client_that_leaves_frees_its_place_and_the_session_serves_the_next(server: Server) -> None:
    for _ in range(6):  # more than one caller may have at once
        connection = server.connected()
        path = f"/api/v1/restore-points/{server.point.id}/files/download?path=/srv/data/noise.bin"
        until(partial(_begun, connection, path, server.token), "there is a place again")
        connection.close()
    until(lambda: server.download("/srv/data/small.txt").read() == b"small\n", "the place is free")


def _begun(connection: http.client.HTTPSConnection, path: str, token: str) -> bool:
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    if answer.status == 429:
        answer.read()
        return False
    assert answer.status == 200
    assert len(answer.read(MiB)) == MiB
    return True


def test_paths_of_this_machine_are_not_to_be_had(server: Server) -> None:
    for path in (
        "/etc/../../../../etc/shadow",
        "/..%2f..%2f..%2fetc/shadow",
        "/srv/data/%2e%2e/%2e%2e/etc/shadow",
        "/etc/passwd",
        f"{server.base}/lanfree.toml",
        "/proc/self/environ",
        "/etc/os-release%00.txt",
    ):
        assert server.download(path).status in (404, 422), path


def test_a_folder_that_breaks_off_in_the_middle_is_not_taken_for_whole(server: Server) -> None:
    """The process ends while it is sent: what came has no end, and whatever served disks is gone."""
    answer = server.download("/srv/data", format="tar")
    assert len(answer.read(MiB)) == MiB
    serving = server.servers()
    assert serving

    server.stop()

    rest = b""
    with pytest.raises((http.client.IncompleteRead, OSError)):
        rest = answer.read()
    assert rest == b""
    until(lambda: not any(Path(f"/proc/{each}").exists() for each in serving), "what served disks has ended")
    server.start()
    assert server.download("/srv/data/small.txt").read() == b"small\n"
