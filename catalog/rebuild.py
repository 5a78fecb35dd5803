"""catalog := f(repository). The catalog holds nothing that cannot be made again from manifests and images."""

from collections.abc import Sequence

from catalog.unit_of_work import Catalog
from proxy.model import RestorePointId
from proxy.ports import ImageRepository


def rebuild(catalog: Catalog, repository: ImageRepository) -> Sequence[RestorePointId]:
    """Make the list of restore points what the repository says, in one transaction: add what is missing, forget what is
    gone. Those of the appliance's own state are of no machine, and left out. Returns the restore points whose files are not
    indexed, oldest first: walking them is the caller's business.

    Works on an empty catalog as on one that is behind. Raises what ``ImageRepository.points`` raises; then nothing changed.
    """
    points = [point for point in repository.points() if not point.of_appliance]
    # A manifest that cannot be read now may be mended; its object is named after the point.
    damaged = {each.object.rpartition("/")[2] for each in repository.damaged_points()}
    with catalog.transaction() as unit:
        known = {listed.point.id for listed in unit.restore_points.list()}
        for gone in known - {p.id for p in points} - damaged:
            unit.restore_points.remove(gone)
        for point in points:
            unit.restore_points.add(point)
        unit.restore_points.recount()
        return unit.restore_points.not_indexed()
