"""Rules that choose machines, of whatever hypervisor, resolved when they are asked: a machine made yesterday is backed up
tonight, nobody edits the job. Pure.

A rule names any of name, identity, host, power state, and, where machines have such things (vSphere), folder, tag, pool,
cluster, datastore, attribute, template; a machine has to fit all that it names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Self

from proxy.errors import ConfigurationError
from proxy.model import PowerState, VirtualMachine

# vSphere's own helpers (cluster services, agents of extensions) come and go by themselves and hold no data.
HELPERS = ("com.vmware.vim.eam", "com.vmware.vcls", "vcls")

OF_VCENTERS = ("folder", "tag", "attribute", "pool", "cluster", "datastore")
"""What only the machines of vCenters have: a rule that names one fits no other machine."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A machine with what its site knows of its place; empty where the site has no such thing.

    ``folder``, ``pool``: paths; ``tags``: ``category:name`` each, ``None``: nobody could ask; ``site``: name of the vCenter.
    """

    machine: VirtualMachine
    folder: str = ""
    pool: str = ""
    cluster: str = ""
    datastores: Sequence[str] = ()
    tags: Sequence[str] | None = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    template: bool = False
    managed_by: str = ""
    site: str = ""

    @property
    def helper(self) -> bool:
        """One of the hypervisor's own, which nobody backs up."""
        return self.managed_by.lower() in HELPERS


@dataclass(frozen=True, slots=True)
class Rule:
    """Texts are patterns (``*``, ``?``, ``[abc]``), upper and lower case alike; empty says nothing.

    ``machine``: identity. ``folder``, ``pool``: a path as the inventory writes it, or its last names (``Prod/Web``); what lies
    below fits, too. ``tag``: ``category:name``, or a name alone. ``attribute``: ``name=value``, or a name alone for any value.
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
    machine: str = ""
    host: str = ""

    def __str__(self) -> str:
        said = [f"{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) not in ("", None)]
        return ", ".join(said) or "every machine"

    @property
    def foreign(self) -> str:
        """The first thing that it names and only machines of vCenters have; empty if it names none."""
        return next((name for name in OF_VCENTERS if getattr(self, name)), "")

    @classmethod
    def parse(cls, text: str) -> Self:
        """As ``str`` writes it: ``folder=Prod/Web, tag=backup:gold, state=off``; an empty text is every machine. Only the
        first ``=`` of a part divides, so ``attribute=owner=team-a`` is one. Raises ``ConfigurationError``."""
        given: dict[str, object] = {}
        known = ", ".join(f.name for f in fields(cls))
        for part in filter(None, (part.strip() for part in text.split(","))):
            key, equals, value = (word.strip() for word in part.partition("="))
            if key not in {f.name for f in fields(cls)} or not equals or not value or key in given:
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


def fits(candidate: Candidate, rule: Rule) -> bool:
    """Whether a machine fits everything that a rule names. A machine whose tags are unknown fits no tag."""
    shown = candidate.machine
    return all(
        (
            matches(shown.name, rule.name),
            matches(shown.id, rule.machine),
            matches(shown.host, rule.host),
            _lies_in(candidate.folder, rule.folder),
            _lies_in(candidate.pool, rule.pool),
            matches(candidate.cluster, rule.cluster),
            not rule.datastore or any(matches(name, rule.datastore) for name in candidate.datastores),
            not rule.tag or any(_is_tag(tag, rule.tag) for tag in candidate.tags or ()),
            not rule.attribute or _has_attribute(candidate.attributes, rule.attribute),
            rule.state is None or shown.state is rule.state,
            rule.template is None or candidate.template is rule.template,
        )
    )


def matches(text: str, pattern: str) -> bool:
    """Whether the pattern covers all of the text. An empty pattern says nothing; what is not there fits no other one."""
    return not pattern or (text != "" and fnmatchcase(text.casefold(), pattern.casefold()))


def _is_tag(tag: str, pattern: str) -> bool:
    return matches(tag, pattern) or matches(tag.partition(":")[2], pattern)


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


def _has_attribute(attributes: Mapping[str, str], pattern: str) -> bool:
    name, equals, value = pattern.partition("=")
    return any(
        matches(have, name) and (not equals or fnmatchcase(is_now.casefold(), value.casefold()))
        for have, is_now in attributes.items()
    )
