"""``/tasks`` and what is asked for."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient

from api.auth.roles import Permission, Role
from appliance import config
from appliance.serving import wishes
from appliance.web.tasks import like_of
from catalog.jobs.values import Task, TaskKind, TaskState
from proxy.model import Reason, ReasonCode
from tests.unit.api.api_site import ApiSite

pytestmark = pytest.mark.slow

V1 = "/api/v1"


def stored(site: ApiSite) -> list[Task]:
    """What was asked for, the newest first."""
    with site.services.jobs.transaction(write=False) as unit:
        return list(unit.tasks.newest())


def claim(site: ApiSite) -> Task:
    """As a proxy would."""
    services = site.services
    facts = replace(services.proxy_facts("p1"), slots=9)
    with services.jobs.transaction() as unit:
        unit.proxies.beat(facts)
        task = unit.tasks.claim(facts, services.clock.now(), services.limits)
    assert task is not None
    return task


def test_a_machine_is_protected_now(api: TestClient, site: ApiSite) -> None:
    machine = site.machine("db-1")
    said = api.post(f"{V1}/machines/{machine}/backups", json={"full": True, "quiesce": "never"})
    assert said.status_code == 202
    task = said.json()
    assert said.headers["Location"] == f"{V1}/tasks/{task['id']}"
    assert (task["kind"], task["state"], task["asked_by"]) == ("backup", "waiting", "admin")
    assert task["machine"] == {"id": machine, "name": "db-1"}
    assert task["title"] == "Back up db-1"
    assert task["stoppable"]
    (found,) = stored(site)
    assert found.full
    assert wishes.policy_of(found).quiesce == "never"
    assert {key.partition(":")[0] for key in found.keys} >= {"machine", "host", "repository", "full"}
    assert api.get(said.headers["Location"]).json() == task
    (entry,) = api.get(f"{V1}/audit", params={"action": "back-up"}).json()["items"]
    assert entry["machine"] == machine
    assert entry["who"].startswith("admin")


def test_a_machine_is_protected_as_configured_where_nothing_is_said(api: TestClient, site: ApiSite) -> None:
    said = api.post(f"{V1}/machines/{site.machine('db-1')}/backups")
    assert said.status_code == 202
    assert wishes.policy_of(stored(site)[0]).quiesce is None


def test_the_same_wish_sent_twice_is_one_task(api: TestClient, site: ApiSite) -> None:
    machine = site.machine("db-1")
    first, second = (
        api.post(f"{V1}/machines/{machine}/backups", json={}, headers={"Idempotency-Key": "once"}) for _ in range(2)
    )
    assert first.json() == second.json()
    assert len(stored(site)) == 1


def test_what_is_unknown_or_out_of_reach_is_not_there(
    api_as: Callable[..., TestClient], api: TestClient, site: ApiSite
) -> None:
    machine = site.machine("db-1")
    assert api.post(f"{V1}/machines/unknown/backups").status_code == 404
    limited = api_as(Role.OPERATOR, machines=("web-*",))
    assert limited.post(f"{V1}/machines/{machine}/backups").status_code == 404
    assert api.post(f"{V1}/machines/{machine}/backups", json={"exclude": ["vdz"]}).status_code == 422
    assert api.post(f"{V1}/machines/{machine}/backups", json={"fool": True}).status_code == 422
    assert stored(site) == []


@pytest.mark.parametrize(
    ("path", "order", "kind"),
    [
        ("verifications", {}, TaskKind.VERIFY),
        ("prunes", {}, TaskKind.PRUNE),
        ("collections", {"dry_run": True}, TaskKind.COLLECT),
        ("sweeps", {}, TaskKind.SWEEP),
        ("indexings", {}, TaskKind.INDEX),
        ("measurements", {"repository": "main"}, TaskKind.MEASURE),
        ("repository-audits", {"publish": True}, TaskKind.AUDIT),
        ("protections", {}, TaskKind.PROTECT),
        ("catalog-rebuilds", {"files": False}, TaskKind.REBUILD),
    ],
)
def test_what_keeps_the_repository_in_shape_is_asked_for(
    path: str, order: dict[str, object], kind: TaskKind, api: TestClient, site: ApiSite
) -> None:
    said = api.post(f"{V1}/{path}", json=order)
    assert (said.status_code, said.json()["kind"]) == (202, kind.value)
    (task,) = stored(site)
    assert (task.kind, task.asked_by, task.target) == (kind, "admin", "")


def test_what_concerns_all_machines_is_not_for_who_reaches_some(
    api_as: Callable[..., TestClient], site: ApiSite
) -> None:
    point = site.point(site.machine("db-1"))
    may = (Permission.MAINTAIN, Permission.DELETE_POINTS, Permission.VIEW)
    limited = api_as(*may, machines=("db-*",))
    for path in (
        "verifications",
        "prunes",
        "collections",
        "sweeps",
        "indexings",
        "measurements",
        "repository-audits",
        "protections",
        "catalog-rebuilds",
    ):
        assert limited.post(f"{V1}/{path}", json={}).status_code == 403, path
    said = limited.post(f"{V1}/verifications", json={"points": [point.id], "deep": False})
    assert said.status_code == 202
    assert said.json()["point"] == point.id
    other = api_as(*may, machines=("web-*",))
    assert other.post(f"{V1}/verifications", json={"points": [point.id]}).status_code == 404
    assert len(stored(site)) == 1


def test_what_would_go_is_shown_to_whoever_maintains_and_deleted_by_fewer(
    api_as: Callable[..., TestClient], site: ApiSite
) -> None:
    keeper = api_as(Role.OPERATOR)
    assert keeper.post(f"{V1}/prunes", json={}).status_code == 403
    said = keeper.post(f"{V1}/prunes", json={"dry_run": True})
    assert (said.status_code, said.json()["title"]) == (202, "Show what no rule keeps")
    (task,) = stored(site)
    assert wishes.read(wishes.PruneWish, task).dry_run
    assert not any(key.startswith("prune:") for key in task.keys), "it waits for no deletion"


def test_damage_is_mended_with_a_second_repository_that_there_is(api: TestClient, site: ApiSite) -> None:
    for order in ({}, {"repository": "main"}, {"repository": "nowhere"}):
        assert api.post(f"{V1}/repairs", json=order).status_code == 422, order
    point = site.point(site.machine("db-1"))
    copy = config.CopyRepository(name="vault", path=site.file.parent / "vault", unencrypted=True)
    site.services.settings = site.services.settings.model_copy(update={"copy_to": (copy,)})
    assert api.post(f"{V1}/repairs", json={"repository": "vault", "point": "unknown"}).status_code == 404
    said = api.post(f"{V1}/repairs", json={"repository": "vault", "point": point.id}).json()
    assert (said["kind"], said["repository"], said["point"]) == ("repair", "vault", point.id)
    (task,) = stored(site)
    assert wishes.read(wishes.RepairWish, task).only == point.id


def test_a_list_of_tasks_leaves_out_the_lines_that_one_task_shows(api: TestClient, site: ApiSite) -> None:
    task = api.post(f"{V1}/prunes", json={"dry_run": True}).json()["id"]
    claim(site)
    result = {"remove": 1, "lines": [{"machine": "db-1"}], "more": 0}
    with site.services.jobs.transaction() as unit:
        unit.tasks.end(task, TaskState.DONE, datetime.now(UTC), result=result)
    assert api.get(f"{V1}/tasks/{task}").json()["result"] == result
    (listed,) = api.get(f"{V1}/tasks").json()["items"]
    assert listed["result"] == {"remove": 1, "more": 0}


def test_a_copy_goes_exactly_one_way_to_a_repository_that_there_is(api: TestClient, site: ApiSite) -> None:
    for order in ({}, {"to": "a", "source": "b"}, {"to": "nowhere"}, {"source": "nowhere"}):
        assert api.post(f"{V1}/copies", json=order).status_code == 422, order
    assert stored(site) == []


def test_a_waiting_task_is_stopped_at_once(api: TestClient, site: ApiSite) -> None:
    task = api.post(f"{V1}/machines/{site.machine('db-1')}/backups").json()["id"]
    said = api.post(f"{V1}/tasks/{task}/stop")
    assert (said.status_code, said.json()["state"], said.json()["stoppable"]) == (202, "stopped", False)
    assert {"code": "stopped-by-person", "detail": "by admin"} in said.json()["reasons"]
    assert api.post(f"{V1}/tasks/{task}/stop").json()["state"] == "stopped", "one that has ended stays as it is"


def test_a_running_task_is_told_to_end(api: TestClient, site: ApiSite) -> None:
    task = api.post(f"{V1}/machines/{site.machine('db-1')}/backups").json()["id"]
    claim(site)
    shown = api.get(f"{V1}/tasks/{task}").json()
    assert (shown["state"], shown["proxy"]) == ("running", site.services.proxy_facts("p1").machine)
    said = api.post(f"{V1}/tasks/{task}/stop").json()
    assert (said["state"], said["stopping"], said["stoppable"]) == ("running", True, False)
    assert stored(site)[0].stop_at is not None


def test_who_asked_may_stop_it_and_who_may_only_look_may_not(
    api_as: Callable[..., TestClient], api: TestClient, site: ApiSite
) -> None:
    with site.services.jobs.transaction() as unit:
        for number, who in enumerate(("owner", "another")):
            made = Task(f"t{number}", "", TaskKind.FILES, TaskState.WAITING, "m", "db-1", asked_by=who)
            unit.tasks.ask(replace(made, created_at=datetime.now(UTC)))
    owner = api_as(Role.RESTORE_OPERATOR, name="owner")
    assert owner.post(f"{V1}/tasks/t1/stop").status_code == 403
    assert owner.post(f"{V1}/tasks/t0/stop").json()["state"] == "stopped"
    assert api.get(f"{V1}/tasks/t1").json()["state"] == "waiting"


def test_the_list_is_scoped_filtered_and_paged(
    api_as: Callable[..., TestClient], api: TestClient, site: ApiSite
) -> None:
    for name in ("db-1", "db-2", "web-1", "db-3"):
        api.post(f"{V1}/machines/{site.machine(name)}/backups")
    api.post(f"{V1}/sweeps")
    everything = api.get(f"{V1}/tasks").json()
    assert [task["kind"] for task in everything["items"]] == ["sweep", *["backup"] * 4]
    assert everything["next"] is None
    limited = api_as(Role.OPERATOR, machines=("db-*",))
    first = limited.get(f"{V1}/tasks", params={"limit": 2}).json()
    assert [task["machine"]["name"] for task in first["items"]] == ["db-3", "db-2"]
    rest = limited.get(f"{V1}/tasks", params={"limit": 2, "cursor": first["next"]}).json()
    assert [task["machine"]["name"] for task in rest["items"]] == ["db-1"]
    assert rest["next"] is None
    hidden = next(task["id"] for task in everything["items"] if task["kind"] == "sweep")
    assert limited.get(f"{V1}/tasks/{hidden}").status_code == 404
    some = api.get(f"{V1}/tasks", params={"kind": ["sweep", "prune"], "state": "waiting"}).json()["items"]
    assert [task["id"] for task in some] == [hidden]
    assert api.get(f"{V1}/tasks", params={"asked": False}).json()["items"] == []


@pytest.mark.parametrize("cursor", ["x", "bnVsbA", "WzEsMl0", "WyIyMDI2IiwieCJd", "WyIyMDI2LTAxLTAxIiwieCJd"])
def test_a_cursor_of_another_list_is_refused(cursor: str, api: TestClient) -> None:
    said = api.get(f"{V1}/tasks", params={"cursor": cursor})
    assert (said.status_code, said.json()["code"]) == (422, "configuration")


def test_what_databases_do_not_like_finds_nothing(api: TestClient) -> None:
    assert api.get(f"{V1}/tasks", params={"machine": "\0"}).json() == {"items": [], "next": None}
    assert api.get(f"{V1}/tasks/%00").status_code == 404
    assert api.post(f"{V1}/machines/%00/backups").status_code == 404


def test_a_running_task_tells_how_far_it_is_and_when_it_will_be_done(api: TestClient, site: ApiSite) -> None:
    task = api.post(f"{V1}/machines/{site.machine('db-1')}/backups").json()["id"]
    claim(site)
    with site.services.jobs.transaction() as unit:
        unit.tasks.progress({task: (50, 200)}, {task: "writing disks"})
    shown = api.get(f"{V1}/tasks/{task}").json()["progress"]
    assert (shown["done"], shown["total"], shown["share"], shown["phase"]) == (50, 200, 0.25, "writing disks")


def test_what_waits_says_for_which_limit(api: TestClient, site: ApiSite) -> None:
    machine = site.machine("db-1")
    first, second = (api.post(f"{V1}/machines/{machine}/backups").json()["id"] for _ in range(2))
    running = claim(site).id
    waiting = second if running == first else first
    assert f"machine:{machine}" in api.get(f"{V1}/tasks/{waiting}").json()["waits_for"]


def test_how_a_task_ended_is_told(api: TestClient, site: ApiSite) -> None:
    task = api.post(f"{V1}/verifications", json={}).json()["id"]
    claim(site)
    with site.services.jobs.transaction() as unit:
        unit.tasks.end(
            task,
            TaskState.FAILED,
            datetime.now(UTC),
            error="integrity",
            message="bytes differ",
            problems=["damaged: x"],
            result={"points": 3},
            reasons=[Reason(ReasonCode.TAKEN_OVER, "from p0")],
        )
    shown = api.get(f"{V1}/tasks/{task}").json()
    assert shown["error"] == {"code": "integrity", "message": "bytes differ"}
    assert (shown["problems"], shown["result"]) == (["damaged: x"], {"points": 3})
    assert {"code": "taken-over", "detail": "from p0"} in shown["reasons"]


def test_a_task_is_followed_until_it_has_ended(api: TestClient) -> None:
    task = api.post(f"{V1}/sweeps").json()["id"]
    api.post(f"{V1}/tasks/{task}/stop")
    with api.stream("GET", f"{V1}/tasks/{task}/events") as stream:
        said = "".join(stream.iter_text())
    assert "event: task" in said
    assert '"state":"stopped"' in said
    assert "event: end" in said


@pytest.mark.parametrize(
    ("pattern", "like"),
    [("db-*", "db-%"), ("a?c", "a_c"), ("50%_*", r"50\%\_%"), ("[ab]x", "_x"), (r"a\b", r"a\\b"), ("[!a]*", "_%")],
)
def test_a_pattern_of_machines_is_one_of_the_database(pattern: str, like: str) -> None:
    assert like_of(pattern) == like
