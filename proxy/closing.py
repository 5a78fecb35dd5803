"""What every holder of an outside resource has: ``close``, and the ``with`` statement over it."""

from types import TracebackType
from typing import Self


class Closeable:
    """A context manager by ``close``. Closing twice is allowed."""

    def close(self) -> None:
        """Give the outside resource back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
