"""Where the time of a copy went, and so what would make it faster.

::

    wait for the pace | read from the source | zero test, hash, compress, seal | wait for the repository's store
         paced              source                      proxy                          repository
"""

from dataclasses import dataclass
from typing import Self

from proxy.transfer import CopyResult


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds. ``seconds`` passed by the clock; all others are summed over the workers of a copy, so that they may be more."""

    seconds: float = 0.0
    source: float = 0.0
    proxy: float = 0.0
    repository: float = 0.0
    paced: float = 0.0

    @classmethod
    def of(cls, copied: CopyResult, *, store: float) -> Self:
        """Of a copy into an image; ``store``: so many of the sink's seconds were spent waiting for the repository's store."""
        return cls(
            seconds=copied.seconds,
            source=copied.source_seconds,
            proxy=max(0.0, copied.sink_seconds - store),
            repository=store,
            paced=copied.paced_seconds,
        )

    def __add__(self, other: "StageTimes") -> "StageTimes":
        """One after the other."""
        return StageTimes(
            self.seconds + other.seconds,
            self.source + other.source,
            self.proxy + other.proxy,
            self.repository + other.repository,
            self.paced + other.paced,
        )

    @property
    def bottleneck(self) -> str:
        """What took most: ``source``, ``proxy``, ``repository`` or ``pace``; empty when nothing took any time."""
        stages = {"source": self.source, "proxy": self.proxy, "repository": self.repository, "pace": self.paced}
        longest = max(stages, key=lambda name: stages[name])
        return longest if stages[longest] > 0 else ""

    def as_json(self) -> dict[str, object]:
        """For records; seconds to the millisecond."""
        return {
            "seconds": round(self.seconds, 3),
            "source": round(self.source, 3),
            "proxy": round(self.proxy, 3),
            "repository": round(self.repository, 3),
            "paced": round(self.paced, 3),
            "bottleneck": self.bottleneck,
        }
