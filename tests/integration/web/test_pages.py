"""Every page of the console in Debian's Chromium: both shades, wide and narrow, without anything from elsewhere, and fit for
people who use a keyboard or a screen reader."""

import pytest

from catalog.jobs.values import JobRunState, TaskState
from tests.integration.web import estate
from tests.integration.web.console import NARROW, WIDE, Console, drawn, findings

pytestmark = [pytest.mark.tools, pytest.mark.timeout(1800)]

PAGES = {
    "dashboard": "/",
    "running": "/running",
    "machines": "/machines",
    "machines-by-host": "/machines?view=host",
    "jobs": "/jobs",
    "job-new": "/jobs/new",
    "hypervisors": "/hypervisors",
    "search": "/search?q=m00",
    "restore-files": "/restore/files",
    "files-find": "/files",
    "restore-lost": "/restore/lost",
    "restore-machine": "/restore/machine",
    "restore-points": "/restore-points",
    "repositories": "/repositories",
    "repository": "/repositories/main",
    "proxies": "/proxies",
    "approvals": "/approvals",
    "users": "/users",
    "account": "/account",
    "audit": "/audit",
    "settings": "/settings",
    "doctor": "/doctor",
}


def full(console: Console) -> dict[str, str]:
    """Pages that are full of a month's history, by name; of each of the machines, runs and tasks that look different, one."""
    known = {one.name: one.id for one in estate.machines()}
    runs = console.fleet.runs()
    nightly = next(run for run in runs if run.job_name == "Production nightly")
    now = next(run for run in runs if run.state is JobRunState.RUNNING)
    tasks = {task.state: task.id for task in (*console.fleet.tasks(nightly.id), *console.fleet.tasks(now.id))}
    return {
        "dashboard": "/",
        "machines": "/machines",
        "machines-by-host": "/machines?view=host",
        "machines-by-folder": "/machines?view=folder",
        "machine": f"/machines/{known['app-03']}",
        "machine-often": f"/machines/{known['db-01']}",
        "machine-failed": f"/machines/{known['mail-02']}",
        "machine-never": f"/machines/{known['test-01']}",
        "jobs": "/jobs",
        "job": "/jobs/Production%20nightly",
        "job-edit": "/jobs/Production%20nightly/edit",
        "job-new": "/jobs/new",
        "run": f"/runs/{nightly.id}",
        "run-running": f"/runs/{now.id}",
        "running": "/running",
        "task-done": f"/tasks/{tasks[TaskState.DONE]}",
        "task-failed": f"/tasks/{tasks[TaskState.FAILED]}",
        "task-running": f"/tasks/{tasks[TaskState.RUNNING]}",
        "hypervisors": "/hypervisors",
        "search": "/search?q=db",
    }


@pytest.mark.parametrize(("width", "dark"), [(WIDE, False), (NARROW, True)], ids=["1280-light", "400-dark"])
def test_full_pages_are_drawn_without_serious_findings_of_axe(seeded: Console, width: int, dark: bool) -> None:
    page = seeded.signed_in(width=width, dark=dark)
    found = {}
    for name, path in full(seeded).items():
        seeded.go(page, path)
        drawn(page)
        seeded.keep(page, f"full-{name}-{'dark' if dark else 'light'}-{width}")
        if serious := findings(page):
            found[name] = serious
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{name} scrolls sideways by {wider} px"
    assert not found
    assert not seeded.outside
    assert not seeded.complaints


@pytest.mark.parametrize(("width", "dark"), [(WIDE, True), (NARROW, False)], ids=["1280-dark", "400-light"])
def test_every_page_is_drawn_without_serious_findings_of_axe(console: Console, width: int, dark: bool) -> None:
    page = console.signed_in(width=width, dark=dark)
    found = {}
    for name, path in PAGES.items():
        console.go(page, path)
        drawn(page)
        console.keep(page, f"{name}-{'dark' if dark else 'light'}-{width}")
        if serious := findings(page):
            found[name] = serious
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{name} scrolls sideways by {wider} px"
    assert not found
    assert not console.outside
    assert not console.complaints
