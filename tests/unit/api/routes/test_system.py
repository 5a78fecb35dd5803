"""Settings, notifications and the doctor."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.auth.roles import Permission, Role
from appliance import config
from appliance.web import settings as web_settings
from tests.unit.api.api_site import ApiSite

pytestmark = pytest.mark.slow

SETTINGS = "/api/v1/settings"


def _changed(api: TestClient, **sections: Any) -> tuple[dict[str, Any], str]:
    answer = api.get(SETTINGS)
    assert answer.status_code == 200
    values = answer.json()["values"]
    for name, keys in sections.items():
        values[name].update(keys)
    return values, answer.headers["ETag"]


def _put(api: TestClient, values: dict[str, Any], etag: str) -> Any:
    return api.put(SETTINGS, json=values, headers={"If-Match": etag})


def test_a_change_is_in_the_file_and_counts_at_once(api: TestClient, site: ApiSite) -> None:
    values, etag = _changed(api, limits={"per_host": 7}, coverage={"objective": 13.0}, sessions={"idle_minutes": 5.0})
    answer = _put(api, values, etag)
    assert answer.status_code == 200
    assert answer.json()["values"] == values
    assert answer.headers["ETag"] != etag
    assert site.services.settings.limits.per_host == 7
    assert site.services.settings.web.idle_minutes == 5.0
    assert config.load(site.file).coverage.objective == 13.0


def test_nothing_but_what_differs_is_written(api: TestClient, site: ApiSite) -> None:
    before = site.file.read_text()
    values, etag = _changed(api)
    assert _put(api, values, etag).headers["ETag"] == etag
    assert site.file.read_text() == before
    values["limits"]["per_host"] = 9
    etag = _put(api, values, etag).headers["ETag"]
    assert "per_host = 9" in site.file.read_text()
    values["limits"]["per_host"] = 2
    assert _put(api, values, etag).status_code == 200
    assert "per_host" not in site.file.read_text()


def test_whoever_saw_an_older_file_undoes_nothing(api: TestClient, site: ApiSite) -> None:
    values, etag = _changed(api, limits={"per_host": 7})
    site.file.write_text(site.file.read_text() + "\n# somebody was here\n")
    assert _put(api, values, etag).status_code == 412
    assert _put(api, values, "*").status_code == 412
    assert api.put(SETTINGS, json=values).status_code == 428
    assert site.services.settings.limits.per_host == 2


def test_what_cannot_be_is_refused_with_the_key(api: TestClient, site: ApiSite) -> None:
    before = site.file.read_text()
    values, etag = _changed(api, latency={"hold_ms": 9.0})
    answer = _put(api, values, etag)
    assert answer.status_code == 422
    assert "latency" in answer.text
    values, etag = _changed(api, coverage={"accept": [{"machine": "m", "gap": ["no-such"], "why": "w"}]})
    assert _put(api, values, etag).status_code == 422
    assert site.file.read_text() == before


def test_a_file_that_somebody_broke_is_spoken_of_and_what_counted_counts_on(api: TestClient, site: ApiSite) -> None:
    site.file.write_text(site.file.read_text() + "\nnonsense = 1\n")
    answer = api.get(SETTINGS)
    assert answer.status_code == 200
    assert "nonsense" in answer.json()["refused"]["message"]


def test_a_change_is_in_the_access_log_with_its_keys(api: TestClient, site: ApiSite) -> None:
    values, etag = _changed(api, proxy={"slots": 9})
    assert _put(api, values, etag).status_code == 200
    entry = site.services.catalog.audit.list(limit=1)[0]
    assert entry.action == "change-settings"
    assert "proxy.slots" in str(entry.detail)
    assert entry.who.startswith("admin")


def test_shorter_retention_waits_for_a_second_person_where_the_site_wants_one(api: TestClient, site: ApiSite) -> None:
    values, etag = _changed(api, retention={"keep": {"daily": 30}})
    assert _put(api, values, etag).status_code == 200
    site.file.write_text(site.file.read_text() + "\n[web]\nfour_eyes = true\n")
    values, etag = _changed(api, retention={"keep": {**values["retention"]["keep"], "daily": 3}})
    answer = _put(api, values, etag)
    assert answer.status_code == 202
    assert answer.headers["Location"].startswith("/api/v1/approvals/")
    assert config.load(site.file).retention.daily == 30
    values["retention"]["keep"]["daily"] = 60
    assert _put(api, values, etag).status_code == 200
    assert config.load(site.file).retention.daily == 60


def test_what_root_alone_may_change_is_shown_and_not_taken(api: TestClient) -> None:
    document = api.get(SETTINGS).json()
    assert document["console"]["four_eyes"] is False
    values, etag = _changed(api)
    assert _put(api, {**values, "console": {"four_eyes": True}}, etag).status_code == 422


def test_operators_see_settings_and_change_none(api_as: Callable[..., TestClient]) -> None:
    operator = api_as(Role.OPERATOR)
    values, etag = _changed(operator)
    assert _put(operator, values, etag).status_code == 403
    assert operator.get("/api/v1/doctor").status_code == 403
    assert api_as(Permission.VIEW).post("/api/v1/notifications/test", json={}).status_code == 403


def test_a_test_message_of_no_way_or_an_unknown_one_says_so(api: TestClient) -> None:
    assert api.post("/api/v1/notifications/test", json={}).json() == {"results": []}
    answer = api.post("/api/v1/notifications/test", json={"name": "mail"})
    assert answer.status_code == 422
    assert "mail" in answer.json()["detail"]


def test_a_way_that_takes_no_message_says_why_and_tells_no_secret(api: TestClient, site: ApiSite) -> None:
    site.file.write_text(
        site.file.read_text()
        + '\n[[notify]]\nname = "hook"\nkind = "webhook"\nurl = "http://127.0.0.1:1/secret-path"\n'
    )
    (way,) = api.get(SETTINGS).json()["notify"]
    assert way["name"] == "hook"
    answer = api.post("/api/v1/notifications/test", json={"name": "hook"})
    (result,) = answer.json()["results"]
    assert result["told"] is False
    assert result["why"]
    assert "secret-path" not in answer.text + api.get(SETTINGS).text


@pytest.mark.slow
def test_the_doctor_answers_once_for_all_who_ask_at_once(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    first = api.get("/api/v1/doctor").json()
    assert {"web.port", "python"} <= {row["check"] for row in first["results"]}
    assert all(bool(row["remedy"]) == (row["outcome"] != "ok") for row in first["results"])
    assert api.get("/api/v1/doctor").json()["at"] == first["at"]
    monkeypatch.setattr(web_settings, "FRESH", web_settings.timedelta(0))
    assert api.get("/api/v1/doctor").json()["at"] != first["at"]


def test_whoever_reaches_some_machines_changes_nothing_that_counts_for_all(
    api_as: Callable[..., TestClient], site: ApiSite
) -> None:
    limited = api_as(Role.ADMINISTRATOR, machines=("db-*",))
    values, etag = _changed(limited, retention={"keep": {"last": 1}})
    before = site.file.read_text()
    refused = _put(limited, values, etag)
    assert (refused.status_code, refused.json()["code"]) == (403, "beyond-reach")
    assert site.file.read_text() == before
    assert limited.post("/api/v1/notifications/test", json={}).status_code == 403
    assert limited.get("/api/v1/doctor").status_code == 403
