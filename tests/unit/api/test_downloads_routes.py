"""Files that leave restore points by the API: whole, in parts, as archives; and what is said of those that are not whole."""

import io
import os
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.auth.roles import Caller, Role, allowed
from api.schemas.files import DownloadRequest
from appliance.web import downloads
from appliance.web.downloads import MOST_OF_ONE
from mounter.memory import MemoryVolume
from mounter.ports import Volume
from proxy.errors import IntegrityError
from proxy.model import RestorePoint
from tests.unit.api.api_site import ApiSite
from tests.unit.api.guest_volumes import Guests, volume

pytestmark = pytest.mark.slow

V1 = "/api/v1"
NOISE = os.urandom(300_000)


@pytest.fixture
def guests(site: ApiSite, app: FastAPI) -> Iterator[Guests]:
    yield Guests(site)
    app.state.desk.mounts.close()


@pytest.fixture
def root() -> MemoryVolume:
    made = volume()
    made.add_file(b"/srv/report.pdf", NOISE, mtime_ns=1_700_000_000_000_000_000)
    made.add_file(b"/srv/empty", b"")
    made.add_file(b"/srv/sub/CON", b"device")
    made.add_file(b"/srv/sub/a:b\\c?.txt", b"windows")
    made.add_link(b"/srv/sub/out", b"../../../etc/shadow")
    made.add_file(b"/other/report.pdf", b"another")
    made.add_file(b'/odd/na"me\r\nSet-Cookie: x=1;\xff.txt', b"odd")
    return made


@pytest.fixture
def point(site: ApiSite, guests: Guests, root: MemoryVolume) -> RestorePoint:
    made = site.point(site.machine("db-1"))
    guests.hold(made, root, index=True)
    return made


def get(api: TestClient, point: RestorePoint, path: str, headers: dict[str, str] | None = None, **query: str) -> Any:
    address = f"{V1}/restore-points/{point.id}/files/download"
    return api.get(address, params={"path": path, **query}, headers=headers or {})


def report_in(names: list[str]) -> str:
    (name,) = [each for each in names if each.startswith("LANFREE-REPORT-")]
    assert names[-1] == name, "it is the last one"
    return name


def test_one_file_comes_as_it_is_with_its_length(api: TestClient, point: RestorePoint) -> None:
    answer = get(api, point, "/srv/report.pdf")

    assert answer.status_code == 200
    assert answer.content == NOISE
    assert answer.headers["Content-Length"] == str(len(NOISE))
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert 'filename="report.pdf"' in answer.headers["Content-Disposition"]
    assert get(api, point, "/srv/empty").content == b""


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-1999", 1000, 2000),
        ("bytes=299000-", 299_000, 300_000),
        ("bytes=-10", 299_990, 300_000),
        ("bytes=299999-999999999", 299_999, 300_000),
        ("bytes=-999999999", 0, 300_000),
    ],
)
def test_parts_of_a_file_are_what_they_are_in_the_whole(
    api: TestClient, point: RestorePoint, asked: str, start: int, end: int
) -> None:
    answer = get(api, point, "/srv/report.pdf", {"Range": asked})

    assert answer.content == NOISE[start:end]
    assert answer.headers["Content-Length"] == str(end - start)
    if (start, end) != (0, len(NOISE)):
        assert answer.status_code == 206
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(NOISE)}"


def test_a_part_that_a_file_does_not_have_is_refused(api: TestClient, point: RestorePoint) -> None:
    answer = get(api, point, "/srv/report.pdf", {"Range": "bytes=300000-"})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == "bytes */300000"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert get(api, point, "/srv/empty", {"Range": "bytes=-1"}).status_code == 416


@pytest.mark.parametrize("asked", ["bytes=1-2,4-5", "lines=1-2", "bytes=5-2", "bytes=x-", "bytes=-", "bytes=٣-٤"])
def test_a_range_that_is_none_of_ours_is_as_if_it_were_not_there(
    api: TestClient, point: RestorePoint, asked: str
) -> None:
    answer = get(api, point, "/srv/report.pdf", {"Range": asked.encode()})  # type: ignore[dict-item]  # bytes go too
    assert answer.status_code in (200, 416)
    assert answer.status_code == 416 or answer.content == NOISE


def test_a_part_of_another_version_is_not_sent(api: TestClient, point: RestorePoint) -> None:
    etag = get(api, point, "/srv/report.pdf").headers["ETag"]

    same = get(api, point, "/srv/report.pdf", {"Range": "bytes=0-9", "If-Range": etag})
    other = get(api, point, "/srv/report.pdf", {"Range": "bytes=0-9", "If-Range": '"other"'})

    assert (same.status_code, len(same.content)) == (206, 10)
    assert (other.status_code, len(other.content)) == (200, len(NOISE))


def test_what_is_longer_than_any_name_of_a_restore_point_is_refused(api: TestClient) -> None:
    answer = api.get(f"{V1}/restore-points/{'a' * 129}/files/download", params={"path": "/etc/hosts"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_only_regular_files_are_sent_raw_and_links_are_not_followed(api: TestClient, point: RestorePoint) -> None:
    for path in ("/srv", "/srv/sub/out", "/srv/sub/out/shadow", "/srv/none", "/srv/../srv/report.pdf"):
        assert get(api, point, path).status_code == 404, path


def test_a_name_from_the_guest_injects_no_header(api: TestClient, point: RestorePoint) -> None:
    (odd,) = api.get(f"{V1}/restore-points/{point.id}/files", params={"path": "/odd"}).json()["items"]

    answer = api.get(f"{V1}/restore-points/{point.id}/files/download", params={"path_id": odd["path_id"]})

    assert answer.content == b"odd"
    assert "Set-Cookie" not in answer.headers
    assert "\n" not in answer.headers["Content-Disposition"]


def test_a_folder_comes_as_a_zip_whose_names_windows_takes(api: TestClient, point: RestorePoint) -> None:
    answer = get(api, point, "/srv", format="zip")

    assert answer.headers["Content-Type"] == "application/zip"
    assert 'filename="srv.zip"' in answer.headers["Content-Disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert archive.read("srv/report.pdf") == NOISE
        link = archive.getinfo("srv/sub/out")
        assert (link.external_attr >> 16 & 0o170000, archive.read(link)) == (0o120000, b"../../../etc/shadow")
        assert "Complete" in archive.read(report_in(names)).decode()
    assert not any(letter in name for name in names for letter in ':\\?*"<>|')
    assert "srv/sub/CON" not in names
    assert not any(name.startswith(("/", "..")) or "/../" in name for name in names)


@pytest.mark.parametrize("kind", ["tar", "tar.zst"])
def test_a_folder_comes_as_a_tar(api: TestClient, point: RestorePoint, kind: str) -> None:
    content = get(api, point, "/srv", format=kind).content
    if kind == "tar.zst":
        content = zstandard.ZstdDecompressor().decompressobj().decompress(content)

    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        names = archive.getnames()
        member = archive.extractfile("srv/report.pdf")
        assert member is not None
        assert member.read() == NOISE
        assert archive.getmember("srv/sub/out").issym()
        report = archive.extractfile(report_in(names))
        assert report is not None
        assert f"restore point {point.id}" in report.read().decode()


def test_a_tar_is_taken_by_gnu_tar_without_a_word(api: TestClient, point: RestorePoint, tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.mkdir()
    content = get(api, point, "/srv", format="tar").content

    done = subprocess.run(["tar", "-x", "-C", str(place)], input=content, capture_output=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert (place / "srv/report.pdf").read_bytes() == NOISE
    assert str((place / "srv/sub/out").readlink()) == "../../../etc/shadow"


def test_what_cannot_be_read_is_named_in_the_archive(api: TestClient, point: RestorePoint, root: MemoryVolume) -> None:
    root.contents[b"/srv/report.pdf"] = NOISE[:1000]  # shorter than the file system says

    with zipfile.ZipFile(io.BytesIO(get(api, point, "/srv", format="zip").content)) as archive:
        report = archive.read(report_in(archive.namelist())).decode()

    assert "NOT COMPLETE: 1 entries" in report
    assert "/srv/report.pdf: " in report


def test_a_file_that_ends_short_breaks_off_before_its_length(
    api: TestClient, point: RestorePoint, root: MemoryVolume
) -> None:
    root.contents[b"/srv/report.pdf"] = NOISE[:1000]

    answer = get(api, point, "/srv/report.pdf")

    assert len(answer.content) <= 1000 < int(answer.headers["Content-Length"])


def test_an_archive_whose_repository_fails_in_the_middle_cannot_pass_for_whole(
    api: TestClient, site: ApiSite, guests: Guests
) -> None:
    made = site.point(site.machine("db-1"))
    root = volume()
    for number in range(20):
        root.add_file(f"/d/{number:02d}".encode(), NOISE)
    guests.hold(made, root)
    guests.fails_after = 10, IntegrityError("chunk 7", "is not what was stored")

    kept = get(api, made, "/d", format="tar").content
    (place := site.file.parent / "out").mkdir()
    done = subprocess.run(["tar", "-x", "-C", str(place)], input=kept, capture_output=True, timeout=60, check=False)

    assert done.returncode == 0, "single files fail, the archive goes on"
    with tarfile.open(fileobj=io.BytesIO(kept)) as archive:
        report = archive.extractfile(report_in(archive.getnames()))
        assert report is not None
        assert b"NOT COMPLETE: 10 entries" in report.read()


def offered(api: TestClient, point: RestorePoint, *paths: str, **more: Any) -> Any:
    body = {"point": point.id, "paths": [{"path": path} for path in paths], **more}
    return api.post(f"{V1}/downloads", json=body)


def test_a_link_is_good_once_and_for_its_user(
    api: TestClient, api_as: Callable[..., TestClient], point: RestorePoint, stranger: TestClient
) -> None:
    link = offered(api, point, "/srv/report.pdf", format="raw").json()

    assert link["name"] == "report.pdf"
    assert link["url"].startswith(f"{V1}/downloads/")
    assert stranger.get(link["url"]).status_code == 401
    assert api_as(Role.RESTORE_OPERATOR, name="other").get(link["url"]).status_code == 404
    assert api.get(link["url"]).content == NOISE
    assert api.get(link["url"]).status_code == 404


def test_a_link_is_good_for_a_short_time(api: TestClient, point: RestorePoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "LINK_SECONDS", 0.0)
    link = offered(api, point, "/srv/report.pdf", format="raw").json()

    assert api.get(link["url"]).status_code == 404


def test_a_link_to_what_is_not_there_is_not_made(api: TestClient, point: RestorePoint) -> None:
    assert offered(api, point, "/srv/none").status_code == 404
    assert offered(api, point, "/srv", format="raw").status_code == 404
    assert offered(api, point, "/srv", "/other", format="raw").status_code == 422
    assert offered(api, point).status_code == 422


def test_a_selection_comes_in_one_archive_and_names_that_clash_keep_their_folders(
    api: TestClient, point: RestorePoint
) -> None:
    def names(*paths: str, **more: Any) -> list[str]:
        link = offered(api, point, *paths, **more).json()
        with zipfile.ZipFile(io.BytesIO(api.get(link["url"]).content)) as archive:
            return [name for name in archive.namelist() if not name.endswith("/")][:-1]

    assert names("/srv/empty", "/other/report.pdf") == ["empty", "report.pdf"]
    assert names("/srv/report.pdf", "/other/report.pdf") == ["other/report.pdf", "srv/report.pdf"]
    assert names("/srv/empty", full_paths=True) == ["srv/empty"]


def test_the_name_of_an_archive_of_many_tells_machine_and_time(api: TestClient, point: RestorePoint) -> None:
    link = offered(api, point, "/srv", "/other").json()

    assert link["name"] == f"db-1-{point.created_at:%Y-%m-%d-%H%M}.zip"


def test_a_download_needs_its_permission_and_is_recorded(
    api: TestClient, api_as: Callable[..., TestClient], point: RestorePoint, site: ApiSite
) -> None:
    assert get(api_as(Role.OPERATOR), point, "/srv/report.pdf").status_code == 403
    assert offered(api_as(Role.AUDITOR), point, "/srv/report.pdf").status_code == 403
    get(api_as(Role.RESTORE_OPERATOR, name="alice"), point, "/srv/report.pdf")

    (entry,) = site.services.catalog.audit.list(limit=1)
    assert entry.who.startswith("alice")
    assert (entry.action, entry.point, entry.detail["paths"]) == ("download", point.id, ["/srv/report.pdf"])


def test_nobody_takes_all_places_and_a_place_is_free_when_a_download_ends(
    api: TestClient, app: FastAPI, point: RestorePoint, root: MemoryVolume
) -> None:
    root.add_file(b"/huge", bytes(64 << 20))
    files = app.state.desk.files
    caller = Caller("admin", allowed([Role.ADMINISTRATOR]))
    request = DownloadRequest.model_validate({"point": point.id, "paths": [{"path": "/huge"}], "format": "raw"})
    held = [files.download(caller, request) for _ in range(MOST_OF_ONE)]

    answer = get(api, point, "/srv/report.pdf")
    assert (answer.status_code, answer.json()["code"]) == (429, "too-many")
    for each in held:
        each.pieces.close()
    deadline = time.monotonic() + 60
    while get(api, point, "/srv/report.pdf").status_code == 429:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert get(api, point, "/srv/report.pdf").content == NOISE


def test_a_volume_that_needs_a_key_is_downloaded_from_through_its_session(
    api: TestClient, site: ApiSite, guests: Guests
) -> None:
    made = site.point(site.machine("enc-1"))
    data = MemoryVolume(Volume("v", "/dev/sda1", "ext4", "", "", 0, "/"))
    data.add_file(b"/secret", b"gold")
    guests.sealed.add("/dev/sda1")
    guests.hold(made, data)
    keys = [{"secret": guests.secret.decode()}]
    session = api.post(f"{V1}/mount-sessions", json={"point": made.id, "keys": keys}).json()["id"]

    assert get(api, made, "/secret").status_code == 404
    assert get(api, made, "/secret", session=session).content == b"gold"
    link = offered(api, made, "/secret", format="raw", session=session).json()
    assert api.get(link["url"]).content == b"gold"
