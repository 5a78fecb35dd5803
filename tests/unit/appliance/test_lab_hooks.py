"""The freeze hook that real guests get, run by this machine's shell under another root directory."""

import json
import os
import subprocess
from pathlib import Path

import pytest

import appliance.lab

# Shell hooks of guests, run once for each state of a guest.
pytestmark = pytest.mark.slow

HOOK = Path(appliance.lab.__file__).parent / "hooks" / "lanfree-quiesce"


class GuestRoot:
    """A guest's directories, and what its scripts did, in order."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.scripts = root / "etc/lanfree/quiesce.d"
        self.run = root / "run/lanfree"
        self.calls = root / "calls"
        for directory in (self.scripts, self.run, root / "var/log"):
            directory.mkdir(parents=True)

    def script(self, name: str, *, freeze_exit: int = 0, executable: bool = True) -> None:
        path = self.scripts / name
        path.write_text(f'#!/bin/sh\necho "{name} $1" >> {self.calls}\n[ "$1" = thaw ] || exit {freeze_exit}\n')
        path.chmod(0o755 if executable else 0o644)

    def request(self, text: str) -> None:
        (self.run / "quiesce-request").write_text(text)

    def call(self, word: str) -> int:
        environment = {**os.environ, "LANFREE_QUIESCE_ROOT": str(self.root)}
        return subprocess.run(["sh", HOOK, word], env=environment, check=False, timeout=20).returncode

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def result(self) -> dict[str, object]:
        lines = (self.run / "quiesce-result").read_text().splitlines()
        assert len(lines) == 1, "exactly one line"
        found = json.loads(lines[0])
        assert isinstance(found, dict)
        return found


@pytest.fixture
def guest(tmp_path: Path) -> GuestRoot:
    return GuestRoot(tmp_path)


def test_scripts_freeze_in_sorted_order_and_thaw_in_reverse(guest: GuestRoot) -> None:
    for name in ("90-last", "10-first", "50-middle"):
        guest.script(name)
    assert guest.call("freeze") == 0
    assert guest.call("thaw") == 0
    names = ["10-first", "50-middle", "90-last"]
    assert guest.called() == [f"{name} freeze" for name in names] + [f"{name} thaw" for name in reversed(names)]


def test_the_result_repeats_the_request_and_names_the_scripts(guest: GuestRoot) -> None:
    guest.script("10-database")
    guest.script("50-writer")
    guest.request("run-7.snapshot_1:a")
    assert guest.call("freeze") == 0
    apps = ["10-database", "50-writer"]
    assert guest.result() == {"request": "run-7.snapshot_1:a", "ok": True, "apps": apps, "failed": "", "exit": 0}


def test_a_script_that_fails_ends_the_freeze_but_not_the_agents(guest: GuestRoot) -> None:
    guest.script("10-good")
    guest.script("20-bad", freeze_exit=9)
    guest.script("30-never")
    guest.request("r")
    assert guest.call("freeze") == 0, "the policy is the proxy's; the agent goes on to freeze the file systems"
    apps = ["10-good", "20-bad"]
    assert guest.result() == {"request": "r", "ok": False, "apps": apps, "failed": "20-bad", "exit": 9}
    assert guest.called() == ["10-good freeze", "20-bad freeze"]


def test_every_script_is_thawed_even_if_the_freeze_had_failed(guest: GuestRoot) -> None:
    guest.script("10-good")
    guest.script("20-bad", freeze_exit=1)
    guest.call("freeze")
    guest.calls.unlink()
    guest.call("thaw")
    assert guest.called() == ["20-bad thaw", "10-good thaw"]


def test_a_guest_without_scripts_says_so(guest: GuestRoot) -> None:
    guest.request("r")
    guest.call("freeze")
    assert guest.result() == {"request": "r", "ok": True, "apps": [], "failed": "", "exit": 0}


def test_a_request_answers_one_freeze_only(guest: GuestRoot) -> None:
    guest.script("50-writer")
    guest.request("first")
    guest.call("freeze")
    guest.call("thaw")
    guest.call("freeze")
    assert guest.result()["request"] == ""


def test_an_old_result_is_gone_before_the_scripts_run(guest: GuestRoot) -> None:
    (guest.run / "quiesce-result").write_text('{"request": "old"}\n')
    path = guest.scripts / "50-look"
    path.write_text(f'#!/bin/sh\ntest -e {guest.run}/quiesce-result && echo "still there" >> {guest.calls}\nexit 0\n')
    path.chmod(0o755)
    guest.call("freeze")
    assert guest.called() == []
    assert guest.result()["request"] == ""


@pytest.mark.parametrize("hostile", ['"}, {"ok": true', "a\nb\n", "$(touch x)", "ä" * 10, "x" * 5000])
def test_a_strange_request_cannot_break_the_result(guest: GuestRoot, hostile: str) -> None:
    guest.script("50-writer", freeze_exit=3)
    guest.request(hostile)
    guest.call("freeze")
    found = guest.result()
    assert found["ok"] is False
    assert len(str(found["request"])) <= 128


@pytest.mark.parametrize("name", ["50-writer~", "50-writer.bak", "50-writer.dpkg-old", "50 writer", ".hidden"])
def test_copies_that_editors_and_packages_leave_are_not_run(guest: GuestRoot, name: str) -> None:
    guest.script(name)
    guest.call("freeze")
    guest.call("thaw")
    assert guest.called() == []


def test_a_script_without_the_executable_bit_is_not_run(guest: GuestRoot) -> None:
    guest.script("50-writer", executable=False)
    guest.call("freeze")
    assert guest.called() == []
    assert guest.result()["apps"] == []


def test_the_run_directory_is_made_when_boot_did_not_make_it(guest: GuestRoot) -> None:
    guest.run.rmdir()
    assert guest.call("freeze") == 0
    assert guest.result()["ok"] is True
    assert guest.run.stat().st_mode & 0o777 == 0o700
