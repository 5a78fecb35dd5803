"""Which machines of one vCenter a job means. A job includes what fits any of its ``include`` rules and none of its ``exclude``
rules; what a rule may name is in ``proxy.machine_rules``. Pure: a function of an inventory.

Loud, because a silently empty selection is how machines go without backup: rules that match nothing are named, every chosen
machine says by which rule, and a rule about tags is refused when the tags could not be read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from proxy import machine_rules
from proxy.errors import HypervisorError
from proxy.hypervisor.vsphere.inventory import Inventory, Machine
from proxy.machine_rules import Candidate, Rule

__all__ = ["Chosen", "Rule", "Selected", "candidate", "fits", "select"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """``by``: the first rule that it fits."""

    machine: Machine
    by: Rule


@dataclass(frozen=True, slots=True)
class Selected:
    """``excluded``: fits an include rule, and the exclude rule ``by``. ``idle``: rules that no machine fits."""

    machines: tuple[Chosen, ...]
    excluded: tuple[Chosen, ...]
    idle: tuple[Rule, ...]


def select(inventory: Inventory, include: Sequence[Rule], exclude: Sequence[Rule] = ()) -> Selected:
    """Raises ``HypervisorError`` when a rule is about tags and nobody knows them: half a selection is not made."""
    rules = [*include, *exclude]
    if inventory.without_tags and (about := next((rule for rule in rules if rule.tag), None)) is not None:
        raise HypervisorError(
            f"select machines by {about}",
            f"the tags could not be read: {inventory.without_tags}",
            hint="give the role read access to tagging, or select by folder or custom attribute",
        )
    chosen, excluded, used = [], [], set()
    for machine in inventory.machines:
        shown = candidate(machine)
        if shown.helper:
            continue
        fitting = [rule for rule in rules if machine_rules.fits(shown, rule)]
        used.update(fitting)
        by = next((rule for rule in include if rule in fitting), None)
        if by is None:
            continue
        against = next((rule for rule in exclude if rule in fitting), None)
        if against is None:
            chosen.append(Chosen(machine, by))
        else:
            excluded.append(Chosen(machine, against))
    return Selected(tuple(chosen), tuple(excluded), tuple(rule for rule in rules if rule not in used))


def candidate(machine: Machine, site: str = "") -> Candidate:
    """What the rules look at."""
    return Candidate(
        machine=machine.machine,
        folder=machine.folder,
        pool=machine.pool,
        cluster=machine.cluster,
        datastores=machine.datastores,
        tags=None if machine.tags is None else tuple(str(tag) for tag in machine.tags),
        attributes=machine.attributes,
        template=machine.template,
        managed_by=machine.managed_by,
        site=site,
    )


def fits(machine: Machine, rule: Rule) -> bool:
    """Whether a machine fits everything that a rule names."""
    return machine_rules.fits(candidate(machine), rule)
