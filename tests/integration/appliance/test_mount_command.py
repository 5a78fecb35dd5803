"""``lanfree mount``, ``mounts`` and ``umount`` as people run them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from appliance.config import load
from appliance.wiring import Services
from proxy.units import MiB
from tests.integration.appliance.point_maker import PointMaker

pytestmark = [
    pytest.mark.tools,
    pytest.mark.requires("nbdkit", "mke2fs", "fusermount3", "root", "module:guestfs"),
]

ROOT = Path(__file__).parents[3]
CODE = "import sys; from appliance.cli import main; sys.argv[0] = 'lanfree'; main()"


@dataclass
class Site:
    """A configuration whose repository holds a restore point of a data disk."""

    configuration: Path
    place: Path

    def lanfree(self, *words: str | Path) -> tuple[int, Any]:
        """Exit code and what it printed."""
        done = subprocess.run(
            [sys.executable, "-c", CODE, "--config", self.configuration, "--json", *(str(w) for w in words)],
            cwd=ROOT,
            capture_output=True,
            timeout=240,
            check=False,
        )
        assert done.stdout, done.stderr.decode()
        return done.returncode, json.loads(done.stdout)

    def leases(self) -> list[Path]:
        """Of whoever reads."""
        return list((self.configuration.parent / "repository/leases").iterdir())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    configuration = tmp_path / "lanfree.toml"
    configuration.write_text(
        f"[state]\ndirectory = '{tmp_path}/state'\n[repository]\npath = '{tmp_path}/repository'\nunencrypted = true\n"
        "[files]\nappliance_memory = 512\n"
    )
    (tmp_path / "files").mkdir()
    (tmp_path / "files/report.txt").write_text("all is well\n")
    image = tmp_path / "vda.img"
    image.touch()
    os.truncate(image, 16 * MiB)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tmp_path / "files", image], check=True)
    with Services(load(configuration)) as services:
        services.make_repository()
        PointMaker(services.repository).make("db", {"vda": image})
    place = tmp_path / "place"
    place.mkdir()
    yield Site(configuration, place)
    subprocess.run(["umount", "-l", place], check=False, capture_output=True)


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def is_alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it may go between any two questions
        return False


def test_a_restore_point_is_mounted_listed_in_use_and_unmounted(site: Site) -> None:
    with Services(load(site.configuration)) as services:
        point = services.repository.points()[0].id
    code, record = site.lanfree("mount", point, site.place)
    assert (code, record["machine"], record["shown"]) == (0, "db", {"/dev/sda": "/sda"})
    report = site.place / "sda/report.txt"
    assert report.read_text() == "all is well\n"
    assert site.lanfree("mounts") == (0, [record])
    assert len(site.leases()) > 0
    code, refused = site.lanfree("mount", point, site.place)
    assert (code, refused["error"]["code"]) == (1, "mount-failed")
    file = report.open()
    code, busy = site.lanfree("umount", site.place)
    assert (code, busy["error"]["code"]) == (3, "mount-busy")
    assert file.read() == "all is well\n"
    code, _ = site.lanfree("umount", "--force", site.place)
    assert code == 0
    with pytest.raises(OSError, match="not connected"):
        file.close()
    assert not os.path.ismount(site.place)
    assert eventually(lambda: not is_alive(record["process"]))
    assert site.lanfree("mounts") == (0, [])
    assert site.leases() == []
    code, absent = site.lanfree("umount", site.place)
    assert (code, absent["error"]["code"]) == (1, "configuration")


def test_a_mount_whose_processes_were_all_killed_at_once_is_tidied_up_by_the_next_look(site: Site) -> None:
    with Services(load(site.configuration)) as services:
        point = services.repository.points()[0].id
    _, record = site.lanfree("mount", point, site.place)
    keeper = psutil.Process(record["process"])
    words = {child: " ".join(child.cmdline()) for child in keeper.children()}
    killed = [child for child in words if "mounter.fuse.watch" in words[child] or "mounter.worker" in words[child]]
    assert len(killed) == 2
    keeper.suspend()  # or it sees them go, and unmounts, before its turn comes
    for process in (*killed, keeper):  # whoever would unmount goes first
        process.send_signal(signal.SIGKILL)
    assert eventually(lambda: not any(is_alive(process.pid) for process in (*killed, keeper)))
    with pytest.raises(OSError, match="not connected"):
        (site.place / "sda").stat()
    assert site.lanfree("mounts") == (0, [])
    assert not os.path.ismount(site.place)
    assert list(site.place.iterdir()) == []


def test_what_cannot_be_mounted_is_told_by_the_command_that_asked(site: Site) -> None:
    (site.place / "file").touch()
    with Services(load(site.configuration)) as services:
        point = services.repository.points()[0].id
    code, document = site.lanfree("mount", point, site.place)
    assert (code, document["error"]["code"]) == (1, "mount-failed")
    assert "not empty" in document["error"]["message"]
    code, document = site.lanfree("mount", "nonsense", site.place)
    assert (code, document["error"]["code"]) == (1, "restore-point-not-found")
    assert site.lanfree("mounts") == (0, [])
