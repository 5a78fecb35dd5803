"""Every way to open a guest's file systems, held to one suite: in memory, in another process, directly, in an appliance."""

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from mounter import memory, wire
from mounter.choose import directly
from mounter.export import Export, ImageToExport
from mounter.ports import FileType, FoundVolume, GuestFilesystem, Volume, identified
from mounter.remote import RemoteFilesystem, libguestfs
from mounter.session import OpensFilesystem
from proxy.errors import GuestFileNotFound, MountEnded, MountFailed

pytestmark = pytest.mark.slow

LARGE = os.urandom(2500) * 1000
FILES = {
    b"/etc/hostname": b"guest\n",
    b"/empty": b"",
    b"/large": LARGE,
    b"/d\xe9/\xff\xfe\nname": b"not UTF-8\n",
    b"/data/a": b"a",
    b"/data/b": b"b",
}
LINKS = {b"/data/link": b"../d\xe9/\xff", b"/data/out": b"../../../../etc/passwd"}
GOOD, BAD = identified(
    [
        FoundVolume("/dev/sda", "ext4", "ROOT", "11111111-2222-3333-4444-555555555555", 32 << 20),
        FoundVolume("/dev/sdb", "unknown", "", "", 1 << 20, problem="no file system that we know"),
    ]
)


def in_memory(_directory: Path) -> GuestFilesystem:
    return memory.open_filesystem(argument())


def in_a_process(_directory: Path) -> GuestFilesystem:
    return RemoteFilesystem("mounter.memory:open_filesystem", argument())


def argument() -> dict[str, object]:
    files = {wire.text_of(path): wire.text_of(content) for path, content in FILES.items() if path != b"/large"}
    # Ten thousand bytes do for what counts here: that it comes in several pieces.
    files["/large"] = wire.text_of(LARGE[:10_000])
    links = {wire.text_of(path): wire.text_of(target) for path, target in LINKS.items()}
    good = {"volume": asdict(GOOD), "files": files, "links": links}
    return {"volumes": [good, {"volume": asdict(BAD), "files": {}, "links": {}}]}


class Opened:
    """Two image files, exported, and opened as ``opens`` does."""

    def __init__(self, directory: Path, opens: OpensFilesystem) -> None:
        root = os.fsencode(directory / "root")
        for path, content in FILES.items():
            Path(os.fsdecode(root + path)).parent.mkdir(parents=True, exist_ok=True)
            Path(os.fsdecode(root + path)).write_bytes(content)
        for path, target in LINKS.items():
            Path(os.fsdecode(root + path)).symlink_to(os.fsdecode(target))
        good, bad = directory / "good.img", directory / "bad.img"
        for image, size in ((good, GOOD.size), (bad, BAD.size)):
            image.touch()
            os.truncate(image, size)
        make = ["mke2fs", "-q", "-t", "ext4", "-L", "ROOT", "-U", GOOD.uuid, "-d", str(directory / "root"), str(good)]
        subprocess.run(make, check=True, timeout=60)
        images = [ImageToExport(p.stem, "openers:file_image", {"path": str(p)}) for p in (good, bad)]
        self.export = Export(images)
        try:
            self.filesystem = opens(self.export.served, self.export.directory)
        except BaseException:
            self.export.close()
            raise


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(in_memory, id="memory"),
        pytest.param(in_a_process, id="process"),
        pytest.param(
            directly, id="tsk", marks=[pytest.mark.tools, pytest.mark.requires("nbdkit", "mke2fs", "module:pytsk3")]
        ),
        pytest.param(
            libguestfs(accelerate=False),
            id="libguestfs",
            marks=[pytest.mark.tools, pytest.mark.requires("nbdkit", "mke2fs", "module:guestfs")],
        ),
    ],
)
def filesystem(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestFilesystem]:
    make = request.param
    directory = tmp_path_factory.mktemp("disks")
    if make in (in_memory, in_a_process):
        with make(directory) as opened:
            yield opened
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "integration" / "mounter"))
        real = Opened(directory, make)
        with real.export, real.filesystem as opened:
            yield opened


@pytest.fixture
def good(filesystem: GuestFilesystem) -> Volume:
    return next(v for v in filesystem.volumes() if v.label == "ROOT")


def test_volumes_are_told_with_their_facts_and_problems(filesystem: GuestFilesystem, good: Volume) -> None:
    assert (good.id, good.type, good.uuid, good.size, good.problem) == (GOOD.uuid, "ext4", GOOD.uuid, GOOD.size, None)
    (bad,) = [v for v in filesystem.volumes() if v != good]
    assert (bad.type, bad.problem, bad.id) == ("unknown", "no file system that we know", "device:/dev/sdb")


def test_the_volumes_stay_the_same(filesystem: GuestFilesystem) -> None:
    assert list(filesystem.volumes()) == list(filesystem.volumes())
    assert list(filesystem.operating_systems()) == []


def test_a_walk_finds_every_entry_once_and_directories_first(filesystem: GuestFilesystem, good: Volume) -> None:
    paths = [entry.path for batch in filesystem.walk(good) for entry in batch]
    assert len(paths) == len(set(paths))
    assert set(paths) - {b"/lost+found"} == {*FILES, *LINKS, b"/etc", b"/d\xe9", b"/data"}
    for path in paths:
        parent = path.rpartition(b"/")[0]
        assert parent == b"" or paths.index(parent) < paths.index(path)


def test_the_walk_and_the_single_entry_say_the_same(filesystem: GuestFilesystem, good: Volume) -> None:
    for batch in filesystem.walk(good):
        for entry in batch:
            assert filesystem.entry(good, entry.path) == entry


def test_entries_tell_type_size_and_link_target(filesystem: GuestFilesystem, good: Volume) -> None:
    file = filesystem.entry(good, b"/d\xe9/\xff\xfe\nname")
    assert (file.type, file.size, file.mode, file.link_target, file.name) == (
        FileType.FILE,
        10,
        0o644,
        None,
        b"\xff\xfe\nname",
    )
    link = filesystem.entry(good, b"/data/link")
    assert (link.type, link.link_target) == (FileType.SYMLINK, b"../d\xe9/\xff")
    assert filesystem.entry(good, b"/").type is FileType.DIRECTORY


def test_a_directory_is_listed_sorted_by_name(filesystem: GuestFilesystem, good: Volume) -> None:
    listed = filesystem.list_directory(good, b"/data")
    assert [e.path for e in listed] == [b"/data/a", b"/data/b", b"/data/link", b"/data/out"]
    assert [e.name for e in filesystem.list_directory(good, b"/d\xe9/")] == [b"\xff\xfe\nname"]
    top = {e.path for e in filesystem.list_directory(good, b"/")}
    assert top - {b"/lost+found"} == {b"/d\xe9", b"/data", b"/empty", b"/etc", b"/large"}


@pytest.mark.parametrize("path", [b"/etc/hostname", b"/empty", b"/d\xe9/\xff\xfe\nname"])
def test_files_are_read_byte_by_byte(path: bytes, filesystem: GuestFilesystem, good: Volume) -> None:
    assert b"".join(filesystem.read(good, path)) == FILES[path]


def test_a_large_file_comes_in_pieces_and_from_an_offset(filesystem: GuestFilesystem, good: Volume) -> None:
    size = filesystem.entry(good, b"/large").size
    pieces = list(filesystem.read(good, b"/large"))
    assert b"".join(pieces) == LARGE[:size]
    if size == len(LARGE):
        assert len(pieces) == 2
    assert b"".join(filesystem.read(good, b"/large", size - 5)) == LARGE[size - 5 : size]


def test_two_reads_at_once_do_not_mix(filesystem: GuestFilesystem, good: Volume) -> None:
    first, second = filesystem.read(good, b"/large"), filesystem.read(good, b"/large", 1000)
    assert (next(first)[:1000], next(second)[:1000]) == (LARGE[:1000], LARGE[1000:2000])
    first.close()  # type: ignore[attr-defined]  # what a "for" that breaks does to a generator
    assert b"".join(filesystem.read(good, b"/data/a")) == b"a"


@pytest.mark.parametrize("path", [b"/nothing", b"/etc/hostname/x", b"/data/../etc", b"etc", b"", b"/d\0"])
def test_what_is_not_there_is_not_found(path: bytes, filesystem: GuestFilesystem, good: Volume) -> None:
    with pytest.raises(GuestFileNotFound):
        filesystem.entry(good, path)
    with pytest.raises(GuestFileNotFound):
        list(filesystem.list_directory(good, path))
    with pytest.raises(GuestFileNotFound):
        list(filesystem.read(good, path))


def test_only_regular_files_are_read_and_only_directories_listed(filesystem: GuestFilesystem, good: Volume) -> None:
    for path in (b"/data", b"/data/link", b"/data/out"):
        with pytest.raises(GuestFileNotFound):
            list(filesystem.read(good, path))
    for path in (b"/etc/hostname", b"/data/out"):
        with pytest.raises(GuestFileNotFound):
            filesystem.list_directory(good, path)


def test_a_volume_with_a_problem_says_so_on_every_call(filesystem: GuestFilesystem, good: Volume) -> None:
    (bad,) = [v for v in filesystem.volumes() if v != good]
    with pytest.raises(MountFailed, match="no file system that we know"):
        list(filesystem.walk(bad))
    with pytest.raises(MountFailed, match="no file system that we know"):
        filesystem.entry(bad, b"/x")


@pytest.mark.parametrize("make", [in_memory, in_a_process], ids=["memory", "process"])
def test_after_close_every_call_says_that_it_is_over(make: Callable[[Path], GuestFilesystem], tmp_path: Path) -> None:
    filesystem = make(tmp_path)
    good = filesystem.volumes()[0]
    walk = filesystem.walk(good)
    assert next(walk)
    filesystem.close()
    filesystem.close()
    with pytest.raises(MountEnded):
        next(walk)
    with pytest.raises(MountEnded):
        filesystem.entry(good, b"/etc")
