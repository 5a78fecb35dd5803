"""What a guest mounts over the network, out of its own configuration."""

from mounter.memory import MemoryFilesystem, MemoryVolume
from mounter.ports import FileEntry, Volume
from mounter.volumes.network import NetworkVolume, find

ROOT = Volume("root", "/dev/sda1", "ext4", "", "u1", 100, "/")


class Guest:
    """A session over one volume that is the guest's root."""

    def __init__(self, files: dict[bytes, bytes], modes: dict[bytes, int] | None = None) -> None:
        volume = MemoryVolume(ROOT)
        for path, content in files.items():
            volume.add_file(path, content, mode=(modes or {}).get(path, 0o644))
        self._filesystem = MemoryFilesystem([volume])

    def list_directory(self, path: bytes) -> list[FileEntry]:
        return list(self._filesystem.list_directory(ROOT, path))

    def entry(self, path: bytes) -> FileEntry:
        return self._filesystem.entry(ROOT, path)

    def read(self, path: bytes):  # type: ignore[no-untyped-def]
        return self._filesystem.read(ROOT, path)


def test_an_empty_guest_has_none() -> None:
    assert find(Guest({})) == []


def test_fstab_tells_network_volumes_and_no_others() -> None:
    text = b"""# comment
UUID=1 / ext4 defaults 0 1
nas:/export/home /home nfs4 rw,_netdev 0 0
//files/my\\040share /mnt/share cifs credentials=/root/secret 0 0
server:/vol /gluster fuse.glusterfs defaults 0 0
/dev/sdb1 /data ocfs2 _netdev 0 0
tmpfs /tmp tmpfs rw 0 0
"""
    assert find(Guest({b"/etc/fstab": text})) == [
        NetworkVolume("nfs4", "nas:/export/home", "/home", "/etc/fstab"),
        NetworkVolume("cifs", "//files/my share", "/mnt/share", "/etc/fstab"),
        NetworkVolume("glusterfs", "server:/vol", "/gluster", "/etc/fstab"),
        NetworkVolume("ocfs2", "/dev/sdb1", "/data", "/etc/fstab"),
    ]


def test_a_password_in_a_source_is_not_shown() -> None:
    (found,) = find(Guest({b"/etc/fstab": b"//joe:secret@files/share /mnt cifs rw 0 0\n"}))
    assert found.source == "//joe@files/share"
    (found,) = find(Guest({b"/etc/fstab": b"//joe:p@ss@files/share /mnt cifs rw 0 0\n"}))
    assert found.source == "//joe@files/share"


def test_what_a_terminal_would_obey_is_shown_and_not_sent() -> None:
    (found,) = find(Guest({b"/etc/fstab": b"nas:/\\033]0;x\\012y /m\\033[2J nfs rw 0 0\n"}))
    assert found.source.isprintable()
    assert found.mountpoint.isprintable()


def test_systemd_mount_units_tell() -> None:
    unit = b"[Unit]\nDescription=x\n[Mount]\nWhat=nas:/backup\nWhere=/srv/backup\nType=nfs\n"
    local = b"[Mount]\nWhat=/dev/sdb1\nWhere=/data\nType=ext4\n"
    guest = Guest({b"/etc/systemd/system/srv-backup.mount": unit, b"/etc/systemd/system/data.mount": local})
    assert find(guest) == [NetworkVolume("nfs", "nas:/backup", "/srv/backup", "/etc/systemd/system/srv-backup.mount")]


def test_initiator_databases_tell_targets_and_portals() -> None:
    guest = Guest(
        {
            b"/etc/iscsi/nodes/iqn.2003-01.org:disk/10.0.0.1,3260,1/default": b"node.name = x",
            b"/var/lib/iscsi/nodes/iqn.2005-10.org:tank/10.0.0.2,3260,1": b"node.name = y",
        }
    )
    assert [(v.kind, v.source) for v in find(guest)] == [
        ("iscsi", "iqn.2003-01.org:disk at 10.0.0.1:3260"),
        ("iscsi", "iqn.2005-10.org:tank at 10.0.0.2:3260"),
    ]


def test_plain_autofs_maps_are_read_and_programs_are_not_run() -> None:
    guest = Guest(
        {
            b"/etc/auto.master": b"/misc /etc/auto.misc\n/net -hosts\n/prog /etc/auto.prog\n",
            b"/etc/auto.misc": b"data -fstype=nfs4,ro nas:/data\nwin -fstype=cifs ://files/win\n"
            b"cd -fstype=iso9660 :/dev/cdrom\n",
            b"/etc/auto.prog": b"data nas:/never\n",
        },
        {b"/etc/auto.prog": 0o755},
    )
    assert find(guest) == [
        NetworkVolume("nfs4", "nas:/data", "/misc/data", "/etc/auto.misc"),
        NetworkVolume("cifs", "//files/win", "/misc/win", "/etc/auto.misc"),
        NetworkVolume("nfs", "every host's exports", "/net", "/etc/auto.master"),
    ]


def test_what_is_too_large_to_be_configuration_is_passed_over() -> None:
    assert find(Guest({b"/etc/fstab": b"nas:/x /x nfs rw 0 0\n" * 100_000})) == []


def test_a_hostile_guest_cannot_make_the_list_endless() -> None:
    lines = b"".join(b"nas:/%d /m%d nfs rw 0 0\n" % (n, n) for n in range(5000))
    assert len(find(Guest({b"/etc/fstab": lines}))) == 1000
