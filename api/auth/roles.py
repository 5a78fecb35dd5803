"""Roles, what each may do, and the caller of a request.

A role is a set of permissions; a user may have several. Which *objects* they reach is said beside it: patterns of machines
(``db-*``, or an identity). Both have to allow: a restore operator of ``db-*`` restores nothing else.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from types import MappingProxyType

from proxy.model import MachineId

EVERY_MACHINE = ("*",)


class Permission(StrEnum):
    """One kind of doing. Each route names the one that it needs."""

    VIEW = "view"
    """Inventory, jobs, runs, restore points, repositories, proxies, reports; never what files hold."""
    BACK_UP = "back-up"
    """Protect a machine now, begin and stop runs."""
    EDIT_JOBS = "edit-jobs"
    MAINTAIN = "maintain"
    """Verify, prune, collect, copy, index, sweep, repair; hold and release restore points."""
    DELETE_POINTS = "delete-points"
    BROWSE_FILES = "browse-files"
    """Names of files inside restore points."""
    RESTORE_FILES = "restore-files"
    """What files hold: download, put back."""
    RESTORE_MACHINES = "restore-machines"
    VIEW_AUDIT = "view-audit"
    CONFIGURE = "configure"
    """Hypervisors, repositories, settings of the appliance."""
    MANAGE_ACCESS = "manage-access"
    """Users, their roles, everybody's tokens."""
    APPROVE = "approve"
    """The second pair of eyes where two are asked for."""


class Role(StrEnum):
    """What people are to the appliance."""

    ADMINISTRATOR = "administrator"
    OPERATOR = "operator"
    RESTORE_OPERATOR = "restore-operator"
    AUDITOR = "auditor"


PERMISSIONS: Mapping[Role, frozenset[Permission]] = MappingProxyType(
    {
        Role.ADMINISTRATOR: frozenset(Permission),
        Role.OPERATOR: frozenset(
            {Permission.VIEW, Permission.BACK_UP, Permission.EDIT_JOBS, Permission.MAINTAIN, Permission.APPROVE}
        ),
        Role.RESTORE_OPERATOR: frozenset(
            {Permission.VIEW, Permission.BROWSE_FILES, Permission.RESTORE_FILES, Permission.RESTORE_MACHINES}
        ),
        Role.AUDITOR: frozenset({Permission.VIEW, Permission.VIEW_AUDIT}),
    }
)
"""An operator keeps backups going and reads nobody's files; who restores changes no job; who audits changes nothing."""


class Via(StrEnum):
    """How a caller proved who they are."""

    SESSION = "session"
    TOKEN = "token"  # noqa: S105  # a way to sign in, no secret


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request. ``machines``: patterns of names or identities that they reach, ``("*",)`` for all.
    ``remote``: address of the other end. ``token``: name of the API token, if it was one."""

    name: str
    permissions: frozenset[Permission]
    machines: tuple[str, ...] = EVERY_MACHINE
    via: Via = Via.SESSION
    remote: str = ""
    token: str = ""

    @property
    def who(self) -> str:
        """As the access log names them: ``alice@192.0.2.7``, ``alice (token ci)@192.0.2.7``."""
        name = f"{self.name} (token {self.token})" if self.token else self.name
        return f"{name}@{self.remote}" if self.remote else name

    @property
    def sees_all(self) -> bool:
        """Whether no machine is out of reach."""
        return "*" in self.machines

    def may(self, permission: Permission) -> bool:
        """Whether any of their roles allows it."""
        return permission in self.permissions

    def sees(self, machine: MachineId, name: str) -> bool:
        """Whether this machine is within their reach. Case counts, as in names of machines."""
        return any(pattern == machine or fnmatchcase(name, pattern) for pattern in self.machines)


def allowed(roles: Iterable[Role]) -> frozenset[Permission]:
    """What these roles allow together."""
    return frozenset[Permission]().union(*(PERMISSIONS[role] for role in roles))
