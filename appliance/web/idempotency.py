"""Answers that are kept for requests that are sent again, in the access store."""

from collections.abc import Mapping
from datetime import timedelta

from api.ports.idempotency import Kept
from api.refusals import TooMany
from appliance.wiring import Services

KEPT = timedelta(days=1)
"""Who lost an answer asks again within seconds; a night's script in its next run. Longer only fills a table."""


MOST = 5000
"""Answers that are kept for one caller: one each 17 s, all day. With some KiB each that is some MiB, and a caller whose each
request has a key cannot fill the disk that the appliance works on."""


class WebIdempotency:
    """See ``api.ports.idempotency.Idempotency``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def begin(self, caller: str, key: str, digest: str) -> Kept | None:
        """Raises ``AccessStoreFailed``, ``DatabaseAway``, ``TooMany``."""
        now = self._services.clock.now()
        with self._services.access.transaction() as unit:
            known = unit.idempotency.begin(caller, key, digest, now, now + KEPT)
            if known is None and unit.idempotency.count(caller) > MOST:
                raise TooMany("requests with an Idempotency-Key in a day", after=60.0)  # undoes what was begun
        return None if known is None else Kept(known.digest, known.status, known.headers, known.body)

    def keep(self, caller: str, key: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Raises ``AccessStoreFailed``, ``DatabaseAway``."""
        with self._services.access.transaction() as unit:
            unit.idempotency.finish(caller, key, status, headers, body)

    def forget(self, caller: str, key: str) -> None:
        """Raises ``AccessStoreFailed``, ``DatabaseAway``."""
        with self._services.access.transaction() as unit:
            unit.idempotency.forget(caller, key)
