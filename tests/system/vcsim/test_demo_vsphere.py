"""The vSphere demo's claims: it is run once, as 'make demo-vsphere' runs it."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.tools, pytest.mark.requires("root", "tgtd", "go"), pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[3]
INCREMENTAL = [
    claim
    for machine in ("web", "db")
    for claim in (
        f"{machine}: incremental, only what changed was read",
        f"{machine}: what was stored is what the LUN held",
        f"{machine}: backup data through the hosts: none",
    )
]
CLAIMS = [
    "web: first backup, read by the proxy from the LUN",
    "web: what was stored is what the LUN held",
    "web: its datastore is qualified, once, against what its host sends",
    "db: first backup, read by the proxy from the LUN",
    "db: what was stored is what the LUN held",
    "db: backup data through the hosts: none",
    *INCREMENTAL,
    *INCREMENTAL,
    "web restored as web-restored over the import API, digests equal",
    "disk scsi0:1 of the first backup restored to a raw LUN, digest equal",
    "disk scsi0:1 of the first backup given to db while it runs, digest equal",
    "snapshots left: none",
    "relocation is enabled again",
    "every restore point verifies",
]


@pytest.fixture(scope="module")
def demo() -> Mapping[str, Any]:
    argv = [sys.executable, "-m", "tests.system.vcsim.demo", "--json"]
    done = subprocess.run(argv, capture_output=True, timeout=900, cwd=ROOT, check=False)
    assert done.stdout, done.stderr.decode()
    result: Mapping[str, Any] = {**json.loads(done.stdout), "code": done.returncode}
    return result


def test_the_demo_tells_its_whole_story_and_all_of_it_holds(demo: Mapping[str, Any]) -> None:
    assert [claim["claim"] for claim in demo["claims"]] == CLAIMS
    assert [claim for claim in demo["claims"] if not claim["holds"]] == []
    assert demo["code"] == 0
