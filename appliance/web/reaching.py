"""Restore points and machines as a caller may see them. What is out of reach is not there: no answer tells the two apart."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from api.auth.roles import Caller
from api.schemas.plan import Silence
from appliance.wiring import Services
from proxy.errors import ConfigurationError, MachineNotFound, RestorePointNotFound
from proxy.model import MachineId, RestorePoint

if TYPE_CHECKING:
    from catalog.unit_of_work import Unit


def point_in_reach(services: Services, caller: Caller, name: str) -> tuple[RestorePoint, str]:
    """A restore point by its whole id, and what its machine is called now. From the catalog, else from the repository, which
    may know of points that the catalog does not yet. Raises ``RestorePointNotFound``."""
    if not name.isprintable():  # no id is so, and databases do not like it
        raise RestorePointNotFound(ascii(name))
    with services.catalog.transaction(write=False) as unit:
        listed = unit.restore_points.several([name])
        current = unit.files.owners.name(listed[0].point.machine) if listed else None
    point = listed[0].point if listed else services.repository.point(name)
    called = current or point.machine_name
    if point.id != name or not caller.sees(point.machine, called):
        raise RestorePointNotFound(name)
    return point, called


def machine_in_reach(unit: "Unit", caller: Caller, name: str) -> tuple[MachineId, str]:
    """A machine of the catalog, by identity or name; both of it. Raises ``MachineNotFound``, ``ConfigurationError``
    where several within reach have this name."""
    if not name.isprintable():
        raise MachineNotFound(ascii(name))
    found = [(id_, called) for id_, called in unit.files.owners.called(name) if caller.sees(id_, called)]
    if len(found) > 1:
        raise ConfigurationError(name, f"{len(found)} machines have this name", hint="give the identity instead")
    if not found:
        raise MachineNotFound(name)
    return found[0]


def machines_in_reach(unit: "Unit", caller: Caller, names: Iterable[str]) -> frozenset[MachineId] | None:
    """Identities that a question is about: those that are named, else all within reach; ``None``: all there are. May be
    empty, which is nobody's files and not everybody's. Raises as ``machine_in_reach``."""
    wanted = frozenset(machine_in_reach(unit, caller, name)[0] for name in names)
    if wanted:
        return wanted
    if caller.sees_all:
        return None
    return frozenset(id_ for id_, called in unit.files.owners.names().items() if caller.sees(id_, called))


def silences(caller: Caller, silent: Mapping[str, str]) -> list[Silence]:
    """Hosts and sites that do not answer, and those machines within reach that a vCenter shows and cannot describe, which stand
    among them by name alone (``machine db-1``)."""
    found = [Silence(where=where, why=why) for where, why in sorted(silent.items())]
    if caller.sees_all:
        return found
    kind = "machine "
    return [each for each in found if not each.where.startswith(kind) or caller.sees("", each.where[len(kind) :])]
