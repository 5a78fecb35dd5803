"""Volumes written by Linux itself, in an appliance: hashed directories, moves, freezes, and a log that was not closed."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mounter.layout.ext import ExtLayout
from mounter.ports import VolumeState
from mounter.volumes.state import state_of
from tests.integration.mounter.mutations import FileBytes, Scribbler, listing
from tests.integration.mounter.test_layouts import compared

pytestmark = [pytest.mark.tools, pytest.mark.timeout(600), pytest.mark.requires("module:guestfs")]

MIB = 1 << 20
EXT4, XFS = "/dev/sda", "/dev/sdb"


class ShellScribbler(Scribbler):
    """Words for a shell whose current directory is the volume."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.script: list[str] = []

    def operations(self) -> list[Callable[[], None]]:
        common = [self.make, self.make, self.directory, self.remove, self.rename, self.link, self.symlink]
        return [*common, self.move_directory, self.remove_directory, self.crowd, self.touch]

    def make(self) -> None:
        path = self.somewhere()
        self.script.append(f"echo some words > .{path}")
        self.files.append(path)

    def crowd(self) -> None:
        top = self.random.choice(self.directories).rstrip("/")
        name = self.name()
        self.script.append(f"for i in $(seq 150); do : > .{top}/{name}$i; done; rm -f .{top}/{name}*7")

    def touch(self) -> None:
        if self.files:
            self.script.append(f"touch -d @{self.random.randrange(10**9, 2 * 10**9)} .{self.random.choice(self.files)}")

    def directory(self) -> None:
        path = self.somewhere()
        self.script.append(f"mkdir .{path}")
        self.directories.append(path)

    def remove(self) -> None:
        if self.files:
            self.script.append(f"rm -f .{self.files.pop(self.random.randrange(len(self.files)))}")

    def rename(self) -> None:
        if self.files:
            path, new = self.files.pop(self.random.randrange(len(self.files))), self.somewhere()
            self.script.append(f"mv .{path} .{new}")
            self.files.append(new)

    def link(self) -> None:
        if self.files:
            new = self.somewhere()
            self.script.append(f"ln .{self.random.choice(self.files)} .{new}")
            self.files.append(new)

    def symlink(self) -> None:
        self.script.append(f"ln -s {'t' * self.random.choice([3, 59, 60, 61, 200])} .{self.somewhere()}")

    def move_directory(self) -> None:
        moved, into = self.random.choice(self.directories), self.random.choice(self.directories)
        if moved != "/" and not f"{into}/".startswith(f"{moved}/"):
            new = self.below(into)
            self.script.append(f"mv .{moved} .{new}")
            self.directories = [
                new + d[len(moved) :] if f"{d}/".startswith(f"{moved}/") else d for d in self.directories
            ]
            self.files = [new + f[len(moved) :] if f.startswith(f"{moved}/") else f for f in self.files]

    def remove_directory(self) -> None:
        path = self.random.choice(self.directories)
        if path != "/" and self.random.random() < 0.4:
            self.script.append(f"rm -rf .{path}")
            self.directories = [d for d in self.directories if not f"{d}/".startswith(f"{path}/")]
            self.files = [f for f in self.files if not f.startswith(f"{path}/")]


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path, Path]]:
    """A handle with an ext4 and an XFS volume, and their images."""
    directory = tmp_path_factory.mktemp("volumes")
    images = directory / "ext4", directory / "xfs"
    os.environ["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
    import guestfs  # noqa: PLC0415  # not where the suite is only collected

    g = guestfs.GuestFS(python_return_dict=True)
    g.set_backend("direct")
    for image, size in zip(images, (64 * MIB, 320 * MIB), strict=True):
        with image.open("wb") as file:
            file.truncate(size)
        g.add_drive_opts(str(image), format="raw")
    g.launch()
    g.mkfs("ext4", EXT4, blocksize=1024)
    g.mkfs("xfs", XFS)
    yield g, *images
    g.close()


def in_volume(g: Any, device: str, script: list[str]) -> None:
    g.mount(device, "/")
    g.write("/script", "\n".join(["cd /sysroot", *script, ""]).encode())
    g.debug("sh", ["sh /sysroot/script"])
    g.umount("/")
    g.sync()


def test_what_linux_writes_is_brought_up_to_date(appliance: tuple[Any, Path, Path], tmp_path: Path) -> None:
    g, image, _ = appliance
    before = tmp_path / "before"
    scribbler = ShellScribbler(5)
    scribbler.round(30)
    in_volume(g, EXT4, scribbler.script)
    tree = ExtLayout(FileBytes(image)).full()
    for _ in range(4):
        shutil.copyfile(image, before)
        scribbler.script = []
        scribbler.round(30)
        in_volume(g, EXT4, scribbler.script)
        tree = compared(tree, ExtLayout(FileBytes(image)), before, image)
        g.mount_ro(EXT4, "/")
        listed = {b"/" + name.encode() for name in g.find("/")}
        g.umount("/")
        assert {name for name in listed if name != b"/"} == set(listing(tree))
    assert max(map(len, tree.children.values())) > 100  # so that directories have a hashed index


@pytest.mark.parametrize(("kind", "device", "number"), [("ext4", EXT4, 0), ("xfs", XFS, 1)])
def test_a_mounted_volume_is_dirty_and_a_frozen_one_is_clean(
    kind: str, device: str, number: int, appliance: tuple[Any, Path, Path]
) -> None:
    g, *images = appliance
    volume = FileBytes(images[number])
    g.mount(device, "/")
    try:
        g.mkdir_p("/directory")
        for n in range(50):
            g.write(f"/directory/file{n}", b"content")
        g.sync()
        state, detail = state_of(kind, volume.pread)
        assert state is VolumeState.DIRTY, detail
        g.debug("sh", ["fsfreeze -f /sysroot"])
        try:
            state, detail = state_of(kind, volume.pread)
            assert state is VolumeState.CLEAN, detail
        finally:
            g.debug("sh", ["fsfreeze -u /sysroot"])
    finally:
        g.umount("/")
    g.sync()
    assert state_of(kind, volume.pread)[0] is VolumeState.CLEAN
