"""``lanfree files`` as people run it: browse, search, versions, restore, over restore points of a real ext4."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from appliance.config import load
from appliance.wiring import Services
from proxy.units import MiB
from tests.integration.appliance.point_maker import PointMaker

pytestmark = [pytest.mark.tools, pytest.mark.requires("nbdkit", "mke2fs", "root", "module:pytsk3")]

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three restore points of one machine; /etc/app.conf is another in each."""
    at = tmp_path_factory.mktemp("site")
    configuration = at / "lanfree.toml"
    configuration.write_text(
        f"[state]\ndirectory = '{at}/state'\n[repository]\npath = '{at}/repository'\nunencrypted = true\n"
    )
    root = at / "root"
    (root / "etc/app.d").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
    (root / "data/large").write_bytes(os.urandom(5 * MiB))
    (root / "etc/app.d/link").symlink_to("../app.conf")
    with Services(load(configuration)) as services:
        services.make_repository()
        maker = PointMaker(services.repository)
        for night in range(3):
            (root / "etc/app.conf").write_text(f"night = {night}\n")
            os.utime(root / "etc/app.conf", (1_700_000_000 + night, 1_700_000_000 + night))
            image = at / f"{night}.img"
            image.touch()
            os.truncate(image, 24 * MiB)
            make = ["mke2fs", "-q", "-t", "ext4", "-U", "11111111-2222-3333-4444-555555555555", "-d", root, image]
            subprocess.run(make, check=True, timeout=60)
            maker.make("web1", {"vda": image})
    return configuration


def run(site: Path, *words: str | Path) -> subprocess.CompletedProcess[bytes]:
    code = "import sys; from appliance.cli import main; sys.argv[0] = 'lanfree'; main()"
    argv = [sys.executable, "-c", code, "--config", str(site), *map(str, words)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, timeout=250, check=False)


def answer(site: Path, *words: str | Path, code: int = 0) -> Any:
    done = run(site, "--json", *words)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def top(site: Path) -> str:
    """The guest's path of the file system's root."""
    points = [point["id"] for point in answer(site, "points")]
    assert [report["point"] for report in answer(site, "files", "index")] == points
    assert answer(site, "files", "index") == []
    (found,) = answer(site, "files", "find", "app.conf", "--type", "file")
    return str(found["path"]).removesuffix("/etc/app.conf")


def test_a_folder_is_restored_and_a_second_run_has_nothing_to_do(site: Path, top: str, tmp_path: Path) -> None:
    newest = answer(site, "points")[-1]["id"]
    report = answer(site, "files", "get", newest, f"{top}/etc", "--to", tmp_path / "to")
    assert (report["failed"], report["problems"], report["entries"]) == (0, [], {"written": 5})
    assert (tmp_path / "to/etc/app.conf").read_text() == "night = 2\n"
    assert str((tmp_path / "to/etc/app.d/link").readlink()) == "../app.conf"
    again = answer(site, "files", "get", newest, f"{top}/etc", "--to", tmp_path / "to")
    assert (again["written"], again["entries"]["unchanged"]) == (0, 3)
    (tmp_path / "to/etc/app.conf").write_text("mine")
    refused = answer(site, "files", "get", newest, f"{top}/etc", "--to", tmp_path / "to", code=7)
    assert [problem["code"] for problem in refused["problems"]] == ["file-not-restored"]
    assert (tmp_path / "to/etc/app.conf").read_text() == "mine"


def test_an_older_version_of_a_file_is_restored_by_its_number(site: Path, top: str, tmp_path: Path) -> None:
    for version, night in ((1, 2), (2, 1), (3, 0)):
        to = tmp_path / str(version)
        answer(site, "files", "get", "web1", f"{top}/etc/app.conf", "--version", str(version), "--to", to)
        assert (to / "app.conf").read_text() == f"night = {night}\n"
    error = answer(site, "files", "get", "web1", f"{top}/etc/app.conf", "--version", "4", "--to", tmp_path, code=1)
    assert "3 versions" in error["error"]["message"]


def test_archives_come_as_files_and_on_stdout(site: Path, top: str, tmp_path: Path) -> None:
    oldest = answer(site, "points")[0]["id"]
    answer(site, "files", "get", oldest, f"{top}/etc", f"{top}/data/large", "--archive", tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as zipped:
        assert zipped.testzip() is None
        assert zipped.read("etc/app.conf") == b"night = 0\n"
        large = zipped.read("large")
    done = run(site, "files", "get", oldest, f"{top}/data", "--archive", "-", "--full-paths")
    assert done.returncode == 0, done.stderr
    with tarfile.open(fileobj=BytesIO(done.stdout)) as tar:
        (name,) = [name for name in tar.getnames() if name.endswith("data/large")]
        assert tar.extractfile(name).read() == large  # type: ignore[union-attr]
    one = run(site, "files", "get", oldest, f"{top}/data/large")
    assert (one.returncode, one.stdout) == (0, large)


def test_every_look_into_a_restore_point_is_recorded(site: Path, top: str, tmp_path: Path) -> None:
    newest = answer(site, "points")[-1]["id"]
    answer(site, "files", "ls", newest, f"{top}/etc")
    answer(site, "files", "get", newest, f"{top}/etc/fstab", "--to", tmp_path)
    entries = answer(site, "access-log", "list")
    actions = [(entry["action"], entry["point"]) for entry in entries]
    assert {("browse", newest), ("restore-files", newest), ("search", None)} <= set(actions)
    (kept,) = [e["detail"] for e in entries if e["action"] == "restore-files" and e["detail"]["to"] == str(tmp_path)]
    assert kept["paths"] == [f"{top}/etc/fstab"]
