"""Names and entries as the appliance's daemon gives them."""

import io
import os

import pytest

from mounter.entries import checked_path, entry_of, names_outside, paths_below, split_names
from mounter.guestfs_abi import Stat
from mounter.ports import FileEntry, FileType
from proxy.errors import GuestFileNotFound
from proxy.units import MiB


def test_names_are_found_whole_wherever_the_pieces_of_the_list_end() -> None:
    long = b"n" * (MiB - 3)
    assert list(split_names(io.BytesIO(long + b"\0a\xff\0dir/b\nc\0\0"))) == [b"/" + long, b"/a\xff", b"/dir/b\nc"]
    assert list(split_names(io.BytesIO(b""))) == []


SUBVOLUMES = ["@", "@home", "@home/user", "@home/user/cache"]


@pytest.mark.parametrize(
    ("path", "below"),
    [
        ("", (b"/@/", b"/@home/", b"/@home/user/", b"/@home/user/cache/")),
        ("@home", (b"/user/", b"/user/cache/")),
        ("@", ()),  # which @home is not below
        ("@home/user/cache", ()),
    ],
)
def test_subvolumes_below_another_are_named_from_its_root(path: str, below: tuple[bytes, ...]) -> None:
    assert paths_below(path, SUBVOLUMES) == below


def test_what_lies_in_another_subvolume_is_left_out_and_its_directory_stays() -> None:
    names = [b"/@home", b"/@home/x", b"/@homes", b"/a"]
    assert list(names_outside((b"/@home/",), iter(names))) == [b"/@home", b"/@homes", b"/a"]
    assert list(names_outside((), iter(names))) == names


@pytest.mark.parametrize("path", [b"", b"a", b"/..", b"/a/../b", b"/./a", b"/a\0b"])
def test_a_path_that_is_not_what_it_seems_is_refused(path: bytes) -> None:
    with pytest.raises(GuestFileNotFound):
        checked_path(path)


def test_a_path_with_dots_in_its_names_is_fine() -> None:
    assert checked_path(b"/..a/b..") == b"/..a/b.."


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        (0o100644, FileType.FILE),
        (0o041777, FileType.DIRECTORY),
        (0o120777, FileType.SYMLINK),
        (0o060600, FileType.BLOCK_DEVICE),
        (0o020600, FileType.CHARACTER_DEVICE),
        (0o010600, FileType.FIFO),
        (0o140600, FileType.SOCKET),
        (0o000644, FileType.OTHER),
    ],
)
def test_type_and_permissions_are_told_apart(mode: int, kind: FileType) -> None:
    entry = entry_of(b"/x", Stat(7, mode, 1, 2, 3, 4, 5, 2, 512, (8, 300)), b"target")
    assert entry.type is kind
    assert entry.mode == mode & 0o7777
    assert entry.link_target == (b"target" if kind is FileType.SYMLINK else None)
    assert (entry.links, entry.allocated, entry.device) == (2, 512, (8, 300))


def test_a_name_whose_inode_cannot_be_read_is_still_there() -> None:
    assert entry_of(os.fsencode("/x"), None, None) == FileEntry(b"/x", FileType.OTHER, 0, 0, 0, 0, 0, 0, 0)
