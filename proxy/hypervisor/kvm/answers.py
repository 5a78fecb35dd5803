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


@dataclass(frozen=True, slots=True)
class DomainState:
    """``clean``: off because the guest shut itself down. ``incoming``: only the receiving half of a migration.

    ``stuck``: paused by QEMU itself because a write failed, which is what a full overlay directory does.
    """

    power: PowerState
    clean: bool = False
    incoming: bool = False
    stuck: bool = False
