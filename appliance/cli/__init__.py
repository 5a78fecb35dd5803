"""The command line. ``app`` holds what all commands share, ``output`` how they speak; the others hold the commands."""

import sys


def main() -> None:
    """Entry point of the ``lanfree`` program."""
    from appliance.cli import app, files, keeping, keys, lab, machines, points, site  # noqa: F401, PLC0415  # they register themselves

    app.heed_signals()
    sys.exit(app.run())
