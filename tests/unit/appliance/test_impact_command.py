"""``lanfree impact`` as a user types it."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appliance import config
from appliance.cli import app, commands
from appliance.wiring import Services
from catalog.jobs.limits import Limits
from catalog.jobs.policy import Policy
from catalog.jobs.values import Cause, JobRun, JobRunState, ProxyFacts, Task, TaskKind, TaskState
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.hypervisor.several import Sites
from proxy.ports import PlaceLoad
from proxy.units import MiB

pytestmark = pytest.mark.slow

Lanfree = Callable[..., tuple[int, Any, str]]

AT = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)

MEASURES = {
    "bytes_read": 512 * MiB,
    "bytes_stored": 100 * MiB,
    "over_host": 0,
    "frozen_seconds": 0.4,
    "stages": {"seconds": 12.5, "bottleneck": "source"},
    "impact": {
        "cpu": {"before": 0.1, "during": 0.15, "after": None},
        "places": {
            "gold": {
                "read_latency": {"before": 0.002, "during": 0.009, "after": 0.002},
                "write_latency": {"before": 0.001, "during": 0.004, "after": None},
            }
        },
    },
}


@pytest.fixture(autouse=True)
def site(tmp_path: Path, lanfree: Lanfree, monkeypatch: pytest.MonkeyPatch) -> MemoryHypervisor:
    code, _, said = lanfree("init", "--repository", str(tmp_path / "repo"), "--state", str(tmp_path / "state"))
    assert code == 0, said
    memory = MemoryHypervisor(["kvm1"])

    def services() -> Services:
        one = Services(config.load(tmp_path / "lanfree.toml"), app.CONTEXT.cancelled)
        one.__dict__["hypervisor"] = Sites([memory], lambda _configuration, _new: memory)
        return one

    monkeypatch.setattr(app.CONTEXT, "services", services)
    return memory


@pytest.fixture
def backed_up(tmp_path: Path) -> None:
    """One backup that was measured and one of a time when nothing was."""
    with Services(config.load(tmp_path / "lanfree.toml")) as services, services.jobs.transaction() as unit:
        policy = Policy()
        job = unit.jobs.add("nightly", policy, AT)
        unit.runs.begin(JobRun("run-1", job.id, "nightly", policy, Cause.MANUAL, AT, JobRunState.RUNNING, AT))
        facts = ProxyFacts("p", "here", AT, AT, slots=9)
        unit.proxies.beat(facts)
        tasks = [
            Task(
                f"t-{name}",
                "run-1",
                TaskKind.BACKUP,
                TaskState.WAITING,
                f"id-{name}",
                name,
                "kvm1",
                (f"machine:id-{name}",),
            )
            for name in ("web", "old")
        ]
        unit.tasks.add(tasks)
        for _ in tasks:
            task = unit.tasks.claim(facts, AT, Limits())
            assert task is not None
            measures = MEASURES if task.machine_name == "web" else {}
            unit.tasks.end(task.id, TaskState.DONE, AT, measures=measures)


@pytest.mark.usefixtures("backed_up")
def test_what_a_backup_cost_is_shown_with_its_bottleneck(lanfree: Lanfree, capfd: pytest.CaptureFixture[str]) -> None:
    code, document, said = lanfree("impact", "--run", "run-1")
    assert code == 0, said
    assert [each["machine"] for each in document["backups"]] == ["web"]
    assert document["backups"][0]["measures"]["stages"]["bottleneck"] == "source"


@pytest.mark.usefixtures("backed_up")
def test_people_see_before_during_and_after_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(
        "sys.argv", ["lanfree", "--config", str(tmp_path / "lanfree.toml"), "impact", "--machine", "web"]
    )
    commands.register(["impact"])
    assert app.run() == 0
    said = capfd.readouterr().out
    assert "10 % > 15 % > ?" in said
    assert "2.0 ms > 9.0 ms > 2.0 ms" in said
    assert "512.0 MiB" in said


@pytest.mark.usefixtures("backed_up")
@pytest.mark.parametrize(
    ("asked", "error"), [(("--run", "run-9"), "job-run-not-found"), (("--machine", "nobody"), "no-such-machine")]
)
def test_what_nobody_knows_is_an_error(lanfree: Lanfree, asked: tuple[str, str], error: str) -> None:
    code, document, _ = lanfree("impact", *asked)
    assert (code, document["error"]["code"]) == (1, error)
    assert asked[1] in document["error"]["message"]


@pytest.mark.usefixtures("backed_up")
def test_a_backup_is_one_line_on_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.argv", ["lanfree", "--config", str(tmp_path / "lanfree.toml"), "impact"])
    commands.register(["impact"])
    assert app.run() == 0
    header, row, *rest = capfd.readouterr().out.splitlines()
    assert header.startswith("MACHINE") and row.startswith("web")
    assert "2.0 ms > 9.0 ms > 2.0 ms" in row
    assert any("HOST" in line and "--json" in line for line in rest)


def test_now_shows_what_the_counters_say_beside_the_thresholds(
    lanfree: Lanfree, site: MemoryHypervisor, tmp_path: Path
) -> None:
    site.counters.work("kvm1", busy=0.0)
    site.counters.steady["gold"] = PlaceLoad(reads=120, read_latency=0.004)
    with (tmp_path / "lanfree.toml").open("a") as file:
        file.write("[latency]\nhold_ms = 20\nslow_ms = 30\n")

    code, document, said = lanfree("impact", "--now")

    assert code == 0, said
    assert document["places"]["gold"]["read_latency"] == 0.004
    assert document["places"]["gold"]["thresholds_ms"] == [20, 30]
    assert "kvm1" in document["hosts"]
