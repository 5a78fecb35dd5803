"""What was done to restore points, line by line: as tasks keep it (JSON) and commands print it."""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from appliance.keeping.pruning import Pruned

if TYPE_CHECKING:
    from appliance.protection.backup import Protected
    from proxy.repository.checking.chain import Finding
    from proxy.repository.checking.repair import Repaired

MOST = 500
"""Lines that a task keeps: some 100 KiB in its row. Who has more to look at than that looks at the appliance itself."""

Line = Mapping[str, object]
_T = TypeVar("_T")


def kept(found: Iterable[_T], line: Callable[[_T], Line]) -> dict[str, object]:
    """``lines``: the first ones; ``more``: how many there are beside them."""
    left = iter(found)
    lines = [line(each) for each in islice(left, MOST)]
    return {"lines": lines, "more": sum(1 for _ in left)}


def pruned(one: Pruned) -> Line:
    """What retention says of a restore point, and what became of it."""
    return {
        "machine": one.machine_name,
        "machine_id": one.machine,
        "point": one.point,
        "verdict": one.verdict,
        "rules": one.rules,
        "why": one.why,
    }


def repaired(one: "Repaired") -> Line:
    """A damage. ``disk``: empty where all of the restore point is concerned; ``mended``: bytes; ``why`` the rest is not."""
    damage = one.damage
    return {
        "machine": damage.machine_name,
        "machine_id": damage.machine,
        "point": damage.point,
        "disk": damage.disk or "",
        "mended": one.mended,
        "why": one.why,
    }


def finding(one: "Finding") -> Line:
    """What does not fit into a chain. ``machine``: the chain where nobody knows whose it is; ``notice``: it happens to honest
    repositories too."""
    return {
        "trouble": one.trouble.value,
        "notice": one.trouble.notice,
        "machine": one.machine_name or one.chain,
        "point": one.point,
        "why": one.why,
    }


def protected(one: "Protected") -> Line:
    """What became of the appliance's own state in a repository. ``removed``: how many old restore points."""
    return {
        "repository": one.repository,
        "point": one.point or "",
        "outcome": one.outcome,
        "bytes_stored": one.bytes_stored,
        "removed": len(one.removed),
    }
