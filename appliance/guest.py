"""The way into a running guest: which adapter writes files there. Part of the composition root."""

from dataclasses import dataclass
from pathlib import Path

from appliance.wiring import Services
from proxy.errors import ConfigurationError
from proxy.guest_files import GuestFiles
from proxy.hypervisor.kvm import KvmSite
from proxy.model import VirtualMachine


@dataclass(frozen=True, slots=True)
class GuestLogin:
    """A user of the guest itself. ``password_file``: its first line is the password; nobody but its owner may read it."""

    user: str
    password_file: Path


def guest_files(services: Services, machine: VirtualMachine, root: bytes, login: GuestLogin | None) -> GuestFiles:
    """Files below ``root`` of a running machine; the caller closes it.

    KVM's agent asks for no login (it works as root, or as what the guest's owner made of it), vSphere's does. Raises
    ``MachineNotFound``, ``ConfigurationError``, ``GuestAgentUnavailable``, ``GuestRefused``.
    """
    site = services.hypervisor.of(machine.id)
    if isinstance(site, KvmSite):
        return site.guest_files(machine.id, root)
    for vcenter in services.vcenters.sites.values() if services.vcenters is not None else ():
        if vcenter is site:
            if login is None:
                raise ConfigurationError(
                    machine.name,
                    "vSphere lets nobody into a guest without a user of that guest",
                    hint="say --guest-user and --guest-password-file",
                )
            return vcenter.guest_files(machine.id, root, login.user, login.password_file)
    raise ConfigurationError(machine.name, f"nothing writes files into guests of {site.name}")
