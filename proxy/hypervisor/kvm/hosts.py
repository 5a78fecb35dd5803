"""All hosts of a site at once: where a machine is now, who is silent."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from proxy.errors import HostUnreachable, MachineNotFound
from proxy.hypervisor.kvm.answers import DomainState, Refusal, Refused
from proxy.hypervisor.kvm.connection import Domain, Host
from proxy.hypervisor.kvm.ownership import Ownership
from proxy.hypervisor.kvm.settings import KvmHost
from proxy.model import MachineId, PowerState

T = TypeVar("T")

# Hosts asked at the same time: silent ones cost OPEN_TIMEOUT each, so they had better wait side by side.
PARALLEL = 16

# Where a machine is: where it runs; else where it arrives; else where it was saved; else where it is only defined.
_RANK = {PowerState.RUNNING: 0, PowerState.PAUSED: 1, PowerState.SUSPENDED: 3, PowerState.OFF: 4}
_ARRIVING = 2


class Hosts:
    """The site's hosts by name. Calls may come from any thread."""

    def __init__(self, settings: Sequence[KvmHost]) -> None:
        self.owned = Ownership.of(settings)
        self._hosts = {one.name: Host(one, self.owned) for one in settings}

    def close(self) -> None:
        """Hang up everywhere."""
        for host in self._hosts.values():
            host.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all of them, in the order of the configuration."""
        return tuple(self._hosts)

    def named(self, name: str) -> Host | None:
        """The host with that name."""
        return self._hosts.get(name)

    def ask(self, question: Callable[[Host], T]) -> tuple[dict[str, T], dict[str, str]]:
        """Ask every host: answers, and for silent ones why. Raises ``HostUnreachable`` when all are silent."""
        answers: dict[str, T] = {}
        silent: dict[str, str] = {}

        def one(host: Host) -> None:
            try:
                answers[host.name] = question(host)
            except HostUnreachable as error:
                silent[host.name] = error.message

        with ThreadPoolExecutor(max_workers=min(PARALLEL, max(1, len(self._hosts)))) as pool:
            list(pool.map(one, self._hosts.values()))
        if not answers:
            raise HostUnreachable(", ".join(self._hosts), "; ".join(silent.values()) or "none is configured")
        return {name: answers[name] for name in self._hosts if name in answers}, silent

    def everywhere(self, machine: MachineId) -> tuple[list[Domain], Mapping[str, str]]:
        """The machine on every host that knows it, where it is now first; and the silent hosts."""
        answers, silent = self.ask(lambda host: host.domain(machine))
        known = [place for place in answers.values() if place is not None]
        return sorted(known, key=lambda place: rank(state_of(place))), silent

    def find(self, machine: MachineId) -> Domain:
        """The machine where it is now. Raises ``MachineNotFound``, ``HostUnreachable`` (it may be on a silent host)."""
        known, silent = self.everywhere(machine)
        if not known and silent:
            raise HostUnreachable(", ".join(silent), f"machine {machine} may be there: {'; '.join(silent.values())}")
        if not known:
            raise MachineNotFound(machine)
        return known[0]


def state_of(place: Domain) -> DomainState:
    """Its state; a machine that vanished between two questions is off."""
    try:
        return place.state()
    except Refused as error:
        if error.refusal is Refusal.NO_DOMAIN:
            return DomainState(PowerState.OFF)
        raise


def rank(state: DomainState) -> int:
    """Smaller is more likely the place where the machine really is."""
    return _ARRIVING if state.incoming else _RANK[state.power]
