"""``lanfree why-big`` with writes that are known: what it says must be what was written, and add up."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.config import load
from appliance.explaining import WhyBig, why_big
from appliance.indexing import index
from appliance.wiring import Services
from mounter.index.attribution import directories
from mounter.layout.owners import Part
from proxy.repository.compare import differing
from proxy.units import KiB, MiB
from tests.integration.appliance.point_maker import PointMaker

pytestmark = [
    pytest.mark.tools,
    pytest.mark.requires("mkfs.ext4", "debugfs", "mkntfs", "ntfscp", "mkswap", "sfdisk", "mcopy"),
]

ROOT = Path(__file__).parents[3]


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "lanfree.toml"
    path.write_text(
        f"[state]\ndirectory = '{tmp_path}/state'\n[repository]\npath = '{tmp_path}/repository'\nunencrypted = true\n"
    )
    return path


@pytest.fixture
def services(configuration: Path) -> Iterator[Services]:
    with Services(load(configuration)) as made:
        made.make_repository()
        yield made


def run(*argv: str | Path, text: str = "") -> None:
    subprocess.run([str(word) for word in argv], check=True, capture_output=True, input=text.encode())


def made(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def random_file(directory: Path, name: str, size: int) -> Path:
    path = directory / name
    path.write_bytes(os.urandom(size))
    return path


def written(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def adds_up(services: Services, answer: WhyBig) -> bool:
    """The shares are all that changed, by the images' own word."""
    assert answer.base is not None
    point, base = services.repository.point(answer.point), services.repository.point(answer.base)
    changed = 0
    for image in point.images:
        with (
            services.repository.open_image(base, image.key) as old,
            services.repository.open_image(point, image.key) as new,
        ):
            changed += sum(e.length for e in differing(old, new))
    return answer.changed == changed == sum(cause.bytes for cause in answer.causes)


def test_files_written_on_ext4_and_ntfs_are_named(services: Services, configuration: Path, tmp_path: Path) -> None:
    ext, ntfs = made(tmp_path / "vda.img", 96 * MiB), made(tmp_path / "vdb.img", 96 * MiB)
    run("mkfs.ext4", "-q", "-b", "4096", ext)
    run("mkntfs", "-F", "-q", "-f", ntfs)
    run("debugfs", "-w", "-R", "mkdir /var", ext)
    maker = PointMaker(services.repository)
    maker.make("web1", {"vda": ext, "vdb": ntfs})
    big, small = random_file(tmp_path, "big", 6 * MiB), random_file(tmp_path, "small", 1 * MiB)
    run("debugfs", "-w", "-R", f"write {big} /var/big.log", ext)
    run("debugfs", "-w", "-R", f"write {small} /small", ext)
    run("ntfscp", ntfs, random_file(tmp_path, "page", 3 * MiB), "pagefile.sys")
    answer = why_big(services, maker.make("web1", {"vda": ext, "vdb": ntfs}).id)
    assert answer.exact
    assert adds_up(services, answer)
    files = {c.path: c.bytes for c in answer.causes if c.part is Part.FILE}
    for path, size in (
        (b"/dev/sda:/var/big.log", 6 * MiB),
        (b"/dev/sda:/small", MiB),
        (b"/dev/sdb:/pagefile.sys", 3 * MiB),
    ):
        assert size * 0.95 <= files[path] <= size + 512 * KiB, path  # a file's first and last chunk are shared
    assert len(files) == 3
    assert [path for path, _ in directories(answer.causes)][:2] == [b"/dev/sda:", b"/dev/sda:/var"]
    code = "import sys; from appliance.cli import main; sys.argv[0] = 'lanfree'; main()"
    argv = ["--config", str(configuration), "--json", "why-big", answer.point]
    said = subprocess.run([sys.executable, "-c", code, *argv], cwd=ROOT, check=True, capture_output=True)
    document = json.loads(said.stdout)
    assert document["files"][0]["path"] == "/dev/sda:/var/big.log"
    assert sum(document["parts"].values()) == document["changed"] == answer.changed


def test_journal_swap_free_space_and_what_is_in_no_partition_are_told_apart(services: Services, tmp_path: Path) -> None:
    disk = made(tmp_path / "vda.img", 64 * MiB)
    run("sfdisk", "-q", disk, text="start=2048,size=65536,type=83\nstart=67584,size=16384,type=82\n")
    run("mkfs.ext4", "-q", "-b", "4096", "-E", f"offset={MiB}", disk, "32M")
    with (tmp_path / "swap").open("wb") as file:
        file.truncate(8 * MiB)
    run("mkswap", tmp_path / "swap")
    written(disk, 33 * MiB, (tmp_path / "swap").read_bytes())
    shown = subprocess.run(
        ["debugfs", "-R", "blocks <8>", f"{disk}?offset={MiB}"], check=True, capture_output=True, text=True
    ).stdout.split()
    maker = PointMaker(services.repository)
    maker.make("web1", {"vda": disk})
    written(disk, MiB + int(shown[len(shown) // 2]) * 4096, os.urandom(4096))  # in the journal
    written(disk, MiB + 30 * MiB, os.urandom(64 * KiB))  # no file is there
    written(disk, 35 * MiB, os.urandom(128 * KiB))  # in the swap
    written(disk, 50 * MiB, os.urandom(4096))
    answer = why_big(services, maker.make("web1", {"vda": disk}).id)
    assert adds_up(services, answer)
    chunk = services.repository.granularity
    assert {part: answer.part(part) for part in Part if answer.part(part)} == {
        Part.JOURNAL: chunk,
        Part.FREE: chunk,
        Part.SWAP: chunk,
        Part.UNPARTITIONED: chunk,
    }


def test_without_reading_the_images_chunks_count_by_what_is_in_them(services: Services, tmp_path: Path) -> None:
    disk = made(tmp_path / "vda.img", 64 * MiB)
    run("mkfs.ext4", "-q", "-b", "4096", disk)
    maker = PointMaker(services.repository)
    maker.make("web1", {"vda": disk})
    run("debugfs", "-w", "-R", f"write {random_file(tmp_path, 'big', 4 * MiB)} /big", disk)
    answer = why_big(services, maker.make("web1", {"vda": disk}).id, compare=False)
    assert not answer.exact
    assert adds_up(services, answer)
    assert answer.causes[0].path == b"/dev/sda:/big"


def test_a_first_restore_point_counts_all_its_data(services: Services, tmp_path: Path) -> None:
    disk = made(tmp_path / "vda.img", 32 * MiB)
    run("mkfs.ext4", "-q", disk)
    answer = why_big(services, PointMaker(services.repository).make("web1", {"vda": disk}).id)
    assert answer.base is None
    assert answer.changed == sum(cause.bytes for cause in answer.causes) > 0
    assert answer.part(Part.METADATA) > 0


def test_a_file_system_without_a_known_map_is_told_by_the_catalog(services: Services, tmp_path: Path) -> None:
    disk = made(tmp_path / "vda.img", 64 * MiB)
    run("mkfs.fat", "-F", "32", disk)
    maker = PointMaker(services.repository)
    first = maker.make("web1", {"vda": disk})
    run("mcopy", "-i", disk, random_file(tmp_path, "big", 4 * MiB), "::big.bin")
    run("mcopy", "-i", disk, random_file(tmp_path, "small", MiB), "::small.bin")
    second = maker.make("web1", {"vda": disk})
    blind = why_big(services, second.id)
    assert adds_up(services, blind)
    assert {cause.part for cause in blind.causes} == {Part.OTHER}
    assert any("not recorded" in note for note in blind.notes)
    for point in (first, second):
        index(services, point.id)
    answer = why_big(services, second.id)
    assert adds_up(services, answer)
    assert any("difference of the recorded files" in note for note in answer.notes)
    files = {cause.path.rpartition(b"/")[2]: cause for cause in answer.causes if cause.part is Part.FILE}
    assert {name: cause.bytes for name, cause in files.items()} == {b"big.bin": 4 * MiB, b"small.bin": MiB}
    assert all(cause.guessed for cause in files.values())
    assert answer.part(Part.OTHER) == answer.changed - 5 * MiB
