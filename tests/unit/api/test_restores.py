"""``/restores``: what is shown is what is done."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.auth.roles import Role
from appliance import operations, restoring
from appliance.config import Raw
from appliance.serving import wishes
from catalog.jobs.values import Task, TaskKind
from proxy.backup import BackupRequest, back_up
from proxy.errors import RestoreRefused
from proxy.model import FileAddress, PowerState, RestorePoint
from tests.unit.api.api_site import ApiSite

pytestmark = pytest.mark.slow

V1 = "/api/v1"
SIZE = 64 * 1024


@pytest.fixture
def disks(site: ApiSite, tmp_path: Path) -> Path:
    """A directory that hosts and proxy share; restores go to the memory hypervisor, too."""
    directory = tmp_path / "disks"
    directory.mkdir()
    (directory / "mounted").touch()
    services = site.services
    raw = Raw(shared_directories=(directory,))
    services.settings = services.settings.model_copy(update={"raw": raw})
    services.__dict__["_sites"] = lambda _point=None: services.hypervisor
    return directory


def backed_up(site: ApiSite, name: str = "db-1", state: PowerState = PowerState.OFF) -> RestorePoint:
    """A machine, and a restore point of it that was really made."""
    machine = site.memory.add(name, {"vda": b"x" * SIZE, "vdb": bytes(SIZE)}, state=state)
    services = site.services
    run = operations.new_run("b")
    point = back_up(services.backup_ports(machine, run), BackupRequest(run, machine)).point
    assert operations.record(services, point) == ""
    return point


def plan(point: RestorePoint, disks: Path, **more: Any) -> dict[str, Any]:
    """Both disks, beside the original."""
    places = {key: {"kind": "path", "path": f"{disks}/{key}.img"} for key in ("vda", "vdb")}
    return {"point": point.id, "disks": places, "name": "db-1-again", **more}


def stored(site: ApiSite) -> list[Task]:
    with site.services.jobs.transaction(write=False) as unit:
        return list(unit.tasks.newest())


def test_a_preview_says_what_will_happen_and_writes_nothing(api: TestClient, site: ApiSite, disks: Path) -> None:
    point = backed_up(site)
    said = api.post(f"{V1}/restores/preview", json=plan(point, disks))
    assert said.status_code == 200
    seen = said.json()
    assert seen["refusals"] == []
    assert seen["result"] == {
        "name": "db-1-again",
        "host": "h1",
        "effect": "new",
        "now": "off",
        "powered_on": False,
        "connected": False,
    }
    assert [(d["key"], d["size"], d["effect"], d["data"]) for d in seen["disks"]] == [
        ("vda", SIZE, "create", SIZE),
        ("vdb", SIZE, "create", 0),
    ]
    assert seen["disks"][0]["device"] == f"{disks}/vda.img"
    assert seen["total_bytes"] == 2 * SIZE
    assert len(seen["confirm"]) > 64
    assert sorted(path.name for path in disks.iterdir()) == ["mounted"]
    assert stored(site) == []


def test_what_was_shown_is_ordered_with_its_word(api: TestClient, site: ApiSite, disks: Path) -> None:
    point = backed_up(site)
    wanted = plan(point, disks)
    confirm = api.post(f"{V1}/restores/preview", json=wanted).json()["confirm"]
    said = api.post(f"{V1}/restores", json={**wanted, "confirm": confirm})
    assert said.status_code == 202
    assert said.headers["Location"] == f"{V1}/tasks/{said.json()['id']}"
    (task,) = stored(site)
    assert (task.kind, task.machine, task.point) == (TaskKind.RESTORE, point.machine, point.id)
    assert task.deadline is not None, "it is begun soon or not at all"
    assert f"machine:{point.machine}" in task.keys
    wish = wishes.read(wishes.RestoreWish, task)
    assert (wish.request.machine.name, wish.request.overwrite) == ("db-1-again", False)
    assert wish.request.machine.identity not in (None, point.machine)
    restoring.make_sure(site.services, wish.request, wish.confirmed)
    (entry,) = api.get(f"{V1}/audit", params={"action": "restore-machine"}).json()["items"]
    assert (entry["machine"], entry["restore_point"]) == (point.machine, point.id)


def test_the_word_of_a_preview_is_good_for_one_restore(api: TestClient, site: ApiSite, disks: Path) -> None:
    """A second click, or the same order once more within its quarter of an hour."""
    wanted = plan(backed_up(site), disks)
    order = {**wanted, "confirm": api.post(f"{V1}/restores/preview", json=wanted).json()["confirm"]}
    first, second = (api.post(f"{V1}/restores", json=order) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]
    (task,) = stored(site)
    assert any(key.startswith("target:") for key in task.keys)
    with site.services.jobs.transaction() as unit:
        assert unit.tasks.stop_one(task.id, site.services.clock.now())
    again = api.post(f"{V1}/restores", json=order)
    assert again.status_code == 409
    assert len(stored(site)) == 1


def test_an_order_is_refused_when_something_changed_since(api: TestClient, site: ApiSite, disks: Path) -> None:
    point = backed_up(site)
    wanted = plan(point, disks, overwrite=True)
    confirm = api.post(f"{V1}/restores/preview", json=wanted).json()["confirm"]
    (disks / "vdb.img").write_bytes(b"\x53\xef" * SIZE)
    said = api.post(f"{V1}/restores", json={**wanted, "confirm": confirm})
    assert (said.status_code, said.json()["code"]) == (409, "conflict")
    other = {**wanted, "connected": True, "confirm": confirm}
    assert api.post(f"{V1}/restores", json=other).status_code == 409, "another plan has another word"
    for word in ("0" * 70, f"0.{confirm.partition('.')[2]}", f"zz.{'1' * 64}", f"{'f' * 40}.{'1' * 64}"):
        assert api.post(f"{V1}/restores", json={**wanted, "confirm": word}).status_code == 409, word
    assert stored(site) == []


def test_the_proxy_that_does_it_looks_once_more(api: TestClient, site: ApiSite, disks: Path) -> None:
    point = backed_up(site)
    wanted = plan(point, disks, overwrite=True)
    confirm = api.post(f"{V1}/restores/preview", json=wanted).json()["confirm"]
    assert api.post(f"{V1}/restores", json={**wanted, "confirm": confirm}).status_code == 202
    wish = wishes.read(wishes.RestoreWish, stored(site)[0])
    (disks / "vda.img").write_bytes(b"\x53\xef" * SIZE)
    with pytest.raises(RestoreRefused, match="something changed"):
        restoring.make_sure(site.services, wish.request, wish.confirmed)


def test_what_would_be_overwritten_is_named(api: TestClient, site: ApiSite, disks: Path) -> None:
    point = backed_up(site)
    (disks / "vda.img").write_bytes(b"\x53\xef" * SIZE)
    seen = api.post(f"{V1}/restores/preview", json=plan(point, disks)).json()
    assert seen["confirm"] is None
    assert any("vda.img" in refusal["message"] for refusal in seen["refusals"])
    assert all(refusal["code"] == "restore-refused" for refusal in seen["refusals"])
    seen = api.post(f"{V1}/restores/preview", json=plan(point, disks, overwrite=True)).json()
    assert seen["refusals"] == []
    first, second = seen["disks"]
    assert (first["effect"], second["effect"]) == ("overwrite", "create")
    assert first["content"]
    assert (disks / "vda.img").read_bytes() == b"\x53\xef" * SIZE


def test_a_machine_in_place_must_be_off_and_is_said_to_be_replaced(api: TestClient, site: ApiSite, disks: Path) -> None:
    point = backed_up(site)
    wanted = plan(point, disks, name=None)
    seen = api.post(f"{V1}/restores/preview", json=wanted).json()
    assert (seen["result"]["effect"], seen["result"]["name"], seen["refusals"]) == ("replaced", "db-1", [])
    site.memory.set_state(point.machine, PowerState.RUNNING)
    seen = api.post(f"{V1}/restores/preview", json=wanted).json()
    assert seen["result"]["now"] == "running"
    assert "it is running on h1" in seen["refusals"][0]["message"]
    assert seen["confirm"] is None
    order = {**wanted, "confirm": "f" * 80}
    assert api.post(f"{V1}/restores", json=order).status_code == 409


def test_a_machine_that_is_gone_is_made_again(api: TestClient, site: ApiSite, disks: Path) -> None:
    point = backed_up(site)
    site.memory.remove(point.machine)
    seen = api.post(f"{V1}/restores/preview", json=plan(point, disks, name=None)).json()
    assert (seen["result"]["effect"], seen["result"]["now"], seen["refusals"]) == ("recreated", None, [])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"disks": {}}, "no disk was given a place"),
        ({"disks": {"vdz": {"kind": "path", "path": "/x"}}}, "no such disk"),
        ({"disks": {"vda": {"kind": "path", "path": "/etc/passwd"}}}, "not below a shared directory"),
        ({"disks": {"vda": {"kind": "lun", "target": "iqn.2026-11.org.example:a", "lun": 3}}}, "portal"),
        ({"host": "elsewhere"}, "no host elsewhere"),
        ({"differential": True}, "differential"),
        ({"attach": "unknown"}, "unknown"),
    ],
)
def test_everything_that_stands_against_it_is_said(
    change: dict[str, Any], word: str, api: TestClient, site: ApiSite, disks: Path
) -> None:
    seen = api.post(f"{V1}/restores/preview", json={**plan(backed_up(site), disks), **change}).json()
    assert any(word in refusal["message"] for refusal in seen["refusals"]), seen["refusals"]
    assert seen["confirm"] is None


def test_disks_that_are_left_out_are_named(api: TestClient, site: ApiSite, disks: Path) -> None:
    point = backed_up(site)
    wanted = plan(point, disks)
    del wanted["disks"]["vdb"]
    seen = api.post(f"{V1}/restores/preview", json={**wanted, "disks_only": True}).json()
    assert seen["left_out"] == ["disk vdb: no place was named for it"]
    assert seen["result"]["effect"] == "disks-only"


@pytest.mark.parametrize(
    "change",
    [
        {"disks": {"vda": {"kind": "path", "path": "relative"}}},
        {"disks": {"vda": {"kind": "lun", "target": "", "lun": 1}}},
        {"disks": {"vda": {"kind": "lun", "target": "iqn", "lun": -1}}},
        {"disks": {"vda": {"kind": "tape"}}},
        {"surprise": 1},
        {"disks": {"vda": {"kind": "path", "path": "/a\0b"}}},
        {"disks": {"v\0": {"kind": "path", "path": "/a"}}},
        {"host": "h1\n"},
        {"name": ""},
    ],
)
def test_a_plan_that_is_none_is_refused(change: dict[str, Any], api: TestClient, site: ApiSite, disks: Path) -> None:
    said = api.post(f"{V1}/restores/preview", json={**plan(backed_up(site), disks), **change})
    assert said.status_code == 422


def test_only_what_is_within_reach_is_restored(api_as: Callable[..., TestClient], site: ApiSite, disks: Path) -> None:
    point = backed_up(site)
    assert api_as(Role.OPERATOR).post(f"{V1}/restores/preview", json=plan(point, disks)).status_code == 403
    far = api_as(Role.RESTORE_OPERATOR, machines=("web-*",))
    assert far.post(f"{V1}/restores/preview", json=plan(point, disks)).status_code == 404
    assert far.post(f"{V1}/restores", json={**plan(point, disks), "confirm": "f" * 70}).status_code == 409
    near = api_as(Role.RESTORE_OPERATOR, machines=("db-*",))
    wanted = plan(point, disks)
    seen = near.post(f"{V1}/restores/preview", json=wanted).json()
    assert near.post(f"{V1}/restores", json={**wanted, "confirm": seen["confirm"]}).status_code == 202


def test_the_places_that_a_restore_can_go_to_are_listed(api: TestClient, site: ApiSite, disks: Path) -> None:
    backed_up(site)
    seen = api.get(f"{V1}/restores/targets").json()
    assert [host["name"] for host in seen["hosts"]] == ["h1"]
    (directory,) = seen["directories"]
    assert (directory["path"], directory["error"]) == (str(disks), "")
    assert directory["free"] > 0
    assert (seen["luns"], seen["datastores"], seen["problems"]) == ([], [], [])


def test_who_lives_on_a_place_is_not_told_by_an_order_either(
    api_as: Callable[..., TestClient], site: ApiSite, disks: Path
) -> None:
    point = backed_up(site)
    site.memory.add("hr-payroll", {"vda": bytes(SIZE)}, below={"vda": (FileAddress(f"{disks}/vda.img"),)})
    near = api_as(Role.RESTORE_OPERATOR, machines=("db-*",))
    wanted = plan(point, disks, overwrite=True)
    shown = near.post(f"{V1}/restores/preview", json=wanted)
    said = near.post(f"{V1}/restores", json={**wanted, "confirm": f"{2**34:x}.{'1' * 64}"})
    assert said.status_code == 409
    for answer in (shown, said):
        assert "a machine out of your reach" in answer.text
        assert "hr-payroll" not in answer.text
    assert stored(site) == []
