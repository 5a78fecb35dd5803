"""An appliance in a directory, with restore points that were made at any moment, by any job."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from appliance.config import Settings, parse
from appliance.storage import write_key_file
from appliance.wiring import Services
from proxy.model import Consistency, Level, MachineConfiguration, Reason, ReasonCode, RestorePoint
from proxy.repository import Repository

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
CHUNK = 256 * 1024


class StandingClock:
    """It is always the same moment."""

    def __init__(self, now: datetime = NOW) -> None:
        self.moment = now

    def now(self) -> datetime:
        return self.moment


def settings(directory: Path, more: str = "") -> Settings:
    """Below ``directory``: repository, key, state."""
    text = f'[repository]\npath = "{directory}/repo"\nkey_file = "{directory}/repo.key"\n'
    return parse(f'{text}[state]\ndirectory = "{directory}/state"\n{more}', directory / "lanfree.toml")


def appliance(directory: Path, more: str = "") -> Services:
    """With a repository of its own key, made when it is first opened."""
    directory.mkdir(exist_ok=True)
    made = Services(settings(directory, more))
    made.clock = StandingClock()  # type: ignore[assignment]  # a clock all the same
    made.make_repository()
    return made


def key(path: Path) -> Path:
    """A key file."""
    write_key_file(path)
    return path


def seal(
    repository: Repository,
    moment: datetime,
    *,
    machine: str = "m1",
    name: str = "",
    job: str = "",
    job_id: str = "",
    data: bytes = b"",
    parent: RestorePoint | None = None,
    reasons: Sequence[Reason] = (),
    consistency: Consistency = Consistency.APPLICATION,
) -> RestorePoint:
    """One restore point with a disk ``vda`` of these bytes (or of few); with a parent only the rest of it is written."""
    data = data or random.Random(str(moment)).randbytes(4096)
    with repository.image_writer("vda", len(data), parent.images[0] if parent else None) as writer:
        for at in range(0, len(data), writer.granularity):
            writer.write(at, memoryview(data)[at : at + writer.granularity])
        image = writer.seal()
    made = (Reason(ReasonCode.MADE_BY_JOB, job),) if job else ()
    made = (*made, Reason(ReasonCode.MADE_BY_JOB_ID, job_id)) if job_id else made
    point = RestorePoint(
        *("", machine, name or machine, "h1", f"r{moment:%Y%m%d%H%M%S}", moment, Level.FULL, consistency, (image,)),
        configuration=MachineConfiguration("libvirt-xml", "<domain/>"),
        reasons=(*made, *reasons),
        parent=parent.id if parent else None,
    )
    return repository.seal(replace(point))
