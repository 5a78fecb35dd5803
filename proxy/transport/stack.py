"""Images above one another as one disk: what a layer does not hold is asked of the one below."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Generic, Protocol, TypeVar

from proxy.closing import Closeable
from proxy.extents import Extent
from proxy.transport.guard import check_read, fill_zero


class StackedImage(Protocol):
    """One layer. ``allocation``: what it holds; ``read_allocated``: fills that of the buffer, and returns the rest as
    (offset, length)."""

    size: int
    identity: str

    def allocation(self) -> Sequence[Extent]: ...
    def read_allocated(self, offset: int, buffer: memoryview) -> Sequence[tuple[int, int]]: ...
    def close(self) -> None: ...


Image = TypeVar("Image", bound=StackedImage)


class ImageStack(Closeable, Generic[Image]):
    """``images``: top first, owned; ``size``: of the disk in bytes. Reads may come from many threads at once."""

    can_report_extents = True

    def __init__(self, images: Sequence[Image], size: int) -> None:
        self.size = size
        self.identity = images[-1].identity  # of the base: layers come and go, and a disk does not move because of them
        self._images = images
        self._closed = False

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the buffer from the first layers that hold its bytes. Raises ``ReadFailed``."""
        check_read(self.identity, self.size, offset, len(buffer), closed=self._closed)
        missing: Sequence[tuple[int, int]] = [(offset, len(buffer))] if buffer else []
        for image in self._images:
            missing = [
                hole
                for start, length in missing
                for hole in image.read_allocated(start, buffer[start - offset : start - offset + length])
            ]
        for start, length in missing:
            fill_zero(buffer[start - offset : start - offset + length])

    def close(self) -> None:
        """Closes every layer, and raises what the first one raised that could not be closed."""
        self._closed = True
        with ExitStack() as closing:
            for image in self._images:
                closing.callback(image.close)
