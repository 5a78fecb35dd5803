"""Recording the files of several restore points: one that cannot be opened does not keep the others from it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from appliance.cli.app import CONTEXT
from appliance.cli.index_report import warnings
from proxy.errors import Cancelled, LanfreeError
from proxy.model import RestorePointId

if TYPE_CHECKING:
    from appliance.indexing import IndexReport
    from appliance.wiring import Services


def record(
    services: "Services", points: Sequence[RestorePointId]
) -> tuple[list["IndexReport"], Mapping[RestorePointId, LanfreeError]]:
    """One after the other, each a durable run; problems are told on the way. What was recorded, and what failed with what."""
    reports: list[IndexReport] = []
    failed: dict[RestorePointId, LanfreeError] = {}
    with CONTEXT.running(services) as (workflows, _):
        for point in points:
            try:
                reports.append(workflows.index(point))
            except Cancelled:
                raise
            except LanfreeError as error:
                failed[point] = error
                CONTEXT.output.warn(f"{point}: its files are not recorded: {error.message}")
                continue
            for warning in warnings(reports[-1]):
                CONTEXT.output.warn(warning)
    return reports, failed
