"""How the commands that ask a server end: one document, and the exit code that they have on the machine itself."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api.client import Client
from api.schemas.tasks import Failure, Task
from appliance.cli.remote.following import ending
from appliance.inventory import refresh
from catalog.jobs.values import TaskKind, TaskState
from tests.unit.api.api_site import ApiSite

pytestmark = pytest.mark.slow

Asked = Callable[..., tuple[int, Any, str]]

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def proxy_of(site: ApiSite, **ends: Mapping[str, Any]) -> type[Client]:
    """A client whose server has a proxy that works at once: each task ends as ``ends`` says of its machine, by name."""

    class Served(Client):
        def post(self, type_: Any, path: str, body: Any = None, **more: Any) -> Any:
            made = super().post(type_, path, body, **more)
            if isinstance(made, Task):
                work_off(made, **ends[made.machine.name if made.machine else made.kind.value])
            return made

    def work_off(task: Task, state: TaskState = TaskState.DONE, **end: Any) -> None:
        services, now = site.services, site.services.clock.now()
        facts = replace(services.proxy_facts("p1"), slots=9)
        with services.jobs.transaction() as unit:
            unit.proxies.beat(facts)
            claimed = unit.tasks.claim(facts, now, services.limits)
            assert claimed is not None
            assert unit.tasks.end(task.id, state, now, **end)

    return Served


DONE: Mapping[str, Any] = {}
FAILED: Mapping[str, Any] = {"state": TaskState.FAILED, "error": "host-unreachable", "message": "h1 is silent"}
STOPPED: Mapping[str, Any] = {"state": TaskState.STOPPED}
DOUBTFUL: Mapping[str, Any] = {"problems": ["the overlay is left"]}


@pytest.mark.parametrize(
    ("web", "db", "code"),
    [(DONE, DONE, 0), (DONE, DOUBTFUL, 7), (STOPPED, DOUBTFUL, 3), (FAILED, DONE, 5), (STOPPED, FAILED, 5)],
)
def test_of_several_backups_the_gravest_end_counts_and_all_are_in_one_document(
    remote: Asked, site: ApiSite, web: Mapping[str, Any], db: Mapping[str, Any], code: int
) -> None:
    for name in ("web", "db"):
        site.machine(name)
    refresh(site.services)
    found, document, said = remote("backup", "web", "db", client=proxy_of(site, web=web, db=db))
    assert found == code, said
    expected = [end.get("state", TaskState.DONE).value for end in (web, db)]
    assert [task["state"] for task in document] == expected
    assert ("the overlay is left" in said) == bool(db.get("problems"))


def test_a_name_that_is_none_does_not_keep_the_others_from_their_backups(remote: Asked, site: ApiSite) -> None:
    site.machine("web")
    refresh(site.services)
    code, document, said = remote("backup", "wbe", "web", client=proxy_of(site, web=DONE))
    assert code == 1
    assert [task["state"] for task in document] == ["done"]
    assert "not begun: no such machine: 'wbe'" in " ".join(said.split())


def test_who_does_not_wait_is_told_what_began(remote: Asked, site: ApiSite) -> None:
    for name in ("web", "db"):
        site.machine(name)
    refresh(site.services)
    code, document, _ = remote("backup", "web", "db", "--no-wait")
    assert (code, [task["state"] for task in document]) == (0, ["waiting", "waiting"])


def test_damage_ends_as_on_the_machine_itself(remote: Asked, site: ApiSite) -> None:
    site.point(site.machine("web"))
    found = {"problems": ["damaged: all of it"], "result": {"damaged": 1}}
    code, document, said = remote("verify", client=proxy_of(site, verify=found))
    assert (code, document["kind"]) == (6, "verify")
    assert "damaged: all of it" in said


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"state": TaskState.DONE}, 0),
        ({"state": TaskState.DONE, "problems": ("look",)}, 7),
        ({"state": TaskState.FAILED, "error": Failure(code="repository-full", message="")}, 5),
        ({"state": TaskState.FAILED, "error": Failure(code="integrity", message="")}, 6),
        ({"state": TaskState.FAILED, "error": Failure(code="of-a-later-version", message="")}, 4),
        ({"state": TaskState.FAILED}, 4),
        ({"state": TaskState.STOPPED}, 3),
        ({"kind": TaskKind.REPAIR, "state": TaskState.DONE, "result": {"damaged": 2, "mended": 2}}, 0),
        ({"kind": TaskKind.REPAIR, "state": TaskState.DONE, "result": {"damaged": 2, "mended": 1}}, 6),
        ({"kind": TaskKind.AUDIT, "state": TaskState.DONE, "result": {"tampered": True}}, 6),
        ({"kind": TaskKind.AUDIT, "state": TaskState.DONE, "result": {"tampered": False}, "problems": ("x",)}, 7),
    ],
)
def test_a_task_ends_as_its_command_does_on_the_machine(facts: dict[str, Any], code: int) -> None:
    known: dict[str, Any] = {"id": "t", "kind": TaskKind.BACKUP, "title": "Back up web", "created_at": NOW}
    assert ending(Task(**(known | facts))) == code


class Counting(Client):
    """Notes what is asked."""

    asked: list[str]

    def call(self, method: str, path: str, *more: Any, **params: Any) -> Any:
        self.asked.append(path)
        return super().call(method, path, *more, **params)


@pytest.fixture
def counting() -> type[Counting]:
    class Mine(Counting):
        asked: list[str] = []  # noqa: RUF012  # of this test

    return Mine


def test_a_restore_point_is_found_by_its_id_in_one_question(
    remote: Asked, site: ApiSite, counting: type[Counting]
) -> None:
    machine = site.machine("web")
    point = site.point(machine).id
    code, document, said = remote("point", "hold", point, "--why", "an audit", client=counting)
    assert (code, document) == (0, {"point": point, "held": True}), said
    assert counting.asked == [f"/restore-points/{point}", f"/restore-points/{point}/hold"]


def test_a_restore_point_is_found_by_the_beginning_of_its_id(remote: Asked, site: ApiSite) -> None:
    point = site.point(site.machine("web")).id
    code, document, said = remote("point", "hold", point[:-2], "--why", "an audit")
    assert (code, document["point"]) == (0, point), said


@pytest.mark.parametrize("name", ["", "no-such-point", "?", "..", "2"])
def test_what_names_no_single_restore_point_is_refused(remote: Asked, site: ApiSite, name: str) -> None:
    machine = site.machine("web")
    points = [site.point(machine), site.point(site.machine("db"))]
    code, document, _ = remote("point", "hold", name, "--why", "an audit")
    assert (code, document["error"]["code"]) == (1, "restore-point-not-found")
    with site.services.catalog.transaction(write=False) as unit:
        assert not any(unit.points.get(point.id).held for point in points)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["nightly#2", "nightly?x=1", "nightly/", "x/../nightly"])
def test_a_name_that_holds_what_addresses_do_is_no_other_job(remote: Asked, site: ApiSite, name: str) -> None:
    site.job("nightly")
    code, document, _ = remote("job", "remove", name)
    assert (code, "error" in document) == (1, True)
    with site.services.jobs.transaction(write=False) as unit:
        assert [job.name for job in unit.jobs.list()] == ["nightly"]


def test_an_archive_does_not_take_the_place_of_a_file(remote: Asked, counting: type[Counting], tmp_path: Path) -> None:
    (tmp_path / "there.zip").write_text("mine")
    code, document, _ = remote("files", "get", "any", "/etc", "--archive", str(tmp_path / "there.zip"), client=counting)
    assert counting.asked == [], "nobody opens a restore point for it"
    assert (code, document["error"]["code"]) == (1, "file-not-restored")
    assert (tmp_path / "there.zip").read_text() == "mine"
