"""``lanfree --server URL``: the same commands, asked of another appliance through its API. Options and words are those of the
commands beside this package (a test compares them); ``--json`` gives the API's own documents.

Commands that are about the machine they run on (its lab, its mounts, its service) are not here: ``HERE_ONLY`` says why.
"""

from collections.abc import Mapping

REMOTE: Mapping[str, tuple[str, ...]] = {
    "access-log": ("site",),
    "audit": ("repository",),
    "backup": ("machines",),
    "catalog": ("repository",),
    "collect": ("repository",),
    "copy": ("repository",),
    "coverage": ("site",),
    "doctor": ("site",),
    "files": ("files",),
    "host": ("site",),
    "impact": ("impact",),
    "job": ("jobs", "job_runs"),
    "notify": ("site",),
    "plan": ("site",),
    "point": ("points",),
    "points": ("points",),
    "proxies": ("site",),
    "protect": ("repository",),
    "prune": ("repository",),
    "repair": ("repository",),
    "report": ("repository",),
    "restore": ("points",),
    "status": ("status",),
    "sweep": ("repository",),
    "verify": ("points",),
    "vm": ("machines",),
    "why-big": ("why",),
}
"""Word -> modules of this package."""

_THERE = "it works on the files of the machine where it runs"
_ROOT = "it is for the person who is root on that machine"

HERE_ONLY: Mapping[str, str] = {
    "bootstrap": "it makes an appliance on the machine where it runs",
    "database": _THERE,
    "demo": "its lab is on the machine where it runs",
    "export": "its sockets are on the machine where it runs",
    "init": "it makes an appliance on the machine where it runs",
    "key": "keys do not go over the network",
    "lab": "it is on the machine where it runs",
    "mount": "the directory is on the machine where it runs; 'lanfree files' browses and restores from anywhere",
    "mounts": "they are on the machine where it runs",
    "rescue": "every lanfree prints the same file",
    "serve": "it is what answers the API",
    "umount": "mounts are on the machine where it runs",
    "unlock": "keys do not go over the network",
    "user": _ROOT,
    "web": _ROOT,
}
"""Commands that no server can be asked for, and why."""
