"""The command line. ``app`` holds what all commands share, ``output`` how they speak; ``commands`` knows which of the others
holds which command."""

import os
import sys


def main() -> None:
    """Entry point of the ``lanfree`` program."""
    # numpy's linear algebra, which nobody here uses, would start a thread that spins beside each backup.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # We have no plugins of pydantic's, and looking for them reads the metadata of every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from proxy.heap import keep_freed_memory, loading  # noqa: PLC0415

    keep_freed_memory()  # before there are threads, which would get heaps of their own
    with loading():
        from appliance.cli import app, commands  # noqa: PLC0415

        commands.register(sys.argv[1:])
    app.heed_signals()
    sys.exit(app.run())
