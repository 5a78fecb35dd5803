"""``api.ports.hypervisors`` over the inventory, the configuration file, and trial connections."""

import re
from collections.abc import Sequence
from secrets import token_hex
from urllib.parse import urlsplit

from api.auth.roles import Caller
from api.refusals import BeyondReach, CertificateUnconfirmed, Conflict, NotFound
from api.schemas.hypervisors import (
    Certificate,
    Hypervisor,
    Kind,
    LookState,
    NewHypervisor,
    NewKvmHost,
    NewVcenter,
    Tree,
    Tried,
)
from api.schemas.tasks import Task
from appliance import config
from appliance.auditing import audit
from appliance.config_file import ConfigurationFile, store_secret
from appliance.web import asking
from appliance.web.addresses import endpoint, endpoint_of_uri
from appliance.web.tasks import Shown
from appliance.web.tree import By, tree_of
from appliance.web.trying import certificate_of, try_kvm, try_vcenter
from appliance.wiring import Services
from catalog.inventory import ListedHypervisor
from catalog.jobs.values import TaskKind
from catalog.machine_list import MachineQuery
from proxy.errors import ConfigurationError, LanfreeError

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9])?", re.ASCII)
"""Names of hypervisors: they become parts of names of files and of keys of limits."""


class WebHypervisors:
    """Lists and trees ask none of them."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def list(self, caller: Caller) -> Sequence[Hypervisor]:
        """See the port."""
        with self._services.catalog.transaction(write=False) as unit:
            known = {each.name: each for each in unit.inventory.hypervisors()}
            counts = unit.machines.by_hypervisor(MachineQuery(machines=caller.machines))
        addresses = self._addresses()
        names = sorted({*known, *addresses}, key=lambda name: (name.casefold(), name))
        return [_shown(name, known.get(name), addresses.get(name), counts.get(name, 0)) for name in names]

    def tree(self, caller: Caller, by: By) -> Tree:
        """See the port."""
        with self._services.catalog.transaction(write=False) as unit:
            known = unit.inventory.hypervisors()
            leaves = unit.machines.leaves(MachineQuery(machines=caller.machines), self._services.clock.now())
        return tree_of([(each, _state(each)) for each in known], leaves, by)

    def refresh(self, caller: Caller) -> Task:
        """See the port."""
        services = self._services
        if not caller.sees_all:
            raise BeyondReach(caller.name, "look at all hypervisors")
        audit(services, "ask-inventory", who=caller.who)
        task = asking.ask(services, caller.name, TaskKind.INVENTORY)
        with services.jobs.transaction(write=False) as unit:
            return Shown.look(services, unit, [task])[0]

    def certificate(self, caller: Caller, host: str, port: int) -> Certificate:
        """See the port."""
        where = endpoint(host, port, self._services.settings.web)
        audit(self._services, "look-at-certificate", who=caller.who, host=host, port=port)
        return certificate_of(where)

    def add(self, caller: Caller, new: NewHypervisor) -> Tried:
        """See the port."""
        services = self._services
        if not caller.sees_all:
            raise BeyondReach(caller.name, "add hypervisors, whose machines others may not reach")
        if _NAME.fullmatch(new.name) is None:
            raise ConfigurationError("name", "letters, digits, and ' ._-' within", hint="choose another name")
        if new.name in self._addresses():
            raise Conflict(f"there is a hypervisor {new.name} already", hint="choose another name")
        machines, section = self._tried(caller, new)
        if not new.check_only:
            self._write(section, _password(new) if isinstance(new, NewVcenter) else "")
            asking.ask(services, caller.name, TaskKind.INVENTORY)
        return Tried(name=new.name, kind=new.kind, machines=machines, added=not new.check_only)

    def remove(self, caller: Caller, name: str) -> None:
        """See the port."""
        services = self._services
        if not caller.sees_all:
            raise BeyondReach(caller.name, "remove hypervisors, whose machines others need")
        if name not in self._addresses():
            raise NotFound("hypervisor", name)
        audit(services, "remove-hypervisor", who=caller.who, name=name)
        ours = services.settings.state.directory / "secrets"
        secrets = [one.password_file for one in services.settings.vcenter if one.name == name]
        services.reconfigure(ConfigurationFile(services.settings.source).remove(name))
        with services.catalog.transaction() as unit:
            unit.inventory.without_hypervisor(name)
        for secret in secrets:
            if secret.parent == ours:  # a file that a person named stays
                secret.unlink(missing_ok=True)

    def _write(self, section: config.Host | config.Vcenter, password: str) -> None:
        services = self._services
        secret = None
        if isinstance(section, config.Vcenter):
            secret = store_secret(services.settings.state.directory, section.password_file.name, password)
        try:
            services.reconfigure(ConfigurationFile(services.settings.source).add(section))
        except LanfreeError:
            if secret is not None:
                secret.unlink(missing_ok=True)
            raise

    def _tried(self, caller: Caller, new: NewHypervisor) -> tuple[int, config.Host | config.Vcenter]:
        services, web = self._services, self._services.settings.web
        action = "try-hypervisor" if new.check_only else "add-hypervisor"
        if isinstance(new, NewKvmHost):
            at = endpoint_of_uri(new.uri, web)
            host = config.Host(name=new.name, uri=new.uri, overlay_directory=new.overlay_directory)
            audit(services, action, who=caller.who, name=new.name, uri=new.uri)
            return try_kvm(services, host, at), host
        where = endpoint(new.host, new.port, web)
        audit(services, action, who=caller.who, name=new.name, host=new.host, port=new.port, user=new.user)
        if not new.thumbprint:
            raise CertificateUnconfirmed(f"{new.host}:{new.port}", certificate_of(where).thumbprint)
        section = config.Vcenter(
            name=new.name,
            host=new.host,
            port=new.port,
            user=new.user,
            # Of its own: whoever adds one of the same name at the same time is refused, and takes only theirs away.
            password_file=services.settings.state.directory / "secrets" / f"vcenter-{new.name}-{token_hex(4)}",
            thumbprint=new.thumbprint,
        )
        return try_vcenter(services, section, _password(new)), section

    def _addresses(self) -> dict[str, tuple[Kind, str]]:
        settings = self._services.settings
        found = {host.name: (Kind.KVM, _without_secrets(host.uri)) for host in settings.host}
        return found | {one.name: (Kind.VCENTER, f"{one.host}:{one.port}") for one in settings.vcenter}


def _password(new: NewVcenter) -> str:
    return new.password.get_secret_value()


def _shown(name: str, known: ListedHypervisor | None, at: tuple[Kind, str] | None, machines: int) -> Hypervisor:
    kind, address = at or (Kind(known.kind) if known else Kind.KVM, "")
    return Hypervisor(
        name=name,
        kind=kind,
        address=address,
        configured=at is not None,
        state=_state(known) if known else LookState.UNKNOWN,
        looked_at=known.looked_at if known else None,
        answered_at=known.answered_at if known else None,
        machines=machines,
        error=known.error if known else "",
        hint=known.hint if known else "",
    )


def _state(known: ListedHypervisor) -> LookState:
    if known.looked_at is None:
        return LookState.UNKNOWN
    return LookState.SILENT if known.error else LookState.OK


def _without_secrets(uri: str) -> str:
    """Without a password and without parameters, which may name anything."""
    parts = urlsplit(uri)
    user = parts.username or ""
    place = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{f'{user}@' if user else ''}{place}{parts.path}"
