"""What keeps a repository in shape, over the parts in ``Services``: deletion, retention, collection, copies, audits."""

from appliance import operations
from appliance.wiring import Services
from proxy.model import RestorePoint, RestorePointId


def delete_point(services: Services, name: RestorePointId, why: str) -> tuple[RestorePoint, str]:
    """Delete one restore point; also what went wrong with the catalog. Raises ``RestoreRefused`` for a machine's last good
    one and for what is held."""
    found = services.repository.point(name)
    services.repository.delete(found.id, why)
    return found, operations.in_catalog(services, lambda unit: unit.restore_points.remove(found.id))
