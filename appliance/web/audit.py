"""The access log for the API: the catalog's, with a line for each entry in the system's log."""

from collections.abc import Sequence

from api.ports.audit import AuditFilter
from api.schemas.audit import AuditCheck, AuditEntry, AuditFault
from appliance.auditing import audit
from appliance.wiring import Services
from catalog import audit as log
from proxy.model import MachineId, RestorePoint

# Faults that one answer holds: whoever meddled with a million entries needs no list of them.
_FAULTS = 100


class WebAudit:
    """See ``api.ports.audit.AuditLog``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def record(
        self,
        who: str,
        action: str,
        *,
        point: RestorePoint | None = None,
        about: MachineId | None = None,
        **detail: object,
    ) -> None:
        """Raises ``AuditFailed``."""
        audit(self._services, action, point, who=who, about=about, **detail)

    def entries(self, wanted: AuditFilter, *, before: int | None, limit: int) -> Sequence[AuditEntry]:
        """Raises ``AuditFailed``."""
        machine = None if wanted.machine is None else MachineId(wanted.machine)
        found = self._services.catalog.audit.list(
            machine,
            since=wanted.since,
            until=wanted.until,
            before=before,
            limit=limit,
            who=wanted.who,
            action=wanted.action,
            point=wanted.point,
        )
        return [_entry(each) for each in found]

    def check(self) -> AuditCheck:
        """Raises ``AuditFailed``."""
        chain = self._services.catalog.audit
        head = chain.head()
        faults = chain.check(head)  # entries that come meanwhile are no fault
        told = [AuditFault(number=fault.number, why=fault.why) for fault in faults[:_FAULTS]]
        return AuditCheck(good=not faults, entries=head.number, head=head.digest, faults=told)


def _entry(entry: log.AuditEntry) -> AuditEntry:
    return AuditEntry(
        number=entry.number,
        at=entry.at,
        who=entry.who,
        action=entry.action,
        machine=entry.machine,
        restore_point=entry.point,
        detail=dict(entry.detail),
        before=entry.before,
        digest=entry.digest,
    )
