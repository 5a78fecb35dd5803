"""What requests were answered, so that one that is sent again is not done again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer. ``digest``: of the request that it belongs to. ``status``: ``None`` while that is being answered."""

    digest: str
    status: int | None
    headers: Mapping[str, str]
    body: bytes


class Idempotency(Protocol):
    """Kept for a day, by caller and key; the same for all processes of the site. Raises ``DatabaseAway``."""

    def begin(self, caller: str, key: str, digest: str) -> Kept | None:
        """Note, in one step with looking, that this request is being answered; what is there of one with this key. Raises
        ``TooMany`` where one caller has more of them than anybody needs."""
        ...

    def keep(self, caller: str, key: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """The answer."""
        ...

    def forget(self, caller: str, key: str) -> None:
        """Nothing was done."""
        ...
