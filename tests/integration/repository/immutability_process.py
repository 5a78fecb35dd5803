"""The immutability helper with a boot clock out of a file: ``BOOT_FILE|- ARGUMENTS...``. The kernel's cannot be moved."""

import sys
from pathlib import Path

from appliance.immutable.__main__ import main


class FileClock:
    """``boot_id seconds`` as the file says."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def seconds(self) -> float:
        return float(self._path.read_text().split()[1])

    def boot_id(self) -> str:
        return self._path.read_text().split()[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], None if sys.argv[1] == "-" else FileClock(Path(sys.argv[1]))))
