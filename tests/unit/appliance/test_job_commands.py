"""``lanfree job …`` as a user types it: exit code, JSON, and what is said."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appliance import config, config_editing
from appliance.cli import app
from appliance.cli.output import local_zone
from appliance.wiring import Services
from catalog.jobs.limits import Limits
from catalog.jobs.store import JobStore
from catalog.jobs.values import ENDED, ProxyFacts, Task, TaskKind, TaskState
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.hypervisor.several import Sites
from proxy.model import MachineId
from proxy.transport.memory import MemoryTransport

pytestmark = pytest.mark.slow

Lanfree = Callable[..., tuple[int, Any, str]]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Migrations take longer than most of these tests."""
    home = tmp_path_factory.mktemp("jobs")
    JobStore(f"sqlite:///{home}/catalog.db").close()
    return (home / "jobs.db").read_bytes()


@pytest.fixture(autouse=True)
def configured(tmp_path: Path, empty_store: bytes) -> None:
    """No repository: only what backs up needs one."""
    section = config.Repository(path=tmp_path / "repo", unencrypted=True)
    (tmp_path / "lanfree.toml").write_text(config_editing.new_text(section, tmp_path / "state"))
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "jobs.db").write_bytes(empty_store)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryHypervisor]:
    """Every command finds this hypervisor."""
    memory = MemoryHypervisor(["kvm1"])
    for name in ("web-1", "web-2", "db-1"):
        memory.add(name, {"vda": bytes(64 * 1024), "vdb": bytes(64 * 1024)})

    def services() -> Services:
        one = Services(config.load(tmp_path / "lanfree.toml"), app.CONTEXT.cancelled)
        one.__dict__["hypervisor"] = Sites([memory], lambda _configuration, _new: memory)
        one.__dict__["transports"] = (MemoryTransport(memory.disk_bytes),)
        return one

    monkeypatch.setattr(app.CONTEXT, "services", services)
    yield memory


NIGHTLY = ("job", "add", "nightly", "--select", "name=web-*", "--at", "22:00", "--days", "mon-fri", "--keep-daily", "7")


def test_a_job_is_made_shown_changed_and_removed(lanfree: Lanfree) -> None:
    code, document, _ = lanfree(
        *NIGHTLY, "--zone", "Europe/Berlin", "--window", "22:00-06:00", "--except", "name=web-9"
    )
    assert (code, document["revision"], document["enabled"], len(document["next"])) == (0, 1, True, 3)
    code, document, _ = lanfree("job", "show", "nightly")
    policy = document["policy"]
    assert policy["select"] == {"include": ["name=web-*"], "exclude": ["name=web-9"], "exclude_disks": []}
    assert policy["schedule"]["days"] == ["mon", "tue", "wed", "thu", "fri"]
    assert (policy["zone"], policy["window"][0]["end"], policy["retention"]["daily"]) == (
        "Europe/Berlin",
        "06:00:00",
        7,
    )
    assert document["last_run"] is None
    code, document, _ = lanfree("job", "edit", "nightly", "--set", "retention.daily=9", "--unset", "window")
    assert (code, document["revision"]) == (0, 2)
    assert (document["policy"]["retention"]["daily"], document["policy"]["window"]) == (9, [])
    assert lanfree("job", "edit", "nightly", "--rename", "web")[1]["name"] == "web"
    assert [each["name"] for each in lanfree("job", "list")[1]] == ["web"]
    assert lanfree("job", "remove", "web")[0] == 0
    assert lanfree("job", "list")[:2] == (0, [])


def test_without_a_zone_the_times_are_this_machines(lanfree: Lanfree) -> None:
    assert lanfree(*NIGHTLY)[1]["policy"]["zone"] == local_zone()


def test_an_edit_of_an_old_revision_is_refused(lanfree: Lanfree) -> None:
    lanfree(*NIGHTLY)
    assert lanfree("job", "edit", "nightly", "--set", "priority=1", "--revision", "1")[0] == 0
    code, document, _ = lanfree("job", "edit", "nightly", "--set", "priority=2", "--revision", "1")
    assert (code, document["error"]["code"]) == (1, "job-conflict")
    assert lanfree("job", "show", "nightly")[1]["policy"]["priority"] == 1


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["job", "show", "nightyl"], 1, "there are: nightly"),
        (["job", "add", "nightly", "--all"], 1, "already"),
        (["job", "add", "x"], 2, "--all"),
        (["job", "add", "a/b", "--all"], 1, "a name is"),
        (["job", "add", "x", "--all", "--at", "25:00"], 1, "schedule.at"),
        (["job", "add", "x", "--all", "--at", "9pm"], 1, "schedule.at: 9pm is no time of day; write 21:00"),
        (["job", "add", "x", "--all", "--at", "22:00", "--days", "mon-fry"], 1, "mon-fry"),
        (["job", "add", "x", "--all", "--days", "mon"], 1, "times of day in at"),
        (["job", "add", "x", "--all", "--cron", "61 * * * *"], 1, "61"),
        (["job", "add", "x", "--all", "--cron", "0 0 30 2 *"], 1, "no day"),
        (["job", "add", "x", "--select", "hots=kvm1"], 1, "hots"),
        (["job", "add", "x", "--all", "--window", "22:00"], 1, "22:00-06:00"),
        (["job", "add", "x", "--all", "--zone", "Mars"], 1, "Mars"),
        (["job", "edit", "nightly"], 2, "--set"),
        (["job", "edit", "nightly", "--set", "colour=red"], 1, "no such key"),
        (["job", "edit", "nightly", "--set", "select.include=[name"], 1, "not valid YAML"),
        (["job", "edit", "nightly", "--set", "schedule.cron=* * *"], 1, "five fields"),
        (["job", "edit", "nightly", "--rename", "-x"], 1, "a name is"),
        (["job", "tasks", "nightly"], 1, "did not run yet"),
        (["job", "tasks", "j2026"], 1, "no job"),
        (["job", "report", "nightly"], 1, "did not run yet"),
        (["job", "import", "/nonexistent.yaml"], 1, "No such file"),
    ],
    ids=lambda one: " ".join(one[1:]) if isinstance(one, list) else "",
)
def test_a_slip_is_told_and_changes_nothing(lanfree: Lanfree, words: list[str], code: int, says: str) -> None:
    lanfree(*NIGHTLY)
    before = lanfree("job", "list")[1]
    found, _, said = lanfree(*words)
    assert found == code, said
    assert says in said
    assert "Traceback" not in said
    assert [each["policy"] for each in lanfree("job", "list")[1]] == [each["policy"] for each in before]


def test_what_is_perhaps_not_meant_is_said(lanfree: Lanfree) -> None:
    code, document, _ = lanfree(
        "job", "add", "x", "--all", "--copy-to", "offsite", "--at", "12:00", "--window", "22:00-06:00"
    )
    assert code == 7, "it is made, and cannot be done as it is"
    said = " ".join(document["remarks"])
    assert lanfree("job", "show", "x")[0] == 0
    for part in ("offsite", "outside of its window", "how long"):
        assert part in said
    assert lanfree("job", "add", "y", "--all", "--keep-last", "3")[1]["remarks"] == [
        "it has no schedule: it runs only when somebody says 'lanfree job run'"
    ]


def test_rules_that_only_vcenters_know_are_told_where_there_is_none(lanfree: Lanfree) -> None:
    code, document, _ = lanfree(
        "job", "add", "x", "--select", "tag=gold", "--keep-last", "3", "--window", "22:00-22:00"
    )
    assert code == 7
    assert document["remarks"][0].startswith("no machine fits 'tag=gold': only machines of vCenters have a tag")
    assert "its window 22:00-22:00 is all day" in document["remarks"]


@pytest.mark.slow
def test_lists_take_one_more_and_a_schedule_has_one_way(lanfree: Lanfree) -> None:
    lanfree(*NIGHTLY)
    code, document, _ = lanfree(
        "job", "edit", "nightly", "--set", "select.include+=host=kvm1", "--set", "schedule.cron=0 3 * * *"
    )
    assert code == 0
    assert document["policy"]["select"]["include"] == ["name=web-*", "host=kvm1"]
    assert (document["policy"]["schedule"]["cron"], document["policy"]["schedule"]["at"]) == ("0 3 * * *", [])
    document = lanfree("job", "edit", "nightly", "--set", "schedule.at=04:00")[1]
    assert (document["policy"]["schedule"]["cron"], document["policy"]["schedule"]["at"]) == (None, ["04:00:00"])


@pytest.mark.slow
def test_an_option_replaces_what_it_says_and_nothing_else(lanfree: Lanfree) -> None:
    before = lanfree(*NIGHTLY, "--window", "22:00-06:00")[1]["policy"]
    code, document, _ = lanfree("job", "edit", "nightly", "--keep-weekly", "4", "--window", "sat,sun 20:00-08:00")
    assert code == 0
    after = document["policy"]
    assert after["retention"] == {**before["retention"], "weekly": 4}
    assert after["window"] == [{"start": "20:00:00", "end": "08:00:00", "days": ["sat", "sun"]}]
    assert {**after, "retention": 0, "window": 0} == {**before, "retention": 0, "window": 0}
    after = lanfree("job", "edit", "nightly", "--days", "fri-mon", "--set", "window=[23:00-05:00, 12:00-13:00]")[1][
        "policy"
    ]
    assert after["schedule"] == {**before["schedule"], "days": ["fri", "sat", "sun", "mon"]}
    assert [each["start"] for each in after["window"]] == ["23:00:00", "12:00:00"]


def test_a_disabled_job_comes_never(lanfree: Lanfree) -> None:
    assert lanfree(*NIGHTLY, "--disabled")[1]["next"] == []
    assert len(lanfree("job", "enable", "nightly")[1]["next"]) == 3
    assert lanfree("job", "disable", "nightly")[1]["enabled"] is False


def exported(tmp_path: Path) -> str:
    """As a shell sees it: nothing but YAML on stdout."""
    words = [sys.executable, "-m", "appliance.cli", "-c", str(tmp_path / "lanfree.toml"), "job", "export"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_what_is_exported_is_imported_elsewhere_as_it_was(lanfree: Lanfree, tmp_path: Path) -> None:
    lanfree(*NIGHTLY)
    lanfree("job", "add", "other", "--all", "--disabled")
    before = lanfree("job", "list")[1]
    file = tmp_path / "jobs.yaml"
    file.write_text(exported(tmp_path))
    code, document, _ = lanfree("job", "import", str(file))
    assert (code, [each["what"] for each in document["jobs"]]) == (0, ["same", "same"])
    for name in ("nightly", "other"):
        lanfree("job", "remove", name)
    assert [each["what"] for each in lanfree("job", "import", str(file))[1]["jobs"]] == ["add", "add"]
    after = lanfree("job", "list")[1]
    assert [(each["name"], each["enabled"], each["policy"]) for each in after] == [
        (each["name"], each["enabled"], each["policy"]) for each in before
    ]


def test_an_import_shows_its_difference_and_does_all_or_nothing(lanfree: Lanfree, tmp_path: Path) -> None:
    lanfree(*NIGHTLY)
    lanfree("job", "add", "old", "--all")
    file = tmp_path / "jobs.yaml"
    file.write_text("jobs:\n  nightly:\n    select: {include: ['name=db-*']}\n  new: {}\n")
    code, document, _ = lanfree("job", "import", "--dry-run", "--prune", str(file))
    assert code == 0
    assert {each["name"]: each["what"] for each in document["jobs"]} == {
        "nightly": "change",
        "new": "add",
        "old": "remove",
    }
    assert any("name=db-*" in line for line in document["jobs"][0]["difference"])
    assert {each["name"] for each in lanfree("job", "list")[1]} == {"nightly", "old"}, "a dry run writes nothing"
    assert lanfree("job", "import", "--prune", str(file))[0] == 0
    assert {each["name"] for each in lanfree("job", "list")[1]} == {"nightly", "new"}
    file.write_text("jobs:\n  third: {}\n  nightly:\n    select: {include: ['nmae=x']}\n")
    code, document, said = lanfree("job", "import", str(file))
    assert code == 1
    assert "nightly" in said and "nmae" in said
    assert {each["name"] for each in lanfree("job", "list")[1]} == {"nightly", "new"}, (
        "one wrong thing: nothing is written"
    )


def test_a_job_that_runs_is_not_removed_by_an_import(lanfree: Lanfree, site: MemoryHypervisor, tmp_path: Path) -> None:
    lanfree(*NIGHTLY)
    assert lanfree("job", "run", "nightly")[0] == 0
    file = tmp_path / "jobs.yaml"
    file.write_text("jobs:\n  new: {}\n")
    code, document, _ = lanfree("job", "import", "--prune", str(file))
    assert (code, document["error"]["code"]) == (3, "job-busy")
    assert [each["name"] for each in lanfree("job", "list")[1]] == ["nightly"]


def test_a_preview_says_which_machines_by_which_rule_and_what_fits_nothing(
    lanfree: Lanfree, site: MemoryHypervisor
) -> None:
    words = ("--select", "name=web-*", "--select", "folder=Prod", "--except", "name=web-2", "--exclude-disk", "*:vdb")
    lanfree("job", "add", "x", *words)
    code, document, said = lanfree("job", "preview", "x")
    assert code == 7, said
    (one,) = document["machines"]
    assert (one["machine"]["name"], one["rule"], one["exclude_disks"]) == ("web-1", "name=web-*", ["vdb"])
    assert [each["machine"]["name"] for each in document["excluded"]] == ["web-2"]
    assert document["idle"] == ["no machine fits 'folder=Prod': only machines of vCenters have a folder"]
    lanfree("job", "edit", "x", "--set", "select.include=[name=web-*]")
    assert lanfree("job", "preview", "x")[0] == 0


def test_a_run_without_a_proxy_waits_and_says_so_and_can_be_stopped(lanfree: Lanfree, site: MemoryHypervisor) -> None:
    lanfree(*NIGHTLY)
    code, document, said = lanfree("job", "run", "nightly")
    assert code == 0
    assert "no proxy serves" in said
    run = document["run"]
    assert lanfree("job", "run", "nightly")[1]["error"]["code"] == "job-busy"
    assert lanfree("job", "history", "nightly")[1][0]["run"]["state"] == "running"
    assert lanfree("job", "report", run)[1]["kind"] == "running"
    assert lanfree("job", "stop", run)[1] == {"run": run, "stopped": True, "state": "stopped"}
    assert lanfree("job", "stop", run)[1]["stopped"] is False
    code, document, _ = lanfree("job", "tasks", run[:-2])
    assert (code, document["run"]["id"], document["run"]["state"]) == (0, run, "stopped")
    assert [each["code"] for each in document["run"]["reasons"]] == ["stopped-by-person"]
    assert lanfree("job", "run", "nightly")[0] == 0, "nothing is in its way"


def test_a_machine_that_is_not_there_is_a_slip_and_begins_nothing(lanfree: Lanfree, site: MemoryHypervisor) -> None:
    lanfree(*NIGHTLY)
    code, document, _ = lanfree("job", "run", "nightly", "--machine", "web-11")
    assert (code, document["error"]["code"]) == (1, "no-such-machine")
    assert lanfree("job", "history")[1] == []


def stopping(tmp_path: Path, run: str, *, proxy: str = "", task: bool = False) -> None:
    """A run that somebody wants to end; a proxy that lives; a task that runs."""
    now = datetime.now(UTC)
    with (
        closing(JobStore(f"sqlite:///{tmp_path}/state/catalog.db")) as store,
        store.transaction() as unit,
    ):
        if proxy:
            unit.proxies.beat(ProxyFacts(proxy, "here", now, now))
        if task:
            unit.tasks.add([Task("t", run, TaskKind.BACKUP, TaskState.WAITING, machine=MachineId("m"))])
            assert unit.tasks.claim(ProxyFacts("dead", "here", now, now), now, Limits())
        assert unit.runs.stop(run, now)


def test_a_run_that_is_being_stopped_and_that_nobody_ends_is_in_nobodys_way(
    lanfree: Lanfree, site: MemoryHypervisor, tmp_path: Path
) -> None:
    lanfree(*NIGHTLY)
    run = lanfree("job", "run", "nightly")[1]["run"]
    stopping(tmp_path, run)
    assert lanfree("job", "run", "nightly")[0] == 0
    assert lanfree("job", "tasks", run)[1]["run"]["state"] == "stopped"


def test_a_proxy_that_lives_ends_its_run_itself(lanfree: Lanfree, site: MemoryHypervisor, tmp_path: Path) -> None:
    lanfree(*NIGHTLY)
    run = lanfree("job", "run", "nightly")[1]["run"]
    stopping(tmp_path, run, proxy="p")
    assert lanfree("job", "stop", run)[1] == {"run": run, "stopped": True, "state": "running"}
    assert lanfree("job", "run", "nightly")[1]["error"]["code"] == "job-busy"


def test_a_run_whose_task_was_cut_off_is_left_to_who_tidies_up(
    lanfree: Lanfree, site: MemoryHypervisor, tmp_path: Path
) -> None:
    lanfree(*NIGHTLY)
    run = lanfree("job", "run", "nightly")[1]["run"]
    stopping(tmp_path, run, task=True)
    code, document, said = lanfree("job", "stop", run)
    assert (code, document["state"]) == (0, "running")
    assert "lanfree serve" in said


@pytest.mark.slow
def test_a_run_here_backs_up_and_the_history_tells_it(
    lanfree: Lanfree, site: MemoryHypervisor, caplog: pytest.LogCaptureFixture
) -> None:
    assert lanfree("init")[0] == 0
    lanfree(*NIGHTLY, "--exclude-disk", "web-1:vdb")
    lanfree("job", "edit", "nightly", "--set", "index=false")  # disks of zeroes hold no file system
    with caplog.at_level("INFO", "lanfree"):
        code, document, said = lanfree("job", "run", "nightly", "--here")
    assert code == 0, said
    events = {getattr(record, "event", ""): record.getMessage() for record in caplog.records}
    assert (events["job-run-began"], events["job-run-ended"]) == ("job nightly began, by hand", "job nightly done")
    assert not any("  " in record.getMessage() for record in caplog.records if record.name == "lanfree.worker")
    backups = {
        each["task"]["machine_name"]: each["task"] for each in document["tasks"] if each["task"]["kind"] == "backup"
    }
    assert {name: task["state"] for name, task in backups.items()} == {"web-1": "done", "web-2": "done"}
    assert document["run"]["state"] == "done"
    code, points, _ = lanfree("points")
    images = {point["machine_name"]: [image["key"] for image in point["images"]] for point in points}
    assert images["web-1"] == ["vda"]
    assert images["web-2"] == ["vda", "vdb"]
    (past,) = lanfree("job", "history")[1]
    assert past["run"]["cause"] == "manual"
    assert sum(past["tasks"].get(state.value, 0) for state in ENDED) == len(document["tasks"])
    assert TaskState.DONE.value in past["tasks"]
    assert lanfree("job", "list")[1][0]["last_run"]["state"] == "done"
