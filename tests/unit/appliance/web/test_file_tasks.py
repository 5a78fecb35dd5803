"""Restores of files that were asked for: below the configured directories, by whoever reaches both machines."""

import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.auth.roles import Caller, Role, allowed
from api.schemas.files import FileRestoreRequest
from appliance import config
from appliance.serving import wishes
from appliance.serving.performing import Done
from appliance.web.file_tasks import ask_restore, base_of, below, restore_files
from catalog.jobs.values import TaskKind
from proxy.errors import Cancelled, FormatError, MachineNotFound, RestorePointNotFound, RestoreRefused
from proxy.model import RestorePoint
from tests.unit.api.api_site import ApiSite, site_in
from tests.unit.api.guest_volumes import Guests, volume

pytestmark = pytest.mark.slow


def perform(site: ApiSite, parameters: Mapping[str, Any], *, stop: bool = False) -> Done:
    """As a process that serves does."""
    return restore_files(site.services, parameters, cancelled=lambda: stop, progress=lambda _: None, say=lambda _: None)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ApiSite]:
    (tmp_path / "restored").mkdir()
    made = site_in(tmp_path)
    made.file.write_text(made.file.read_text() + f'[web]\nrestore_directories = ["{tmp_path}/restored"]\n')
    made.services.settings = config.load(made.file)
    made.services.make_repository()
    with made.services:
        yield made


@pytest.fixture
def point(site: ApiSite) -> RestorePoint:
    made = site.point(site.machine("db-1"))
    root = volume()
    root.add_file(b"/srv/a.txt", b"alpha", mode=0o640, mtime_ns=1_700_000_000_000_000_000)
    root.add_file(b"/srv/b/c.txt", b"charlie", mode=0o4755)
    root.add_link(b"/srv/link", b"/etc/passwd")
    Guests(site).hold(made, root)
    return made


def caller(*, machines: tuple[str, ...] = ("*",)) -> Caller:
    return Caller("alice", allowed([Role.RESTORE_OPERATOR]), machines)


def asked(site: ApiSite, point: RestorePoint, to: Mapping[str, object], who: Caller | None = None) -> Any:
    """The task, as a process that serves finds it."""
    request = FileRestoreRequest.model_validate({"paths": [{"path": "/srv"}], "to": to})
    name = ask_restore(site.services, who or caller(), point.id, request)
    with site.services.jobs.transaction(write=False) as unit:
        task = unit.tasks.get(name)
    assert task is not None
    return task


def test_a_restore_to_an_allowed_directory_is_a_task_that_does_it(
    site: ApiSite, point: RestorePoint, tmp_path: Path
) -> None:
    place = tmp_path / "restored" / "for-alice" / "today"

    task = asked(site, point, {"kind": "directory", "directory": str(place)})
    done = perform(site, task.parameters)

    assert (task.kind, task.machine, task.asked_by) == (TaskKind.FILES, point.machine, "alice")
    assert str(place) in str(wishes.cut_off(task)), "who finds it cut off is told where half of it may lie"
    assert (place / "srv/a.txt").read_bytes() == b"alpha"
    assert (place / "srv/b/c.txt").read_bytes() == b"charlie"
    assert (place / "srv/link").readlink() == Path("/etc/passwd")
    assert stat.S_IMODE((place / "srv/a.txt").stat().st_mode) == 0o640
    assert not (place / "srv/b/c.txt").stat().st_mode & stat.S_ISUID
    assert stat.S_IMODE((tmp_path / "restored/for-alice").stat().st_mode) == 0o700
    assert (done.result["failed"], done.result["content"], done.problems) == (0, 12, ())
    assert done.point == point.id


def test_the_access_is_recorded_when_it_is_asked_for(site: ApiSite, point: RestorePoint, tmp_path: Path) -> None:
    asked(site, point, {"kind": "directory", "directory": f"{tmp_path}/restored/x"})

    (entry,) = site.services.catalog.audit.list(limit=1)
    assert (entry.who, entry.action, entry.point) == ("alice", "restore-files", point.id)
    assert entry.detail == {"paths": ["/srv"], "to": f"{tmp_path}/restored/x"}


@pytest.mark.parametrize(
    "directory",
    [
        "/",
        "/etc",
        "/restored",
        "{base}",
        "{base}/restored/../x",
        "{base}/restoredX",
        "{base}/restored/a/../../b",
        "//x",
    ],
)
def test_nothing_is_restored_outside_of_the_allowed_directories(
    site: ApiSite, point: RestorePoint, tmp_path: Path, directory: str
) -> None:
    with pytest.raises(RestoreRefused):
        asked(site, point, {"kind": "directory", "directory": directory.format(base=tmp_path)})


def test_a_link_in_an_allowed_directory_leads_nowhere(site: ApiSite, point: RestorePoint, tmp_path: Path) -> None:
    (outside := tmp_path / "outside").mkdir()
    (tmp_path / "restored/link").symlink_to(outside)
    for directory in ("restored/link", "restored/link/deeper"):
        task = asked(site, point, {"kind": "directory", "directory": f"{tmp_path}/{directory}"})
        with pytest.raises(RestoreRefused):
            perform(site, task.parameters)

    assert list(outside.iterdir()) == []


def test_a_directory_that_is_exchanged_for_a_link_while_it_is_used_still_gets_the_files(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "base").mkdir()
    with below([tmp_path / "base"], str(tmp_path / "base/target")) as place:
        (tmp_path / "base/target").rename(tmp_path / "base/moved")
        (tmp_path / "base/target").symlink_to(tmp_path / "outside")
        (place / "file").write_text("here")

    assert (tmp_path / "base/moved/file").read_text() == "here"
    assert list((tmp_path / "outside").iterdir()) == []


def test_without_configured_directories_the_hint_says_which_setting_it_is() -> None:
    with pytest.raises(RestoreRefused) as caught:
        base_of([], "/srv/restored")
    assert "restore_directories" in caught.value.hint


def test_the_narrowest_allowed_directory_counts() -> None:
    allowed_ = [Path("/srv"), Path("/srv/restored")]
    assert base_of(allowed_, "/srv/restored/a/b") == (Path("/srv/restored"), ("a", "b"))
    assert base_of(allowed_, "/srv") == (Path("/srv"), ())


def test_what_is_there_already_stays_unless_it_may_be_replaced(
    site: ApiSite, point: RestorePoint, tmp_path: Path
) -> None:
    (place := tmp_path / "restored/srv").mkdir()
    (place / "a.txt").write_text("mine")
    to = {"kind": "directory", "directory": f"{tmp_path}/restored"}

    refused = perform(site, asked(site, point, to).parameters)
    assert refused.result["failed"] == 1
    assert refused.problems[0].startswith("/srv/a.txt: ")
    assert (place / "a.txt").read_text() == "mine"

    perform(site, asked(site, point, {**to, "existing": "overwrite"}).parameters)
    assert (place / "a.txt").read_text() == "alpha"


def test_a_stopped_restore_ends(site: ApiSite, point: RestorePoint, tmp_path: Path) -> None:
    task = asked(site, point, {"kind": "directory", "directory": f"{tmp_path}/restored"})
    with pytest.raises(Cancelled):
        perform(site, task.parameters, stop=True)


def test_both_machines_have_to_be_within_reach(site: ApiSite, point: RestorePoint) -> None:
    site.point(site.machine("web-1"))
    to = {"kind": "guest", "machine": "web-1", "directory": "/srv"}

    with pytest.raises(RestorePointNotFound):
        asked(site, point, to, caller(machines=("web-*",)))
    with pytest.raises(MachineNotFound):
        asked(site, point, to, caller(machines=("db-*",)))
    assert asked(site, point, to).parameters["to"]["machine"] != "web-1"


def test_no_parameter_of_a_task_is_a_secret(site: ApiSite, point: RestorePoint, tmp_path: Path) -> None:
    task = asked(site, point, {"kind": "directory", "directory": f"{tmp_path}/restored"})

    assert set(task.parameters) == {"version", "point", "paths", "to", "full_paths"}


def test_parameters_of_another_version_are_refused(site: ApiSite) -> None:
    with pytest.raises(FormatError):
        perform(site, {"version": 99})


def test_two_that_are_asked_for_with_one_key_are_one(site: ApiSite, point: RestorePoint, tmp_path: Path) -> None:
    to = {"kind": "directory", "directory": f"{tmp_path}/restored"}
    request = FileRestoreRequest.model_validate({"paths": [{"path": "/srv"}], "to": to})
    ask: Callable[[], str] = lambda: ask_restore(site.services, caller(), point.id, request, key="k-1")  # noqa: E731

    assert ask() == ask()
    assert list((tmp_path / "restored").iterdir()) == []


def test_a_task_is_the_persons_who_asked_whatever_they_asked_with(
    site: ApiSite, point: RestorePoint, tmp_path: Path
) -> None:
    """So that they see and stop it, and no program of theirs is given what another one asked for."""
    request = FileRestoreRequest.model_validate(
        {"paths": [{"path": "/srv"}], "to": {"kind": "directory", "directory": f"{tmp_path}/restored/x"}}
    )
    programs = [replace(caller(), remote="192.0.2.7", token=name) for name in ("ci", "night", "ci")]
    first, second, again = (ask_restore(site.services, who, point.id, request, key="k" * 255) for who in programs)
    assert first == again != second
    with site.services.jobs.transaction(write=False) as unit:
        task = unit.tasks.get(first)
    assert task is not None
    assert task.asked_by == "alice"
