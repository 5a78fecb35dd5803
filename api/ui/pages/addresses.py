"""Where pages are: one place that knows their addresses."""

import json
from urllib.parse import quote, urlencode

from nicegui import ui

from api.ui.visit import PREFIX


def to(path: str) -> str:
    """A page of the console."""
    return PREFIX + path


def go(address: str) -> None:
    """Let the browser go there. ``address``: whole, as all of these are; ``ui.navigate.to`` would put the prefix before it."""
    ui.run_javascript(f"location.assign({json.dumps(address)})")


def machine_page(machine: str) -> str:
    """All that is known of a machine."""
    return to(f"/machines/{quote(machine, safe='')}")


def job_page(name: str) -> str:
    """A job."""
    return to(f"/jobs/{quote(name, safe='')}")


def run_page(run: str) -> str:
    """A job run."""
    return to(f"/runs/{quote(run, safe='')}")


def task_page(task: str) -> str:
    """A task that a person asked for."""
    return to(f"/tasks/{quote(task, safe='')}")


def point_page(point: str) -> str:
    """A restore point."""
    return to(f"/restore-points/{quote(point, safe='')}")


def files_page(point: str, path_id: str = "") -> str:
    """The files of a restore point. ``path_id``: the directory to begin with."""
    query = f"?{urlencode({'path_id': path_id})}" if path_id else ""
    return to(f"/restore-points/{quote(point, safe='')}/files{query}")


def versions_page(machine: str, path_id: str) -> str:
    """All recorded versions of one file."""
    return to(f"/restore/versions?{urlencode({'machine': machine, 'path_id': path_id})}")


def compare_page(before: str, after: str, path_id: str = "") -> str:
    """What differs between two restore points."""
    return to(f"/restore/compare?{urlencode({'before': before, 'after': after, 'path_id': path_id})}")


def restore_page(point: str) -> str:
    """The wizard that restores a whole machine."""
    return to(f"/restore/machine/{quote(point, safe='')}")


def repository_page(name: str) -> str:
    """A repository."""
    return to(f"/repositories/{quote(name, safe='')}")
