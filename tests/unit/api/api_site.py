"""An appliance with machines in memory, and ways to ask its API, for tests of routes: real parts throughout."""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from api.auth.roles import EVERY_MACHINE, Permission, Role, allowed
from api.auth.sessions import digest
from appliance import config, operations
from appliance.wiring import Services
from catalog.access.values import Token, User
from catalog.jobs.policy import Policy
from catalog.jobs.values import Job
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.hypervisor.several import Sites
from proxy.model import MachineId, RestorePoint
from proxy.transport.memory import MemoryTransport
from tests.unit.appliance.keeping.sealed_points import seal

CONFIGURATION = """
[repository]
path = "{base}/repository"
unencrypted = true
[state]
directory = "{base}/state"
[files]
index = false
[protect]
enabled = false
"""


@dataclass
class ApiSite:
    """``services``: the appliance; ``memory``: its hypervisor, with hosts h1 and h2 and, at first, no machine. ``file``: its
    configuration."""

    services: Services
    memory: MemoryHypervisor
    file: Path
    names: dict[MachineId, str] = field(default_factory=dict)

    def machine(self, name: str, *, host: str = "h1", size: int = 64 * 1024, **more: Any) -> MachineId:
        """One disk ``vda``."""
        made = self.memory.add(name, {"vda": bytes(size)}, **more)
        self.memory.migrate(made, host)
        self.names[made] = name
        return made

    def point(self, machine: MachineId, *, ago: timedelta = timedelta(hours=1), **more: Any) -> RestorePoint:
        """A restore point in repository and catalog; see ``seal`` for more."""
        moment = datetime.now(UTC) - ago
        name = self.names.get(machine, machine)
        made = seal(self.services.repository, moment, machine=machine, name=name, **more)
        assert operations.record(self.services, made) == ""
        return made

    def job(self, name: str = "nightly", **policy: object) -> Job:
        """With this policy."""
        with self.services.jobs.transaction() as unit:
            return unit.jobs.add(name, Policy.model_validate(policy), datetime.now(UTC))


def site_in(base: Path) -> ApiSite:
    """Below ``base``, where the databases may lie already."""
    file = base / "lanfree.toml"
    file.write_text(CONFIGURATION.format(base=base))
    memory = MemoryHypervisor()
    services = Services(config.load(file))
    services.__dict__["hypervisor"] = Sites([memory], lambda _configuration, _new: memory)
    services.__dict__["transports"] = (MemoryTransport(memory.disk_bytes),)
    return ApiSite(services, memory, file)


class Callers:
    """Users of the appliance on which the application is, each with a token."""

    def __init__(self, app: FastAPI, services: Services) -> None:
        self.app = app
        self._services = services

    def client(
        self, *may: Role | Permission, machines: tuple[str, ...] = EVERY_MACHINE, name: str = "", **headers: str
    ) -> TestClient:
        """Of somebody with these roles, and these permissions; without any: of one who is known, and may nothing."""
        name = name or f"user-{secrets.token_hex(4)}"
        roles = tuple(role.value for role in may if isinstance(role, Role))
        single = [permission for permission in may if isinstance(permission, Permission)]
        permissions = allowed(role for role in may if isinstance(role, Role)) | set(single)
        now = datetime.now(UTC)
        secret = f"lft_{secrets.token_urlsafe(32)}"
        # A token may no more than its owner: who has single permissions has them of an administrator's.
        owner = User(name, name, None, (*roles, *((Role.ADMINISTRATOR.value,) if single else ())), machines, now)
        words = tuple(sorted(permission.value for permission in permissions))
        with self._services.access.transaction() as unit:
            unit.users.add(owner)
            unit.tokens.add(Token(secrets.token_hex(8), "test", name, digest(secret), words, machines, now))
        return self.anybody(Authorization=f"Bearer {secret}", **headers)

    def anybody(self, **headers: str) -> TestClient:
        """With these headers. What goes wrong in the application is an answer, as it is for real callers."""
        return TestClient(self.app, base_url="https://testserver", headers=headers, raise_server_exceptions=False)
