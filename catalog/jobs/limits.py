"""How much may go on at once: a limit for every key that a task occupies (see ``catalog.jobs.values.Task.keys``)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

MACHINE = "machine"
TARGET = "target"
HOST = "host"
PLACE = "place"
REPOSITORY = "repository"
FULL = "full"
PROXY = "proxy"
JOB = "job"


ALONE = frozenset({MACHINE, TARGET})
"""Kinds of keys that one task at a time holds, whatever is configured. ``TARGET``: a device that a restore writes to, by any
of its names; its locks on the proxy itself say nothing to other proxies."""


def key(kind: str, name: str) -> str:
    """``host:kvm1``. The name may hold colons."""
    return f"{kind}:{name}"


BESIDE = frozenset({"files"})
"""Kinds of tasks that are about a machine and leave it alone: others may work on it meanwhile."""


def own_key(machine: str, kind: str = "") -> tuple[str, ...]:
    """The key that is held by all work on a machine; none for what has no machine, or leaves it alone."""
    return (key(MACHINE, machine),) if machine and kind not in BESIDE else ()


@dataclass(frozen=True, slots=True)
class Limits:
    """``kinds``: kind of key -> how many tasks that hold a key of it may run at once; ``keys``: exceptions by whole key. A kind
    that is not named has no limit; one of ``ALONE`` always has one of 1."""

    kinds: Mapping[str, int] = field(default_factory=dict)
    keys: Mapping[str, int] = field(default_factory=dict)

    def of(self, name: str) -> int | None:
        """Of a whole key; ``None`` for none."""
        kind = name.partition(":")[0]
        if kind in ALONE:
            return 1
        return self.keys.get(name, self.kinds.get(kind))
