"""Volumes are written again and again; what is brought up to date must be what reading everything gives, each time."""

import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mounter.index.difference import difference
from mounter.layout import ext_owners, ntfs_owners
from mounter.layout.ext import ExtLayout
from mounter.layout.model import Changes, Doubt, Layout, LayoutDoubt, Tree, guarded
from mounter.layout.ntfs import NtfsLayout
from tests.integration.mounter.mutations import DebugfsScribbler, FileBytes, MountedScribbler, changes, listing, without

pytestmark = [
    pytest.mark.tools,
    pytest.mark.requires("mkfs.ext4", "debugfs", "e2fsck", "resize2fs", "mkntfs", "ntfs-3g", "ntfsinfo", "fusermount"),
]

MIB = 1 << 20
SEEDS = range(3)
ROUNDS = 5

EXT = {
    "ext4": ["mkfs.ext4", "-b", "1024", "-N", "4096"],
    "ext4-4k": ["mkfs.ext4", "-b", "4096", "-N", "4096"],
    "ext4-meta-bg": ["mkfs.ext4", "-b", "1024", "-N", "4096", "-O", "meta_bg,^resize_inode"],
    "ext4-inline-data": ["mkfs.ext4", "-b", "4096", "-N", "4096", "-I", "256", "-O", "inline_data"],
    "ext4-sparse2": ["mkfs.ext4", "-b", "1024", "-N", "4096", "-O", "sparse_super2,^resize_inode,^has_journal"],
    "ext3": ["mkfs.ext3", "-b", "1024", "-N", "4096"],
    "ext2-small-inodes": ["mkfs.ext2", "-b", "1024", "-N", "4096", "-I", "128"],
}


def compared(base: Tree, layout: Layout, before: Path, now: Path) -> Tree:
    """The tree as of now, brought up to date; it and its difference are checked against reading everything."""
    made = layout.update(base, changes(before, now))
    whole = layout.full()
    assert made.nodes == whole.nodes
    assert made.children == whole.children
    found = difference(base, made)
    applied = without(listing(base), found.gone)
    applied.update({path: (number, made.nodes[number]) for path, number in found.listed})
    assert applied == listing(whole)
    return made


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", EXT)
def test_an_ext_tree_brought_up_to_date_is_the_tree_that_is_there(kind: str, seed: int, tmp_path: Path) -> None:
    image, before = tmp_path / "image", tmp_path / "before"
    content = tmp_path / "content"
    content.write_bytes(b"some words\n" * 700)
    with image.open("wb") as file:
        file.truncate(48 * MIB)
    subprocess.run([*EXT[kind], "-q", str(image)], check=True, capture_output=True)
    scribbler = DebugfsScribbler(seed, image, content)
    scribbler.round(30)
    tree = ExtLayout(FileBytes(image)).full()
    for number in range(ROUNDS):
        shutil.copyfile(image, before)
        scribbler.round(25)
        if number == 2:  # large directories get their hashed index
            subprocess.run(["e2fsck", "-fyD", str(image)], check=False, capture_output=True)
        tree = compared(tree, ExtLayout(FileBytes(image)), before, image)
    assert tree.names() > 50


@pytest.fixture
def ntfs(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """An image and where it is mounted between ``mounted`` and ``unmounted``."""
    image, top = tmp_path / "image", tmp_path / "top"
    top.mkdir()
    with image.open("wb") as file:
        file.truncate(48 * MIB)
    subprocess.run(["mkntfs", "-F", "-q", "-f", "-c", "1024", str(image)], check=True, capture_output=True)
    yield image, top
    subprocess.run(["fusermount", "-uz", str(top)], check=False, capture_output=True)


def mounted(image: Path, top: Path) -> None:
    subprocess.run(["ntfs-3g", str(image), str(top)], check=True, capture_output=True)


def unmounted(image: Path, top: Path) -> None:
    """Also waits for the server to end: only then all of it is in the image."""
    subprocess.run(["fusermount", "-u", str(top)], check=True, capture_output=True)
    deadline = time.monotonic() + 30
    while subprocess.run(["ntfsinfo", "-m", str(image)], check=False, capture_output=True).returncode or _served(image):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _served(image: Path) -> bool:
    lines = (p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists())
    return any(line.startswith(b"ntfs-3g\0") and str(image).encode() in line for line in lines)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_ntfs_tree_brought_up_to_date_is_the_tree_that_is_there(
    seed: int, ntfs: tuple[Path, Path], tmp_path: Path
) -> None:
    image, top = ntfs
    before = tmp_path / "before"
    scribbler = MountedScribbler(seed, top)
    mounted(image, top)
    scribbler.round(40)
    unmounted(image, top)
    tree = NtfsLayout(FileBytes(image)).full()
    for _ in range(ROUNDS):
        shutil.copyfile(image, before)
        mounted(image, top)
        scribbler.round(25)
        listed = {b"/" + bytes(p.relative_to(top)) for p in top.rglob("*")}
        unmounted(image, top)
        tree = compared(tree, NtfsLayout(FileBytes(image)), before, image)
        assert set(listing(tree)) == listed


def test_an_update_reads_little_where_little_was_written(tmp_path: Path) -> None:
    image, before = tmp_path / "image", tmp_path / "before"
    source = tmp_path / "source"
    for directory in range(40):
        (source / f"d{directory}").mkdir(parents=True)
        for number in range(50):
            (source / f"d{directory}" / f"file{number}").write_bytes(b"x")
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-d", str(source), str(image)], check=True, capture_output=True)
    shutil.copyfile(image, before)
    subprocess.run(
        ["debugfs", "-w", "-R", "sif /d7/file7 mtime @1700000000", str(image)], check=True, capture_output=True
    )
    volume = FileBytes(before)
    tree = ExtLayout(volume).full()
    again = FileBytes(image)
    made = ExtLayout(again).update(tree, changes(before, image))
    assert [path for path, _ in difference(tree, made).listed] == [b"/d7/file7"]
    assert again.count < volume.count / 10


def test_a_grown_file_system_is_another_one(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(24 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-b", "1024", str(image), "16M"], check=True, capture_output=True)
    before = ExtLayout(FileBytes(image)).fingerprint
    subprocess.run(["resize2fs", str(image), "24M"], check=True, capture_output=True)
    assert ExtLayout(FileBytes(image)).fingerprint != before


def test_names_that_only_a_key_shows_are_not_read(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-O", "encrypt", str(image)], check=True, capture_output=True)
    with pytest.raises(LayoutDoubt) as refused:
        ExtLayout(FileBytes(image))
    assert refused.value.doubt is Doubt.UNKNOWN_FORMAT


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["ext4", "ext3", "ext4-inline-data", "ntfs"])
def test_damaged_metadata_ends_in_a_doubt_or_a_tree_and_in_time(kind: str, seed: int, tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 * MIB)
    argv = EXT.get(kind, ["mkntfs", "-F", "-q", "-f", "-c", "1024"])
    source = tmp_path / "source"
    (source / "directory").mkdir(parents=True)
    for number in range(120):
        (source / "directory" / f"file {number}").symlink_to("t" * (number + 1))
    subprocess.run(
        [*argv, *(["-q", "-d", str(source)] if kind != "ntfs" else []), str(image)], check=True, capture_output=True
    )
    whole = image.read_bytes()
    layout, owners = (NtfsLayout, ntfs_owners) if kind == "ntfs" else (ExtLayout, ext_owners)
    base = layout(FileBytes(image)).full()
    used = [n for n in range(0, len(whole), 512) if any(whole[n : n + 512])]
    everything = Changes(np.array([0], dtype=np.int64), np.array([len(whole)], dtype=np.int64))
    chance = random.Random(seed)
    doubts = 0
    started = time.monotonic()
    for _ in range(25):
        damaged = bytearray(whole)
        for _ in range(chance.choice([1, 3, 30])):
            at = chance.choice(used) + chance.randrange(512)
            damaged[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        image.write_bytes(damaged)
        for use in (
            lambda: layout(FileBytes(image)).full(),
            lambda: difference(base, layout(FileBytes(image)).update(base, everything)),
            lambda: owners.owners(FileBytes(image)),
        ):
            try:
                assert guarded(use)
            except LayoutDoubt:
                doubts += 1
    assert time.monotonic() - started < 120
    assert doubts < 75  # the undamaged parts are still read
