"""The doctor on the machine that runs the tests, with the real tools."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance import doctor, probes
from appliance.doctor import Outcome, Site
from appliance.kvm import kvm_works

pytestmark = pytest.mark.tools


@pytest.mark.requires("root", "qemu-img", "nbdkit", "tgtd", "libvirtd", "module:guestfs")
def test_a_machine_that_was_set_up_has_no_failure_and_libguestfs_starts(tmp_path: Path) -> None:
    results = list(doctor.diagnose(Site(repository=tmp_path / "repository", state=tmp_path / "state")))
    assert [result for result in results if result.outcome is Outcome.FAIL] == []
    launch = next(result for result in results if result.check == "guestfs.launch")
    assert "libguestfs 1." in launch.detail


@pytest.mark.requires("root")
def test_no_row_of_a_set_up_machine_warns_but_those_that_depend_on_its_hardware(tmp_path: Path) -> None:
    site = Site(repository=tmp_path / "repository", state=tmp_path / "state", launch=False)
    warned = {result.check for result in doctor.diagnose(site) if result.outcome is Outcome.WARN}
    assert warned <= {
        "kvm",
        "lab.port",
        "open-files",
        "space.repository",
        "space.state",
        "space.temporary",
        "space.guestfs",
    }


@pytest.mark.requires("module:guestfs")
def test_libguestfs_without_its_appliance_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBGUESTFS_PATH", str(tmp_path))
    found = probes.guestfs_launch(emulated=True, timeout=60)
    assert found.outcome is Outcome.FAIL
    assert "appliance" in found.detail


@pytest.mark.requires("qemu-system-x86_64")
def test_hardware_virtualisation_is_judged_by_a_trial_and_said_once() -> None:
    works, how = kvm_works()
    row = next(check for check in doctor.checks(Site()) if check.id == "kvm").run()
    assert row.outcome is (Outcome.OK if works else Outcome.WARN)
    assert how in row.detail


@pytest.mark.requires("root")
def test_another_user_is_told_what_he_may_not_do() -> None:
    # Not tmp_path: pytest closes its parents to other users, who would then not even see that the files exist.
    with tempfile.TemporaryDirectory(prefix="lanfree-doctor-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "secret").touch(mode=0o600)
        (directory / "state").mkdir(mode=0o700)
        assert as_nobody(
            lambda: (
                [
                    probes.secret_file(directory / "secret").outcome,
                    probes.writable(directory / "state", 0o077).outcome,
                    probes.privileges().outcome,
                ]
                == [Outcome.FAIL, Outcome.FAIL, Outcome.WARN]
            )
        )


def as_nobody(question: Callable[[], bool]) -> bool:
    """Ask in a child process that is an ordinary user."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            os._exit(0 if question() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
