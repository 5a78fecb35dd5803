import io
import os
import stat
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mounter.ports import FileType
from mounter.restore import content, zip_format
from mounter.restore import zip as zips
from mounter.restore.sink import PlainSink
from mounter.restore.tree import RestoreReport, restore_files
from mounter.restore.zip import ZipTarget, name_of
from proxy.errors import Cancelled, MountFailed

pytestmark = pytest.mark.slow

TIME = 1_700_000_001_000_000_000
FIXED = "extended attributes and access rules (not looked at, zip holds none)"


class OneWay(io.BytesIO):
    """As a pipe: nobody can look back."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: Any) -> int:
        raise io.UnsupportedOperation


def archived(guest: Any, *paths: bytes, failing: Any = None) -> tuple[bytes, RestoreReport]:
    stream = OneWay()
    with guest.session() as session, ZipTarget(PlainSink(stream, "stream")) as target:
        report = restore_files(failing(session) if failing else session, paths, target)
    return stream.getvalue(), report


def everything(guest: Any) -> None:
    guest.put(b"/d", FileType.DIRECTORY, mode=0o750, mtime_ns=TIME)
    guest.file(b"/d/plain", b"text " * 1000, mode=0o640, mtime_ns=TIME, uid=70_000)
    guest.file(b"/d/noise", os.urandom(5000))
    guest.file("/d/grüße".encode(), b"UTF-8", mtime_ns=-TIME)
    guest.file(b"/d/..\\..\\\xff", b"hostile", mtime_ns=TIME * 1000)
    guest.file(b"/d/one", b"12", inode=7, links=2, mtime_ns=5)
    guest.file(b"/d/two", b"12", inode=7, links=2)
    guest.put(b"/d/link", FileType.SYMLINK, link_target=b"../\xff")
    guest.put(b"/d/fifo", FileType.FIFO)
    guest.file(b"/d/empty", b"")


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("large", [False, True], ids=["32-bit", "64-bit"])
def test_a_reader_of_zip_finds_every_entry_and_what_is_lost_is_told(
    guest: Any, monkeypatch: pytest.MonkeyPatch, streamed: bool, large: bool
) -> None:
    if streamed:
        monkeypatch.setattr(content, "READ_AHEAD", 0)
        monkeypatch.setattr(zips, "READ_AHEAD", 0)
    if large:
        monkeypatch.setattr(zips, "LARGE", 0)
        monkeypatch.setattr(zip_format, "_FULL16", 3)
    everything(guest)
    data, report = archived(guest, b"/d")
    hostile = name_of(b"..\\..\\\xff").decode()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        facts = {info.filename: info for info in archive.infolist()}
        contents = {name: archive.read(name) for name in facts}
    assert contents == {
        "d/": b"",
        "d/plain": b"text " * 1000,
        "d/noise": guest.root.contents[b"/d/noise"],
        "d/grüße": b"UTF-8",
        f"d/{hostile}": b"hostile",
        "d/one": b"12",
        "d/two": b"12",
        "d/link": b"../\xff",
        "d/empty": b"",
    }
    assert (facts["d/plain"].external_attr >> 16, facts["d/plain"].date_time) == (
        stat.S_IFREG | 0o640,
        (2023, 11, 14, 22, 13, 20),
    )
    assert stat.S_ISLNK(facts["d/link"].external_attr >> 16)
    assert facts["d/plain"].compress_size < 200
    assert {loss.what: loss.count for loss in report.losses} == {
        FIXED: 9,
        "fifo (zip has none)": 1,
        "hard link (made a copy)": 1,
        "name (escaped)": 1,
        "time (beyond 1901 to 2038)": 1,
        "time (fraction of a second)": 1,
    }
    assert report.complete


@pytest.mark.tools
@pytest.mark.requires("unzip", "root")
def test_unzip_restores_it(guest: Any, tmp_path: Path) -> None:
    everything(guest)
    (tmp_path / "a.zip").write_bytes(archived(guest, b"/d")[0])
    done = subprocess.run(["unzip", "-q", "-X", "a.zip"], cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    plain = (tmp_path / "d/plain").stat()
    assert (stat.S_IMODE(plain.st_mode), plain.st_mtime_ns, plain.st_uid) == (0o640, TIME, 70_000)
    assert os.fsencode((tmp_path / "d/link").readlink()) == b"../\xff"
    assert (tmp_path / "d" / name_of(b"..\\..\\\xff").decode()).read_bytes() == b"hostile"


def test_a_file_that_fails_in_the_middle_is_refused_by_whoever_extracts_it_and_the_others_are_whole(
    guest: Any, failing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "READ_AHEAD", 1000)
    monkeypatch.setattr(zips, "READ_AHEAD", 1000)
    for name in (b"/a", b"/b", b"/c"):
        guest.file(name, name[-1:] * 9000)
    broken = MountFailed("/b", "damaged")
    data, report = archived(guest, b"/", failing=lambda s: failing(s, {b"/b": (4, broken)}))
    assert [p.path for p in report.problems] == [b"/b"]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() == "b"
        assert (archive.read("a"), archive.read("c")) == (b"a" * 9000, b"c" * 9000)
        with pytest.raises(zipfile.BadZipFile, match="Bad CRC"):
            archive.read("b")
        assert archive.comment.startswith(b"INCOMPLETE: 1 damaged")


def test_given_up_it_is_no_zip(guest: Any) -> None:
    guest.file(b"/a", b"a")
    guest.file(b"/b", b"b")
    stream = OneWay()
    calls = iter(range(1000))
    with guest.session() as session, ZipTarget(PlainSink(stream, "s")) as target, pytest.raises(Cancelled):
        restore_files(session, [b"/a", b"/b"], target, cancelled=lambda: next(calls) > 1)
    assert stream.getvalue().startswith(b"PK\3\4")
    assert not zipfile.is_zipfile(io.BytesIO(stream.getvalue()))


@given(st.binary(min_size=1, max_size=40), st.binary(min_size=1, max_size=40))
def test_names_become_utf8_without_separators_and_stay_apart(one: bytes, two: bytes) -> None:
    first, second = name_of(one), name_of(two)
    for given_name, name in ((one, first), (two, second)):
        assert not set(name.decode()) & set('\\:"<>|?*\n\r\0')
        assert name.count(b"/") == given_name.count(b"/")
    assert (one == two) == (first == second)


def test_an_escaped_directory_is_the_same_for_all_that_is_in_it() -> None:
    assert name_of(b"d\xff/a/b").split(b"/")[0] == name_of(b"d\xff")
    assert name_of(b"100%/plain") == b"100%/plain"


@given(st.integers(-(1 << 80), 1 << 80))
def test_any_time_becomes_one_that_dos_has(mtime: int) -> None:
    time, date = zip_format.dos_time(mtime)
    assert (0 <= time < 1 << 16, 0x21 <= date < 1 << 16) == (True, True)


@pytest.mark.parametrize(
    "name", [b"CON", b"nul.txt", b"Com1", b"lpt9.log", "com¹".encode(), b"aux .x", b"dot.", b"space "]
)
def test_a_name_that_windows_takes_for_something_else_is_escaped(name: bytes) -> None:
    made = name_of(b"d/" + name).decode()

    assert made.startswith("d/")
    part = made.removeprefix("d/")
    assert part != name.decode()
    assert part.partition(".")[0].rstrip(" ").lower() not in {"con", "nul", "com1", "com¹", "lpt9", "aux"}
    assert not part.endswith((".", " "))


def test_names_that_only_look_like_devices_stay() -> None:
    assert name_of(b"console/common.txt/com10/x.con") == b"console/common.txt/com10/x.con"


@pytest.mark.parametrize(("content", "most"), [(os.urandom(5 << 20), 1.01), (b"line of text\n" * 500_000, 0.05)])
def test_a_large_file_is_packed_where_that_is_worth_it(content: bytes, most: float, guest: Any) -> None:
    guest.file(b"/large", content)
    data, _ = archived(guest, b"/large")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.read("large") == content
        assert archive.getinfo("large").compress_size < most * len(content)
