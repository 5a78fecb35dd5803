"""The way through an agent that runs in this process, on this machine's files: what agents forbid, get wrong, and lie about."""

import base64
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from proxy.errors import FormatError, GuestAgentUnavailable, GuestRefused
from proxy.guest_files import GuestAttributes, MakeDirectory, Outcome, PlaceFile
from proxy.hypervisor.kvm import guest_files
from proxy.hypervisor.kvm.answers import DomainState, Refusal, Refused
from proxy.hypervisor.kvm.connection import Domain, Host
from proxy.hypervisor.kvm.guest_files import NEEDED, PIECE, KvmGuestFiles, packs_well
from proxy.hypervisor.kvm.settings import KvmHost
from proxy.model import PowerState
from proxy.units import KiB, MiB

pytestmark = pytest.mark.slow

MACHINE = "11111111-2222-4333-8444-555555555555"


class AgentHere(Domain):
    """A machine whose guest is this one. ``lies``: command -> what it answers instead of the truth."""

    def __init__(self) -> None:
        super().__init__(Host(KvmHost("h1", "test:///default", "/o")), MACHINE)
        self.power = PowerState.RUNNING
        self.forbidden: set[str] = set()
        self.system = "debian"
        self.frozen = False
        self.most = PIECE
        self.lies: dict[str, Any] = {}
        self.refuses: dict[str, Refused] = {}
        self.asked: list[str] = []
        self.largest = 0
        self._open: dict[int, BinaryIO] = {}
        self._done: dict[int, dict[str, Any]] = {}

    def state(self) -> DomainState:
        """As a test says."""
        return DomainState(self.power)

    def agent(self, command: str, arguments: Mapping[str, object] | None = None, *, timeout: float = 5.0) -> Any:
        """One command, done here."""
        self.asked.append(command)
        self.largest = max(self.largest, len(str(arguments)))
        if command in self.refuses:
            raise self.refuses[command]
        if command in self.lies:
            return self.lies[command]
        given: Mapping[str, Any] = arguments or {}
        return getattr(self, "_" + command.removeprefix("guest-").replace("-", "_"))(given)

    def _info(self, _given: Mapping[str, Any]) -> Any:
        names = [*NEEDED, "guest-get-osinfo"]
        enabled = {name: name not in self.forbidden and not self.frozen for name in names}
        return {"supported_commands": [{"name": name, "enabled": on} for name, on in enabled.items()]}

    def _get_osinfo(self, _given: Mapping[str, Any]) -> Any:
        return {"id": self.system}

    def _fsfreeze_status(self, _given: Mapping[str, Any]) -> Any:
        return "frozen" if self.frozen else "thawed"

    def _file_open(self, given: Mapping[str, Any]) -> Any:
        try:
            file = Path(given["path"]).open(given["mode"] + "b")  # noqa: SIM115  closed by its own command
        except OSError as error:
            text = f"unable to execute QEMU agent command 'guest-file-open': failed to open: {error.strerror}"
            raise Refused("guest-file-open", text, Refusal.AGENT_REFUSED) from None
        self._open[file.fileno()] = file
        return file.fileno()

    def _file_write(self, given: Mapping[str, Any]) -> Any:
        return {"count": self._open[given["handle"]].write(base64.b64decode(given["buf-b64"])[: self.most])}

    def _file_read(self, given: Mapping[str, Any]) -> Any:
        data = self._open[given["handle"]].read(given["count"])
        return {"buf-b64": base64.b64encode(data).decode(), "eof": len(data) < given["count"]}

    def _file_close(self, given: Mapping[str, Any]) -> Any:
        self._open.pop(given["handle"]).close()
        return {}

    def _exec(self, given: Mapping[str, Any]) -> Any:
        done = subprocess.run([given["path"], *given["arg"]], capture_output=True, timeout=30, check=False)
        out, err = (base64.b64encode(said).decode() for said in (done.stdout, done.stderr))
        self._done[len(self.asked)] = {"exited": True, "exitcode": done.returncode, "out-data": out, "err-data": err}
        return {"pid": len(self.asked)}

    def _exec_status(self, given: Mapping[str, Any]) -> Any:
        return self._done.pop(given["pid"])


@pytest.fixture
def guest() -> AgentHere:
    return AgentHere()


def opened(guest: AgentHere, root: Path) -> KvmGuestFiles:
    return KvmGuestFiles(guest, "web", os.fsencode(root))


def placed(files: KvmGuestFiles, root: Path, name: str, content: bytes) -> Outcome:
    staged = files.stage(len(content), [content])
    [outcome] = files.apply([PlaceFile(os.fsencode(root / name), staged, GuestAttributes(0o600))])
    return outcome


@pytest.mark.parametrize("content", [os.urandom(3 * PIECE + 1), b"well packed\n" * 100_000, b"", b"small"])
def test_files_arrive_through_messages_that_are_never_large(guest: AgentHere, tmp_path: Path, content: bytes) -> None:
    with opened(guest, tmp_path) as files:
        assert placed(files, tmp_path, "x", content) == Outcome()
    assert (tmp_path / "x").read_bytes() == content
    assert guest.largest < 140_000  # what a Unix socket buffers is 208 KiB
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_an_agent_that_writes_less_than_it_is_given_gets_the_rest_again(guest: AgentHere, tmp_path: Path) -> None:
    guest.most = 1000
    content = os.urandom(200 * KiB)
    with opened(guest, tmp_path) as files:
        assert placed(files, tmp_path, "x", content) == Outcome()
    assert (tmp_path / "x").read_bytes() == content


@pytest.mark.parametrize("count", [0, -1, 10**9, "5", None])
def test_an_agent_that_lies_about_what_it_wrote_is_refused(guest: AgentHere, tmp_path: Path, count: object) -> None:
    with opened(guest, tmp_path) as files:
        guest.lies["guest-file-write"] = {"count": count}
        with pytest.raises(GuestRefused, match="wrote"):
            files.stage(200 * KiB, [os.urandom(200 * KiB)])
        guest.lies.clear()


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("guest-info", None),
        ("guest-info", "yes"),
        ("guest-get-osinfo", [1]),
        ("guest-exec", 5),
        ("guest-exec-status", {"exited": True, "exitcode": 0, "out-data": "*"}),
    ],
)
def test_answers_of_no_sense_are_format_errors(guest: AgentHere, tmp_path: Path, command: str, answer: object) -> None:
    guest.lies[command] = answer
    with pytest.raises(FormatError):
        opened(guest, tmp_path)


@pytest.mark.parametrize("command", NEEDED)
def test_an_agent_that_forbids_what_is_needed_is_told_by_name_with_what_to_do(
    guest: AgentHere, tmp_path: Path, command: str
) -> None:
    guest.forbidden.add(command)
    with pytest.raises(GuestAgentUnavailable, match=command) as told:
        opened(guest, tmp_path)
    assert "qemu-ga.conf" in told.value.hint
    assert "guest-exec" not in guest.asked


def test_a_frozen_guest_is_not_taken_for_a_forbidding_one(guest: AgentHere, tmp_path: Path) -> None:
    guest.frozen = True
    with pytest.raises(GuestAgentUnavailable, match="frozen") as told:
        opened(guest, tmp_path)
    assert "try again" in told.value.hint


def test_a_windows_guest_is_refused_before_anything_is_run(guest: AgentHere, tmp_path: Path) -> None:
    guest.system = "mswindows"
    with pytest.raises(GuestRefused, match="Windows") as told:
        opened(guest, tmp_path)
    assert told.value.hint
    assert "guest-exec" not in guest.asked


@pytest.mark.parametrize("power", [PowerState.OFF, PowerState.PAUSED, PowerState.SUSPENDED])
def test_a_machine_that_does_not_run_is_not_asked(guest: AgentHere, tmp_path: Path, power: PowerState) -> None:
    guest.power = power
    with pytest.raises(GuestAgentUnavailable, match=power.value):
        opened(guest, tmp_path)
    assert guest.asked == []


@pytest.mark.parametrize(
    "refusal", [Refusal.AGENT_MISSING, Refusal.AGENT_SILENT, Refusal.NOT_RUNNING, Refusal.NO_DOMAIN]
)
def test_an_agent_that_is_gone_ends_it_at_whatever_call(guest: AgentHere, tmp_path: Path, refusal: Refusal) -> None:
    with opened(guest, tmp_path) as files:
        guest.refuses["guest-exec"] = Refused("guest-exec", "not connected", refusal)
        with pytest.raises(GuestAgentUnavailable, match="not connected"):
            files.apply([MakeDirectory(os.fsencode(tmp_path / "d"))])


@pytest.mark.parametrize("root", [b"relative", b"", b"/x\0y", b"/caf\xe9"])
def test_roots_that_cannot_be_are_refused(guest: AgentHere, root: bytes) -> None:
    with pytest.raises(GuestRefused):
        KvmGuestFiles(guest, "web", root)


def test_a_root_that_cannot_be_made_is_told_in_the_guests_words(guest: AgentHere, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GuestRefused, match="file"):
        opened(guest, tmp_path / "file" / "below")


def test_small_files_and_many_actions_share_their_calls(guest: AgentHere, tmp_path: Path) -> None:
    with opened(guest, tmp_path) as files:
        before = len(guest.asked)
        actions = [
            PlaceFile(os.fsencode(tmp_path / str(n)), files.stage(10, [b"%010d" % n]), GuestAttributes(0o640))
            for n in range(200)
        ]
        assert files.apply(actions) == [Outcome()] * 200
        assert len(guest.asked) - before <= 6
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {str(n): b"%010d" % n for n in range(200)}


def test_more_actions_than_an_answer_holds_are_done_in_several_runs(
    guest: AgentHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_files, "ACTIONS", 3)
    with opened(guest, tmp_path) as files:
        actions = [
            PlaceFile(os.fsencode(tmp_path / str(n)), files.stage(1, [b"x"]), GuestAttributes(0o640, mtime_ns=10**18))
            for n in range(8)
        ]
        assert files.apply(actions) == [Outcome()] * 8
    assert {(path.stat().st_mode & 0o777, path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == {(0o640, 10**18)}


def test_waiting_content_is_sent_before_it_fills_the_memory(guest: AgentHere, tmp_path: Path) -> None:
    with opened(guest, tmp_path) as files:
        for _ in range(40):
            files.stage(60 * KiB, [os.urandom(60 * KiB)])
        sent = sum(path.stat().st_size for path in tmp_path.glob(".lanfree-push-*/*"))
        assert sent > 1 * MiB
    assert list(tmp_path.iterdir()) == []


def test_only_what_packs_well_is_packed() -> None:
    assert packs_well(b"2026-11-22 request took 5 ms\n" * 100)
    assert not packs_well(os.urandom(10_000))
    assert not packs_well(b"")
