"""What the size of a restore point is due to, for callers of the API. It reads images: one at a time, and bounded."""

import threading

from api.auth.roles import Caller
from api.refusals import TooMany
from api.schemas.guest_names import id_of, text_of
from api.schemas.sizes import DirectoryShare, FileShare, SizeExplanation
from appliance.web.reaching import point_in_reach
from appliance.wiring import Services
from proxy.model import RestorePointId
from proxy.units import GiB

COMPARED = 1 * GiB
"""Changed bytes of an image whose blocks are told apart: some seconds. A command has more time than a request."""


class Sizes:
    """Of one process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._one = threading.Lock()

    def why_big(self, caller: Caller, name: RestorePointId, most: int, *, quick: bool) -> SizeExplanation:
        """See ``api.ports.points.Points``."""
        from appliance.explaining import why_big  # noqa: PLC0415  # brings numpy
        from mounter.index.attribution import directories  # noqa: PLC0415
        from mounter.layout.owners import Part  # noqa: PLC0415

        point, _ = point_in_reach(self._services, caller, name)
        if not self._one.acquire(blocking=False):
            raise TooMany("sizes are being explained", after=5.0)
        try:
            found = why_big(self._services, point.id, compare=not quick, compared=COMPARED, who=caller.who)
        finally:
            self._one.release()
        files = [cause for cause in found.causes if cause.part is Part.FILE][:most]
        return SizeExplanation(
            point=found.point,
            base=found.base,
            changed=found.changed,
            exact=found.exact,
            parts={part.value: found.part(part) for part in Part},
            files=tuple(
                FileShare(path=text_of(one.path), path_id=id_of(one.path), bytes=one.bytes, guessed=one.guessed)
                for one in files
            ),
            directories=tuple(
                DirectoryShare(path=text_of(path), bytes=size) for path, size in directories(found.causes, most)
            ),
            notes=found.notes,
        )
