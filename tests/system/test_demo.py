"""The demo's claims, each one a test: 'lanfree demo' is run once, as 'make demo' runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.tools, pytest.mark.requires("root", "tgtd", "libvirtd", "qemu-system-x86_64", "nbdkit")]

# Beginnings of the claims, in the order of the story.
CLAIMS = [
    "the lab is up",
    "raw-lun: first backup, read by the proxy over the SAN",
    "raw-lun: application consistent",
    "raw-lun: its guest goes on writing",
    "qcow2-lun: first backup, read by the proxy over the SAN",
    "qcow2-lun: application consistent",
    "qcow2-lun: its guest goes on writing",
    "qcow2-lun: incremental, only what changed was read",
    "raw-lun: no change tracking on raw",
    "qcow2-lun: the same machine on another host, its chain intact",
    "qcow2-lun: incremental, only what changed was read",
    "files of the restore point are catalogued",
    "/data/files/",
    "the image holds whole transactions only",
    "restored over the SAN to a new LUN, digest equal",
    "zeroes stay unallocated",
    "the restored machine boots, its agent answers",
    "backup data through the hosts: none",
    "snapshots and overlays left on the hosts: none",
    "every restore point verifies",
    "the console answers over TLS",
    "its one-time code makes the first administrator",
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    directory = tmp_path_factory.mktemp("demo") / "lab"
    argv = [sys.executable, "-m", "appliance.cli", "--json", "demo", "--directory", str(directory)]
    done = subprocess.run(argv, capture_output=True, timeout=900, env={**os.environ}, check=False)
    assert done.stdout, done.stderr.decode()
    result: Mapping[str, Any] = {**json.loads(done.stdout), "code": done.returncode, "directory": directory}
    assert "claims" in result, done.stdout.decode() + done.stderr.decode()
    return result


@pytest.mark.timeout(900)
def test_the_demo_tells_its_whole_story(demo: Mapping[str, Any]) -> None:
    told = [claim["claim"] for claim in demo["claims"]]
    assert len(told) == len(CLAIMS)
    for claim, beginning in zip(told, CLAIMS, strict=True):
        assert claim.startswith(beginning)


@pytest.mark.parametrize("number", range(len(CLAIMS)), ids=CLAIMS)
def test_claim_holds(demo: Mapping[str, Any], number: int) -> None:
    claim = demo["claims"][number]
    assert claim["holds"], f"{claim['claim']}: {claim['figure']}"


def test_the_demo_ends_well_and_its_lab_is_gone(demo: Mapping[str, Any]) -> None:
    assert demo["code"] == 0
    directory: Path = demo["directory"]
    left = [path for path in directory.rglob("*") if path.is_file()] if directory.exists() else []
    assert left == [], "nothing of the lab may be left"
