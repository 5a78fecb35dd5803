"""Mount sessions over the API: opened with keys, held, listed, ended."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.auth.roles import Caller, Role, allowed
from api.refusals import TooMany
from api.schemas.mounts import MountRequest
from appliance.web.mounts import EXPIRY, MOST_OF_ONE, WebMounts
from proxy.model import RestorePoint
from tests.unit.api.api_site import ApiSite
from tests.unit.api.guest_volumes import SEALED, Guests, volume

pytestmark = pytest.mark.slow

SESSIONS = "/api/v1/mount-sessions"
SECRET = "correct horse"


@pytest.fixture
def guests(site: ApiSite, app: FastAPI) -> Iterator[Guests]:
    yield Guests(site)
    app.state.desk.mounts.close()


@pytest.fixture
def point(site: ApiSite, guests: Guests) -> RestorePoint:
    """Of db-1: a root, and an encrypted volume at /data."""
    made = site.point(site.machine("db-1"))
    root, data = volume(), volume("/data", "/dev/sdb1")
    root.add_file(b"/etc/hosts", b"localhost")
    data.add_file(b"/ledger.db", b"entries")
    guests.sealed.add("/dev/sdb1")
    guests.hold(made, root, data, index=True)
    return made


def listed(api: TestClient, point: RestorePoint, path: str, **query: str) -> tuple[int, list[str]]:
    answer = api.get(f"/api/v1/restore-points/{point.id}/files", params={"path": path, **query})
    return answer.status_code, [item["name"] for item in answer.json().get("items", ())]


def test_a_session_with_keys_shows_what_they_open_to_its_owner_alone(
    api: TestClient, api_as: Callable[..., TestClient], point: RestorePoint
) -> None:
    made = api.post(SESSIONS, json={"point": point.id, "keys": [{"volume": "/dev/sdb1", "secret": SECRET}]})

    assert made.status_code == 201, made.text
    session = made.json()
    assert made.headers["Location"] == f"{SESSIONS}/{session['id']}"
    assert (session["state"], session["keys"], session["machine_name"]) == ("open", 1, "db-1")
    assert [each["problem"] for each in session["volumes"]] == [None, None]
    assert listed(api, point, "/data", session=session["id"]) == (200, ["ledger.db"])
    assert listed(api, point, "/data") == (404, [])
    other = api_as(Role.RESTORE_OPERATOR, name="other")
    assert listed(other, point, "/data", session=session["id"])[0] == 404


def test_keys_are_in_no_answer_no_log_and_no_audit_entry(
    api: TestClient, point: RestorePoint, site: ApiSite, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    body = {"point": point.id, "keys": [{"secret": SECRET}]}
    answers = [api.post(SESSIONS, json=body), api.get(SESSIONS)]
    answers.append(api.post(SESSIONS, json={"point": point.id, "keys": [{"secret": SECRET, "volume": 7}]}))
    answers.append(api.post(SESSIONS, json={"point": point.id, "keys": [{"secret": SECRET, "secret_base64": SECRET}]}))

    assert [answer.status_code for answer in answers] == [201, 200, 422, 422]
    told = "".join(answer.text for answer in answers) + caplog.text
    told += "".join(str(entry) for entry in site.services.catalog.audit.list())
    assert SECRET not in told
    assert "open-session" in told
    state = site.services.settings.state.directory
    for file in (each for each in state.rglob("*") if each.is_file()):
        assert SECRET.encode() not in file.read_bytes(), file


def test_the_same_keys_share_an_open_restore_point_and_others_do_not(
    api: TestClient, api_as: Callable[..., TestClient], point: RestorePoint, guests: Guests
) -> None:
    other = api_as(Role.RESTORE_OPERATOR, name="other")
    api.post(SESSIONS, json={"point": point.id, "keys": [{"secret": SECRET}]})
    other.post(SESSIONS, json={"point": point.id, "keys": [{"secret": SECRET}]})
    assert guests.opened == [(point.id, 1)]

    wrong = other.post(SESSIONS, json={"point": point.id, "keys": [{"secret": "wrong"}]}).json()
    plain = other.post(SESSIONS, json={"point": point.id}).json()
    assert guests.opened == [(point.id, 1), (point.id, 1), (point.id, 0)]
    assert [each["problem"] for each in wrong["volumes"]] == [None, SEALED]
    assert [each["problem"] for each in plain["volumes"]] == [None, SEALED]


def test_ending_a_session_closes_what_its_keys_opened(api: TestClient, point: RestorePoint, guests: Guests) -> None:
    session = api.post(SESSIONS, json={"point": point.id, "keys": [{"secret": SECRET}]}).json()["id"]

    assert api.delete(f"{SESSIONS}/{session}").status_code == 204
    assert guests.closed == [point.id]
    assert api.get(f"{SESSIONS}/{session}").status_code == 404
    assert api.delete(f"{SESSIONS}/{session}").status_code == 404
    assert listed(api, point, "/data", session=session)[0] == 404


def test_sessions_are_listed_for_their_owner_and_for_who_configures(
    api: TestClient, api_as: Callable[..., TestClient], point: RestorePoint
) -> None:
    alice = api_as(Role.RESTORE_OPERATOR, name="alice")
    bob = api_as(Role.RESTORE_OPERATOR, name="bob")
    session = alice.post(SESSIONS, json={"point": point.id}).json()

    assert [each["id"] for each in alice.get(SESSIONS).json()] == [session["id"]]
    assert bob.get(SESSIONS).json() == []
    assert bob.get(f"{SESSIONS}/{session['id']}").status_code == 404
    (seen,) = api.get(SESSIONS).json()
    assert seen["opened_by"].startswith("alice")
    assert api.delete(f"{SESSIONS}/{session['id']}").status_code == 204


def test_a_session_of_one_restore_point_opens_no_other(
    api: TestClient, site: ApiSite, guests: Guests, point: RestorePoint
) -> None:
    another = site.point(site.machine("db-2"))
    guests.hold(another, volume())
    session = api.post(SESSIONS, json={"point": point.id}).json()["id"]

    assert listed(api, another, "/", session=session)[0] == 404


def test_what_cannot_be_opened_is_told_by_its_session(api: TestClient, point: RestorePoint, guests: Guests) -> None:
    guests.broken = "its first sector is noise"

    answer = api.post(SESSIONS, json={"point": point.id})

    assert (answer.status_code, answer.json()["state"]) == (201, "failed")
    assert answer.json()["problem"]["code"] == "mount-failed"
    assert "its first sector is noise" in answer.json()["problem"]["message"]


def test_what_takes_long_to_open_is_answered_at_once_and_open_later(
    api: TestClient, point: RestorePoint, guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.web.mounts.MOMENT", 0.01)
    guests.hold_back = threading.Event()

    answer = api.post(SESSIONS, json={"point": point.id})

    assert (answer.status_code, answer.json()["state"]) == (201, "opening")
    guests.hold_back.set()
    deadline = time.monotonic() + 60
    while (session := api.get(answer.headers["Location"]).json())["state"] == "opening":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert session["state"] == "open"


def test_nobody_holds_more_sessions_than_are_for_one(api: TestClient, point: RestorePoint) -> None:
    codes = [api.post(SESSIONS, json={"point": point.id}).status_code for _ in range(MOST_OF_ONE + 1)]

    assert codes == [201] * MOST_OF_ONE + [429]


def test_a_machine_out_of_reach_is_not_opened(api_as: Callable[..., TestClient], point: RestorePoint) -> None:
    limited = api_as(Role.RESTORE_OPERATOR, machines=("web-*",))
    assert limited.post(SESSIONS, json={"point": point.id}).status_code == 404
    assert api_as(Role.OPERATOR).post(SESSIONS, json={"point": point.id}).status_code == 403


class Moved:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_keys_are_forgotten_some_time_after_the_last_use(site: ApiSite, point: RestorePoint, guests: Guests) -> None:
    clock = Moved()
    caller = Caller("admin", allowed([Role.ADMINISTRATOR]))
    with WebMounts(site.services, monotonic=clock) as mounts:
        request = MountRequest.model_validate({"point": point.id, "keys": [{"secret": SECRET}]})
        session = mounts.open(caller, request)
        clock.seconds += EXPIRY.total_seconds() / 2
        with mounts.use(caller, point, session.id):
            pass
        clock.seconds += EXPIRY.total_seconds() * 0.9
        left = mounts.get(caller, session.id).expires_at - site.services.clock.now()
        assert timedelta(0) < left < EXPIRY / 5
        clock.seconds += EXPIRY.total_seconds()
        mounts.open(caller, MountRequest(point=point.id))  # wakes who forgets
        deadline = time.monotonic() + 20
        while len(mounts.list(caller)) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        while point.id not in guests.closed:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_no_more_requests_wait_for_restore_points_to_open_than_there_are_places(
    site: ApiSite, point: RestorePoint, guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.web.mounts.OPENING", 1)
    monkeypatch.setattr("appliance.web.mounts.PATIENCE", 0.05)
    guests.hold_back = threading.Event()
    caller = Caller("admin", allowed([Role.ADMINISTRATOR]))
    opened = threading.Event()

    with WebMounts(site.services) as mounts:

        def wait() -> None:
            with mounts.use(caller, point):
                opened.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        deadline = time.monotonic() + 20
        while not guests.opened:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(TooMany), mounts.use(caller, point):
            pass
        guests.hold_back.set()
        waiting.join(20)
        assert opened.is_set()
        with mounts.use(caller, point), mounts.use(caller, point):  # what is open needs no place
            pass
