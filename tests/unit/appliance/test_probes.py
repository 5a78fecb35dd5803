"""Probes against real directories, sockets and small programs; each is seen to say yes and to say no."""

import os
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from appliance import probes
from appliance.probes import Outcome
from proxy.units import GiB, KiB

pytestmark = pytest.mark.slow

PORTS = range(23260, 23280)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def tool(directory: Path, name: str, says: str, *, code: int = 0, complains: str = "") -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{says}'\necho '{complains}' >&2\nexit {code}\n")
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory in front of PATH for programs of the test."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return directory


def test_the_running_python_is_new_enough_and_a_future_one_is_asked_for_in_vain() -> None:
    assert probes.python((3, 11)).outcome is Outcome.OK
    found = probes.python((9, 0))
    assert found.outcome is Outcome.FAIL
    assert "9.0 or newer" in found.detail


def test_a_binding_is_there_only_with_its_extension_module() -> None:
    assert probes.binding("json", "_json").outcome is Outcome.OK
    assert probes.binding("no_such_binding", "_json").outcome is Outcome.FAIL
    other_python = probes.binding("json", "no_such_extension")
    assert other_python.outcome is Outcome.FAIL
    assert "another Python" in other_python.detail
    assert "make setup" in other_python.remedy


def test_a_module_that_does_not_load_is_named_with_the_loaders_words() -> None:
    assert probes.loads("json").outcome is Outcome.OK
    found = probes.loads("no_such_module_of_ours")
    assert found.outcome is Outcome.FAIL
    assert "No module named 'no_such_module_of_ours'" in found.detail


def test_a_module_that_crashes_its_process_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crashing.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = probes.loads("crashing")
    assert found.outcome is Outcome.FAIL
    assert "ended with -6" in found.detail


def test_a_program_is_accepted_by_its_version(tools: Path) -> None:
    tool(tools, "imagetool", "imagetool version 7.2.22 (Debian)")
    found = probes.program("imagetool", ["--version"], (5, 2), needed=True)
    assert found == probes.ok(f"{tools}/imagetool 7.2.22")


@pytest.mark.parametrize(("needed", "outcome"), [(True, Outcome.FAIL), (False, Outcome.WARN)])
def test_an_old_program_fails_where_it_is_needed_and_warns_elsewhere(
    tools: Path, needed: bool, outcome: Outcome
) -> None:
    tool(tools, "imagetool", "version 5.1.9")
    found = probes.program("imagetool", ["--version"], (5, 2), needed=needed)
    assert found.outcome is outcome
    assert "5.1.9" in found.detail
    assert "5.2 or newer" in found.detail


def test_versions_are_compared_as_numbers(tools: Path) -> None:
    tool(tools, "imagetool", "10.0.3")
    assert probes.program("imagetool", [], (5, 2), needed=True).outcome is Outcome.OK


@pytest.mark.parametrize(("needed", "outcome"), [(True, Outcome.FAIL), (False, Outcome.WARN)])
def test_a_program_that_is_not_there_is_named(needed: bool, outcome: Outcome) -> None:
    found = probes.program("no-such-program", ["--version"], (1, 0), needed=needed)
    assert found.outcome is outcome
    assert "'no-such-program' is not installed" in found.detail


def test_a_program_that_does_not_run_is_a_finding(tools: Path) -> None:
    (tools / "imagetool").write_text("#!/no/such/interpreter\n")
    (tools / "imagetool").chmod(0o755)
    assert probes.program("imagetool", ["--version"], (1, 0), needed=True).outcome is Outcome.FAIL


def test_nbdkit_without_its_python_plugin_is_a_failure(tools: Path) -> None:
    tool(tools, "nbdkit", "cannot open plugin", code=1)
    assert probes.nbdkit_python().outcome is Outcome.FAIL


def test_nbdkit_with_its_python_plugin_tells_both_versions(tools: Path) -> None:
    tool(tools, "nbdkit", "version=1.32.5\npython_version=3.11.1")
    assert probes.nbdkit_python() == probes.ok("plugin 1.32.5 with Python 3.11.1")


def test_qemu_that_tries_to_connect_has_its_iscsi_driver(tools: Path) -> None:
    tool(tools, "qemu-img", "", code=1, complains="iSCSI: Failed to connect to LUN")
    assert probes.qemu_iscsi().outcome is Outcome.OK


@pytest.mark.parametrize(
    "words", ["Unknown protocol iscsi", "Unable to load module iscsi. Perhaps you want qemu-block-extra"]
)
def test_qemu_without_its_iscsi_driver_is_a_failure_with_its_words(tools: Path, words: str) -> None:
    tool(tools, "qemu-img", "", code=1, complains=words)
    found = probes.qemu_iscsi()
    assert found.outcome is Outcome.FAIL
    assert words in found.detail


def test_a_kernel_counts_only_with_its_modules(tmp_path: Path) -> None:
    boot, modules = tmp_path / "boot", tmp_path / "modules"
    boot.mkdir()
    (boot / "vmlinuz-6.1.0-1").touch()
    assert probes.kernel_readable(boot, modules).outcome is Outcome.FAIL
    (modules / "6.1.0-1").mkdir(parents=True)
    assert probes.kernel_readable(boot, modules) == probes.ok(str(boot / "vmlinuz-6.1.0-1"))


def test_too_little_space_fails_and_a_little_warns(tmp_path: Path) -> None:
    assert probes.space(tmp_path, KiB, KiB).outcome is Outcome.OK
    assert probes.space(tmp_path, 2**60, KiB).outcome is Outcome.WARN
    assert probes.space(tmp_path, 2**60, 2**59).outcome is Outcome.FAIL


def test_space_for_a_directory_that_is_yet_to_be_made_is_that_of_its_parent(tmp_path: Path) -> None:
    found = probes.space(tmp_path / "not" / "yet", GiB * GiB, KiB)
    assert found.outcome is Outcome.WARN
    assert f" free in {tmp_path};" in found.detail


def test_a_private_directory_that_others_can_look_into_fails_with_the_command(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    assert probes.writable(state, 0o077).outcome is Outcome.OK
    state.chmod(0o755)
    found = probes.writable(state, 0o077)
    assert found.outcome is Outcome.FAIL
    assert found.remedy == f"chmod 0700 {state}"


def test_a_group_may_share_what_only_others_are_kept_out_of(tmp_path: Path) -> None:
    shared = tmp_path / "repository"
    shared.mkdir()
    shared.chmod(0o750)
    assert probes.writable(shared, 0o007).outcome is Outcome.OK
    shared.chmod(0o755)
    assert probes.writable(shared, 0o007).remedy == f"chmod 0750 {shared}"


def test_a_directory_that_can_be_made_is_fine_and_a_file_in_its_place_is_not(tmp_path: Path) -> None:
    assert probes.writable(tmp_path / "a" / "b", 0o077).outcome is Outcome.OK
    (tmp_path / "file").touch()
    assert probes.writable(tmp_path / "file", 0o077).outcome is Outcome.FAIL
    assert probes.writable(tmp_path / "file" / "below", 0o077).outcome is Outcome.FAIL


def test_a_directory_that_this_user_may_not_write_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write everywhere, so the kernel's answer is stood in for; the tests run as root and as others.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = probes.writable(tmp_path, 0o077)
    assert found.outcome is Outcome.FAIL
    assert f"{tmp_path} is not writable" in found.detail


def test_a_secret_that_others_can_read_fails_and_its_content_is_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "chap"
    secret.write_text("hunter2hunter2")
    secret.chmod(0o640)
    found = probes.secret_file(secret)
    assert found.outcome is Outcome.FAIL
    assert found.remedy == f"chmod 0600 {secret}"
    assert "hunter2" not in found.detail + found.remedy
    secret.chmod(0o600)
    assert probes.secret_file(secret).outcome is Outcome.OK


def test_a_secret_that_is_not_there_is_named(tmp_path: Path) -> None:
    found = probes.secret_file(tmp_path / "chap")
    assert found.outcome is Outcome.FAIL
    assert f"{tmp_path}/chap: No such file" in found.detail


def test_a_portal_that_listens_answers(listener: socket.socket) -> None:
    host, port = listener.getsockname()
    assert probes.portal(f"{host}:{port}").outcome is Outcome.OK


def test_a_portal_that_does_not_listen_is_a_failure(listener: socket.socket) -> None:
    _, port = listener.getsockname()
    listener.close()
    found = probes.portal(f"127.0.0.1:{port}")
    assert found.outcome is Outcome.FAIL
    assert "refused" in found.detail


@pytest.mark.parametrize("address", ["array.example", "127.0.0.1", "127.0.0.1:", "127.0.0.1:iscsi", "127.0.0.1:99999"])
def test_a_portal_that_is_no_address_is_a_failure(address: str) -> None:
    assert probes.portal(address).outcome is Outcome.FAIL


def test_a_taken_port_is_passed_over_and_no_port_at_all_warns() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert probes.free_port(["127.0.0.1"], [taken]).outcome is Outcome.WARN
        found = probes.free_port(["127.0.0.1", "127.0.0.2"], [taken, *PORTS])
        assert found.outcome is Outcome.OK
        assert f"port {taken} " not in found.detail


def test_an_address_that_this_machine_does_not_have_is_named() -> None:
    found = probes.free_port(["192.0.2.1"], PORTS)
    assert found.outcome is Outcome.WARN
    assert "Cannot assign requested address" in found.detail


def test_the_clock_may_not_be_before_the_first_release() -> None:
    assert probes.clock([]).outcome is Outcome.OK
    assert probes.clock([], datetime(1970, 1, 2, tzinfo=UTC)).outcome is Outcome.FAIL


def test_the_clock_may_not_be_behind_what_was_written_earlier(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    assert probes.clock([tmp_path, tmp_path / "absent"], now).outcome is Outcome.OK
    found = probes.clock([tmp_path], now - timedelta(hours=1))
    assert found.outcome is Outcome.FAIL
    assert "it went back" in found.detail


@pytest.mark.parametrize(
    ("limits", "outcome"),
    [((256, 4096), Outcome.WARN), ((1024, 1024), Outcome.OK), ((-1, -1), Outcome.OK)],
)
def test_a_low_limit_of_open_files_warns(limits: tuple[int, int], outcome: Outcome) -> None:
    assert probes.open_files(1024, limits).outcome is outcome


def test_libguestfs_that_does_not_start_is_reported_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "guestfs.py").write_text("raise RuntimeError('no appliance here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = probes.guestfs_launch(emulated=True, timeout=30)
    assert found.outcome is Outcome.FAIL
    assert "no appliance here" in found.detail


@pytest.mark.slow
def test_libguestfs_that_never_starts_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "guestfs.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = probes.guestfs_launch(emulated=True, timeout=0.5)
    assert found.outcome is Outcome.FAIL
    assert "did not end within 0.5 s" in found.detail


def test_libguestfs_is_told_to_emulate_where_hardware_does_not_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "guestfs.py").write_text(
        "import os\n"
        "class GuestFS:\n"
        "    def __init__(self, **options): pass\n"
        "    def add_drive_opts(self, path, **options): pass\n"
        "    def launch(self): pass\n"
        "    def shutdown(self): pass\n"
        "    def version(self):\n"
        "        forced = os.environ.get('LIBGUESTFS_BACKEND_SETTINGS', 'free')\n"
        "        return {'major': 1, 'minor': 2, 'release': forced + os.environ['LIBGUESTFS_BACKEND']}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("LIBGUESTFS_BACKEND_SETTINGS", raising=False)
    assert "1.2.force_tcgdirect" in probes.guestfs_launch(emulated=True, timeout=30).detail
    assert "1.2.freedirect" in probes.guestfs_launch(emulated=False, timeout=30).detail


def test_this_python_is_the_one_that_tries_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "which.py").write_text(f"import sys\nassert sys.executable == {sys.executable!r}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert probes.loads("which").outcome is Outcome.OK
