"""File systems that want out of the directory that they are restored into, and people who change it meanwhile."""

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mounter.ports import FileEntry, FileType
from mounter.restore.attributes import Attributes
from mounter.restore.directory import DirectoryTarget, Existing
from mounter.restore.tree import restore_files
from mounter.targets import Action
from proxy.errors import FileNotRestored, LanfreeError


class Made:
    """An item out of nothing."""

    def __init__(self, kind: FileType, content: bytes = b"evil", **facts: Any) -> None:
        known = {"mode": 0o777, "uid": os.getuid(), "gid": os.getgid(), "mtime_ns": 5, "link_target": None} | facts
        self.entry = FileEntry(b"/x", kind, len(content), ctime_ns=0, inode=1, **known)
        self._content = content

    def pieces(self) -> Iterator[bytes]:
        """All at once."""
        yield self._content

    def xattrs(self) -> Mapping[bytes, bytes]:
        """None."""
        return {}


NAMES = [b"a", b"b", b"..", b".", b"", b"a/b", b"../a", b"/etc", b"a\0b", b"A", b"\xff"]
TARGETS = [b"..", b"../outside", b"/", b"a", b".", b"", b"x" * 5000, b"../outside/precious", b"\0"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["directory", "file", "symlink", "hard_link", "special", "leave", "swap"]),
        st.sampled_from(NAMES),
        st.sampled_from(TARGETS),
    ),
    max_size=12,
)
OUTSIDE = {"precious": b"precious", "other": b"other"}


def state_of(outside: Path) -> dict[str, tuple[bytes, int, int, int]]:
    return {
        p.name: (p.read_bytes(), p.stat().st_mode, p.stat().st_mtime_ns, p.stat().st_nlink) for p in outside.iterdir()
    }


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(STEPS, st.sampled_from(Existing))
def test_no_order_of_hostile_entries_touches_anything_outside(
    steps: list[tuple[str, bytes, bytes]], existing: Existing
) -> None:
    with tempfile.TemporaryDirectory() as place:
        outside, inside = Path(place) / "outside", Path(place) / "inside"
        outside.mkdir()
        for name, content in OUTSIDE.items():
            (outside / name).write_bytes(content)
        before = (state_of(outside), outside.stat().st_mtime_ns)
        with DirectoryTarget(inside, existing=existing, specials=True, attributes=Attributes(owner=False)) as target:
            play(target, steps, inside)
        assert (state_of(outside), outside.stat().st_mtime_ns) == before
        assert sorted(p.name for p in Path(place).iterdir()) == ["inside", "outside"]


def play(target: DirectoryTarget, steps: list[tuple[str, bytes, bytes]], inside: Path) -> None:
    """Also what the traversal would never hand over: names that are none, entries in directories that are links."""
    path: list[bytes] = []
    for what, name, to in steps:
        at = b"/".join([*path, name])
        try:
            match what:
                case "directory":
                    target.directory(at, Made(FileType.DIRECTORY, b""))
                    path.append(name)
                case "file":
                    target.file(at, Made(FileType.FILE))
                case "symlink":
                    target.symlink(at, Made(FileType.SYMLINK, b"", link_target=to))
                case "hard_link":
                    target.hard_link(at, Made(FileType.FILE), to)
                case "special":
                    target.special(at, Made(FileType.FIFO, b""))
                case "leave" if path:
                    target.leave_directory(b"/".join(path), Made(FileType.DIRECTORY, b""))
                    path.pop()
                case "swap" if path:
                    exchange(inside, b"/".join(path))
        except LanfreeError:
            continue


def exchange(inside: Path, path: bytes) -> None:
    """Somebody puts a link where a directory was, while files are restored into it."""
    here = Path(os.fsdecode(os.fsencode(inside) + b"/" + path))
    if here != inside and here.is_dir() and not here.is_symlink() and here.resolve().is_relative_to(inside.resolve()):
        here.rename(inside / f".moved-{uuid4().hex}")
        here.symlink_to(inside.parent / "outside")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    place.mkdir()
    (place / "precious").write_bytes(b"precious")
    return place


@pytest.mark.parametrize("existing", Existing)
def test_a_link_is_never_written_through_whoever_made_it(outside: Path, tmp_path: Path, existing: Existing) -> None:
    with DirectoryTarget(tmp_path / "to", existing=existing) as target:
        target.symlink(b"d", Made(FileType.SYMLINK, link_target=os.fsencode(outside)))
        target.symlink(b"f", Made(FileType.SYMLINK, link_target=os.fsencode(outside / "precious")))
        if existing is Existing.OVERWRITE:
            target.directory(b"d", Made(FileType.DIRECTORY))
            target.file(b"d/precious", Made(FileType.FILE))
            target.leave_directory(b"d", Made(FileType.DIRECTORY))
        else:
            with pytest.raises(FileNotRestored, match="no directory"):
                target.directory(b"d", Made(FileType.DIRECTORY))
            with pytest.raises(FileNotRestored):
                target.file(b"d/precious", Made(FileType.FILE))
        with_file = [FileNotRestored] if existing is Existing.REFUSE else []
        try:
            target.file(b"f", Made(FileType.FILE, mtime_ns=1 << 62))
        except FileNotRestored as error:
            assert type(error) in with_file
    assert [(p.name, p.read_bytes()) for p in outside.iterdir()] == [("precious", b"precious")]


def test_a_directory_that_is_exchanged_for_a_link_keeps_its_files_inside(outside: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    with DirectoryTarget(to) as target:
        target.directory(b"d", Made(FileType.DIRECTORY))
        (to / "d").rename(to / "moved")
        (to / "d").symlink_to(outside)
        target.file(b"d/file", Made(FileType.FILE))
        target.directory(b"d/below", Made(FileType.DIRECTORY))
        target.leave_directory(b"d/below", Made(FileType.DIRECTORY))
        target.leave_directory(b"d", Made(FileType.DIRECTORY, mode=0o700))
        with pytest.raises(FileNotRestored):
            target.hard_link(b"again", Made(FileType.FILE), b"d/precious")
    assert [p.name for p in outside.iterdir()] == ["precious"]
    assert sorted(p.name for p in (to / "moved").iterdir()) == ["below", "file"]
    assert (outside / "precious").stat().st_nlink == 1


@pytest.mark.parametrize("kind", [FileType.FIFO, FileType.CHARACTER_DEVICE])
def test_what_lies_in_a_file_s_place_is_never_opened(kind: FileType, tmp_path: Path) -> None:
    """Opening a FIFO would wait for ever, a device might do anything."""
    os.mkfifo(tmp_path / "f")
    with DirectoryTarget(tmp_path) as target:
        with pytest.raises(FileNotRestored, match="exists"):
            target.file(b"f", Made(FileType.FILE))
        with pytest.raises(FileNotRestored, match="no directory"):
            target.directory(b"f", Made(FileType.DIRECTORY))
    with DirectoryTarget(tmp_path, existing=Existing.OVERWRITE) as target:
        assert target.file(b"f", Made(FileType.FILE)).action is Action.WRITTEN
    assert stat.S_ISREG((tmp_path / "f").lstat().st_mode)


@pytest.mark.parametrize(
    "facts",
    [{"mtime_ns": 1 << 90}, {"mtime_ns": -(1 << 90)}, {"uid": 1 << 40}, {"gid": -5}, {"mode": 0o17777}],
    ids=lambda facts: next(iter(facts)),
)
def test_numbers_that_no_system_takes_are_losses(facts: dict[str, int], tmp_path: Path) -> None:
    with DirectoryTarget(tmp_path) as target:
        for kind, path in ((FileType.FILE, b"f"), (FileType.SYMLINK, b"l"), (FileType.DIRECTORY, b"d")):
            item = Made(kind, **{"link_target": b"x", **facts})
            match kind:
                case FileType.FILE:
                    done = target.file(path, item)
                case FileType.SYMLINK:
                    done = target.symlink(path, item)
                case _:
                    target.directory(path, item)
                    done = target.leave_directory(path, item)
            assert done.losses or "mode" in facts
    assert (tmp_path / "f").read_bytes() == b"evil"


def test_a_name_that_is_too_long_is_told_and_the_rest_comes(guest: Any, tmp_path: Path) -> None:
    guest.file(b"/" + b"x" * 300, b"1")
    guest.put(b"/l", FileType.SYMLINK, link_target=b"y" * 9000)
    guest.file(b"/good", b"2")
    with guest.session() as session, DirectoryTarget(tmp_path) as target:
        report = restore_files(session, [b"/"], target)
    assert {p.message.rpartition(": ")[2] for p in report.problems} == {"File name too long"}
    assert [p.name for p in tmp_path.iterdir()] == ["good"]
