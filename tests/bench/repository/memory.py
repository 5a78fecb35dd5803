"""Our peak memory on a disk of a tebibyte, whose index is as large as that of a full one.

The disk has a little data in nearly every gibibyte, so that every segment of the index is used: 128 MiB of references over
half a gibibyte of data that does not compress.
"""

import json
import random
from pathlib import Path

from proxy.units import KiB, TiB
from tests.bench.repository.contenders import Ours
from tests.bench.repository.measure import Figures
from tests.bench.repository.servers import served

SIZE = TiB
DATA_PERCENT = 0.05
RUN = 256 * KiB
PIECES = 200
"""Changed areas of the incremental."""


def large_disk(directory: Path) -> dict[str, Figures]:
    """What a full backup, an incremental and a restore of it took."""
    chooser = random.Random(SIZE)
    changes = directory / "large-changes.json"
    changes.write_text(json.dumps(sorted([chooser.randrange(SIZE // RUN) * RUN, RUN] for _ in range(PIECES))))
    options = (f"size={SIZE}", f"percent={DATA_PERCENT}", f"runlength={RUN}", "random-content=true", "seed=1")
    with served(directory / "large.sock", "sparse-random", *options) as uri:
        ours = Ours(directory / "large", {"v1": uri, "v2": uri}, changes)
        try:
            return {job: ours.run(job) for job in ("full", "known", "restore")}
        finally:
            ours.end()
            changes.unlink()
