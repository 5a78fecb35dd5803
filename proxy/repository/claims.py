"""What writers of this process count on: a lease for each image, from its beginning to the manifest.

While a lease is held, no pack and no index goes that its holder found, or put, since it began, even if somebody dooms
it meanwhile (``collect.py``). A manifest may therefore be put under the leases of all its images. If they are not at
hand, because another process made the images, everything is checked under a new lease.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from proxy.errors import LeaseLost
from proxy.model import ImageInfo, RestorePoint
from proxy.repository.leases import Lease, Leases

BACKUP = "backup"
SEAL = "seal"

Check = Callable[[RestorePoint], None]
"""Raises unless everything that the restore point needs is there, and nobody will delete it."""


class Claims:
    """Leases of images that are being written, or that no manifest names yet. Methods may be called from any thread."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._lock = threading.Lock()
        self._sealed: dict[str, Lease] = {}

    def begin(self, disk: str) -> Lease:
        """The lease of an image; taken before anything is looked up for it."""
        return self._leases.take(BACKUP, f"disk {disk}")

    def sealed(self, index: str, lease: Lease) -> None:
        """The image waits for its manifest now; if none comes, collectors wait no longer than for a dead process."""
        lease.keep_for(self._leases.expiry)
        with self._lock:
            self._sealed[index] = lease

    @contextmanager
    def committing(self, point: RestorePoint, check: Check) -> Iterator[None]:
        """Around putting the manifest. Raises ``LeaseLost`` before or after it; after it, the manifest must go again."""
        held = self._of(point.images)
        if held:
            yield
        else:
            held = [self._leases.take(SEAL, f"restore point {point.id}")]
            try:
                check(point)
                yield
            except BaseException:
                held[0].drop()
                raise
        try:
            _confirm(held)
        except LeaseLost:
            # Between the look and the put so much time went by that others may have deleted something: look again.
            with self._leases.held(SEAL, f"restore point {point.id}, again"):
                check(point)
        self.forget(point.images)
        for lease in held:
            lease.drop()

    def forget(self, images: Sequence[ImageInfo]) -> None:
        """A manifest names them now."""
        with self._lock:
            leases = [lease for image in images if (lease := self._sealed.pop(image.index, None)) is not None]
        for lease in leases:
            lease.drop()

    def close(self) -> None:
        """Give all leases back."""
        with self._lock:
            leases, self._sealed = list(self._sealed.values()), {}
        for lease in leases:
            lease.drop()

    def _of(self, images: Sequence[ImageInfo]) -> list[Lease]:
        """The leases of all images, if all are still held."""
        with self._lock:
            found = [lease for image in images if (lease := self._sealed.get(image.index)) is not None]
        try:
            _confirm(found)
        except LeaseLost:
            return []
        return found if len(found) == len(images) else []


def _confirm(leases: Sequence[Lease]) -> None:
    for lease in leases:
        lease.confirm()
