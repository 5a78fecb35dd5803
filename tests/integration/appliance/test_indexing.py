"""Index runs of real restore points, night after night: what is taken over and what is listed must add up to all files."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from appliance.config import load
from appliance.indexing import IndexReport, index
from appliance.wiring import Services
from mounter import choose
from mounter.export import Served
from mounter.ports import GuestFilesystem
from proxy.model import Consistency, ReasonCode, RestorePoint
from proxy.units import MiB
from tests.integration.appliance.point_maker import PointMaker
from tests.integration.mounter.mutations import DebugfsScribbler

pytestmark = [pytest.mark.tools, pytest.mark.requires("nbdkit", "mkfs.ext4", "debugfs", "mkntfs", "ntfscp")]

START = MiB
"""Where the first disk's partition begins."""


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    configuration = tmp_path / "lanfree.toml"
    configuration.write_text(
        f"[state]\ndirectory = '{tmp_path}/state'\n[repository]\npath = '{tmp_path}/repository'\nunencrypted = true\n"
    )
    with Services(load(configuration)) as made:
        made.make_repository()
        yield made


class Machine:
    """ext4 in a partition of ``vda``, NTFS on the whole of ``vdb``."""

    def __init__(self, directory: Path) -> None:
        self.disks = {"vda": directory / "vda.img", "vdb": directory / "vdb.img"}
        self.content = directory / "content"
        self.content.write_bytes(b"some words\n" * 700)
        for path in self.disks.values():
            with path.open("wb") as file:
                file.truncate(48 * MiB)
        run("sfdisk", "-q", str(self.disks["vda"]), text=f"start={START // 512}, type=83\n")
        offset = f"offset={START}"
        run("mkfs.ext4", "-q", "-b", "1024", "-N", "4096", "-E", offset, str(self.disks["vda"]), "47M")
        run("mkntfs", "-F", "-q", "-f", str(self.disks["vdb"]))
        self.ext = _Partition(7, self.disks["vda"], self.content)
        self.ext.script += ["mkdir /etc", f"write {self._file('x', 'nas:/home /home nfs rw 0 0')} /etc/fstab"]

    def _file(self, name: str, text: str) -> Path:
        path = self.content.with_name(name)
        path.write_text(text + "\n")
        return path

    def night(self, number: int, *, ntfs: bool) -> None:
        self.ext.round(30)
        if ntfs:
            run("ntfscp", str(self.disks["vdb"]), str(self.content), f"night{number}.txt")


class _Partition(DebugfsScribbler):
    """``debugfs`` takes where a file system begins after the name of its image."""

    def __init__(self, seed: int, image: Path, content: Path) -> None:
        super().__init__(seed, image, content)
        self.image = Path(f"{image}?offset={START}")


def run(*argv: str, text: str = "") -> None:
    subprocess.run(argv, check=True, capture_output=True, input=text.encode())


def files(services: Services, point: RestorePoint) -> set[tuple[object, ...]]:
    """All that the catalog says of a restore point's files."""
    found: set[tuple[object, ...]] = set()
    with services.catalog.transaction(write=False) as unit:
        waiting = [
            v.mountpoint.encode() if v.mountpoint else f"{v.device}:".encode() for v in unit.files.volumes(point.id)
        ]
        while waiting:
            for f in unit.files.list_directory(point.id, waiting.pop()):
                facts = (f.volume, f.path, f.type, f.size, f.mode, f.uid, f.gid)
                found.add((*facts, f.mtime_ns, f.ctime_ns, f.inode, f.link_target))
                if f.type == "directory":
                    waiting.append(f.path)
    return found


def codes(report: IndexReport) -> list[ReasonCode]:
    return [reason.code for reason in report.reasons if reason.code.value.startswith("index-")]


def test_taken_over_and_listed_files_are_all_files(services: Services, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    maker = PointMaker(services.repository)
    machine.night(0, ntfs=True)
    reports = [index(services, maker.make("web1", machine.disks).id)]
    assert codes(reports[0]) == [ReasonCode.INDEX_FULL] * 2
    assert reports[0].metadata_read == reports[0].metadata_total > 0
    for night, ntfs in ((1, False), (2, True)):
        machine.night(night, ntfs=ntfs)
        point = maker.make("web1", machine.disks)
        reports.append(index(services, point.id))
        expected = [ReasonCode.INDEX_INCREMENTAL, ReasonCode.INDEX_INCREMENTAL if ntfs else ReasonCode.INDEX_CARRIED]
        assert codes(reports[-1]) == expected, reports[-1].reasons
        taken_over = files(services, point)
        shutil.rmtree(services.settings.state.directory / "index-maps")
        again = index(services, point.id)  # nothing is remembered: all is listed
        assert codes(again) == [ReasonCode.INDEX_FULL] * 2
        assert taken_over == files(services, point)
    assert reports[-1].entries < again.entries
    with services.catalog.transaction(write=False) as unit:
        assert ReasonCode.INDEX_FULL in [r.code for r in unit.files.index_reasons(point.id)]


def test_what_the_image_says_of_itself_is_told(services: Services, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.night(0, ntfs=True)
    run("ntfsfix", str(machine.disks["vdb"]))  # asks Windows to check it
    for consistency, marked in ((Consistency.FILESYSTEM, True), (Consistency.CRASH, False)):
        point = PointMaker(services.repository, consistency=consistency).make(f"db-{marked}", machine.disks)
        report = index(services, point.id)
        told = [r.detail for r in report.reasons if r.code is ReasonCode.QUIESCED_BUT_DIRTY]
        assert len(told) == marked
        assert all("/dev/sdb" in detail and "$Volume" in detail for detail in told)
        with services.catalog.transaction(write=False) as unit:
            assert [v.state for v in unit.files.volumes(point.id)] == ["clean", "dirty"]


def test_a_memory_of_other_images_is_not_used(services: Services, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    maker = PointMaker(services.repository)
    machine.night(0, ntfs=True)
    first = maker.make("web1", machine.disks)
    index(services, first.id)
    (place,) = (services.settings.state.directory / "index-maps").iterdir()
    place.write_bytes(place.read_bytes()[:-100])
    machine.night(1, ntfs=False)
    report = index(services, maker.make("web1", machine.disks).id)
    assert codes(report) == [ReasonCode.INDEX_FULL] * 2
    assert any("no-memory" in reason.detail for reason in report.reasons)


def test_a_damaged_base_keeps_no_later_point_from_its_index(services: Services, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    maker = PointMaker(services.repository)
    machine.night(0, ntfs=True)
    first = maker.make("web1", machine.disks)
    index(services, first.id)
    machine.night(1, ntfs=True)
    second = maker.make("web1", machine.disks)
    for image in first.images:
        damaged = services.settings.repository.path / image.index
        damaged.chmod(0o600)
        damaged.write_bytes(b"\xff" * damaged.stat().st_size)
    assert codes(index(services, second.id)) == [ReasonCode.INDEX_FULL] * 2


def test_what_the_direct_reader_dies_of_is_listed_by_an_appliance(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path)
    machine.night(0, ntfs=True)
    point = PointMaker(services.repository).make("web1", machine.disks)
    expected = index(services, point.id)
    there = files(services, point)

    def dying(served: Sequence[Served], directory: Path) -> GuestFilesystem:
        filesystem = choose_directly(served, directory)
        os.kill(filesystem._process.pid, signal.SIGSEGV)  # type: ignore[attr-defined]  # as a fault in a parser would
        return filesystem

    choose_directly = choose.directly
    monkeypatch.setattr(choose, "directly", dying)
    report = index(services, point.id)
    assert expected.reasons[0].code is ReasonCode.FILES_READ_DIRECTLY
    assert report.reasons[0].code is ReasonCode.FILES_READ_BY_APPLIANCE
    assert files(services, point) == there
