import io
import os
import struct
import subprocess
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mounter.ports import FileType
from mounter.restore import content, pax, tar
from mounter.restore.content import segments_of, within
from mounter.restore.sink import PlainSink, ZstdSink
from mounter.restore.tar import TarTarget
from mounter.restore.tree import RestoreReport, restore_files
from proxy.errors import Cancelled, MountFailed, TargetFailed

TIME = 1_700_000_000_123_456_789
RULES = struct.pack(
    "<I" + "HHI" * 5, 2, 1, 6, 2**32 - 1, 2, 4, 1234, 4, 4, 2**32 - 1, 16, 6, 2**32 - 1, 32, 0, 2**32 - 1
)


def everything(guest: Any) -> None:
    """One of each kind, with all that a tar has to hold."""
    guest.put(b"/d", FileType.DIRECTORY, mode=0o2750, mtime_ns=TIME, uid=5_000_000, gid=4_000_000_000)
    guest.file(b"/d/old", b"before 1970", mtime_ns=-1_500_000_000, mode=0o4755)
    guest.file(b"/d/\xff\xfe\n", b"not UTF-8", mtime_ns=TIME)
    guest.file("/d/grüße".encode(), b"UTF-8", mtime_ns=300 * 365 * 86400 * 10**9)
    guest.file(b"/d/" + b"long/" * 60 + b"n" * 200, b"long")
    guest.file(b"/d/" + b"p" * 120 + b"/name", b"prefix")
    guest.file(b"/d/attributes", b"x", xattrs={b"user.a=b%c": b"\0=\n\xff", b"system.posix_acl_access": RULES})
    guest.file(b"/d/one", b"12", inode=7, links=2)
    guest.file(b"/d/two", b"12", inode=7, links=2)
    guest.put(b"/d/link", FileType.SYMLINK, link_target=b"\xff" * 150, mtime_ns=TIME)
    guest.put(b"/d/null", FileType.CHARACTER_DEVICE, device=(1, 3))
    guest.put(b"/d/fifo", FileType.FIFO)
    guest.put(b"/d/socket", FileType.SOCKET)
    holes = bytes(1 << 20) + b"data" * 1024 + bytes(1 << 20) + b"end"
    guest.file(b"/d/sparse\xff", holes, allocated=8192)
    guest.file(b"/d/hole", bytes(100_000), allocated=0)


def archived(guest: Any, *paths: bytes, failing: Any = None, compressed: bool = False) -> tuple[bytes, RestoreReport]:
    stream = io.BytesIO()
    sink = ZstdSink(stream, "stream") if compressed else PlainSink(stream, "stream")
    with guest.session() as session, TarTarget(sink) as target:
        report = restore_files(failing(session) if failing else session, paths, target)
    return stream.getvalue(), report


def opened(data: bytes) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape")


def gnu_tar(data: bytes, to: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    to.mkdir(exist_ok=True)
    return subprocess.run(
        ["tar", "-x", "-C", str(to), *options], input=data, capture_output=True, timeout=60, check=False
    )


def test_a_reader_of_tar_finds_every_entry_with_its_facts(guest: Any) -> None:
    everything(guest)
    data, report = archived(guest, b"/d")
    assert len(data) % 10240 == 0
    with opened(data) as archive:
        members = {os.fsencode(m.name): m for m in archive}
        contents = {name: archive.extractfile(m).read() for name, m in members.items() if m.isreg()}  # type: ignore[union-attr]
    assert (members[b"d"].isdir(), members[b"d"].mode, members[b"d"].uid, members[b"d"].gid) == (
        True,
        0o2750,
        5_000_000,
        4_000_000_000,
    )
    assert members[b"d"].pax_headers["mtime"] == "1700000000.123456789"
    assert members[b"d/old"].pax_headers["mtime"] == "-1.5"
    assert members[b"d/old"].mode == 0o4755
    assert contents[b"d/\xff\xfe\n"] == b"not UTF-8"
    assert contents[b"d/" + b"long/" * 60 + b"n" * 200] == b"long"
    assert contents[b"d/" + b"p" * 120 + b"/name"] == b"prefix"
    assert "path" not in members[b"d/" + b"p" * 120 + b"/name"].pax_headers
    assert members[b"d/attributes"].pax_headers["SCHILY.acl.access"] == (
        "user::rw-,user:1234:r--,group::r--,mask::rw-,other::---"
    )
    assert (members[b"d/two"].islnk(), members[b"d/two"].linkname) == (True, "d/one")
    assert os.fsencode(members[b"d/link"].linkname) == b"\xff" * 150
    assert (members[b"d/null"].ischr(), members[b"d/null"].devmajor, members[b"d/null"].devminor) == (True, 1, 3)
    assert members[b"d/fifo"].isfifo()
    assert contents[b"d/sparse\xff"] == bytes(1 << 20) + b"data" * 1024 + bytes(1 << 20) + b"end"
    assert contents[b"d/hole"] == bytes(100_000)
    assert (report.complete, [loss.what for loss in report.losses]) == (True, ["socket (tar has none)"])
    assert len(data) < 100_000


@pytest.mark.tools
@pytest.mark.requires("tar", "root")
def test_gnu_tar_restores_the_same(guest: Any, tmp_path: Path) -> None:
    everything(guest)
    data, _ = archived(guest, b"/d")
    done = gnu_tar(data, tmp_path / "to", "--xattrs", "--xattrs-include=*", "--acls", "-p", "--same-owner")
    assert done.returncode == 0
    said = [line for line in done.stderr.decode().splitlines() if "time stamp" not in line]
    assert said == ["tar: Ignoring unknown extended header keyword 'hdrcharset'"], "for the one long name"
    at = os.fsencode(tmp_path / "to" / "d")
    names = {entry.name for entry in os.scandir(at)} - {b"long", b"p" * 120}
    assert names == {
        b"old", b"\xff\xfe\n", "grüße".encode(), b"attributes", b"one", b"two", b"link", b"null", b"fifo",
        b"sparse\xff", b"hole",
    }  # fmt: skip
    status = {name: os.lstat(at + b"/" + name) for name in names}
    assert status[b"old"].st_mtime_ns == -1_500_000_000
    assert status["grüße".encode()].st_mtime_ns == 300 * 365 * 86400 * 10**9
    assert status[b"old"].st_mode & 0o7777 == 0o4755
    top = os.lstat(at)
    assert (top.st_mtime_ns, top.st_uid, top.st_gid) == (TIME, 5_000_000, 4_000_000_000)
    assert os.getxattr(at + b"/attributes", b"user.a=b%c") == b"\0=\n\xff"
    assert os.getxattr(at + b"/attributes", "system.posix_acl_access") == RULES
    assert status[b"one"].st_ino == status[b"two"].st_ino
    assert os.fsencode((tmp_path / "to/d/link").readlink()) == b"\xff" * 150
    assert status[b"null"].st_rdev == os.makedev(1, 3)
    assert Path(os.fsdecode(at + b"/sparse\xff")).read_bytes().endswith(b"end")
    assert (status[b"sparse\xff"].st_size, status[b"sparse\xff"].st_blocks * 512) == ((2 << 20) + 4099, 8192)
    assert status[b"hole"].st_blocks == 0


@pytest.mark.parametrize("ahead", [1000, 1 << 20], ids=["read-twice", "read-once"])
def test_small_sparse_files_are_read_once(
    guest: Any, failing: Any, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    monkeypatch.setattr(content, "READ_AHEAD", ahead)
    guest.file(b"/f", bytes(50_000) + b"end", allocated=4096)
    seen: list[Any] = []

    def counted(session: Any) -> Any:
        seen.append(failing(session, {}))
        return seen[0]

    data, _ = archived(guest, b"/f", failing=counted)
    assert seen[0].read_paths == [b"/f"] * (2 if ahead == 1000 else 1)
    with opened(data) as archive:
        assert archive.extractfile("f").read() == bytes(50_000) + b"end"  # type: ignore[union-attr]
    assert len(data) == 10240


def test_zstd_holds_the_same_and_ends(guest: Any) -> None:
    everything(guest)
    plain, _ = archived(guest, b"/d")
    packed, _ = archived(guest, b"/d", compressed=True)
    assert zstandard.ZstdDecompressor().decompressobj().decompress(packed) == plain
    assert len(packed) < len(plain) / 10


def test_a_small_file_that_cannot_be_read_is_left_out(guest: Any, failing: Any) -> None:
    for name in (b"/a", b"/b", b"/c"):
        guest.file(name, b"x" * 3000)
    broken = MountFailed("/b", "damaged")
    data, report = archived(guest, b"/", failing=lambda s: failing(s, {b"/b": (2, broken)}))
    with opened(data) as archive:
        assert archive.getnames() == [".", "a", "c"]
    assert [p.path for p in report.problems] == [b"/b"]


@pytest.mark.parametrize("compressed", [False, True], ids=["tar", "zstd"])
def test_a_file_that_fails_in_the_middle_breaks_the_archive_and_not_the_others(
    guest: Any, failing: Any, monkeypatch: pytest.MonkeyPatch, compressed: bool
) -> None:
    monkeypatch.setattr(content, "READ_AHEAD", 1000)
    for name in (b"/a", b"/b", b"/c"):
        guest.file(name, name[-1:] * 9000)
    broken = MountFailed("/b", "damaged")
    data, report = archived(guest, b"/", failing=lambda s: failing(s, {b"/b": (4, broken)}), compressed=compressed)
    assert [p.path for p in report.problems] == [b"/b"]
    if compressed:
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    with opened(data) as archive:
        found: dict[str, bytes] = {}
        with pytest.raises(tarfile.ReadError, match="unexpected end"):
            for member in archive:
                found[member.name] = archive.extractfile(member).read() if member.isreg() else b""  # type: ignore[union-attr]
    assert found == {".": b"", "a": b"a" * 9000, "b": b"b" * 4000 + bytes(5000), "c": b"c" * 9000}
    assert data[-2000:].index(tar.LAST) < data[-2000:].index(b"\nb\n")


@pytest.mark.tools
@pytest.mark.requires("tar", "zstd")
@pytest.mark.parametrize("given_up", [False, True], ids=["damaged", "given-up"])
@pytest.mark.parametrize("compressed", [False, True], ids=["tar", "zstd"])
def test_gnu_tar_says_that_a_broken_archive_is_broken_and_extracts_the_rest(
    guest: Any, failing: Any, tmp_path: Path, compressed: bool, given_up: bool
) -> None:
    for name in (b"/a", b"/b", b"/c"):
        guest.file(name, name[-1:] * 5_000_000)
    stream = io.BytesIO()
    sink = ZstdSink(stream, "s") if compressed else PlainSink(stream, "s")
    with guest.session() as below, TarTarget(sink) as target:
        session = failing(below, {b"/b": (4900, MountFailed("/b", "damaged"))})
        if given_up:
            with pytest.raises(Cancelled):
                restore_files(session, [b"/a", b"/c"], target, cancelled=lambda: b"/c" in session.read_paths)
        else:
            restore_files(session, [b"/"], target)
    done = gnu_tar(stream.getvalue(), tmp_path / "to", *(["--zstd"] if compressed else []))
    assert done.returncode == 2
    assert b"Unexpected EOF" in done.stderr or b"premature end" in done.stderr
    assert (compressed and given_up) or (tmp_path / "to" / "a").read_bytes() == b"a" * 5_000_000
    assert given_up or (tmp_path / "to" / "c").read_bytes() == b"c" * 5_000_000


def test_given_up_between_two_members_it_breaks_off_too(guest: Any) -> None:
    guest.file(b"/a", b"a")
    guest.file(b"/b", b"b")
    stream = io.BytesIO()
    calls = iter(range(1000))
    with guest.session() as session, TarTarget(PlainSink(stream, "s")) as target, pytest.raises(Cancelled):
        restore_files(session, [b"/a", b"/b"], target, cancelled=lambda: next(calls) > 1)
    with opened(stream.getvalue()) as archive, pytest.raises(tarfile.ReadError):
        for member in archive:
            archive.extractfile(member).read()  # type: ignore[union-attr]


def test_a_reader_that_went_away_ends_the_restore(guest: Any) -> None:
    class Closed(io.BytesIO):
        def write(self, _data: Any) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    guest.file(b"/a", b"a")
    broken = pytest.raises(TargetFailed, match="stdout takes no more files: Broken pipe")
    with guest.session() as session, TarTarget(PlainSink(Closed(), "stdout")) as target, broken:
        restore_files(session, [b"/a"], target)


@given(st.binary(min_size=1, max_size=400), st.integers(0, 1 << 70), st.integers(-(1 << 80), 1 << 80))
def test_headers_hold_any_name_size_and_time(name: bytes, size: int, mtime: int) -> None:
    path = b"d/" + name.replace(b"\0", b"").replace(b"/", b"") + b"x"
    header = pax.Member(path, pax.FILE, size, mtime_ns=mtime).header()
    assert len(header) % 512 == 0
    found = tarfile.TarFile.open(fileobj=io.BytesIO(header), mode="r:", errors="surrogateescape").next()
    assert found is not None
    assert (os.fsencode(found.name), found.size) == (path, size)
    seconds, rest = divmod(mtime, 10**9)
    if rest or not 0 <= seconds < 8**11:
        whole, _, fraction = found.pax_headers["mtime"].partition(".")
        sign = -1 if whole.startswith("-") else 1
        assert int(whole) * 10**9 + sign * int(fraction.ljust(9, "0")) == mtime
    else:
        assert found.mtime == seconds


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 9000), st.booleans()), max_size=20), st.integers(1, 5000))
def test_segments_and_holes_give_the_content_back(runs: list[tuple[int, bool]], step: int) -> None:
    whole = b"".join(bytes(length) if empty else b"\1" * length for length, empty in runs)

    class Item:
        def pieces(self) -> Any:
            return iter([whole[at : at + step] for at in range(0, len(whole), step)])

    segments = segments_of(Item().pieces())
    assert all(a[1] < b[0] for a, b in pairwise(segments))
    found, data = bytearray(len(whole)), b"".join(within(Item().pieces(), segments))
    for start, stop in segments:
        found[start:stop], data = data[: stop - start], data[stop - start :]
    assert (bytes(found), data) == (whole, b"")


def test_a_file_with_very_many_holes_keeps_a_small_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "SEGMENTS", 10)
    whole = (bytes(4096) + b"x" * 4096) * 100 + bytes(1 << 20) + b"end"

    class Item:
        def pieces(self) -> Any:
            yield whole

    segments = segments_of(Item().pieces())
    assert segments == [(4096, 800 * 1024 + 4096 - 4096), (len(whole) - 3, len(whole))]
