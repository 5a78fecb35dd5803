"""A machine of six disks in one appliance: Linux with a volume over two disks, NTFS, and two kinds of rubbish."""

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from catalog.search import Query
from catalog.unit_of_work import Catalog
from mounter.export import ImageToExport
from mounter.extract import into_directory
from mounter.remote import libguestfs
from mounter.session import MountSession
from mounter.walk import TreeWalk
from proxy.errors import IntegrityError, MountEnded
from proxy.model import Consistency, Level, MachineConfiguration, RestorePoint
from proxy.units import MiB

pytestmark = [
    pytest.mark.tools,
    pytest.mark.requires("nbdkit", "mke2fs", "mkntfs", "ntfscp", "debugfs", "module:guestfs"),
]

JOURNAL = os.urandom(5 * MiB + 17)
FSTAB = "LABEL=ROOT / ext4 defaults 0 1\n/dev/guests/data /data ext4 defaults 0 2\n"
OS_RELEASE = 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'


Eventually = Callable[[Callable[[], bool]], bool]


class Clock:
    """The machine's."""

    def now(self) -> datetime:
        """UTC."""
        return datetime.now(UTC)


def tool(*words: str | Path) -> bytes:
    return subprocess.run([str(w) for w in words], check=True, timeout=120, capture_output=True).stdout


def blank(path: Path, size: int) -> Path:
    path.touch()
    os.truncate(path, size)
    return path


def linux(path: Path, root: Path) -> Path:
    """A root file system that is recognised as Debian."""
    for name in ("etc", "bin", "data", "usr/share", "var/lib/dpkg"):
        (root / name).mkdir(parents=True)
    (root / "etc/fstab").write_text(FSTAB)
    (root / "etc/os-release").write_text(OS_RELEASE)
    (root / "etc/hostname").write_text("guest1\n")
    (root / "data/hidden").write_text("under the mount point")
    tool("mke2fs", "-q", "-t", "ext4", "-L", "ROOT", "-d", root, blank(path, 24 * MiB))
    return path


def volume_over(*disks: Path, journal: Path) -> None:
    """/dev/guests/data over two disks, made by an appliance: the machine's own kernel is left out of it."""
    import guestfs  # noqa: PLC0415  only where the module is required

    os.environ["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
    g = guestfs.GuestFS(python_return_dict=True)
    g.set_backend("direct")
    for disk in disks:
        g.add_drive_opts(str(disk), format="raw")
    g.launch()
    names = g.list_devices()
    for name in names:
        g.pvcreate(name)
    g.vgcreate("guests", names)
    g.lvcreate_free("data", "guests", 100)
    g.mkfs("ext4", "/dev/guests/data")
    g.mount("/dev/guests/data", "/")
    g.upload(str(journal), "/journal")
    g.shutdown()
    g.close()


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    at = tmp_path_factory.mktemp("machine")
    (at / "journal").write_bytes(JOURNAL)
    made = {"vda": linux(at / "vda.img", at / "root")}
    made |= {key: blank(at / f"{key}.img", 16 * MiB) for key in ("vdb", "vdc")}
    volume_over(made["vdb"], made["vdc"], journal=at / "journal")
    made["vdd"] = blank(at / "vdd.img", 8 * MiB)
    tool("mkntfs", "-q", "-F", "-Q", "-L", "WIN", made["vdd"])
    tool("ntfscp", "-f", made["vdd"], at / "journal", "Grüße.bin")
    made["vde"] = at / "vde.img"
    made["vde"].write_bytes(os.urandom(MiB))
    made["vdf"] = blank(at / "vdf.img", 8 * MiB)
    tool("mke2fs", "-q", "-t", "ext4", "-L", "TORN", made["vdf"])
    with made["vdf"].open("r+b") as file:
        file.seek(2048)  # behind the superblock, which goes on to promise a file system
        file.write(os.urandom(MiB))
    return made


def appliances(processes: list[int]) -> list[int]:
    """Those that are QEMU."""
    found: list[int] = []
    for process in processes:
        with suppress(OSError):
            if b"qemu-system" in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0]:
                found.append(process)
    return found


def session_of(
    disks: dict[str, Path], bad: dict[str, int] | None = None, directory: Path | None = None
) -> MountSession:
    damage = bad or {}
    images = [
        ImageToExport(key, "openers:file_image", {"path": str(path), "bad": damage.get(key)})
        for key, path in disks.items()
    ]
    return MountSession(images, libguestfs(accelerate=False), clock=Clock(), directory=directory)


@pytest.fixture(scope="module")
def session(disks: dict[str, Path]) -> Iterator[MountSession]:
    with session_of(disks) as opened:
        yield opened


def test_the_operating_system_is_recognised(session: MountSession) -> None:
    (system,) = session.operating_systems()
    assert (system.type, system.distribution, system.hostname) == ("linux", "debian", "guest1")
    assert (system.product, system.version) == ("Debian GNU/Linux 12 (bookworm)", "12.0")


def test_every_volume_is_there_and_what_cannot_be_opened_says_why(session: MountSession) -> None:
    by_device = {v.device: v for v in session.volumes()}
    assert {d: (v.type, v.mountpoint) for d, v in by_device.items() if v.problem is None} == {
        "/dev/sda": ("ext4", "/"),
        "/dev/guests/data": ("ext4", "/data"),
        "/dev/sdd": ("ntfs", None),
    }
    assert {d for d, v in by_device.items() if v.problem} == {"/dev/sde", "/dev/sdf"}
    assert by_device["/dev/sde"].problem == "no file system that we know"
    assert "mount" in str(by_device["/dev/sdf"].problem)


def test_a_volume_over_two_disks_is_read_where_the_guest_mounts_it(session: MountSession, tmp_path: Path) -> None:
    done = into_directory(session, b"/data/journal", tmp_path)
    assert (done.size, done.sha256) == (len(JOURNAL), hashlib.sha256(JOURNAL).hexdigest())
    assert (tmp_path / "journal").read_bytes() == JOURNAL
    assert b"hidden" not in [e.name for e in session.list_directory(b"/data")]


def test_ntfs_is_read(session: MountSession) -> None:
    path = "/dev/sdd:/Grüße.bin".encode()
    assert b"".join(session.read(path)) == JOURNAL


def test_the_files_of_the_machine_are_found_in_the_catalog(session: MountSession) -> None:
    point = RestorePoint(
        "p1", "m1", "db", "h1", "r1", datetime.now(UTC), Level.FULL, Consistency.CRASH, (), MachineConfiguration("", "")
    )
    walk = TreeWalk(session)
    with Catalog("sqlite://") as catalog:
        with catalog.transaction() as unit:
            unit.restore_points.add(point)
        count = catalog.index("p1", walk, walk.volumes)
        with catalog.transaction(write=False) as unit:
            assert [f.path for f in unit.files.search(Query("journal")).files] == [b"/data/journal"]
            (found,) = unit.files.search(Query("grüsse.BIN")).files
            assert (found.path, found.size) == ("/dev/sdd:/Grüße.bin".encode(), len(JOURNAL))
            assert {f.path for f in unit.files.list_directory("p1", b"/data")} == {
                b"/data/journal",
                b"/data/lost+found",
            }
            assert {v.device for v in unit.files.volumes("p1") if v.problem} == {"/dev/sde", "/dev/sdf"}
    assert count == 16


def test_the_appliance_has_no_network_and_no_kvm_where_that_is_not_wanted(
    session: MountSession, mentioning: Callable[[str], list[int]]
) -> None:
    directory = str(session._export.directory)
    running = appliances(mentioning(directory))
    assert running
    for process in running:
        words = Path(f"/proc/{process}/cmdline").read_bytes()
        assert b"netdev" not in words
        assert b"accel=kvm" not in words


def test_damage_below_is_told_as_damage_and_a_dead_server_ends_the_session(
    disks: dict[str, Path], tmp_path: Path, mentioning: Callable[[str], list[int]]
) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/good").write_bytes(b"good" * 1000)
    (tmp_path / "root/bad").write_bytes(JOURNAL)
    image = blank(tmp_path / "vda.img", 32 * MiB)
    tool("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", tmp_path / "root", image)
    blocks = tool("debugfs", "-R", "blocks /bad", image).split()
    with session_of({"vda": image}, bad={"vda": int(blocks[-1]) * 4096}) as session:
        path = session.volumes()[0].guest_path
        with pytest.raises(IntegrityError, match="restore point p1"):
            into_directory(session, path(b"/bad"), tmp_path)
        assert not (tmp_path / "bad").exists()
        assert [e.name for e in session.list_directory(path(b"/"))] == [b"bad", b"good", b"lost+found"]
        (server,) = mentioning(str(session._export.served[0].socket) + "\0python")
        os.kill(server, 9)
        with pytest.raises(MountEnded, match="nbdkit ended with -9"):
            b"".join(session.read(path(b"/bad")))


def test_an_appliance_that_does_not_start_in_time_is_killed(
    disks: dict[str, Path], short_path: Path, mentioning: Callable[[str], list[int]], eventually: Eventually
) -> None:
    images = [ImageToExport("vda", "openers:file_image", {"path": str(disks["vda"])})]
    with pytest.raises(MountEnded, match="within 3 s"):
        MountSession(images, libguestfs(accelerate=False, open_seconds=3), clock=Clock(), directory=short_path)
    assert eventually(lambda: not mentioning(str(short_path)))
    assert list(short_path.iterdir()) == []


def test_the_appliance_ends_when_our_process_is_killed(
    disks: dict[str, Path],
    short_path: Path,
    abandoned: Callable[[str], tuple[subprocess.Popen[bytes], str]],
    mentioning: Callable[[str], list[int]],
    eventually: Eventually,
) -> None:
    code = (
        "import pathlib; from mounter.export import Export, ImageToExport; from mounter.remote import libguestfs\n"
        f"export = Export([ImageToExport('vda', 'openers:file_image', {{'path': {str(disks['vda'])!r}}})],\n"
        f"    pathlib.Path({str(short_path)!r}))\n"
        "print(export.directory, flush=True)\n"
        "libguestfs(accelerate=False)(export.served, export.directory)"
    )
    process, directory = abandoned(code)
    assert directory
    assert eventually(lambda: bool(appliances(mentioning(directory))))
    process.kill()
    assert eventually(lambda: not mentioning(directory))
