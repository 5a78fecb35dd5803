"""Whether the appliance is well, which version it is, and that something changed."""

from typing import Literal

from pydantic import Field

from api.schemas.common import Answer


class Health(Answer):
    """``live``: the process answers."""

    status: Literal["live"] = "live"


class Readiness(Answer):
    """``status``: ``ready`` when all parts answer. ``away``: those that do not: ``catalog``, ``jobs``, ``access``,
    ``repository``."""

    status: Literal["ready", "not-ready"]
    away: list[str] = Field(default_factory=list)


class Version(Answer):
    """``version``: of the software; ``api``: of what is below ``/api/``."""

    version: str
    api: str = "v1"


class Changes(Answer):
    """Marks that are others when something of the kind changed. What they are says nothing, and progress of what runs is no
    change."""

    jobs: str
    job_runs: str
    tasks: str
    proxies: str
    restore_points: str
