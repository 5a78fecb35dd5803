"""nbdkit with our plugin, asked by libnbd as any client would."""

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mounter.export import Export, ImageToExport
from proxy import repository as repositories
from proxy.errors import IntegrityError, MountFailed
from proxy.model import Consistency, Level, MachineConfiguration, RestorePoint
from proxy.repository import PosixStore

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


def test_servers_end_when_our_process_is_killed_and_the_next_export_tidies_up(
    sparse_image: Path,
    tmp_path: Path,
    abandoned: Callable[[str], tuple[object, str]],
    mentioning: Callable[[str], list[int]],
    eventually: Callable[[Callable[[], bool]], bool],
) -> None:
    code = (
        "import threading, pathlib; from mounter.export import Export, ImageToExport\n"
        f"images = [ImageToExport('vda', 'openers:file_image', {{'path': {str(sparse_image)!r}}})]\n"
        f"export = Export(images, pathlib.Path({str(tmp_path)!r})); print(export.directory, flush=True)\n"
        "threading.Event().wait()"
    )
    process, directory = abandoned(code)
    assert mentioning(directory)
    process.kill()
    assert eventually(lambda: not mentioning(directory))
    os.utime(directory, (0, 0))
    with Export([image(sparse_image)], tmp_path) as later:
        assert sorted(tmp_path.iterdir()) == sorted([sparse_image, later.directory])
        os.utime(later.directory, (0, 0))
        with Export([], tmp_path):
            assert later.directory.exists()
