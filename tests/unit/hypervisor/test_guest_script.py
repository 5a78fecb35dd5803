"""The scripts themselves, run by this machine's shell with GNU tools; the lab's guest runs them with busybox."""

import gzip
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from proxy.guest_files import (
    EXISTS,
    GuestAction,
    GuestAttributes,
    GuestFile,
    GuestFileKind,
    MakeDirectory,
    MakeLink,
    Outcome,
    PlaceFile,
    SetAttributes,
    Staged,
)
from proxy.hypervisor.kvm import guest_script as script

pytestmark = pytest.mark.slow

TIME = 1_700_000_000_123_456_789
ME = f"{os.getuid()}:{os.getgid()}"
STRANGE = [
    b"$(touch pwned)",
    b"a b'c\"d",
    b"-rf",
    b"new\nline\n",
    b"back\\slash\\012",
    b"=x",
    b"%b",
    b"tab\t",
    b"caf\xe9",
    b"*",
]


def shells() -> list[Sequence[str]]:
    """Those that this machine has: guests have one of them."""
    found: list[Sequence[str]] = [[path] for name in ("dash", "bash") if (path := shutil.which(name))]
    busybox = shutil.which("busybox")
    return [*found, *([[busybox, "sh"]] if busybox else [])]


class Guest:
    """A directory, and a shell that runs the scripts in it."""

    def __init__(self, root: Path, shell: Sequence[str]) -> None:
        self.root = root
        self.shell = shell
        self.prepared = self.run(script.PREPARE, str(root), f"{script.STAGING}test")
        self.fractions = b"fraction" in self.prepared
        self.time = TIME if self.fractions else TIME // script.SECOND * script.SECOND
        self.staging = root / f"{script.STAGING}test"

    def run(self, text: str, *arguments: str, code: int = 0) -> bytes:
        done = subprocess.run([*self.shell, "-c", text, "sh", *arguments], capture_output=True, timeout=30, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout

    def apply(
        self,
        *actions: GuestAction,
        small: Mapping[str, bytes] | None = None,
        given: Mapping[str, GuestAttributes] | None = None,
    ) -> list[Outcome]:
        given = given or {}
        listed = b"".join(
            script.encoded(a, fractions=self.fractions, finished=isinstance(a, PlaceFile) and a.staged.id in given)
            for a in actions
        )
        files = {**(small or {}), script.LIST: listed}
        (self.staging / f"{script.BUNDLE}1").write_bytes(script.bundle(files, given, fractions=self.fractions))
        return script.outcomes(self.run(script.APPLY, str(self.staging), ME), actions, set(given))

    def path(self, name: bytes) -> bytes:
        return os.fsencode(self.root) + b"/" + name


@pytest.fixture(params=shells(), ids=lambda shell: " ".join(Path(word).name for word in shell))
def guest(request: pytest.FixtureRequest, tmp_path: Path) -> Guest:
    return Guest(tmp_path / "a root", request.param)


def test_preparing_tells_what_the_guest_can(guest: Guest) -> None:
    words = guest.prepared.split(b"\n")
    assert {b"tar", f"user {ME}".encode()} <= set(words)
    assert (script.free_bytes(guest.prepared) or 0) > 0
    assert guest.staging.stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
def test_strange_names_are_names_and_nothing_else(guest: Guest) -> None:
    small = {str(number): name for number, name in enumerate(STRANGE)}
    actions = [
        PlaceFile(guest.path(name), Staged(str(number), len(name)), GuestAttributes())
        for number, name in enumerate(STRANGE)
    ]
    assert guest.apply(*actions, small=small) == [Outcome()] * len(STRANGE)
    assert {name: open(guest.path(name), "rb").read() for name in STRANGE} == {name: name for name in STRANGE}  # noqa: PTH123, SIM115
    guest.run(script.LOOK, str(guest.staging), script.escaped(os.fsencode(guest.root)))
    listed = script.listing((guest.staging / script.LISTING).read_bytes())
    assert set(listed) == {*STRANGE, os.fsencode(guest.staging.name)}
    assert listed[b"-rf"] == GuestFile(GuestFileKind.FILE, 3, listed[b"-rf"].mtime_ns)


def test_a_file_may_come_with_its_attributes_or_get_them_when_it_is_placed(guest: Guest) -> None:
    wanted = GuestAttributes(0o640, os.getuid(), os.getgid(), TIME)
    one, two = (
        PlaceFile(guest.path(name), Staged(number, 1), wanted) for name, number in ((b"one", "1"), (b"two", "2"))
    )
    assert guest.apply(one, two, small={"1": b"a", "2": b"b"}, given={"1": wanted}) == [Outcome(), Outcome()]
    for name in ("one", "two"):
        found = (guest.root / name).stat()
        assert (found.st_mode & 0o7777, found.st_mtime_ns) == (0o640, guest.time)
    assert sorted(path.name for path in guest.staging.iterdir()) == ["list", "said"]


def test_what_did_not_become_of_a_file_is_told() -> None:
    wanted = GuestAttributes(0o640, 33, 44)
    place = PlaceFile(b"/x", Staged("1", 1), wanted)
    assert script.outcomes(b"1 33 44 640\x000 \x00", [place], {"1"}) == [Outcome()]
    assert script.outcomes(b"1 0 44 600\x000 \x00", [place], {"1"}) == [Outcome(lost=("owner", "mode"))]
    assert script.outcomes(b"\x000 lost:owner\n\x00", [place], set()) == [Outcome(lost=("owner",))]


def test_an_owner_who_cannot_be_set_takes_set_user_id_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "chown").symlink_to(shutil.which("false") or "/bin/false")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    guest = Guest(tmp_path / "root", shells()[0])
    action = PlaceFile(guest.path(b"x"), Staged("1", 1), GuestAttributes(0o6755, 4242, 4242))
    assert guest.apply(action, small={"1": b"x"}) == [Outcome(lost=("owner",))]
    assert (guest.root / "x").stat().st_mode & 0o7777 == 0o755


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "link to a directory"])
def test_what_is_there_stays_unless_it_is_to_be_replaced(guest: Guest, kind: str) -> None:
    there = guest.root / "there"
    (guest.root / "elsewhere").mkdir()
    if kind == "file":
        there.write_text("old")
    else:
        there.symlink_to({"link": "/etc/hosts", "dangling link": "nowhere", "link to a directory": "elsewhere"}[kind])
    before = there.lstat()
    small = {"1": b"new"}
    action = PlaceFile(guest.path(b"there"), Staged("1", 3), GuestAttributes())
    assert guest.apply(action, small=small) == [Outcome(EXISTS, exists=True)]
    assert there.lstat() == before
    over = PlaceFile(guest.path(b"there"), Staged("1", 3), GuestAttributes(), overwrite=True)
    assert guest.apply(over, small=small) == [Outcome()]
    assert not there.is_symlink()
    assert there.read_text() == "new"
    assert list((guest.root / "elsewhere").iterdir()) == []


@pytest.mark.slow
def test_a_directory_is_made_used_and_never_replaced(guest: Guest) -> None:
    made, again = (MakeDirectory(guest.path(b"d")) for _ in range(2))
    assert (
        guest.apply(made, again, SetAttributes(guest.path(b"d"), GuestAttributes(0o2751, mtime_ns=TIME)))
        == [Outcome()] * 3
    )
    found = (guest.root / "d").stat()
    assert (found.st_mode & 0o7777, found.st_mtime_ns) == (0o2751, guest.time)
    [refused] = guest.apply(
        PlaceFile(guest.path(b"d"), Staged("1", 1), GuestAttributes(), overwrite=True), small={"1": b"x"}
    )
    assert "directory" in refused.problem
    (guest.root / "l").symlink_to("d")
    [refused] = guest.apply(MakeDirectory(guest.path(b"l")))
    assert "symbolic link" in refused.problem


@pytest.mark.slow
def test_links_are_made_once_and_as_they_stand(guest: Guest) -> None:
    link = MakeLink(guest.path(b"l"), b"../x y\n$(z)", attributes=GuestAttributes(0o777, mtime_ns=TIME))
    assert guest.apply(link, link) == [Outcome(), Outcome()]
    assert os.readlink(guest.path(b"l")) == b"../x y\n$(z)"  # noqa: PTH115  bytes
    assert (guest.root / "l").lstat().st_mtime_ns == guest.time
    (guest.root / "f").write_text("x")
    hard = MakeLink(guest.path(b"h"), guest.path(b"f"), hard=True)
    assert guest.apply(hard, hard) == [Outcome(), Outcome()]
    assert (guest.root / "h").samefile(guest.root / "f")


def test_the_guests_own_words_are_told_and_the_next_action_is_tried(guest: Guest) -> None:
    lost, found = guest.apply(
        MakeDirectory(guest.path(b"missing/d")),
        PlaceFile(guest.path(b"x"), Staged("1", 1), GuestAttributes()),
        small={"1": b"x"},
    )
    assert "No such file" in lost.problem
    assert found == Outcome()


@pytest.mark.slow
def test_packed_archives_and_files_are_unpacked(guest: Guest) -> None:
    listed = script.encoded(PlaceFile(guest.path(b"x"), Staged("1", 5), GuestAttributes()), fractions=False)
    packed = gzip.compress(script.bundle({"1": b"small", script.LIST: listed}, {}, fractions=False))
    (guest.staging / f"{script.BUNDLE}1.gz").write_bytes(packed)
    guest.run(script.APPLY, str(guest.staging), ME)
    assert (guest.root / "x").read_bytes() == b"small"
    (guest.staging / "2.gz").write_bytes(gzip.compress(b"large"))
    guest.run(script.UNPACK, str(guest.staging / "2.gz"))
    assert [path.name for path in guest.staging.glob("2*")] == ["2"]
    assert (guest.staging / "2").read_bytes() == b"large"
    (guest.staging / "3.gz").write_bytes(b"no such thing")
    guest.run(script.UNPACK, str(guest.staging / "3.gz"), code=1)


def test_a_broken_archive_ends_the_script_with_an_error(guest: Guest) -> None:
    (guest.staging / f"{script.BUNDLE}1").write_bytes(b"no archive" * 100)
    done = subprocess.run(
        [*guest.shell, "-c", script.APPLY, "sh", str(guest.staging), ME], capture_output=True, check=False
    )
    assert done.returncode == 5


def test_a_shell_that_ended_early_leaves_problems_and_not_successes() -> None:
    actions = [MakeDirectory(b"/a"), MakeDirectory(b"/b")]
    assert [bool(outcome.problem) for outcome in script.outcomes(b"\x000 \x000 cut", actions, set())] == [False, True]
    assert [bool(outcome.problem) for outcome in script.outcomes(b"", actions, set())] == [True, True]


def test_a_guest_does_not_write_to_a_persons_terminal() -> None:
    [outcome] = script.outcomes(b"\x001 \x1b[2Jgone\x00", [MakeDirectory(b"/a")], set())
    assert "\x1b" not in outcome.problem


def test_a_listing_that_is_hostile_ends_in_no_error() -> None:
    said = b"/ 81a4 5 1700000000 ./a\n/ 41ed 4096 0 ./d\nwith a line\n/ 81a4 x\n/ a1ff 1 2 noslash"
    found = script.listing(said)
    assert found[b"a"] == GuestFile(GuestFileKind.FILE, 5, 1_700_000_000 * 10**9)
    assert found[b"d\nwith a line"].kind is GuestFileKind.DIRECTORY
    assert len(found) == 2


def test_what_a_dead_run_left_is_removed_after_a_day_and_not_before(tmp_path: Path) -> None:
    old, new, other = (tmp_path / name for name in (f"{script.STAGING}old", f"{script.STAGING}new", "other"))
    for directory in (old, new, other):
        directory.mkdir()
        (directory / "1").write_text("part")
    os.utime(old, (1, 1))
    os.utime(other, (1, 1))
    Guest(tmp_path, ["sh"])
    assert (old.exists(), new.exists(), other.exists()) == (False, True, True)
