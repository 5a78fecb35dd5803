"""An appliance that has been at work for a month, for pictures and for whoever has to see how pages look when they are full."""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

from appliance import inventory
from appliance.wiring import Services
from catalog.jobs.policy import Policy
from catalog.jobs.values import Cause, Job, JobRun, JobRunState, ProxyFacts, Task, TaskKind, TaskState
from proxy.model import RestorePointId
from proxy.repository import PosixStore, create
from proxy.stages import StageTimes
from proxy.units import GiB, KiB, MiB, TiB
from tests.integration.serving.fleet import Fleet
from tests.integration.serving.proxy_process import services_on
from tests.integration.web import estate
from tests.integration.web.estate import Estate, Listed
from tests.integration.web.file_list import index_two
from tests.integration.web.past_month import DAYS, PROXIES, Month, sealed

ZONE = "Europe/Berlin"

CONFIGURATION = """
[repository]
path = "{base}/repository"
unencrypted = true
[state]
directory = "{base}/{state}"
[files]
index = false
[protect]
enabled = false
[proxy]
name = "backup01"
[coverage]
objective = 30
[limits]
per_host = 2
[[host]]
name = "kvm01.branch.example"
uri = "qemu+ssh://lanfree@kvm01.branch.example/system"
[[host]]
name = "kvm02.branch.example"
uri = "qemu+ssh://lanfree@kvm02.branch.example/system"
[[vcenter]]
name = "{vcenter}"
host = "vcenter.hq.example"
user = "lanfree@vsphere.local"
password_file = "{base}/password"
thumbprint = "{thumbprint}"
[web]
address = "127.0.0.1:0"
"""

SPACE = SimpleNamespace(f_frsize=4096, f_blocks=40 * TiB // 4096, f_bfree=27 * TiB // 4096, f_bavail=27 * TiB // 4096)
"""The file system of a repository of this size: nobody has one to test on."""

FILE_SERVER = "files-01"

SPEED = 210 * MiB
"""Of each backup that runs, bytes/s."""


MEASURED = {
    "bytes_read": 31 * GiB,
    "bytes_new": 14 * GiB,
    "bytes_stored": 7 * GiB,
    "over_host": 0,
    "frozen_seconds": 0.8,
    "level": "incremental",
    "consistency": "application",
    "transports": ["san"],
    "stages": StageTimes(seconds=330.0, source=150.0, proxy=120.0, repository=210.0).as_json(),
}
"""Of a backup of the run that goes on."""


def services_of(configuration: Path, directory: Path) -> Services:
    """A wired appliance of the estate."""
    site = Estate(directory)
    services = services_on(configuration, site)
    services.__dict__["vcenters"] = site
    return services


def large_file_system(repository: Path) -> None:
    """From now on this process sees ``SPACE`` where the repository is."""
    plain = os.statvfs

    def shown(path: object) -> object:
        return SPACE if Path(str(path)) == repository else plain(path)  # type: ignore[arg-type]

    os.statvfs = shown  # type: ignore[assignment]


@dataclass
class Seeded(Fleet):
    """Everything behind a console: two proxies that are heard of, a month of history, a run that goes on."""

    pulse: "Pulse | None" = field(default=None)
    listed: RestorePointId = ""
    """The restore point whose files are listed."""

    def __post_init__(self) -> None:
        estate.written(self.base / "site")
        (self.base / "password").write_text("no secret\n")
        (self.base / "password").chmod(0o600)
        self.site = Estate(self.base / "site")
        self.services = services_of(self.configuration("looking-on"), self.base / "site")
        place = self.base / "repository"
        place.mkdir()
        create(PosixStore(place), secret=None, chunk_size=64 * KiB, pack_size=256 * KiB).close()

    def configuration(self, state: str) -> Path:
        """The file; nobody changes it."""
        file = self.base / f"{state}.toml"
        facts = {"base": self.base, "state": state, "vcenter": estate.VCENTER, "thumbprint": ":".join(["5A"] * 32)}
        if not file.exists():
            file.write_text(CONFIGURATION.format(**facts))
        return file

    def seed(self) -> None:
        """Write all of it, and let what runs go on."""
        now = datetime.now(UTC)
        hour = now.replace(minute=0, second=0, microsecond=0)
        assert isinstance(self.site, Estate)
        self.site.fill()
        month = Month(self.services, now)
        inventory.refresh(self.services)
        plans = self._jobs(hour - timedelta(hours=8), now)
        for days in range(DAYS, 0, -1):
            begin = hour - timedelta(hours=8, days=days - 1)
            for job, machines, offsets in plans:
                for number, offset in enumerate(offsets):
                    ago = (days - 1) * len(offsets) + len(offsets) - 1 - number
                    month.night(job, begin + offset, machines, ago)
        month.judge()
        for point in month.newest.values():
            sealed(self.services, point)
        self._list_files()
        databases, machines, _ = plans[1]
        running = _under_way(self.services, databases, machines, now)
        inventory.refresh(self.services)
        self.pulse = Pulse(self.services, running)
        self.pulse.start()

    def _list_files(self) -> None:
        """Of the two newest nights of a file server."""
        (machine,) = [one.id for one in estate.machines() if one.name == FILE_SERVER]
        with self.services.catalog.transaction(write=False) as unit:
            *_, older, newer = unit.restore_points.list(machine)
        index_two(self.services.catalog, older.point, newer.point)
        self.listed = newer.point.id

    def close(self) -> None:
        """End it."""
        if self.pulse is not None:
            self.pulse.end()
        super().close()

    def _jobs(self, first: datetime, now: datetime) -> list[tuple[Job, list[Listed], tuple[timedelta, ...]]]:
        """Each with its machines, and when its runs begin after the first one of a day."""
        half, late = timedelta(hours=-12), timedelta(hours=1)
        known = estate.machines()
        plans: Sequence[tuple[str, dict[str, object], list[Listed], tuple[timedelta, ...]]] = (
            (
                "Production nightly",
                {
                    "description": "Everything tagged gold, every night",
                    "select": {"include": ["tag=backup:gold"]},
                    "retention": {"daily": 30, "weekly": 8, "monthly": 12},
                    "verify": {"days": 7},
                },
                [one for one in known if "backup:gold" in one.tags],
                (timedelta(),),
            ),
            (
                "Databases",
                {
                    "description": "Twice a day, application-consistent",
                    "select": {"include": ["tag=backup:databases"]},
                    "objective": 14,
                    "retention": {"last": 8, "daily": 30, "monthly": 12},
                    "priority": 10,
                },
                [one for one in known if "backup:databases" in one.tags],
                (late + half, late),
            ),
            (
                "Branch office",
                {
                    "description": "KVM hosts of the branch",
                    "select": {"include": ["host=kvm*"], "exclude": ["name=lab-*"]},
                    "retention": {"daily": 14, "weekly": 8},
                },
                [one for one in known if not one.folder and not one.name.startswith("lab")],
                (timedelta(hours=2),),
            ),
        )
        made = []
        with self.services.jobs.transaction() as unit:
            for name, said, machines, offsets in plans:
                at = sorted(f"{(first + offset).astimezone(ZoneInfo(ZONE)):%H:%M}" for offset in offsets)
                policy = Policy.model_validate({"objective": 30, **said, "zone": ZONE, "schedule": {"at": at}})
                made.append((unit.jobs.add(name, policy, now), machines, offsets))
            lab = {"description": "Only when somebody asks for it", "select": {"include": ["name=lab-*"]}}
            unit.jobs.add("Lab", Policy.model_validate(lab), now)
            unit.jobs.enable("Lab", enabled=False, now=now)
        return made


def _under_way(services: Services, job: Job, machines: Sequence[Listed], now: datetime) -> list[str]:
    """A run that somebody began by hand a few minutes ago: two are done, two run, two wait. Returns what runs."""
    begin = now - timedelta(minutes=9)
    run = JobRun(
        f"j{begin:%Y%m%d%H%M}-now", job.id, job.name, job.policy, Cause.MANUAL, begin, JobRunState.RUNNING, begin,
        selected=len(machines),
    )  # fmt: skip
    running: list[str] = []
    with services.jobs.transaction() as unit:
        unit.runs.begin(run)
        for number, one in enumerate(machines):
            state = TaskState.RUNNING if number < 4 else TaskState.WAITING
            keys = (f"host:{one.host}", f"place:{one.place}")
            task = Task(
                f"{run.id}-{number}", run.id, TaskKind.BACKUP, state, one.id, one.name, one.host, keys,
                order=begin + timedelta(seconds=number), expected_seconds=1300.0, created_at=begin,
                run=f"bnow-{number}" if state is TaskState.RUNNING else "",
                proxy=f"{PROXIES[number % 2]}-1" if state is TaskState.RUNNING else "",
                claimed_at=begin + timedelta(seconds=5 + 40 * number) if state is TaskState.RUNNING else None,
            )  # fmt: skip
            unit.tasks.add([task])
            if number < 2:
                unit.tasks.end(task.id, TaskState.DONE, now - timedelta(minutes=3 - number), measures=MEASURED)
            elif state is TaskState.RUNNING:
                running.append(task.id)
    return running


class Pulse(threading.Thread):
    """What living proxies write each second: that they are there, and how far their work is."""

    def __init__(self, services: Services, running: Sequence[str]) -> None:
        super().__init__(name="pulse", daemon=True)
        self._services = services
        self._running = {task: 34 * GiB * (1 + number) for number, task in enumerate(running)}
        self._total = 400 * GiB
        self._ended = threading.Event()

    def run(self) -> None:
        """Until ``end``."""
        began = datetime.now(UTC) - timedelta(days=9, hours=4)
        while True:
            self._running = {
                task: min(done + int(SPEED * 1.0), int(self._total * 0.97)) for task, done in self._running.items()
            }
            with self._services.jobs.transaction() as unit:
                for machine in PROXIES:
                    unit.proxies.beat(ProxyFacts(f"{machine}-1", machine, began, began, version="0.1.0", slots=4))
                known = {task: (done, self._total) for task, done in self._running.items()}
                unit.tasks.progress(known, dict.fromkeys(known, "copying"))
            if self._ended.wait(1.0):
                return

    def end(self) -> None:
        """And wait for it."""
        self._ended.set()
        if self.is_alive():
            self.join(30)
