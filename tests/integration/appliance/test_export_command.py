"""``lanfree export`` as people run it: another process, other people's tools as clients, signals to end it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.config import load
from appliance.wiring import Services
from proxy.units import KiB, MiB
from tests.integration.appliance.point_maker import PointMaker

pytestmark = [pytest.mark.tools, pytest.mark.requires("nbdkit", "qemu-img", "qemu-io", "nbdcopy")]

ROOT = Path(__file__).parents[3]
SIZE = 8 * MiB

Started = Callable[..., "subprocess.Popen[bytes]"]


def lanfree(*words: str | Path) -> list[str]:
    code = "import sys; from appliance.cli import main; sys.argv[0] = 'lanfree'; main()"
    return [sys.executable, "-c", code, *(str(word) for word in words)]


@pytest.fixture
def site(tmp_path: Path) -> tuple[Path, Path]:
    """A configuration whose repository holds one restore point of two disks, and the first disk's image."""
    configuration = tmp_path / "lanfree.toml"
    configuration.write_text(
        f"[state]\ndirectory = '{tmp_path}/state'\n[repository]\npath = '{tmp_path}/repository'\nunencrypted = true\n"
    )
    image = tmp_path / "vda.img"
    with image.open("wb") as file:
        file.write(os.urandom(MiB))
        file.seek(3 * MiB)
        file.write(os.urandom(MiB))
        file.truncate(SIZE)
    (tmp_path / "vdb.img").write_bytes(b"second disk" * 1000)
    with Services(load(configuration)) as services:
        services.make_repository()
        PointMaker(services.repository).make("db", {"vda": image, "vdb": tmp_path / "vdb.img"})
    return configuration, image


@pytest.fixture
def started() -> Iterator[Started]:
    """``started(words...)``: the program in the background; ended at the end of the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(configuration: Path, *words: str | Path) -> "subprocess.Popen[bytes]":
        argv = lanfree("--config", configuration, "--json", *words)
        running.append(subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def point_of(configuration: Path) -> str:
    with Services(load(configuration)) as services:
        return services.repository.points()[0].id


def document(process: "subprocess.Popen[bytes]") -> dict[str, list[dict[str, str]]]:
    """What it prints first."""
    assert process.stdout is not None
    text = b""
    while not text.endswith(b"\n}\n"):
        line = process.stdout.readline()
        assert line, process.communicate()[1].decode()
        text += line
    told: dict[str, list[dict[str, str]]] = json.loads(text)
    return told


def tool(*words: str | Path) -> bytes:
    return subprocess.run([str(w) for w in words], check=True, timeout=60, capture_output=True).stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_disks_are_served_until_it_is_told_to_end_and_nothing_is_left(
    site: tuple[Path, Path], started: Started, short: Path, number: signal.Signals
) -> None:
    configuration, image = site
    process = started(configuration, "export", point_of(configuration), "--directory", short)
    first, second = document(process)["disks"]
    assert [first["disk"], second["disk"], first["writable"]] == ["vda", "vdb", False]
    tool("nbdcopy", first["uri"], short / "copy.img")
    assert (short / "copy.img").read_bytes() == image.read_bytes()
    assert (short / "copy.img").stat().st_blocks * 512 <= 3 * MiB
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", second["uri"], short / "second.qcow2")
    (short / "copy.img").unlink()
    (short / "second.qcow2").unlink()
    assert any((image.parent / "repository/leases").iterdir())
    process.send_signal(number)
    assert (process.wait(30), list(short.iterdir())) == (0, [])
    assert not any((image.parent / "repository/leases").iterdir())


def test_a_writable_export_takes_what_is_written_up_to_its_limit_and_says_when_it_is_full(
    site: tuple[Path, Path], started: Started, short: Path
) -> None:
    configuration, image = site
    words = ("--disk", "vda", "--cow", "--cow-limit", "0.01", "--cow-directory", image.parent, "--directory", short)
    process = started(configuration, "export", point_of(configuration), *words)
    (disk,) = document(process)["disks"]
    tool("qemu-io", "-f", "raw", "-c", "write -P 7 100k 64k", "-c", "read -P 7 100k 64k", disk["uri"])
    tool("nbdcopy", disk["uri"], short / "copy.img")
    expected = bytearray(image.read_bytes())
    expected[100 * KiB : 164 * KiB] = b"\x07" * 64 * KiB
    assert (short / "copy.img").read_bytes() == expected
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_what_a_server_keeps_of_the_repository_goes_with_the_export_also_when_all_are_killed(
    site: tuple[Path, Path], started: Started, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    process = started(site[0], "export", point_of(site[0]), "--directory", short)
    document(process)
    (export,) = short.iterdir()
    servers = [int(child) for child in tool("pgrep", "--parent", f"{process.pid}").split()]
    assert (len(servers), len(list(export.glob("lanfree-cache-*"))), list(temporary.iterdir())) == (2, 2, [])
    os.kill(process.pid, signal.SIGSTOP)  # so that nobody is left to tidy up
    for server in servers:
        os.kill(server, signal.SIGKILL)
    process.kill()
    process.wait(30)
    os.utime(export, (0, 0))
    document(started(site[0], "export", point_of(site[0]), "--directory", short))
    assert (export.exists(), list(temporary.iterdir())) == (False, [])


def test_an_export_ends_by_itself_when_its_time_is_over(site: tuple[Path, Path], started: Started, short: Path) -> None:
    configuration, _ = site
    process = started(configuration, "export", point_of(configuration), "--for", "2s", "--directory", short)
    assert len(document(process)["disks"]) == 2
    assert (process.wait(30), list(short.iterdir())) == (0, [])


def test_a_disk_that_is_not_there_is_refused_and_the_others_are_named(
    site: tuple[Path, Path], started: Started
) -> None:
    process = started(site[0], "export", point_of(site[0]), "--disk", "vdz")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert json.loads(output)["error"]["message"].endswith("the restore point has vda, vdb")
