"""The command line. ``app`` holds what all commands share, ``output`` how they speak; the others hold the commands."""

import os
import sys


def main() -> None:
    """Entry point of the ``lanfree`` program."""
    # numpy's linear algebra, which nobody here uses, would start a thread that spins beside each backup.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from proxy.heap import keep_freed_memory, spare_modules  # noqa: PLC0415

    keep_freed_memory()  # before there are threads, which would get heaps of their own
    from appliance.cli import (  # noqa: F401, PLC0415  # they register themselves
        app,
        export,
        files,
        history,
        keeping,
        keys,
        lab,
        machines,
        mount,
        points,
        push,
        repository,
        site,
    )

    spare_modules()
    app.heed_signals()
    sys.exit(app.run())
