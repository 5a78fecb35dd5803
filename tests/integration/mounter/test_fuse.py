"""A restore point mounted over FUSE, read by ordinary programs; and what is left when its processes are killed: nothing."""

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import psutil
import pytest

from mounter.export import ImageToExport
from mounter.fuse.layout import Layout
from mounter.fuse.mounted import Mounted, MountOptions
from mounter.fuse.place import connection, unmount
from mounter.remote import libguestfs
from proxy.errors import MountBusy, MountFailed
from proxy.units import MiB

pytestmark = [
    pytest.mark.tools,
    pytest.mark.requires("nbdkit", "mke2fs", "mkntfs", "fusermount3", "root", "module:guestfs"),
]

Eventually = Callable[[Callable[[], bool]], bool]
Mentioning = Callable[[str], list[int]]

OPENER = partial(libguestfs, accelerate=False, memory_mib=512)
CONTENT = os.urandom(3 * MiB + 17)
RAW = b"caf\xe9 \xff\n.txt"


def tool(*words: str | Path) -> None:
    subprocess.run([str(w) for w in words], check=True, timeout=60, capture_output=True)


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A Linux guest whose second disk is at /data; a third one, NTFS, is mounted nowhere."""
    at = tmp_path_factory.mktemp("guest")
    root, data = at / "root", at / "data"
    for name in ("etc", "bin", "data", "usr/share", "var/lib/dpkg"):
        (root / name).mkdir(parents=True)
    data.mkdir()
    (root / "etc/fstab").write_text("LABEL=ROOT / ext4 defaults 0 1\nLABEL=DATA /data ext4 defaults 0 2\n")
    (root / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n')
    (root / "etc/program").write_bytes(b"#!/bin/sh\necho no\n")
    (root / "etc/program").chmod(0o4755)
    (root / "etc/link").symlink_to("fstab")
    (root / "data/hidden").touch()
    (data / "big").write_bytes(CONTENT)
    (data / "secret").touch(mode=0o600)
    Path(os.fsdecode(os.fsencode(data) + b"/" + RAW)).write_text("raw name")
    made = {"vda": at / "vda.img", "vdb": at / "vdb.img", "vdc": at / "vdc.img"}
    for path in made.values():
        path.touch()
        os.truncate(path, 24 * MiB)
    tool("mke2fs", "-q", "-t", "ext4", "-L", "ROOT", "-d", root, made["vda"])
    tool("mke2fs", "-q", "-t", "ext4", "-L", "DATA", "-d", data, made["vdb"])
    tool("mkntfs", "-q", "-F", "-Q", "-L", "OTHER", made["vdc"])
    return made


def images(disks: dict[str, Path]) -> list[ImageToExport]:
    return [ImageToExport(key, "openers:file_image", {"path": str(path)}) for key, path in disks.items()]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "a place"
    made.mkdir()
    yield made
    subprocess.run(["umount", "-l", made], check=False, capture_output=True)


@dataclass
class Look:
    """At one mount from outside: where it is, where its private directory is made, its processes."""

    place: Path
    directory: Path
    mentioning: Mentioning
    eventually: Eventually

    def process(self, word: str) -> int:
        """The process of the mount in whose command line the word is; libguestfs forks a helper that has the same one."""
        all_of_it = psutil.process_iter(["pid", "ppid", "cmdline"])
        found = {p.pid: p.ppid() for p in all_of_it if self._is(p.info["cmdline"] or [], word)}
        (first,) = (process for process, parent in found.items() if parent not in found)
        return first

    def _is(self, words: list[str], word: str) -> bool:
        return str(self.directory) in " ".join(words) and any(word in each for each in words[:3])

    def nothing_is_left(self) -> bool:
        """In the end."""
        assert self.eventually(lambda: connection(self.place) is None)
        assert list(self.place.iterdir()) == []
        assert self.eventually(lambda: not self.mentioning(str(self.directory)))
        assert self.eventually(lambda: list(self.directory.iterdir()) == [])
        return True


@pytest.fixture
def look(place: Path, short_path: Path, mentioning: Mentioning, eventually: Eventually) -> Look:
    return Look(place, short_path, mentioning, eventually)


def one(disks: dict[str, Path]) -> dict[str, Path]:
    """The smallest machine that mounts."""
    return {"vdb": disks["vdb"]}


def test_the_guests_own_tree_is_read_like_a_disk_and_by_nobody_changed(
    disks: dict[str, Path], look: Look, eventually: Eventually
) -> None:
    place = look.place
    options = MountOptions(idle=timedelta(seconds=4))
    with Mounted(images(disks), place, OPENER, options, look.directory) as mounted:
        assert (place / "etc/fstab").read_text().startswith("LABEL=ROOT")
        assert (place / "data/big").read_bytes() == CONTENT
        assert RAW in [os.fsencode(path.name) for path in (place / "data").iterdir()]
        assert not (place / "data/hidden").exists()
        assert (place / "etc/link").readlink() == Path("fstab")
        assert (place / "etc/program").stat().st_mode & 0o7777 == 0o4755
        assert {v.device: v.mountpoint for v in mounted.volumes} == {
            "/dev/sda": "/",
            "/dev/sdb": "/data",
            "/dev/sdc": None,
        }
        for forbidden in (
            (place / "etc/new").touch,
            (place / "etc/fstab").unlink,
            partial((place / "etc/fstab").open, "r+"),
        ):
            with pytest.raises(OSError, match="Read-only file system") as caught:
                forbidden()
            assert caught.value.errno == errno.EROFS
        with pytest.raises(PermissionError):  # noexec
            subprocess.run([place / "etc/program"], check=False)
        flags = next(line for line in Path("/proc/mounts").read_text().splitlines() if "fuse.lanfree" in line).split()[
            3
        ]
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(flags.split(","))
        assert "allow_other" not in flags
        with pytest.raises(MountFailed, match="is mounted there already"):
            Mounted(images(disks), place, OPENER)
        with (place / "data/big").open("rb") as file:
            with pytest.raises(MountBusy, match="in use"):
                unmount(place)
            # Nobody asks for anything for longer than the idle time, but a program has a file open.
            deadline = time.monotonic() + 6
            assert eventually(lambda: mounted.ended() is not None or time.monotonic() > deadline)
            assert mounted.ended() is None
            assert file.read() == CONTENT
        assert eventually(lambda: mounted.ended() is not None)
        assert mounted.ended() == "nobody used it"
    assert look.nothing_is_left()


def test_volumes_side_by_side_and_a_person_unmounts(disks: dict[str, Path], look: Look, eventually: Eventually) -> None:
    place = look.place
    options = MountOptions(Layout.VOLUMES, others=True)
    with Mounted(images(disks), place, OPENER, options, look.directory) as mounted:
        assert sorted(path.name for path in place.iterdir()) == ["sda", "sdb", "sdc"]
        assert (place / "sda/data/hidden").exists()
        assert (place / "sdb/big").read_bytes() == CONTENT
        # The guest's modes hold for others: a file that only its owner may read stays so.
        nobody = partial(subprocess.run, user=65534, group=65534, extra_groups=[], check=False, capture_output=True)
        assert nobody(["cat", "sdb/big"], cwd=place).stdout == CONTENT
        assert nobody(["cat", "sdb/secret"], cwd=place).stderr.endswith(b"Permission denied\n")
        tool("umount", place)
        assert eventually(lambda: mounted.ended() == "it was unmounted")
    assert look.nothing_is_left()


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("mounter.worker", "the process that served it ended"),
        ("qemu-system", "its appliance ended"),
        ("nbdkit", "nbdkit ended with -9"),
    ],
    ids=["worker", "appliance", "server"],
)
def test_a_process_that_is_killed_ends_the_mount(disks: dict[str, Path], look: Look, word: str, why: str) -> None:
    with Mounted(images(one(disks)), look.place, OPENER, None, look.directory) as mounted:
        assert mounted.ended() is None
        os.kill(look.process(word), 9)
        assert look.eventually(lambda: mounted.ended() is not None)
        assert why in str(mounted.ended())
    assert look.nothing_is_left()


@pytest.mark.parametrize("both", [False, True], ids=["keeper", "keeper and worker"])
def test_a_keeper_that_is_killed_leaves_nothing_mounted(
    disks: dict[str, Path],
    look: Look,
    abandoned: Callable[[str], tuple[subprocess.Popen[bytes], str]],
    both: bool,
) -> None:
    place = look.place
    code = (
        "import pathlib, threading; from functools import partial; from mounter.fuse.mounted import Mounted\n"
        "from mounter.export import ImageToExport; from mounter.remote import libguestfs\n"
        f"images = [ImageToExport('vdb', 'openers:file_image', {{'path': {str(disks['vdb'])!r}}})]\n"
        f"mounted = Mounted(images, pathlib.Path({str(place)!r}), partial(libguestfs, accelerate=False, memory_mib=512),"
        f" None, pathlib.Path({str(look.directory)!r}))\n"
        "print(mounted.ended(), flush=True)\n"
        "threading.Event().wait()"
    )
    keeper, told = abandoned(code)
    assert told == "None"
    assert (place / "sda/big").read_bytes() == CONTENT
    worker = look.process("mounter.worker")
    keeper.kill()
    if both:
        os.kill(worker, 9)
    assert look.nothing_is_left()


def test_a_place_that_is_not_an_empty_directory_is_refused_before_anything_starts(
    disks: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MountFailed, match="not empty"):
        Mounted(images(disks), tmp_path, OPENER)
    with pytest.raises(MountFailed, match="Not a directory"):
        Mounted(images(disks), tmp_path / "file", OPENER)
    with pytest.raises(MountFailed, match="No such file"):
        Mounted(images(disks), tmp_path / "nowhere", OPENER)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
