"""How the appliance is, for probes, scrapers and whoever waits for something to change."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from api.schemas.vitals import Changes, Readiness, Version


class Vitals(Protocol):
    """Cheap enough to be asked every second; answers may be that old."""

    def readiness(self) -> Readiness:
        """Never raises because something is away."""
        ...

    def version(self) -> Version:
        """Of what runs."""
        ...

    def metrics(self, latencies: Mapping[tuple[str, str, str], Sequence[float]], bounds: Sequence[float]) -> str:
        """In Prometheus' text format; with these counts of the API's own (see ``api.latencies``)."""
        ...

    def changes(self) -> Changes:
        """Marks of what is there now. Raises ``JobStoreFailed``, ``CatalogFailed``, ``DatabaseAway``."""
        ...
