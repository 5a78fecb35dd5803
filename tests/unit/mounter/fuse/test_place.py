"""Reading the kernel's list of mounts, and refusing places that are no empty directories."""

from pathlib import Path

import pytest

from mounter.fuse.place import check, connection, unmount, unmount_now
from proxy.errors import MountFailed

MOUNTINFO = r"""
22 27 0:20 / /proc rw,nosuid - proc proc rw
70 27 0:41 / /srv/a\040place\134 ro,nosuid,nodev,noexec shared:7 master:2 - fuse.lanfree lanfree ro,user_id=0
71 27 0:42 / /srv/sshfs rw - fuse.sshfs host:/ rw
72 27 0:43 / /srv/twice rw - fuse.lanfree lanfree ro
73 27 0:44 / /srv/twice rw - tmpfs tmpfs rw
74 27 0:45 / /srv/odd - fuse.lanfree lanfree ro
""".lstrip()


@pytest.mark.parametrize(
    ("place", "number"),
    [
        pytest.param("/srv/a place\\", 41, id="ours, whatever its name"),
        pytest.param("/srv/sshfs", None, id="another program's"),
        pytest.param("/srv/twice", None, id="ours, covered by another"),
        pytest.param("/srv/odd", 45, id="without optional fields"),
        pytest.param("/srv", None, id="nothing is there"),
    ],
)
def test_only_a_mount_of_ours_that_people_see_is_found(tmp_path: Path, place: str, number: int | None) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTINFO)
    assert connection(Path(place), mounts) == number


def test_a_place_is_an_empty_directory_by_its_real_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    assert check(tmp_path / "link") == (tmp_path / "empty").resolve()
    with pytest.raises(MountFailed, match="not empty"):
        check(tmp_path)
    with pytest.raises(MountFailed, match="No such file"):
        check(tmp_path / "nowhere")


def test_where_nothing_is_mounted_there_is_nothing_to_unmount(tmp_path: Path) -> None:
    unmount(tmp_path)
    unmount_now(tmp_path)
    assert list(tmp_path.iterdir()) == []
