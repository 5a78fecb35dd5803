"""What every way to put files into a running guest keeps, the fake among them. See ``GuestFiles``.

A *rig* is a guest with a directory for each test, and what a test sees of it behind the adapter's back.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from appliance.lab import agent
from appliance.lab.lab import Lab
from proxy.errors import GuestAgentUnavailable, GuestRefused
from proxy.guest_files import (
    EXISTS,
    OWNER,
    GuestAction,
    GuestAttributes,
    GuestFile,
    GuestFileKind,
    GuestFiles,
    MakeDirectory,
    MakeLink,
    Outcome,
    PlaceFile,
    SetAttributes,
    Staged,
)
from proxy.hypervisor.kvm import KvmHost, KvmSite
from proxy.hypervisor.memory_guest_files import Content, MemoryGuest, MemoryGuestFiles
from proxy.hypervisor.vsphere import VsphereSettings
from proxy.hypervisor.vsphere.connection import Vcenter
from proxy.hypervisor.vsphere.guest_files import VsphereGuestFiles
from proxy.state_directory import StateDirectory
from proxy.units import KiB, MiB
from tests.system.vcsim.lab import LabDisk, LabMachine, VcsimLab

SECOND = 10**9
TIME = 1_700_000_000 * SECOND
KINDS = {0o10: "file", 0o04: "directory", 0o12: "symlink"}
_roots = itertools.count(1)


@dataclass(frozen=True)
class Seen:
    """What the guest itself says of a name."""

    kind: str
    mode: int
    uid: int
    gid: int
    seconds: int


class Rig(Protocol):
    machine: str

    def open(self, root: bytes) -> GuestFiles: ...
    def read(self, path: bytes) -> bytes | None: ...
    def seen(self, path: bytes) -> Seen | None: ...
    def names(self, path: bytes) -> set[bytes]: ...
    def put(self, path: bytes, content: bytes) -> None: ...
    def link(self, path: bytes, target: bytes) -> None: ...
    @contextmanager
    def silent(self) -> Iterator[None]: ...


class MemoryRig:
    def __init__(self) -> None:
        self.guest = MemoryGuest()
        self.machine = self.guest.machine

    def open(self, root: bytes) -> GuestFiles:
        return MemoryGuestFiles(self.guest, root)

    def read(self, path: bytes) -> bytes | None:
        found = self.guest.entries.get(path)
        return found.data if found is not None else None

    def seen(self, path: bytes) -> Seen | None:
        found = self.guest.entries.get(path)
        if found is None:
            return None
        return Seen(found.kind.value, found.mode, found.uid, found.gid, found.mtime_ns // SECOND)

    def names(self, path: bytes) -> set[bytes]:
        return {name.rpartition(b"/")[2] for name in self.guest.entries if name.rpartition(b"/")[0] == path and name}

    def put(self, path: bytes, content: bytes) -> None:
        self.guest.entries[path] = Content(GuestFileKind.FILE, content)

    def link(self, path: bytes, target: bytes) -> None:
        self.guest.entries[path] = Content(GuestFileKind.SYMLINK, target)

    @contextmanager
    def silent(self) -> Iterator[None]:
        self.guest.answers = False
        yield
        self.guest.answers = True


class KvmRig:
    """The lab's guest under QEMU with its qemu-guest-agent."""

    NAME = "qcow2-file"

    def __init__(self, lab: Lab, state: Path) -> None:
        self._host = lab.host_of(self.NAME)
        self.machine = self._host.virsh("domuuid", self.NAME).text.strip()
        self.site = KvmSite([KvmHost(h.name, h.uri, str(lab.shared)) for h in lab.hosts], state=StateDirectory(state))

    def open(self, root: bytes) -> GuestFiles:
        return self.site.guest_files(self.machine, root)

    def read(self, path: bytes) -> bytes | None:
        code, said = self._run('cat -- "$p"', path)
        return said if code == 0 else None

    def seen(self, path: bytes) -> Seen | None:
        code, said = self._run('stat -c "%f %u %g %Y" -- "$p"', path)
        if code:
            return None
        mode, uid, gid, seconds = said.split()
        number = int(mode, 16)
        return Seen(KINDS[number >> 12], number & 0o7777, int(uid), int(gid), int(seconds))

    def names(self, path: bytes) -> set[bytes]:
        code, said = self._run('cd "$p" && find . ! -name . -prune -print0', path)
        assert code == 0
        return {name.removeprefix(b"./") for name in said.split(b"\0") if name}

    def put(self, path: bytes, content: bytes) -> None:
        code, _ = self._run(f"printf '%b' '{_octal(content)}' > \"$p\"", path)
        assert code == 0

    def link(self, path: bytes, target: bytes) -> None:
        code, _ = self._run(f"ln -s \"$(printf '%b' '{_octal(target)}')\" \"$p\"", path)
        assert code == 0

    @contextmanager
    def silent(self) -> Iterator[None]:
        self._host.virsh("suspend", self.NAME)
        yield
        self._host.virsh("resume", self.NAME)

    def _run(self, script: str, path: bytes) -> tuple[int, bytes]:
        name = f"p=$(printf '%b.' '{_octal(path)}'); p=${{p%.}}; "
        return agent.run(self._host, self.NAME, ["/bin/sh", "-c", name + script], timeout=30)


class VsphereRig:
    """The simulated vCenter, whose guests are directories."""

    NAME = "web"

    def __init__(self, lab: VcsimLab) -> None:
        self.lab = lab
        self.machine = lab.instance_uuid(self.NAME)
        self.password = lab.directory / "guest-password"
        self.password.write_text("Guest-1\n")
        self.password.chmod(0o600)
        self.vcenter = Vcenter(
            VsphereSettings("lab", lab.host, lab.user, lab.password_file, port=lab.port, thumbprint=lab.thumbprint)
        )
        (lab.state / "guests" / self.NAME / "tmp").mkdir(parents=True)

    def open(self, root: bytes, user: str = "root") -> GuestFiles:
        return VsphereGuestFiles(self.vcenter, self.machine, root, user, self.password)

    def read(self, path: bytes) -> bytes | None:
        place = self._place(path)
        return place.read_bytes() if place.exists() else None

    def seen(self, path: bytes) -> Seen | None:
        try:
            found = self._place(path).lstat()
        except FileNotFoundError:
            return None
        kind = KINDS[found.st_mode >> 12]
        return Seen(kind, found.st_mode & 0o7777, found.st_uid, found.st_gid, int(found.st_mtime))

    def names(self, path: bytes) -> set[bytes]:
        return {os.fsencode(place.name) for place in self._place(path).iterdir()}

    def put(self, path: bytes, content: bytes) -> None:
        self._place(path).write_bytes(content)

    def link(self, path: bytes, target: bytes) -> None:
        self._place(path).symlink_to(os.fsdecode(target))

    @contextmanager
    def silent(self) -> Iterator[None]:
        self.lab.fault("guest-tools-silent")
        yield
        self.lab.mend("guest-tools-silent")

    def _place(self, path: bytes) -> Path:
        return self.lab.state / "guests" / self.NAME / os.fsdecode(path.lstrip(b"/"))


def _octal(data: bytes) -> str:
    return "".join(f"\\0{byte:03o}" for byte in data)


@contextmanager
def in_memory(_tmp: Path) -> Iterator[Rig]:
    yield MemoryRig()


@contextmanager
def on_kvm(tmp: Path) -> Iterator[Rig]:
    with Lab.up(tmp / "lab", machines=(KvmRig.NAME,), hosts=1) as lab:
        rig = KvmRig(lab, tmp / "state")
        with closing(rig.site):
            yield rig


@contextmanager
def on_vsphere(tmp: Path) -> Iterator[Rig]:
    with VcsimLab(tmp / "lab", (LabMachine("web", (LabDisk(size=8 * MiB),)),)) as lab:
        rig = VsphereRig(lab)
        with closing(rig.vcenter):
            yield rig


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(in_memory, id="memory"),
        pytest.param(on_kvm, id="kvm", marks=[pytest.mark.tools, pytest.mark.requires("root", "tgtd", "qemu-img")]),
        pytest.param(on_vsphere, id="vsphere", marks=[pytest.mark.tools, pytest.mark.requires("root", "tgtd", "go")]),
    ],
)
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    enter: Callable[[Path], Iterator[Rig]] = request.param
    with enter(tmp_path_factory.mktemp("guest")) as rig:
        yield rig


@pytest.fixture
def root() -> bytes:
    """A directory of the guest that is not there yet."""
    return b"/tmp/restored/%d" % next(_roots)


@pytest.fixture
def files(rig: Rig, root: bytes) -> Iterator[GuestFiles]:
    """Nothing of ours is left in the root when it is closed."""
    with rig.open(root) as made:
        yield made
    assert [name for name in rig.names(root) if name.startswith(b".lanfree")] == []


def staged(files: GuestFiles, content: bytes) -> Staged:
    return files.stage(len(content), [content])


def done(files: GuestFiles, *actions: GuestAction) -> None:
    assert [outcome.problem for outcome in files.apply(actions)] == [""] * len(actions)


def test_the_root_is_made_and_the_machine_is_named(rig: Rig, files: GuestFiles, root: bytes) -> None:
    assert files.machine == rig.machine
    assert files.root == root
    assert rig.seen(root).kind == "directory"
    assert files.list_directory(root) is not None


def test_a_file_has_its_name_content_and_attributes_when_it_is_placed(rig: Rig, files: GuestFiles, root: bytes) -> None:
    one = staged(files, b"listen 80\n")
    assert rig.read(root + b"/a.conf") is None
    done(files, PlaceFile(root + b"/a.conf", one, GuestAttributes(0o640, 1000, 33, TIME)))
    assert rig.read(root + b"/a.conf") == b"listen 80\n"
    assert rig.seen(root + b"/a.conf") == Seen("file", 0o640, 1000, 33, TIME // SECOND)


@pytest.mark.parametrize("size", [0, 1, 64 * KiB, 64 * KiB + 1, 400 * KiB + 7])
def test_content_arrives_byte_for_byte_whatever_its_size_and_pieces(
    rig: Rig, files: GuestFiles, root: bytes, size: int
) -> None:
    content = os.urandom(size)
    pieces = [content[at : at + 70_001] for at in range(0, size, 70_001)]
    done(files, PlaceFile(root + b"/file", files.stage(size, pieces), GuestAttributes()))
    assert rig.read(root + b"/file") == content


def test_content_that_packs_well_arrives_as_well(rig: Rig, files: GuestFiles, root: bytes) -> None:
    content = b"the same line again and again\n" * 40_000
    pieces = [content[at : at + 70_001] for at in range(0, len(content), 70_001)]
    done(files, PlaceFile(root + b"/log", files.stage(len(content), pieces), GuestAttributes(0o604)))
    assert rig.read(root + b"/log") == content
    assert rig.seen(root + b"/log").mode == 0o604


def test_many_files_are_placed_at_once_in_directories_that_are_made_before(
    rig: Rig, files: GuestFiles, root: bytes
) -> None:
    wanted = {root + b"/d%d/f%d" % (n % 3, n): b"%d" % n * n for n in range(40)}
    actions: list[GuestAction] = [MakeDirectory(root + b"/d%d" % n) for n in range(3)]
    actions += [PlaceFile(path, staged(files, content), GuestAttributes()) for path, content in wanted.items()]
    done(files, *actions)
    assert {path: rig.read(path) for path in wanted} == wanted


def test_nothing_is_replaced_unless_it_is_asked_for(rig: Rig, files: GuestFiles, root: bytes) -> None:
    rig.put(root + b"/there", b"old")
    [refused] = files.apply([PlaceFile(root + b"/there", staged(files, b"new"), GuestAttributes())])
    assert (refused.exists, refused.problem) == (True, EXISTS)
    assert rig.read(root + b"/there") == b"old"
    done(files, PlaceFile(root + b"/there", staged(files, b"new"), GuestAttributes(0o600), overwrite=True))
    assert rig.read(root + b"/there") == b"new"


def test_a_directory_is_never_replaced_by_a_file(rig: Rig, files: GuestFiles, root: bytes) -> None:
    done(files, MakeDirectory(root + b"/d"))
    [refused] = files.apply([PlaceFile(root + b"/d", staged(files, b"x"), GuestAttributes(), overwrite=True)])
    assert "directory" in refused.problem
    assert rig.seen(root + b"/d").kind == "directory"
    assert rig.names(root + b"/d") == set()


def test_one_that_fails_keeps_no_other_from_being_placed(rig: Rig, files: GuestFiles, root: bytes) -> None:
    found = files.apply(
        [
            PlaceFile(root + b"/missing/a", staged(files, b"a"), GuestAttributes()),
            PlaceFile(root + b"/b", staged(files, b"b"), GuestAttributes()),
            SetAttributes(root + b"/nothing", GuestAttributes(0o600)),
        ]
    )
    assert [bool(outcome.problem) for outcome in found] == [True, False, True]
    assert rig.read(root + b"/b") == b"b"


def test_a_new_directory_is_its_owners_alone_until_it_gets_its_attributes(
    rig: Rig, files: GuestFiles, root: bytes
) -> None:
    done(files, MakeDirectory(root + b"/d"))
    assert rig.seen(root + b"/d").mode == 0o700
    done(files, SetAttributes(root + b"/d", GuestAttributes(0o2755, 1000, 1000, TIME)))
    assert rig.seen(root + b"/d") == Seen("directory", 0o2755, 1000, 1000, TIME // SECOND)


def test_a_directory_that_is_there_is_used(rig: Rig, files: GuestFiles, root: bytes) -> None:
    done(files, MakeDirectory(root + b"/d"), SetAttributes(root + b"/d", GuestAttributes(0o750)))
    done(files, MakeDirectory(root + b"/d"))
    assert rig.seen(root + b"/d").mode == 0o750


def test_a_symbolic_link_is_no_directory_to_restore_into(rig: Rig, files: GuestFiles, root: bytes) -> None:
    done(files, MakeDirectory(root + b"/elsewhere"))
    rig.link(root + b"/d", root + b"/elsewhere")
    [refused] = files.apply([MakeDirectory(root + b"/d")])
    assert "link" in refused.problem


def test_names_are_taken_as_they_are_however_strange(rig: Rig, files: GuestFiles, root: bytes) -> None:
    strange = [b"$(reboot)", b"a b'c\"d", b"-rf", b"new\nline\n", b"back\\slash\\012", b"=x", b"%b", b"tab\t", b"*"]
    if files.can_take_any_name:
        strange += [b"caf\xe9", b"\xff\xfe\n"]
    directories = [b"d" + name for name in strange]
    done(files, *(MakeDirectory(root + b"/" + name) for name in directories))
    done(
        files,
        *(
            PlaceFile(root + b"/" + above + b"/" + name, staged(files, name), GuestAttributes())
            for above, name in zip(directories, strange, strict=True)
        ),
    )
    for above, name in zip(directories, strange, strict=True):
        assert rig.read(root + b"/" + above + b"/" + name) == name
        assert set(files.list_directory(root + b"/" + above)) == {name}


def test_a_listing_tells_kinds_sizes_and_times(rig: Rig, files: GuestFiles, root: bytes) -> None:
    attributes = GuestAttributes(mtime_ns=TIME)
    done(files, PlaceFile(root + b"/f", staged(files, b"12345"), attributes), MakeDirectory(root + b"/d"))
    rig.link(root + b"/l", b"f")
    found = files.list_directory(root)
    assert found[b"f"] == GuestFile(GuestFileKind.FILE, 5, TIME)
    assert found[b"d"].kind is GuestFileKind.DIRECTORY
    assert found[b"l"].kind is GuestFileKind.SYMLINK
    assert files.list_directory(root + b"/missing") is None
    assert TIME % files.time_step_ns == 0


def test_links_are_made_as_they_stand_and_found_again(rig: Rig, files: GuestFiles, root: bytes) -> None:
    if not files.can_symlink:
        [refused] = files.apply([MakeLink(root + b"/l", b"x")])
        assert refused.problem
        return
    link = MakeLink(root + b"/l", b"../../etc/$(x) y")
    done(files, link)
    assert rig.seen(root + b"/l").kind == "symlink"
    assert files.apply([link]) == [Outcome()]
    [refused] = files.apply([MakeLink(root + b"/l", b"another")])
    assert refused.exists
    done(files, MakeLink(root + b"/l", b"another", overwrite=True))
    assert files.apply([MakeLink(root + b"/l", b"another")]) == [Outcome()]


def test_a_hard_link_is_another_name_of_the_same_file(rig: Rig, files: GuestFiles, root: bytes) -> None:
    one = PlaceFile(root + b"/one", staged(files, b"shared"), GuestAttributes())
    two = MakeLink(root + b"/two", root + b"/one", hard=True)
    first, second = files.apply([one, two])
    assert first == Outcome()
    if not files.can_hard_link:
        assert second.problem
        return
    assert second == Outcome()
    assert rig.read(root + b"/two") == b"shared"
    assert files.apply([two]) == [Outcome()]


def test_a_link_that_cannot_be_made_takes_nothing_away(rig: Rig, files: GuestFiles, root: bytes) -> None:
    done(files, PlaceFile(root + b"/kept", staged(files, b"the guest's own"), GuestAttributes()))
    [hard] = files.apply([MakeLink(root + b"/kept", root + b"/missing", hard=True, overwrite=True)])
    [long] = files.apply([MakeLink(root + b"/kept", b"x" * 5000, overwrite=True)])
    assert hard.problem
    assert rig.read(root + b"/kept") == b"the guest's own" or not long.problem
    assert set(files.list_directory(root)) & {b"missing"} == set()


def test_a_time_that_no_calendar_has_is_told_or_set_and_the_file_is_there(
    rig: Rig, files: GuestFiles, root: bytes
) -> None:
    attributes = GuestAttributes(mtime_ns=400_000_000_000 * SECOND)
    [outcome] = files.apply([PlaceFile(root + b"/later", staged(files, b"x"), attributes)])
    assert not outcome.problem
    assert rig.read(root + b"/later") == b"x"


def test_content_of_another_size_than_announced_gets_no_name(files: GuestFiles, root: bytes) -> None:
    for size, pieces in ((3, [b"12345"]), (9, [b"12345"]), (200 * KiB, [b"1" * 150 * KiB])):
        with pytest.raises(GuestRefused):
            files.stage(size, pieces)
    assert {name for name in files.list_directory(root) if not name.startswith(b".")} == set()


def test_what_the_source_raises_passes_through_and_the_next_file_goes_on(
    rig: Rig, files: GuestFiles, root: bytes
) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise KeyError("the source")

    with pytest.raises(KeyError, match="the source"):
        files.stage(300_000, broken())
    done(files, PlaceFile(root + b"/next", staged(files, b"whole"), GuestAttributes()))
    assert rig.read(root + b"/next") == b"whole"


def test_what_was_staged_and_not_placed_is_gone_after_the_end(rig: Rig, root: bytes) -> None:
    with rig.open(root) as files:
        staged(files, b"small")
        staged(files, b"large" * 50_000)
    files.close()
    assert rig.names(root) == set()


def test_a_guest_whose_agent_is_silent_is_told(rig: Rig, root: bytes) -> None:
    with rig.silent(), pytest.raises(GuestAgentUnavailable) as told:
        rig.open(root)
    assert told.value.hint


def test_a_root_that_is_no_absolute_path_is_refused(rig: Rig) -> None:
    with pytest.raises(GuestRefused):
        rig.open(b"restored")


def test_free_space_is_told_in_bytes_or_not_at_all(files: GuestFiles) -> None:
    free = files.free_space()
    assert free is None or free > 1024 * KiB


def test_a_guest_user_who_may_not_set_owners_loses_them_and_set_user_id() -> None:
    guest = MemoryGuest(root_user=False)
    with MemoryGuestFiles(guest, b"/") as files:
        assert not files.can_set_owner
        [outcome] = files.apply([PlaceFile(b"/x", staged(files, b"x"), GuestAttributes(0o4755, 1000, 1000))])
    assert outcome.lost == (OWNER,)
    assert guest.entries[b"/x"].mode == 0o755
