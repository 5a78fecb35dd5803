"""What a task brought, as people read it."""

from datetime import UTC, datetime
from typing import Any

from api.schemas.tasks import Task
from api.ui.pages.task_result import figures, lines
from catalog.jobs.values import TaskKind, TaskState

MOMENT = datetime(2026, 11, 1, 1, 0, tzinfo=UTC)


def task(kind: TaskKind, result: dict[str, Any], **measures: Any) -> Task:
    return Task(
        id="t1", kind=kind, state=TaskState.DONE, title="x", created_at=MOMENT, result=result, measures=measures
    )


def line(verdict: str, why: str) -> dict[str, Any]:
    return {
        "machine": "<db>",
        "machine_id": "id-db",
        "point": "p/1",
        "verdict": verdict,
        "rules": "nightly",
        "why": why,
    }


def test_what_retention_would_do_is_shown_for_each_restore_point() -> None:
    found = {"dry_run": True, "remove": 1, "keep": 1, "more": 3}
    one = task(TaskKind.PRUNE, {**found, "lines": [line("remove", "no rule keeps it"), line("keep", "daily 3")]})
    shown = lines(one)

    assert shown is not None
    for words in ("Would go", "Stays", "no rule keeps it", "daily 3", "nightly", "&lt;db&gt;", "3 more entries"):
        assert words in shown, words
    assert 'href="/console/machines/id-db"' in shown
    assert 'href="/console/restore-points/p%2F1"' in shown
    assert dict(figures(one)) == {"Only looked at": "yes", "Would go": "1", "Would stay": "1"}


def test_nothing_leads_to_restore_points_that_are_deleted() -> None:
    shown = lines(task(TaskKind.PRUNE, {"dry_run": False, "lines": [line("removed", "")], "more": 0}))

    assert shown is not None
    assert "p/1" in shown
    assert "/restore-points/" not in shown
    assert "Why" not in shown, "no row says why"


def test_what_does_not_fit_into_a_chain_is_named_and_nothing_found_is_said() -> None:
    trouble = {"trouble": "altered", "notice": False, "machine": "db", "point": "p1", "why": "its signature is wrong"}
    shown = lines(task(TaskKind.AUDIT, {"lines": [trouble], "more": 0}))

    assert shown is not None
    assert "Altered" in shown
    assert "its signature is wrong" in shown
    assert "Every chain is whole" in str(lines(task(TaskKind.AUDIT, {"lines": [], "more": 0})))
    assert lines(task(TaskKind.AUDIT, {})) is None, "it has not looked yet"


def test_a_backup_shows_its_measures_with_units_and_a_restore_its_machine_and_disks() -> None:
    measures = {"bytes_read": 3 << 30, "frozen_seconds": 0.81, "transports": ["san"], "stages": {"source": 1.5}}
    assert dict(figures(task(TaskKind.BACKUP, {}, **measures))) == {
        "Bytes read": "3.0 GiB",
        "Guest stood still": "0.8 s",
        "Transports": "san",
    }
    disk = {"key": "vda", "device": "/dev/sdx", "size": 1 << 30, "bytes_written": 1 << 20, "reasons": []}
    one = task(TaskKind.RESTORE, {"machine": {"id": "m1", "name": "back", "host": "h1"}, "disks": [disk]})
    assert 'href="/console/machines/m1"' in str(dict(figures(one))["Restored machine"])
    shown = str(lines(one))
    for words in ("vda", "/dev/sdx", "1.0 GiB", "1.0 MiB"):
        assert words in shown, words


def test_files_are_counted_by_kind() -> None:
    shown = dict(figures(task(TaskKind.FILES, {"entries": {"file": 1200, "directory": 3}, "content": 1 << 20})))
    assert shown == {"Entries": "1,200 file, 3 directory", "Bytes of files": "1.0 MiB"}
