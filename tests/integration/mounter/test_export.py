"""nbdkit with our plugin, asked by libnbd as any client would."""

import json
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mounter.export import PREFIX, CopyOnWrite, Export, ImageToExport
from proxy import repository as repositories
from proxy.command import run
from proxy.errors import IntegrityError, MountFailed, NoSpaceForOverlay, OverlayFull
from proxy.model import Consistency, Level, MachineConfiguration, RestorePoint
from proxy.repository import PosixStore
from proxy.units import KiB, MiB, TiB

SECRET = repositories.KeyFile(bytes(range(32)))

pytestmark = [pytest.mark.tools, pytest.mark.requires("nbdkit", "module:nbd")]


def image(path: Path, key: str = "vda", **more: object) -> ImageToExport:
    return ImageToExport(key, "openers:file_image", {"path": str(path), **more})


def connect(export: Export, number: int = 0) -> "object":
    import nbd  # noqa: PLC0415  only where the module is required

    handle = nbd.NBD()
    handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    handle.connect_uri(export.served[number].uri)
    return handle


def test_several_disks_are_served_byte_by_byte_and_read_only(sparse_image: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.img"
    other.write_bytes(b"other disk" * 1000)
    with Export([image(sparse_image), image(other, "vdb")]) as export:
        for number, path in ((0, sparse_image), (1, other)):
            handle = connect(export, number)
            assert handle.is_read_only()
            assert handle.can_multi_conn()
            assert handle.pread(handle.get_size(), 0) == path.read_bytes()
        assert [s.key for s in export.served] == ["vda", "vdb"]
        assert export.directory.stat().st_mode & 0o777 == 0o700
        export.check()
    assert not export.directory.exists()


def test_holes_stay_holes(sparse_image: Path) -> None:
    with Export([image(sparse_image)]) as export:
        handle = connect(export)
        found: list[int] = []
        handle.block_status(handle.get_size(), 0, lambda _context, _offset, entries, _error: found.extend(entries))
        handle.shutdown()
    chunk = 65536
    assert list(zip(found[::2], found[1::2], strict=True)) == [(chunk, 0), (7 * chunk, 3), (8 * chunk + 512, 0)]


def test_requests_of_many_threads_are_answered_rightly(sparse_image: Path) -> None:
    whole = sparse_image.read_bytes()
    wrong: list[int] = []
    with Export([image(sparse_image)]) as export:

        def read(start: int) -> None:
            handle = connect(export)
            offsets = range(start, len(whole) - 4096, 40_000)
            wrong.extend(o for o in offsets if handle.pread(4096, o) != whole[o : o + 4096])
            handle.shutdown()

        threads = [threading.Thread(target=read, args=(n,)) for n in (0, 511, 70_000, 500_000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_damage_is_an_io_error_for_the_client_and_told_here(sparse_image: Path) -> None:
    import nbd  # noqa: PLC0415

    with Export([image(sparse_image, bad=10 * 65536)]) as export:
        handle = connect(export)
        assert handle.pread(4096, 0) == sparse_image.read_bytes()[:4096]
        with pytest.raises(nbd.Error) as caught:
            handle.pread(4096, 10 * 65536)
        assert caught.value.errno == "EIO"
        with pytest.raises(IntegrityError, match="restore point p1: chunk at 655360 is not what was stored"):
            export.check()


def test_an_image_of_a_real_repository_is_served_with_its_holes_and_its_damage(
    sparse_image: Path, tmp_path: Path
) -> None:
    import nbd  # noqa: PLC0415

    data = sparse_image.read_bytes()
    (tmp_path / "repository").mkdir()
    with repositories.create(PosixStore(tmp_path / "repository"), chunk_size=65536, secret=SECRET) as repository:
        with repository.image_writer("vda", len(data), None) as writer:
            writer.write(0, memoryview(data))
            sealed = writer.seal()
        point = repository.seal(
            RestorePoint(
                *("", "m1", "db", "h1", "r1", datetime.now(UTC), Level.FULL, Consistency.CRASH, (sealed,)),
                configuration=MachineConfiguration("libvirt-xml", "<domain/>"),
            )
        )
    argument = {
        "repository": str(tmp_path / "repository"),
        "point": point.id,
        "key": "vda",
        "secret": SECRET.data.hex(),
    }
    images = [ImageToExport("vda", "openers:repository_image", argument)]
    with Export(images) as export:
        handle = connect(export)
        assert handle.pread(len(data), 0) == data
        kinds: list[int] = []
        handle.block_status(len(data), 0, lambda _context, _offset, entries, _error: kinds.extend(entries[1::2]))
        assert kinds == [0, 3, 0]
    for pack in (tmp_path / "repository").rglob("*"):
        if pack.is_file() and pack.stat().st_size > 65536 and "indexes" not in pack.parts:
            spoilt = bytearray(pack.read_bytes())
            spoilt[len(spoilt) // 2] ^= 1
            pack.chmod(0o600)
            pack.write_bytes(spoilt)
    with Export(images) as export:
        handle = connect(export)
        with pytest.raises(nbd.Error, match="Input/output error"):
            handle.pread(len(data), 0)
        with pytest.raises(IntegrityError):
            export.check()


def test_an_image_that_cannot_be_opened_says_why_and_leaves_nothing(sparse_image: Path, tmp_path: Path) -> None:
    bad = ImageToExport("vdb", "openers:nothing", {"point": "p9"})
    with pytest.raises(MountFailed, match="disk vdb for files: no restore point p9"):
        Export([image(sparse_image), bad], tmp_path)
    assert sorted(tmp_path.iterdir()) == [sparse_image]


def test_a_server_that_was_killed_is_noticed(
    sparse_image: Path, mentioning: Callable[[str], list[int]], eventually: Callable[[Callable[[], bool]], bool]
) -> None:
    with Export([image(sparse_image)]) as export:
        (server,) = mentioning(str(export.served[0].socket))
        os.kill(server, 9)
        assert eventually(lambda: export.ended() is not None)
        with pytest.raises(MountFailed, match="nbdkit ended with -9"):
            export.check()


def test_servers_outlive_the_thread_that_asked_for_them(sparse_image: Path) -> None:
    made: list[Export] = []
    thread = threading.Thread(target=lambda: made.append(Export([image(sparse_image)])))
    thread.start()
    thread.join()
    with made[0] as export:
        assert connect(export).pread(512, 0) == sparse_image.read_bytes()[:512]
        # The signal of a dying thread needs no time; what would be dead is dead by the second answer.
        assert connect(export).pread(512, 512) == sparse_image.read_bytes()[512:1024]
        export.check()


def exporting(image: Path, directory: Path) -> str:
    """Python that has an ``export`` of the image, which works below the directory."""
    return (
        "import threading, pathlib; from mounter.export import Export, ImageToExport\n"
        f"images = [ImageToExport('vda', 'openers:file_image', {{'path': {str(image)!r}}})]\n"
        f"export = Export(images, pathlib.Path({str(directory)!r}))\n"
    )


def test_servers_and_their_directory_go_when_our_process_is_killed(
    sparse_image: Path,
    tmp_path: Path,
    abandoned: Callable[[str], tuple[object, str]],
    mentioning: Callable[[str], list[int]],
    eventually: Callable[[Callable[[], bool]], bool],
) -> None:
    code = exporting(sparse_image, tmp_path) + "print(export.directory, flush=True)\nthreading.Event().wait()"
    process, directory = abandoned(code)
    assert mentioning(directory)
    process.kill()
    assert eventually(lambda: not mentioning(directory))
    assert eventually(lambda: sorted(tmp_path.iterdir()) == [sparse_image])


def test_servers_whose_parent_is_slow_to_die_tidy_up_all_the_same(
    sparse_image: Path,
    tmp_path: Path,
    abandoned: Callable[[str], tuple[object, str]],
    mentioning: Callable[[str], list[int]],
    eventually: Callable[[Callable[[], bool]], bool],
) -> None:
    # The servers are told that they lost their parent when the thread has ended that started them.
    code = exporting(sparse_image, tmp_path) + (
        "kept = list(export._keeper.processes)\n"
        "export._keeper.processes.clear(); export._keeper.end(); print(export.directory, flush=True)\n"
        "threading.Event().wait(1.0)\n"
        "import os; os._exit(9)"
    )
    _, directory = abandoned(code)
    assert Path(directory).exists(), "its parent lives"
    assert eventually(lambda: not mentioning(directory))
    assert eventually(lambda: sorted(tmp_path.iterdir()) == [sparse_image])


def test_what_killed_servers_have_left_is_swept_by_a_later_export_and_what_lives_is_not(
    sparse_image: Path, tmp_path: Path
) -> None:
    left = tmp_path / f"{PREFIX}left"
    left.mkdir(mode=0o700)
    (left / "0.json").touch()
    os.utime(left, (0, 0))
    with Export([image(sparse_image)], tmp_path) as later:
        assert sorted(tmp_path.iterdir()) == sorted([sparse_image, later.directory])
        os.utime(later.directory, (0, 0))
        with Export([], tmp_path):
            assert later.directory.exists()


@pytest.mark.requires("nbdinfo", "qemu-img")
def test_other_peoples_tools_see_the_holes_the_title_and_the_size_of_a_chunk(sparse_image: Path) -> None:
    described = ImageToExport(
        "vda", "openers:file_image", {"path": str(sparse_image)}, title="disk vda of db, 2026-11-22"
    )
    with Export([described]) as export:
        uri = export.served[0].uri
        (told,) = json.loads(run(["nbdinfo", "--json", uri], timeout=60).stdout)["exports"]
        assert (told["description"], told["block_size_preferred"]) == ("disk vda of db, 2026-11-22", 64 * KiB)
        assert told["is_read_only"] is True
        mapped = json.loads(run(["nbdinfo", "--map", "--json", uri], timeout=60).stdout)
        pieces = json.loads(run(["qemu-img", "map", "--output=json", "-f", "raw", uri], timeout=60).stdout)
    expected = [(0, 64 * KiB, False), (64 * KiB, 448 * KiB, True), (512 * KiB, 512 * KiB + 512, False)]
    assert [(m["offset"], m["length"], m["type"] == 3) for m in mapped] == expected
    assert [(p["start"], p["length"], p["zero"]) for p in pieces] == expected


@pytest.mark.requires("nbdcopy")
def test_a_client_that_reads_in_order_one_request_at_a_time_gets_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "large.img"
    with path.open("wb") as file:
        for number in range(12):
            file.seek(number * 2 * MiB)
            file.write(os.urandom(MiB + 12345))
    with Export([image(path)]) as export:
        slow = ("--connections=1", "--requests=1", "--threads=1", "--request-size=65536")
        run(["nbdcopy", *slow, export.served[0].uri, tmp_path / "copy.img"], timeout=60)
        run(["nbdcopy", export.served[0].uri, tmp_path / "other.img"], timeout=60)
        export.check()
    assert (tmp_path / "copy.img").read_bytes() == path.read_bytes()
    assert (tmp_path / "other.img").read_bytes() == path.read_bytes()


def test_what_a_client_writes_is_seen_by_all_and_never_reaches_the_image(sparse_image: Path, tmp_path: Path) -> None:
    before = sparse_image.read_bytes()
    (tmp_path / "overlays").mkdir()
    with Export([image(sparse_image)], cow=CopyOnWrite(tmp_path / "overlays", 64 * MiB)) as export:
        first, second = connect(export), connect(export)
        assert not first.is_read_only()
        first.pwrite(b"changed" * 100, 300)
        first.pwrite(bytes(1000), 2000)
        first.flush()
        expected = bytearray(before)
        expected[300:1000] = b"changed" * 100
        expected[2000:3000] = bytes(1000)
        assert second.pread(len(before), 0) == expected
        # The filter's file has no name: nobody finds it, and nothing is left of it whatever happens.
        assert list((tmp_path / "overlays").iterdir()) == []
        export.check()
    assert sparse_image.read_bytes() == before
    with Export([image(sparse_image)]) as export:
        assert connect(export).pread(len(before), 0) == before


def test_a_full_overlay_refuses_writes_with_no_space_left_and_reads_go_on(
    tmp_path: Path, eventually: Callable[[Callable[[], bool]], bool]
) -> None:
    import nbd  # noqa: PLC0415

    path = tmp_path / "disk.img"
    path.write_bytes(b"restored" * (4 * MiB // 8))
    with Export([image(path)], cow=CopyOnWrite(tmp_path, 2 * MiB)) as export:
        handle = connect(export)
        handle.pwrite(b"written!" * (2 * MiB // 8), 0)
        assert eventually(lambda: bool(export.problems()))
        for _ in range(3):
            with pytest.raises(nbd.Error) as caught:
                handle.pwrite(b"x" * 512, 3 * MiB)
            assert caught.value.errno == "ENOSPC"
        assert handle.pread(4 * MiB, 0) == b"written!" * (2 * MiB // 8) + b"restored" * (2 * MiB // 8)
        with pytest.raises(OverlayFull, match=r"disk vda: .* reached the limit of 2\.0 MiB"):
            export.check()


def test_an_overlay_for_which_there_is_no_room_is_refused_before_anything_is_started(
    sparse_image: Path, tmp_path: Path
) -> None:
    with pytest.raises(NoSpaceForOverlay, match="the overlay may need"):
        Export([image(sparse_image)], tmp_path, cow=CopyOnWrite(tmp_path, 1000 * TiB))
    with pytest.raises(MountFailed, match=r"nowhere for overlays .*: No such file"):
        Export([image(sparse_image)], tmp_path, cow=CopyOnWrite(tmp_path / "nowhere"))
    assert sorted(tmp_path.iterdir()) == [sparse_image]
