"""The fast path against the appliance, on everything that both can open: nothing may differ."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from mounter.choose import directly
from mounter.export import Export, ImageToExport
from mounter.ports import FileEntry, FileType, GuestFilesystem, Volume
from mounter.remote import libguestfs
from tests.integration.mounter import zoo

pytestmark = [
    pytest.mark.tools,
    pytest.mark.requires(
        "root",
        "nbdkit",
        "mke2fs",
        "mkntfs",
        "ntfs-3g",
        "mkfs.vfat",
        "mcopy",
        "sfdisk",
        "module:guestfs",
        "module:pytsk3",
    ),
]

DEVICES = ("/dev/sda1", "/dev/sda2", "/dev/sda5", "/dev/sdb2", "/dev/sdb4", "/dev/sdc", "/dev/sdd")


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GuestFilesystem, GuestFilesystem]]:
    """The fast path and the appliance over the same disks."""
    disks = zoo.machine(tmp_path_factory.mktemp("zoo"))
    with ExitStack() as stack:
        images = [ImageToExport(p.stem, "openers:file_image", {"path": str(p)}) for p in disks]
        export = stack.enter_context(Export(images))
        fast = stack.enter_context(directly(export.served, export.directory))
        yield fast, stack.enter_context(libguestfs(accelerate=False)(export.served, export.directory))


@pytest.fixture(params=DEVICES)
def volumes(
    request: pytest.FixtureRequest, readers: tuple[GuestFilesystem, GuestFilesystem]
) -> tuple[tuple[GuestFilesystem, Volume], tuple[GuestFilesystem, Volume]]:
    """One volume as each of them has it."""
    fast, slow = ((fs, next(v for v in fs.volumes() if v.device == request.param)) for fs in readers)
    return fast, slow


@cache
def entries(filesystem: GuestFilesystem, volume: Volume) -> dict[bytes, FileEntry]:
    """A walk by path; the appliance takes some seconds for one, so each is made once."""
    found = [entry for batch in filesystem.walk(volume) for entry in batch]
    assert len({e.path for e in found}) == len(found)
    return {e.path: e for e in found}


def test_both_see_the_same_volumes(readers: tuple[GuestFilesystem, GuestFilesystem]) -> None:
    fast, slow = (list(fs.volumes()) for fs in readers)
    assert [v.device for v in fast] == [*DEVICES, "/dev/sde"]
    assert fast == slow


def test_both_recognise_the_same_system(readers: tuple[GuestFilesystem, GuestFilesystem]) -> None:
    fast, slow = (list(fs.operating_systems()) for fs in readers)
    assert [s.product for s in fast] == ["Debian GNU/Linux 12 (bookworm)"]
    assert fast == slow


def test_the_guest_has_its_volumes_where_fstab_says(readers: tuple[GuestFilesystem, GuestFilesystem]) -> None:
    places = {v.device: v.mountpoint for v in readers[0].volumes() if v.mountpoint}
    assert places == {
        "/dev/sda1": "/boot/efi",
        "/dev/sda2": "/",
        "/dev/sda5": "/srv/with space",
        "/dev/sdb2": "/data",
        "/dev/sdd": "/zoo",
    }


def test_both_list_the_same_files_with_the_same_facts(
    volumes: tuple[tuple[GuestFilesystem, Volume], tuple[GuestFilesystem, Volume]],
) -> None:
    fast, slow = (entries(*reader) for reader in volumes)
    assert sorted(fast) == sorted(slow)
    numbered = volumes[0][1].type != "vfat"  # the appliance's kernel numbers the files of FAT anew at each mount
    different = {
        path: (fast[path], slow[path])
        for path in fast
        if fast[path] != slow[path] and (numbered or _unnumbered(fast[path]) != _unnumbered(slow[path]))
    }
    assert different == {}


def _unnumbered(entry: FileEntry) -> tuple[object, ...]:
    return entry.path, entry.type, entry.size, entry.mode, entry.mtime_ns, entry.ctime_ns, entry.links, entry.allocated


def test_both_read_the_same_content_and_attributes(
    volumes: tuple[tuple[GuestFilesystem, Volume], tuple[GuestFilesystem, Volume]],
) -> None:
    (fast, here), (slow, there) = volumes
    alike = (b"/many/", b"/lower/", b"/dir/a hard link")
    chosen = [e for e in entries(fast, here).values() if not e.path.startswith(alike) or e.path.endswith(b"7")]
    for entry in chosen:
        assert fast.xattrs(here, entry.path) == slow.xattrs(there, entry.path), entry.path
        if entry.type is FileType.FILE:
            assert b"".join(fast.read(here, entry.path)) == b"".join(slow.read(there, entry.path)), entry.path
            assert b"".join(fast.read(here, entry.path, 70_000)) == b"".join(fast.read(here, entry.path))[70_000:]


def test_both_list_directories_alike(
    volumes: tuple[tuple[GuestFilesystem, Volume], tuple[GuestFilesystem, Volume]],
) -> None:
    (fast, here), (slow, there) = volumes
    directories = [e.path for e in entries(fast, here).values() if e.type is FileType.DIRECTORY]
    for path in [b"/", *directories]:
        names = [e.name for e in fast.list_directory(here, path)]
        assert names == [e.name for e in slow.list_directory(there, path)]
        assert names == sorted(names)


def test_the_zoo_has_what_it_is_for(readers: tuple[GuestFilesystem, GuestFilesystem], tmp_path: Path) -> None:
    fast = readers[0]
    by_device = {v.device: v for v in fast.volumes()}
    kinds = {e.type for e in entries(fast, by_device["/dev/sdd"]).values()}
    assert kinds == set(FileType) - {FileType.SOCKET, FileType.OTHER}
    assert b"user.Zone.Identifier" in fast.xattrs(by_device["/dev/sdc"], b"/large")
    assert fast.entry(by_device["/dev/sdc"], b"/junction").link_target == b"/dir/Sub"
    assert fast.xattrs(by_device["/dev/sdd"], b"/dir/file")[b"system.posix_acl_access"] == zoo.ACL
