"""Hypervisors that are configured, and what they showed when they were last looked at."""

from collections.abc import Sequence
from typing import Literal, Protocol

from api.auth.roles import Caller
from api.schemas.hypervisors import Certificate, Hypervisor, NewHypervisor, Tree, Tried
from api.schemas.tasks import Task


class Hypervisors(Protocol):
    """Hosts and vCenters."""

    def list(self, caller: Caller) -> Sequence[Hypervisor]:
        """By name; asks none of them. Machines are counted that the caller reaches."""
        ...

    def tree(self, caller: Caller, by: Literal["folder", "host"]) -> Tree:
        """What they showed, as far as the caller reaches it."""
        ...

    def refresh(self, caller: Caller) -> Task:
        """Ask for a look at all of them. Raises ``BeyondReach`` for who does not reach all machines."""
        ...

    def certificate(self, caller: Caller, host: str, port: int) -> Certificate:
        """What the server shows, for a person to compare. Raises ``AddressRefused``, ``HostUnreachable``."""
        ...

    def add(self, caller: Caller, new: NewHypervisor) -> Tried:
        """Try it, and write it into the configuration. Recorded before it is tried. Raises ``AddressRefused``,
        ``CertificateUnconfirmed``, ``HostUnreachable``, ``Conflict`` for a name that is taken."""
        ...

    def remove(self, caller: Caller, name: str) -> None:
        """Take it out of the configuration; restore points of its machines stay. Raises ``NotFound``."""
        ...
