"""What may go wrong on the way into a guest of the simulated vCenter; what must go right is in the contract's suite."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.errors import (
    CertificateRefused,
    ConfigurationError,
    GuestAgentUnavailable,
    GuestRefused,
    LanfreeError,
    MachineNotFound,
)
from proxy.guest_files import GuestAttributes, MakeDirectory, MakeLink, Outcome, PlaceFile
from proxy.hypervisor.vsphere import VsphereSettings, VsphereSite, guest_transfer
from proxy.hypervisor.vsphere.guest_files import VsphereGuestFiles
from proxy.hypervisor.vsphere.tls import Pin
from proxy.state_directory import StateDirectory
from proxy.units import KiB, MiB
from tests.system.vcsim.lab import LabDisk, LabMachine, VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("root", "tgtd", "go")]

SMALL = (LabDisk(size=8 * MiB),)
MACHINES = (
    LabMachine("web", SMALL),
    LabMachine("off", SMALL, power="poweredOff"),
    LabMachine("bare", SMALL, tools="guestToolsNotRunning"),
    LabMachine("win", SMALL, guest="windows2019srv_64Guest"),
)
ROOT = b"/tmp/restored"
PASSWORD = "Guest-1"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VcsimLab]:
    with VcsimLab(tmp_path_factory.mktemp("guests") / "lab", MACHINES) as made:
        yield made


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "guest-password"
    file.write_text(PASSWORD + "\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def site(lab: VcsimLab, tmp_path: Path) -> Iterator[VsphereSite]:
    settings = VsphereSettings("lab", lab.host, lab.user, lab.password_file, port=lab.port, thumbprint=lab.thumbprint)
    made = VsphereSite(settings, state=StateDirectory(tmp_path / "state"))
    yield made
    lab.mend()
    made.close()


@pytest.fixture
def files(site: VsphereSite, lab: VcsimLab, password: Path) -> Iterator[VsphereGuestFiles]:
    with site.guest_files(lab.instance_uuid("web"), ROOT, "root", password) as made:
        yield made
    assert [name for name in os.listdir(guest(lab) / "tmp/restored") if name.startswith(".lanfree")] == []  # noqa: PTH208


def guest(lab: VcsimLab, machine: str = "web") -> Path:
    return lab.state / "guests" / machine


def place(files: VsphereGuestFiles, name: bytes, content: bytes, attributes: GuestAttributes) -> Outcome:
    staged = files.stage(len(content), [content])
    [outcome] = files.apply([PlaceFile(ROOT + b"/" + name, staged, attributes, overwrite=True)])
    return outcome


@pytest.mark.parametrize(("machine", "why"), [("off", "does not run"), ("bare", "VMware Tools do not run")])
def test_a_guest_that_cannot_answer_is_told_before_anything_is_tried(
    site: VsphereSite, lab: VcsimLab, password: Path, machine: str, why: str
) -> None:
    with pytest.raises(GuestAgentUnavailable, match=why) as told:
        site.guest_files(lab.instance_uuid(machine), ROOT, "root", password)
    assert told.value.hint


def test_a_machine_that_nobody_knows_is_told(site: VsphereSite, password: Path) -> None:
    with pytest.raises(MachineNotFound):
        site.guest_files("00000000-0000-4000-8000-000000000000", ROOT, "root", password)


def test_a_wrong_password_is_told_and_never_said(site: VsphereSite, lab: VcsimLab, password: Path) -> None:
    password.write_text("not-that-one\n")
    with pytest.raises(GuestAgentUnavailable) as told:
        site.guest_files(lab.instance_uuid("web"), ROOT, "root", password)
    assert "root" in told.value.message
    assert "password" in told.value.hint
    assert "not-that-one" not in f"{told.value!r} {told.value.hint} {told.value.__cause__!r}"


def test_a_password_file_that_others_may_read_is_not_read(site: VsphereSite, lab: VcsimLab, password: Path) -> None:
    password.chmod(0o644)
    with pytest.raises(ConfigurationError, match="read by others"):
        site.guest_files(lab.instance_uuid("web"), ROOT, "root", password)


def test_a_guest_user_who_may_not_give_files_away_loses_owner_and_set_user_id(
    site: VsphereSite, lab: VcsimLab, password: Path
) -> None:
    with site.guest_files(lab.instance_uuid("web"), ROOT, "app", password) as files:
        outcome = place(files, b"mine", b"x", GuestAttributes(0o4755, 1000, 1000, 10**18))
    assert outcome == Outcome(lost=("owner",))
    found = (guest(lab) / "tmp/restored/mine").stat()
    assert (found.st_mode & 0o7777, found.st_uid, int(found.st_mtime)) == (0o755, 0, 10**9)


def test_an_owner_that_vsphere_has_no_number_for_is_lost_and_the_rest_is_set(
    files: VsphereGuestFiles, lab: VcsimLab
) -> None:
    outcome = place(files, b"far", b"x", GuestAttributes(0o600, 3_000_000_000, 5, 10**18))
    assert outcome == Outcome(lost=("owner",))
    assert (guest(lab) / "tmp/restored/far").stat().st_mode & 0o7777 == 0o600


def test_a_transfer_that_breaks_off_leaves_no_file_and_can_be_begun_again(
    files: VsphereGuestFiles, lab: VcsimLab
) -> None:
    content = os.urandom(8 * MiB)
    lab.fault("guest-transfer-cut", times=1)
    with pytest.raises(GuestAgentUnavailable, match="broke off"):
        files.stage(len(content), (content[at : at + MiB] for at in range(0, len(content), MiB)))
    assert place(files, b"large", content, GuestAttributes()) == Outcome()
    assert (guest(lab) / "tmp/restored/large").read_bytes() == content


def test_a_full_guest_refuses_the_file(files: VsphereGuestFiles, lab: VcsimLab) -> None:
    lab.fault("guest-full", times=1)
    with pytest.raises(GuestRefused, match="HTTP 500"):
        files.stage(100, [b"x" * 100])


def test_the_ticket_of_a_transfer_is_in_no_error(files: VsphereGuestFiles, lab: VcsimLab) -> None:
    lab.fault("guest-transfer-cut", times=1)
    with pytest.raises(GuestAgentUnavailable) as told:
        files.stage(4 * MiB, (b"x" * MiB for _ in range(4)))
    shown = f"{told.value!r} {told.value.hint} {told.value.__cause__!r}"
    assert "5ecre7" not in shown
    assert PASSWORD not in shown


def test_a_host_with_another_certificate_than_vcenter_knows_gets_no_byte(
    files: VsphereGuestFiles, lab: VcsimLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_transfer, "_pin", lambda *_: Pin("0" * 64))
    with pytest.raises(CertificateRefused):
        files.stage(5, [b"hello"])
    assert not any(path.is_file() for path in (guest(lab) / "tmp/restored").rglob(".lanfree*/*"))


def test_what_the_guest_forbids_is_told_for_that_entry_alone(files: VsphereGuestFiles, lab: VcsimLab) -> None:
    lab.fault("guest-denied", times=1)
    first, second = files.apply([MakeDirectory(ROOT + b"/denied"), MakeDirectory(ROOT + b"/allowed")])
    assert "root may not" in first.problem
    assert second == Outcome()


def test_tools_that_go_away_in_the_middle_end_it(files: VsphereGuestFiles, lab: VcsimLab) -> None:
    lab.fault("guest-tools-silent")
    with pytest.raises(GuestAgentUnavailable):
        files.apply([MakeDirectory(ROOT + b"/d")])
    lab.mend("guest-tools-silent")


@pytest.mark.parametrize("name", [b"caf\xe9", b"bell\x07", b"return\r"])
def test_names_that_the_api_cannot_carry_are_told_and_not_changed(files: VsphereGuestFiles, name: bytes) -> None:
    before = files.list_directory(ROOT)
    [outcome] = files.apply([MakeDirectory(ROOT + b"/" + name)])
    assert outcome.problem
    assert files.list_directory(ROOT) == before


def test_links_are_said_to_be_impossible_before_they_are_tried(files: VsphereGuestFiles) -> None:
    assert not files.can_symlink
    assert not files.can_hard_link
    [outcome] = files.apply([MakeLink(ROOT + b"/l", b"x")])
    assert outcome.problem


def test_a_directory_of_many_files_is_listed_in_pages(files: VsphereGuestFiles, lab: VcsimLab) -> None:
    many = guest(lab) / "tmp/restored/many"
    many.mkdir()
    for number in range(1203):
        (many / str(number)).touch()
    found = files.list_directory(ROOT + b"/many")
    assert found is not None
    assert len(found) == 1203


def test_a_windows_guest_is_spoken_to_with_its_own_paths(site: VsphereSite, lab: VcsimLab, password: Path) -> None:
    with pytest.raises(GuestRefused, match="no absolute path of a windows guest"):
        site.guest_files(lab.instance_uuid("win"), b"/tmp", "root", password)
    with pytest.raises(LanfreeError) as told:  # the simulated guest knows no drives: what matters is what it was asked
        site.guest_files(lab.instance_uuid("win"), b"C:/restored", "root", password)
    assert "C:" in told.value.message or "path" in told.value.message


def test_a_session_that_ended_meanwhile_is_begun_again(files: VsphereGuestFiles, lab: VcsimLab) -> None:
    lab.expire_sessions()
    assert place(files, b"after", b"x" * 100 * KiB, GuestAttributes()) == Outcome()
