"""What a host answers beside data: the classes of libvirt's refusals that a caller can act on, and a domain's state."""

from dataclasses import dataclass
from enum import StrEnum

from proxy.errors import HypervisorError
from proxy.model import PowerState


class Refusal(StrEnum):
    """What a caller can do something about."""

    NO_DOMAIN = "no-domain"
    NOT_RUNNING = "not-running"
    AGENT_MISSING = "agent-missing"
    AGENT_SILENT = "agent-silent"
    AGENT_REFUSED = "agent-refused"
    BITMAP_BROKEN = "bitmap-broken"
    NOT_READY = "not-ready"
    LOCKED = "locked"
    OTHER = "other"


class Refused(HypervisorError):
    """libvirt said no. ``refusal`` classes it; its own words are in the message."""

    def __init__(self, what: str, why: str, refusal: Refusal = Refusal.OTHER) -> None:
        super().__init__(what, why)
        self.refusal = refusal
        self.why = why


CODES = {
    "VIR_ERR_NO_DOMAIN": Refusal.NO_DOMAIN,
    "VIR_ERR_ARGUMENT_UNSUPPORTED": Refusal.AGENT_MISSING,
    "VIR_ERR_AGENT_UNRESPONSIVE": Refusal.AGENT_SILENT,
    "VIR_ERR_AGENT_UNSYNCED": Refusal.AGENT_SILENT,
    "VIR_ERR_AGENT_COMMAND_TIMEOUT": Refusal.AGENT_SILENT,
    "VIR_ERR_CHECKPOINT_INCONSISTENT": Refusal.BITMAP_BROKEN,
    "VIR_ERR_BLOCK_COPY_ACTIVE": Refusal.NOT_READY,
    "VIR_ERR_OPERATION_INVALID": Refusal.NOT_RUNNING,
}
"""Names of libvirt's error codes, as far as they tell a class."""


def refused(what: str, why: str, code: str) -> Refused:
    """``code``: the name of libvirt's, if it is one of ``CODES``."""
    refusal = CODES.get(code, Refusal.OTHER)
    if refusal is Refusal.OTHER and "QEMU agent command" in why:
        refusal = Refusal.AGENT_REFUSED  # libvirt has no code for "the agent answered with an error"
    elif refusal is Refusal.OTHER and '" lock' in why:
        refusal = Refusal.LOCKED  # nor for QEMU's: Failed to get "write" lock
    return Refused(what, why, refusal)


@dataclass(frozen=True, slots=True)
class DomainState:
    """``clean``: off because the guest shut itself down. ``incoming``: only the receiving half of a migration.

    ``stuck``: paused by QEMU itself because a write failed, which is what a full overlay directory does.
    """

    power: PowerState
    clean: bool = False
    incoming: bool = False
    stuck: bool = False
