"""The fleet demo's claims: it is run once, as 'make demo-fleet' runs it."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import must_have
from tests.integration.catalog.postgres_server import program

pytestmark = [
    pytest.mark.tools,
    pytest.mark.requires("root", "tgtd", "libvirtd", "qemu-system-x86_64"),
    pytest.mark.timeout(600),
]

ROOT = Path(__file__).parents[3]
CLAIMS = [
    "the lab is up",
    "three proxies serve, each with a state of its own",
    "killed in the middle",
    "what it had was taken over by the others",
    "the run ended as done",
    "all machines are backed up",
    "exactly one restore point a machine",
    "every chunk of them reads back",
    "at most 1 at once by machine",
    "at most 2 at once by proxy",
    "at most 2 at once by host",
    "at most 2 at once by full",
    "at most 5 at once by repository",
    "seen by looking",
    "no snapshot is left on the hosts",
    "nothing for a sweep to find",
    "no run's record is left",
    "the others end cleanly when asked",
]


@pytest.fixture(scope="module")
def story() -> Mapping[str, Any]:
    if program() is None:
        must_have("postgres")
    argv = [sys.executable, "-m", "tests.system.fleet.demo", "--json"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, timeout=540, check=False)
    assert done.stdout, done.stderr.decode(errors="replace")[-4000:]
    document: Mapping[str, Any] = json.loads(done.stdout)
    return {**document, "said": done.stderr.decode(errors="replace")}


def test_the_whole_story_is_told(story: Mapping[str, Any]) -> None:
    assert [claim["claim"] for claim in story["claims"]] == CLAIMS


@pytest.mark.parametrize("number", range(len(CLAIMS)), ids=CLAIMS)
def test_the_claim_holds(number: int, story: Mapping[str, Any]) -> None:
    claim = story["claims"][number]
    assert claim["holds"] is True, f"{claim['claim']}: {claim['figure']}\n{story['said'][-6000:]}"
