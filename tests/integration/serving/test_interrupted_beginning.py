"""The beginning of a job run, when something comes between."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from appliance.serving import phases, scheduler
from catalog.jobs.store import JobStore, Unit
from catalog.jobs.values import JobRunState
from proxy.errors import DatabaseAway
from proxy.model import ReasonCode
from tests.integration.serving.fleet import Fleet, until

pytestmark = [pytest.mark.tools, pytest.mark.timeout(120)]


class AwayOnce(JobStore):
    """Whose database does not answer one transaction; the one before it and all later ones do."""

    transactions = 0

    @contextmanager
    def transaction(self, *, write: bool = True, apart: bool = False) -> Iterator[Unit]:
        self.transactions += 1
        if self.transactions == 2:
            raise DatabaseAway("its database", "restarts")
        with super().transaction(write=write, apart=apart) as unit:
            yield unit


def test_a_run_that_is_stopped_while_its_machines_are_chosen_gets_no_tasks(fleet: Fleet) -> None:
    fleet.machines(2)
    run = scheduler.begin_now(fleet.services, fleet.job(due=False))
    with fleet.services.jobs.transaction() as unit:
        assert unit.runs.stop(run.id, fleet.services.clock.now())
    opened = phases.choose(fleet.services, run, ())
    assert opened.error is None
    assert fleet.tasks() == []


def test_a_database_that_is_away_for_a_moment_does_not_fail_the_beginning(fleet: Fleet) -> None:
    fleet.machines(2)
    run = scheduler.begin_now(fleet.services, fleet.job(due=False))
    with AwayOnce(fleet.services.catalog_url) as away:
        fleet.services.__dict__["jobs"], kept = away, fleet.services.jobs
        opened = phases.choose(fleet.services, run, ())
        fleet.services.__dict__["jobs"] = kept
    assert opened.error is None
    assert away.transactions > 2, "it was away"
    assert len(fleet.tasks()) == 2


def test_hosts_that_were_silent_are_told_though_the_beginning_was_cut_off_after_them(fleet: Fleet) -> None:
    fleet.machines(2)
    fleet.site.silence({"h2"})
    run = scheduler.begin_now(fleet.services, fleet.job(due=False))
    phases.choose(fleet.services, run, ())  # its process ends before anybody noted what it saw
    fleet.site.silence(())
    assert phases.choose(fleet.services, run, ()).reasons == (), "the hosts are not looked at twice"
    (told,) = fleet.runs()
    assert [reason.code for reason in told.reasons] == [ReasonCode.HOSTS_SILENT]
    assert phases.verdict([], told) is JobRunState.ATTENTION
    assert any("h2 does not answer" in text for text in told.notes)


def test_the_end_of_the_service_during_a_hook_costs_no_night(fleet: Fleet) -> None:
    fleet.machines(1)
    log = fleet.base / "hooks"
    fleet.job(before=[{"command": ["sh", "-c", f"echo begun >> {log}; test $(wc -l < {log}) -gt 1 || sleep 1000"]}])
    first = fleet.start()
    until(log.exists, "the hook is under way")
    assert fleet.end(first) == 0
    assert fleet.runs()[0].state is JobRunState.RUNNING
    fleet.start()
    until(fleet.ended, "the next start goes on with it")
    assert fleet.runs()[0].state is JobRunState.DONE
    assert log.read_text().split() == ["begun", "begun"]
    assert fleet.points() == ["m000"]
