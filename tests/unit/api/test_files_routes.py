"""Files of restore points over the API: listed, searched, compared, within reach and no further."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.auth.roles import Permission, Role
from api.schemas.guest_names import guest_path, id_of
from proxy.model import RestorePoint
from tests.unit.api.api_site import ApiSite
from tests.unit.api.guest_volumes import Guests, volume

V1 = "/api/v1"

pytestmark = pytest.mark.slow


@pytest.fixture
def guests(site: ApiSite, app: FastAPI) -> Iterator[Guests]:
    yield Guests(site)
    app.state.desk.mounts.close()


@pytest.fixture
def point(site: ApiSite, guests: Guests) -> RestorePoint:
    """Of db-1, recorded: /etc/hosts, /etc/passwd, /srv/…, a link, and a name that is not UTF-8."""
    made = site.point(site.machine("db-1"))
    root = volume()
    root.add_file(b"/etc/hosts", b"127.0.0.1 localhost\n", mtime_ns=1_700_000_000_123_456_789)
    root.add_file(b"/etc/passwd", b"root:x:0:0\n", mode=0o600)
    root.add_link(b"/etc/mtab", b"../proc/self/mounts")
    root.add_file(b"/srv/na\xefve\n.txt", b"odd")
    root.add_directory(b"/empty")
    guests.hold(made, root, index=True)
    return made


def names(answer: Any) -> list[str]:
    return [item["name"] for item in answer.json()["items"]]


def listing(api: TestClient, point: RestorePoint, **query: Any) -> Any:
    return api.get(f"{V1}/restore-points/{point.id}/files", params=query)


def test_a_recorded_directory_is_listed_without_opening_anything(
    api: TestClient, point: RestorePoint, guests: Guests
) -> None:
    answer = listing(api, point, path="/etc")

    assert answer.status_code == 200, answer.text
    assert answer.json()["source"] == "catalog"
    assert names(answer) == ["hosts", "mtab", "passwd"]
    hosts = answer.json()["items"][0]
    assert hosts["path"] == "/etc/hosts"
    assert (hosts["type"], hosts["size"], hosts["mode"]) == ("file", 20, 0o644)
    assert hosts["modified_at"].startswith("2023-11-14T22:13:20.123456")
    assert guests.opened == []


def test_a_directory_that_is_not_recorded_is_listed_by_opening_the_restore_point_once(
    api: TestClient, site: ApiSite, guests: Guests
) -> None:
    made = site.point(site.machine("web-1"))
    root = volume()
    root.add_file(b"/var/log/syslog", b"x" * 10)
    guests.hold(made, root)

    first, second = listing(api, made, path="/var"), listing(api, made, path="/var/log")

    assert first.json()["source"] == second.json()["source"] == "session"
    assert [item["path"] for item in second.json()["items"]] == ["/var/log/syslog"]
    assert guests.opened == [(made.id, 0)]


def test_a_long_directory_comes_in_pages_that_neither_skip_nor_repeat(
    api: TestClient, site: ApiSite, guests: Guests
) -> None:
    recorded, opened = site.point(site.machine("m-1")), site.point(site.machine("m-2"))
    root = volume()
    for number in range(7):
        root.add_file(f"/d/{number:02d}".encode(), b"")
    guests.hold(recorded, root, index=True)
    guests.hold(opened, root)

    for made in (recorded, opened):
        pages, cursor = [], None
        while True:
            answer = listing(api, made, path="/d", limit=3, **({"cursor": cursor} if cursor else {}))
            pages.append(names(answer))
            cursor = answer.json()["next"]
            if cursor is None:
                break
        assert pages == [["00", "01", "02"], ["03", "04", "05"], ["06"]]


def test_only_wanted_types_are_listed(api: TestClient, point: RestorePoint) -> None:
    assert names(listing(api, point, path="/", type="directory")) == ["empty", "etc", "srv"]
    assert names(listing(api, point, path="/etc", type=["file", "symlink"])) == ["hosts", "mtab", "passwd"]
    assert names(listing(api, point, path="/etc", type="symlink")) == ["mtab"]


def test_an_empty_directory_is_there_and_a_missing_one_is_not(api: TestClient, point: RestorePoint) -> None:
    assert names(listing(api, point, path="/empty")) == []
    assert listing(api, point, path="/nothing").status_code == 404
    assert listing(api, point, path="/etc/hosts").status_code == 404
    assert listing(api, point, path="/etc/hosts").json()["code"] == "guest-file-not-found"


def test_a_windows_machine_has_its_drives_at_the_root(api: TestClient, site: ApiSite, guests: Guests) -> None:
    made = site.point(site.machine("win-1"))
    system, data = volume("C:", "/dev/sda2", type="ntfs"), volume("D:", "/dev/sdb1", type="ntfs")
    system.add_file(b"/Users/alice/report.docx", b"text")
    guests.hold(made, system, data, index=True)

    assert names(listing(api, made)) == ["C:", "D:"]
    assert names(listing(api, made, path="C:")) == ["Users"]
    assert names(listing(api, made, path="C:\\Users\\alice")) == ["report.docx"]
    assert names(listing(api, made, path="D:")) == []


def test_what_could_not_be_read_is_told_with_the_reason(api: TestClient, site: ApiSite, guests: Guests) -> None:
    made = site.point(site.machine("enc-1"))
    root, data = volume(), volume("/data", "/dev/sdb1")
    root.add_file(b"/etc/hosts", b"")
    guests.sealed.add("/dev/sdb1")
    guests.hold(made, root, data, index=True)

    unread = listing(api, made, path="/etc").json()["unread"]

    assert [(each["device"], each["problem"]) for each in unread] == [
        ("/dev/sdb1", "it is encrypted, and no key opens it")
    ]
    volumes = api.get(f"{V1}/restore-points/{made.id}/volumes").json()
    assert [each["root"] for each in volumes["volumes"]] == ["/", "/dev/sdb1:"]


def test_names_that_are_not_utf8_are_shown_and_lead_back_by_their_id(api: TestClient, point: RestorePoint) -> None:
    (odd,) = listing(api, point, path="/srv").json()["items"]

    assert odd["name"] == "na%EFve%0A.txt"
    assert guest_path(None, odd["path_id"]) == b"/srv/na\xefve\n.txt"
    machine = api.get(f"{V1}/machines/db-1/files/versions", params={"path_id": odd["path_id"]})
    assert machine.json()["versions"][0]["size"] == 3


@pytest.mark.parametrize(
    "path",
    ["/etc/..", "/../etc", "/etc/../../etc/passwd", "/etc/./hosts", "..", "/etc/%2e%2e", "/..\\..\\etc", "\\..\\etc"],
)
def test_paths_lead_nowhere_but_into_the_image(api: TestClient, point: RestorePoint, path: str) -> None:
    answer = listing(api, point, path=path)

    assert answer.status_code == 404
    assert answer.json()["code"] == "guest-file-not-found"


def test_a_path_with_a_nul_or_without_end_is_refused(api: TestClient, point: RestorePoint) -> None:
    assert listing(api, point, path="/etc\0/hosts").status_code == 422
    assert listing(api, point, path="/" + "a" * 40_000).status_code == 422
    assert listing(api, point, path="/" + "a" * 30_000).status_code == 404
    assert listing(api, point, path_id=id_of(b"/etc\0x")).status_code == 404
    assert listing(api, point, path_id="A").status_code == 422
    assert listing(api, point, path_id=id_of(b"/etc/../etc")).status_code == 404


@pytest.mark.parametrize("cursor", ["", "x", "bnVsbA", "WzFd", "WyJBIl0", "WyIiXQ", "e30"])
def test_a_cursor_of_nobody_is_refused_or_harmless(api: TestClient, point: RestorePoint, cursor: str) -> None:
    assert listing(api, point, path="/etc", cursor=cursor).status_code in (200, 422)
    found = api.get(f"{V1}/files/search", params={"q": "hosts", "cursor": cursor})
    assert found.status_code == 422
    compared = api.get(f"{V1}/restore-points/{point.id}/files/compare/{point.id}", params={"cursor": cursor})
    assert compared.status_code in (200, 422)


def test_a_search_finds_files_of_all_machines_within_reach_and_of_no_others(
    api: TestClient, api_as: Callable[..., TestClient], site: ApiSite, guests: Guests
) -> None:
    for name in ("db-1", "db-2", "web-1"):
        made = site.point(site.machine(name))
        root = volume()
        root.add_file(f"/etc/{name}.conf".encode(), b"")
        guests.hold(made, root, index=True)
    site.point(site.machine("db-3"))
    site.point(site.machine("web-2"))

    def found(client: TestClient, **more: Any) -> list[str]:
        answer = client.get(f"{V1}/files/search", params={"q": "*.conf", **more})
        assert answer.status_code == 200, answer.text
        return sorted(item["machine_name"] for item in answer.json()["items"])

    limited = api_as(Role.RESTORE_OPERATOR, machines=("db-*",))
    nobody = api_as(Role.RESTORE_OPERATOR, machines=("mail-*",))
    assert found(api) == ["db-1", "db-2", "web-1"]
    assert found(limited) == ["db-1", "db-2"]
    assert found(nobody) == []
    assert found(limited, machine="db-2") == ["db-2"]
    refused = limited.get(f"{V1}/files/search", params={"q": "*.conf", "machine": "web-1"})
    assert (refused.status_code, refused.json()["code"]) == (404, "machine-not-found")
    assert api.get(f"{V1}/files/search").json()["unsearched"] == 2
    assert limited.get(f"{V1}/files/search").json()["unsearched"] == 1


def test_a_search_goes_on_with_its_cursor_and_nobody_elses(
    api: TestClient, api_as: Callable[..., TestClient], site: ApiSite, guests: Guests
) -> None:
    made = site.point(site.machine("db-1"))
    root = volume()
    for number in range(5):
        root.add_file(f"/data/{number}.bin".encode(), bytes(number))
    guests.hold(made, root, index=True)
    query = {"q": "*.bin", "limit": 2, "min_size": 1}

    first = api.get(f"{V1}/files/search", params=query).json()
    second = api.get(f"{V1}/files/search", params={**query, "cursor": first["next"]}).json()

    assert len(first["items"]) == len(second["items"]) == 2
    assert not {each["path"] for each in first["items"]} & {each["path"] for each in second["items"]}
    limited = api_as(Role.RESTORE_OPERATOR, machines=("web-*",))
    assert limited.get(f"{V1}/files/search", params={**query, "cursor": first["next"]}).json()["items"] == []
    other = api.get(f"{V1}/files/search", params={"q": "*.other", "cursor": first["next"]})
    assert (other.status_code, other.json()["code"]) == (422, "search-refused")


def test_extreme_times_and_sizes_are_answered(api: TestClient, point: RestorePoint) -> None:
    for query in (
        {"since": "0001-01-01T00:00:00Z"},
        {"until": "9999-12-31T23:59:59Z"},
        {"min_size": 2**63 - 1},
        {"q": "\ud7ff\U0010ffff"},
        {"q": "[" * 900},
        {"kind": "extension"},
    ):
        answer = api.get(f"{V1}/files/search", params=query)
        assert answer.status_code == 200, (query, answer.text)
    assert api.get(f"{V1}/files/search", params={"min_size": 2**63}).status_code == 422
    assert api.get(f"{V1}/files/search", params={"since": "2026-01-01T00:00:00"}).status_code == 422


@pytest.fixture
def nights(site: ApiSite, guests: Guests) -> list[RestorePoint]:
    """Three of db-1: report.txt changes, old.txt goes, new.txt comes, big.bin grows."""
    machine = site.machine("db-1")
    made = [site.point(machine, ago=timedelta(days=days)) for days in (3, 2, 1)]
    for night, each in enumerate(made):
        root = volume()
        root.add_file(b"/home/report.txt", b"r" * (10 + night), mtime_ns=night)
        root.add_file(b"/home/big.bin", b"b" * 1000 * (night + 1), mtime_ns=night)
        root.add_file(b"/home/same.txt", b"same")
        if night < 2:
            root.add_file(b"/home/old.txt", b"old")
        if night == 2:
            root.add_file(b"/home/new.txt", b"new")
        guests.hold(each, root, index=True)
    return made


def test_versions_of_a_file_name_the_restore_points_that_hold_them(api: TestClient, nights: list[RestorePoint]) -> None:
    answer = api.get(f"{V1}/machines/db-1/files/versions", params={"path": "/home/report.txt"}).json()

    assert [each["size"] for each in answer["versions"]] == [12, 11, 10]
    assert [[point["id"] for point in each["held_by"]] for each in answer["versions"]] == [
        [nights[2].id],
        [nights[1].id],
        [nights[0].id],
    ]
    assert [each["current"] for each in answer["versions"]] == [True, False, False]
    none = api.get(f"{V1}/machines/db-1/files/versions", params={"path": "/home/none"})
    assert none.status_code == 404


def test_two_restore_points_are_compared_below_a_path_in_pages(api: TestClient, nights: list[RestorePoint]) -> None:
    address = f"{V1}/restore-points/{nights[0].id}/files/compare/{nights[2].id}"

    whole = api.get(address).json()

    assert [(each["kind"], each["path"]) for each in whole["items"]] == [
        ("changed", "/home/big.bin"),
        ("added", "/home/new.txt"),
        ("removed", "/home/old.txt"),
        ("changed", "/home/report.txt"),
    ]
    assert whole["sums"]["growth"] == 2000 + 2
    first = api.get(address, params={"limit": 3}).json()
    second = api.get(address, params={"limit": 3, "cursor": first["next"]}).json()
    assert [*first["items"], *second["items"]] == whole["items"]
    assert second["next"] is None
    assert api.get(address, params={"path": "/etc"}).json()["items"] == []


def test_growth_tells_what_grew_most(api: TestClient, nights: list[RestorePoint]) -> None:
    answer = api.get(f"{V1}/machines/db-1/files/growth").json()

    assert [total["bytes"] for total in answer["totals"]] == [1017, 2018, 3019]
    assert answer["files"][0]["path"] == "/home/big.bin"
    assert answer["files"][0]["growth"] == 2000
    assert (answer["first"], answer["last"]) == (nights[0].id, nights[2].id)


def test_points_of_two_machines_are_not_compared(
    api: TestClient, site: ApiSite, guests: Guests, nights: list[RestorePoint]
) -> None:
    other = site.point(site.machine("web-1"))
    guests.hold(other, volume(), index=True)

    answer = api.get(f"{V1}/restore-points/{nights[0].id}/files/compare/{other.id}")
    assert (answer.status_code, answer.json()["code"]) == (422, "search-refused")
    grown = api.get(f"{V1}/machines/db-1/files/growth", params={"first": other.id})
    assert grown.status_code == 404


def test_a_lost_file_is_found_with_the_reasons_and_the_restore_point_to_take_it_from(
    api: TestClient, nights: list[RestorePoint]
) -> None:
    def lost(**query: Any) -> list[tuple[str, str, list[str]]]:
        answer = api.get(f"{V1}/files/lost", params={"machine": "db-1", **query})
        assert answer.status_code == 200, answer.text
        items = answer.json()["items"]
        return [(i["file"]["path"], i["point"]["id"], [r["code"] for r in i["reasons"]]) for i in items]

    gone = lost(name="old.txt")
    assert gone[0] == ("/home/old.txt", nights[1].id, ["deleted-since", "same-name"])
    everything = [path for path, _, _ in lost(name=".txt")]
    assert everything[:2] == ["/home/old.txt", "/home/report.txt"]
    assert sorted(everything[2:]) == ["/home/new.txt", "/home/same.txt"]
    then = (nights[0].created_at + timedelta(hours=1)).isoformat()
    asked = lost(name="report", when=then)
    assert asked[0] == ("/home/report.txt", nights[0].id, ["changed-since", "similar-name"])
    assert lost(name="new.txt", when=then)[0][2] == ["seen-only-later", "same-name"]
    assert lost(name="same.txt")[0] == ("/home/same.txt", nights[2].id, ["unchanged", "same-name"])


def test_what_is_out_of_reach_is_not_there(
    api_as: Callable[..., TestClient], nights: list[RestorePoint], site: ApiSite
) -> None:
    limited = api_as(Role.RESTORE_OPERATOR, machines=("web-*",))
    point = nights[0].id
    for address in (
        f"/restore-points/{point}/files",
        f"/restore-points/{point}/volumes",
        f"/restore-points/{point}/files/download?path=/home/report.txt",
        f"/restore-points/{point}/files/compare/{nights[1].id}",
        "/machines/db-1/files/versions?path=/home/report.txt",
        "/machines/db-1/files/growth",
        "/files/lost?machine=db-1&name=report",
        f"/files/search?point={point}",
    ):
        answer = limited.get(V1 + address)
        assert answer.status_code == 404, address
        unknown = limited.get(V1 + address.replace(point, "0" * len(point)).replace("db-1", "db-9"))
        assert unknown.status_code == 404, address
        assert unknown.json()["code"] == answer.json()["code"], address


def test_who_may_only_look_at_inventory_sees_no_names_of_files(
    api_as: Callable[..., TestClient], nights: list[RestorePoint], stranger: TestClient
) -> None:
    browse = f"{V1}/restore-points/{nights[0].id}/files"
    assert api_as(Role.OPERATOR).get(browse).status_code == 403
    assert stranger.get(browse).status_code == 401
    browser = api_as(Permission.BROWSE_FILES)
    assert browser.get(browse).status_code == 200
    assert browser.get(browse + "/download", params={"path": "/home/report.txt"}).status_code == 403


def test_every_look_is_recorded_before_it_is_taken(
    api_as: Callable[..., TestClient], nights: list[RestorePoint], site: ApiSite
) -> None:
    alice = api_as(Role.RESTORE_OPERATOR, name="alice")
    alice.get(f"{V1}/restore-points/{nights[0].id}/files", params={"path": "/none"})
    alice.get(f"{V1}/files/search", params={"q": "secret"})
    alice.get(f"{V1}/files/lost", params={"machine": "db-1", "name": "old"})

    lost, search, browse = site.services.catalog.audit.list(limit=3)

    assert browse.who.startswith("alice")
    assert (browse.action, browse.point) == ("browse", nights[0].id)
    assert browse.detail == {"path": "/none"}
    assert (search.action, search.detail["pattern"]) == ("search", "secret")
    assert lost.machine == nights[0].machine


def test_a_restore_point_that_only_the_repository_has_is_opened(api: TestClient, site: ApiSite, guests: Guests) -> None:
    made = site.point(site.machine("db-1"))
    with site.services.catalog.transaction() as unit:
        unit.restore_points.remove(made.id)
    root = volume()
    root.add_file(b"/etc/hosts", b"")
    guests.hold(made, root)

    assert names(listing(api, made, path="/etc")) == ["hosts"]
    search = api.get(f"{V1}/files/search", params={"point": made.id})
    assert (search.status_code, search.json()["code"]) == (409, "files-not-indexed")


@pytest.mark.parametrize("name", ["%00", "..", "nothing", "a" * 300, "%2e%2e%2f", "é"])
def test_names_of_no_restore_point_are_not_found(api: TestClient, name: str) -> None:
    assert api.get(f"{V1}/restore-points/{name}/files").status_code == 404
    assert api.get(f"{V1}/machines/{name}/files/growth").status_code == 404
