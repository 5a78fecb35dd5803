"""Which restore points' files the catalog knows."""

from appliance import operations
from appliance.wiring import Services
from proxy.model import RestorePointId


def unrecorded(services: Services) -> list[RestorePointId]:
    """Restore points of the repository whose files the catalog does not know, oldest first: that order records fastest."""
    with services.catalog.transaction(write=False) as unit:
        recorded = {listed.point.id for listed in unit.restore_points.list() if listed.files_indexed_at is not None}
    points = operations.points_of(services, None)
    return [point.id for point in points if point.id not in recorded]
