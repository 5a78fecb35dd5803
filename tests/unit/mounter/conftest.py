"""A machine in memory for the mounter's tests: two volumes, one of them mounted over a directory of the other."""

import pytest

from mounter.memory import MemoryFilesystem, MemoryVolume
from mounter.ports import Volume

ROOT = Volume("root", "/dev/sda1", "ext4", "", "u1", 100, "/")
DATA = Volume("data", "/dev/sdb", "ext4", "", "u2", 100, "/data")
LOOSE = Volume("loose", "/dev/sdc", "ext4", "", "u3", 100)
BROKEN = Volume("broken", "/dev/sdd", "xfs", "", "u4", 100, "/broken", "bad superblock")


@pytest.fixture
def filesystem() -> MemoryFilesystem:
    root, data, loose = MemoryVolume(ROOT), MemoryVolume(DATA), MemoryVolume(LOOSE)
    root.add_file(b"/etc/hostname", b"guest\n", mtime_ns=1_700_000_000_123_456_789, mode=0o4640)
    root.add_file(b"/data/hidden", b"under the mount point")
    root.add_link(b"/link", b"/etc/passwd")
    data.add_file(b"/journal", b"0123456789" * 1000)
    data.add_file(b"/database", b"x")
    loose.add_file(b"/x", b"loose")
    return MemoryFilesystem([root, data, loose, MemoryVolume(BROKEN)])
