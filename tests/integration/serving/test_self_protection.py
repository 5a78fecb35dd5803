"""The appliance after each job run: in its own repository, and once around through a disaster."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import config
from appliance.protection.backup import machine_of
from appliance.protection.bootstrap import Source, Wishes, bootstrap
from appliance.serving import scheduler
from catalog.jobs.values import JobRunState
from proxy.model import RestorePoint
from tests.integration.serving.fleet import Fleet, until

pytestmark = pytest.mark.tools


class Protected(Fleet):
    """Whose proxies protect themselves."""

    def configuration(self, state: str) -> Path:
        file = super().configuration(state)
        file.write_text(file.read_text().replace("[protect]\nenabled = false", "[protect]\nenabled = true"))
        return file

    def own_points(self) -> list[RestorePoint]:
        repository = self.services.repository
        return list(repository.points(machine_of(repository)))


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Protected]:
    made = Protected(tmp_path)
    yield made
    made.close()


@pytest.mark.timeout(240)
def test_a_run_is_in_the_appliance_s_own_restore_point_and_goes_on_after_a_disaster(guarded: Protected) -> None:
    guarded.machines(3)
    job = guarded.job(due=False)
    run = scheduler.begin_now(guarded.services, job)
    proxy = guarded.start()
    until(lambda: guarded.ended() and guarded.own_points(), "the run has ended, and the appliance is protected")
    assert guarded.end(proxy) == 0
    (newest,) = guarded.own_points()
    machines = {p.machine for p in guarded.services.repository.points() if not p.of_appliance}
    assert len(machines) == 3
    guarded.services.close()
    shutil.rmtree(guarded.base / "looking-on")
    configuration = guarded.base / "looking-on.toml"
    before = configuration.read_bytes()
    configuration.unlink()
    clear = Source(config.Repository(path=guarded.base / "repository", unencrypted=True))
    done = bootstrap(clear, Wishes(configuration=configuration, state=guarded.base / "looking-on"))
    assert (done.point, done.added) == (newest.id, 0)
    assert configuration.read_bytes() == before
    with guarded.services.jobs.transaction(write=False) as unit:
        assert [known.name for known in unit.jobs.list()] == [job.name]
        found = unit.runs.get(run.id)
        assert found is not None
        assert found.state is JobRunState.DONE, "it was saved with its end"
    again = scheduler.begin_now(guarded.services, job)
    guarded.start()
    until(lambda: guarded.runs()[0].state is JobRunState.DONE, "the new appliance runs the same job")
    assert guarded.runs()[0].id == again.id
    until(lambda: len(guarded.own_points()) == 2, "and is protected anew")
