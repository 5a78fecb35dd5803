"""How much may go on at once: a limit for every key that a task occupies (see ``catalog.jobs.values.Task.keys``)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

MACHINE = "machine"
HOST = "host"
PLACE = "place"
REPOSITORY = "repository"
FULL = "full"
PROXY = "proxy"
JOB = "job"


def key(kind: str, name: str) -> str:
    """``host:kvm1``. The name may hold colons."""
    return f"{kind}:{name}"


@dataclass(frozen=True, slots=True)
class Limits:
    """``kinds``: kind of key -> how many tasks that hold a key of it may run at once; ``keys``: exceptions by whole key. A kind
    that is not named has no limit; a machine always has one of 1."""

    kinds: Mapping[str, int] = field(default_factory=dict)
    keys: Mapping[str, int] = field(default_factory=dict)

    def of(self, name: str) -> int | None:
        """Of a whole key; ``None`` for none."""
        kind = name.partition(":")[0]
        if kind == MACHINE:
            return 1
        return self.keys.get(name, self.kinds.get(kind))
