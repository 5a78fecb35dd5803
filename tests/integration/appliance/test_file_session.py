"""The README's walk through the files of two machines and five restore points, with the real command line."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.config import load
from appliance.wiring import Services
from tests.integration.appliance.point_maker import PointMaker

pytestmark = [pytest.mark.tools, pytest.mark.requires("nbdkit", "mke2fs", "debugfs")]

WEB, DB = "web1", "db1"
INSTALLED = 1_790_000_000
UUID = "11111111-2222-3333-4444-555555555555"


class Site:
    """A configuration, and the two machines' points: three of the one, two of the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "lanfree.toml"
        self.config.write_text(
            f"[state]\ndirectory = '{directory}/state'\n[repository]\npath = '{directory}/repository'\nunencrypted = true\n"
        )
        with Services(load(self.config)) as services:
            services.make_repository()
            maker = PointMaker(services.repository)
            self.web = [maker.make(WEB, {"vda": self._disk(WEB, night)}).id for night in range(3)]
            self.db = [maker.make(DB, {"vda": self._disk(DB, night)}).id for night in range(2)]

    def _disk(self, machine: str, night: int) -> Path:
        """A root file system whose application writes its configuration anew each night, and its log on and on."""
        image, before = (self.directory / f"{machine}-{n}.img" for n in (night, night - 1))
        if not night:
            self._install(machine, image)
        else:
            shutil.copyfile(before, image)
        conf, log, old = (self.directory / name for name in ("app.conf", "app.log", "old.conf"))
        conf.write_text(f"machine = {machine}\nnight = {night}\n")
        log.write_text("started\n" * 1000 * (night + 1))
        old.write_text("old\n")
        written = {"/etc/app.conf": conf, "/var/log/app.log": log} | ({} if night else {"/etc/old.conf": old})
        script = [f"rm {path}" for path in (*written, "/etc/old.conf")] if night else []
        script += [f"write {source} {path}" for path, source in written.items()]
        script += [f"sif {path} mtime @{INSTALLED + night * 86400}" for path in written]
        run("debugfs", "-w", "-f", "-", str(image), text="\n".join(script))
        return image

    def _install(self, machine: str, image: Path) -> None:
        root = self.directory / f"{machine}-root"
        for directory in ("etc/nginx", "var/log", "bin", "dev", "home", "lib", "proc", "sbin", "usr/bin"):
            (root / directory).mkdir(parents=True)
        (root / "etc/os-release").write_text('ID=debian\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\n')
        (root / "etc/debian_version").write_text("12.11\n")
        (root / "etc/fstab").write_text("LABEL=ROOT / ext4 defaults 0 1\nnas:/export/home /home nfs defaults 0 0\n")
        (root / "etc/nginx/nginx.conf").write_text("worker_processes 2;\n")
        os.utime(root / "etc/nginx/nginx.conf", (INSTALLED, INSTALLED))
        image.touch()
        os.truncate(image, 64 << 20)
        run("mke2fs", "-q", "-t", "ext4", "-L", "ROOT", "-U", UUID, "-d", str(root), str(image))

    def lanfree(self, *words: str, code: int = 0) -> Any:
        argv = [sys.executable, "-m", "appliance.cli", "--config", str(self.config), "--json", *words]
        done = subprocess.run(argv, capture_output=True, timeout=120, check=False)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def output(self, *words: str) -> bytes:
        argv = [sys.executable, "-m", "appliance.cli", "--config", str(self.config), *words]
        return subprocess.run(argv, capture_output=True, timeout=120, check=True).stdout


def run(*argv: str, text: str = "") -> None:
    subprocess.run(argv, input=text.encode(), capture_output=True, check=True, timeout=60)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    made.lanfree("files", "index")
    yield made


def found(site: Site, *words: str) -> set[tuple[str, str]]:
    return {(f["machine"], f["path"]) for f in site.lanfree("files", "find", *words)}


def test_a_just_made_restore_point_is_browsed_without_an_index_and_without_an_appliance(tmp_path: Path) -> None:
    fresh = Site(tmp_path)
    listed = fresh.lanfree("files", "ls", fresh.web[2], "/etc")
    assert [entry["path"].rpartition("/")[2] for entry in listed] == [
        "app.conf",
        "debian_version",
        "fstab",
        "nginx",
        "os-release",
    ]
    (entry, *_) = fresh.lanfree("access-log", "list")
    assert (entry["action"], entry["point"], entry["machine"]) == ("browse", fresh.web[2], f"id-{WEB}")


def test_a_pattern_finds_files_of_both_machines_and_of_points_that_are_past(site: Site) -> None:
    assert found(site, "*.conf") == {
        (f"id-{machine}", path)
        for machine in (WEB, DB)
        for path in ("/etc/app.conf", "/etc/nginx/nginx.conf", "/etc/old.conf")
    }
    assert found(site, "*.conf", "--deleted") == {(f"id-{m}", "/etc/old.conf") for m in (WEB, DB)}
    assert found(site, "nginx", "--machine", WEB, "--type", "file") == {(f"id-{WEB}", "/etc/nginx/nginx.conf")}


def test_every_version_of_a_file_is_told_and_any_of_them_restored(site: Site, tmp_path: Path) -> None:
    versions = site.lanfree("files", "versions", WEB, "/etc/app.conf")
    assert len(versions) == 3
    assert len(site.lanfree("files", "versions", WEB, "/etc/nginx/nginx.conf")) == 1
    assert site.output("files", "get", WEB, "/etc/app.conf", "--version", "2") == b"machine = web1\nnight = 1\n"
    site.lanfree("files", "get", site.db[0], "/etc", "--to", str(tmp_path))
    assert (tmp_path / "etc/app.conf").read_text() == "machine = db1\nnight = 0\n"
    assert (tmp_path / "etc/nginx/nginx.conf").stat().st_mtime == INSTALLED


def test_two_restore_points_are_compared_by_their_files(site: Site) -> None:
    difference = site.lanfree("files", "diff", site.web[0], site.web[2])
    told = {(change["kind"], change["path"]) for change in difference["changes"]}
    assert told - {("changed", "/etc"), ("changed", "/var/log")} == {
        ("changed", "/etc/app.conf"),
        ("changed", "/var/log/app.log"),
        ("removed", "/etc/old.conf"),
    }


def test_what_no_image_holds_is_told_when_the_files_are_recorded(site: Site) -> None:
    report = site.lanfree("files", "index", site.web[2])
    assert [(v["kind"], v["source"]) for v in report["not_protected"]] == [("nfs", "nas:/export/home")]


def test_a_lost_catalog_is_made_again_and_answers_as_before(site: Site) -> None:
    before = found(site, "*.conf"), site.lanfree("files", "versions", DB, "/etc/app.conf")
    for file in (site.directory / "state").glob("catalog.db*"):
        file.unlink()
    assert site.lanfree("catalog", "rebuild")["not_indexed"] == []
    assert (found(site, "*.conf"), site.lanfree("files", "versions", DB, "/etc/app.conf")) == before
    assert site.lanfree("access-log", "check")
