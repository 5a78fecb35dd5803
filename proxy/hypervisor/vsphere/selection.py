"""Which machines a job means, resolved when it runs: a machine made yesterday is backed up tonight, nobody edits the job.

A rule names any of folder, tag, pool, cluster, datastore, attribute, name, power state, template; a machine has to fit all that
it names. A job includes what fits any of its ``include`` rules and none of its ``exclude`` rules. Pure: a function of an
inventory.

Loud, because a silently empty selection is how machines go without backup: rules that match nothing are named, every chosen
machine says by which rule, and a rule about tags is refused when the tags could not be read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Self

from proxy.errors import ConfigurationError, HypervisorError
from proxy.hypervisor.vsphere.inventory import Inventory, Machine
from proxy.model import PowerState

# vSphere's own helpers (cluster services, agents of extensions) come and go by themselves and hold no data.
HELPERS = ("com.vmware.vim.eam", "com.vmware.vcls", "vcls")


@dataclass(frozen=True, slots=True)
class Rule:
    """Texts are patterns (``*``, ``?``, ``[abc]``), upper and lower case alike; empty says nothing.

    ``folder``, ``pool``: a path as the inventory writes it, or its last names (``Prod/Web``); what lies below fits, too.
    ``tag``: ``category:name``, or a name alone. ``attribute``: ``name=value``, or a name alone for any value.
    ``datastore``: at least one disk or file lies there. ``template``: ``None`` takes both.
    """

    name: str = ""
    folder: str = ""
    tag: str = ""
    attribute: str = ""
    pool: str = ""
    cluster: str = ""
    datastore: str = ""
    state: PowerState | None = None
    template: bool | None = None

    def __str__(self) -> str:
        said = [f"{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) not in ("", None)]
        return ", ".join(said) or "every machine"

    @classmethod
    def parse(cls, text: str) -> Self:
        """As ``str`` writes it: ``folder=Prod/Web, tag=backup:gold, state=off``; an empty text is every machine. Only the
        first ``=`` of a part divides, so ``attribute=owner=team-a`` is one. Raises ``ConfigurationError``."""
        given: dict[str, object] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            key, equals, value = (word.strip() for word in part.partition("="))
            if key not in {f.name for f in fields(cls)} or not equals or not value or key in given:
                known = ", ".join(f.name for f in fields(cls))
                raise ConfigurationError(
                    f"selection {text!r}", f"{part!r} is not one of {known} with a value, each once"
                )
            given[key] = value
        try:
            if "state" in given:
                given["state"] = PowerState(str(given["state"]))
            if "template" in given:
                given["template"] = {"true": True, "false": False}[str(given["template"]).lower()]
        except (ValueError, KeyError) as error:
            states = ", ".join(PowerState)
            what = f"{error.args[0]}: state is one of {states}; template is true or false"
            raise ConfigurationError(f"selection {text!r}", what) from None
        return cls(**given)  # type: ignore[arg-type] # keys and values were checked above


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
        if machine.managed_by.lower() in HELPERS:
            continue
        fitting = [rule for rule in rules if fits(machine, rule)]
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


def fits(machine: Machine, rule: Rule) -> bool:
    """Whether a machine fits everything that a rule names. A machine whose tags are unknown fits no tag."""
    shown = machine.machine
    return all(
        (
            _matches(shown.name, rule.name),
            _lies_in(machine.folder, rule.folder),
            _lies_in(machine.pool, rule.pool),
            _matches(machine.cluster, rule.cluster),
            not rule.datastore or any(_matches(name, rule.datastore) for name in machine.datastores),
            not rule.tag or any(_matches(t, rule.tag) for tag in machine.tags or () for t in (str(tag), tag.name)),
            not rule.attribute or _has_attribute(machine, rule.attribute),
            rule.state is None or shown.state is rule.state,
            rule.template is None or machine.template is rule.template,
        )
    )


def _matches(text: str, pattern: str) -> bool:
    return not pattern or fnmatchcase(text.casefold(), pattern.casefold())


def _lies_in(path: str, pattern: str) -> bool:
    """Whether the path, or one above it, ends with the pattern's names; one that begins with ``/`` has to be all of it."""
    if not pattern:
        return True
    if not path:
        return False
    asked = [part.casefold() for part in PurePosixPath(pattern).parts if part != "/"]
    have = [part.casefold() for part in PurePosixPath(path).parts if part != "/"]
    starts = [0] if pattern.startswith("/") else range(len(have) - len(asked) + 1)
    return any(
        len(have) >= start + len(asked) and all(fnmatchcase(h, a) for h, a in zip(have[start:], asked, strict=False))
        for start in starts
    )


def _has_attribute(machine: Machine, pattern: str) -> bool:
    name, equals, value = pattern.partition("=")
    return any(
        _matches(have, name) and (not equals or fnmatchcase(is_now.casefold(), value.casefold()))
        for have, is_now in machine.attributes.items()
    )
