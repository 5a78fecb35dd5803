"""Run ids in names on hosts, in datastores and in our own directories."""

import re

from proxy.errors import SnapshotFailed
from proxy.model import RunId

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def checked_run(run: RunId) -> RunId:
    """Refuse (``SnapshotFailed``) run ids that could leave their directory or break a name of ours."""
    if not _SAFE.fullmatch(run):
        raise SnapshotFailed(run, "a run id has letters, digits, '.', '_' and '-', at most 100")
    return run
