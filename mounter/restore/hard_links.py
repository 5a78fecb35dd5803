"""Which files with several names have been restored already, and under which name."""

import sqlite3

from mounter.ports import FileEntry
from proxy.closing import Closeable

# Pages that stay in memory, in KiB; what is beyond goes to a file without a name. A machine that keeps its own backups by
# hard links has millions of such inodes at once.
CACHE_KIB = 8192


class HardLinks(Closeable):
    """Forgets a file when its last name was seen. Bounded memory: a private temporary database behind it.

    Names of one inode in other places of the machine, which are not restored, keep their entry here until the end.
    """

    def __init__(self) -> None:
        self._rows = sqlite3.connect("", isolation_level=None)
        self._rows.execute("PRAGMA journal_mode = OFF")
        self._rows.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._rows.execute(
            "CREATE TABLE names (volume TEXT, inode TEXT, path BLOB, missing INTEGER, PRIMARY KEY (volume, inode)) "
            "WITHOUT ROWID"
        )
        self._rows.execute("BEGIN")  # one transaction to the end: nobody else reads, nothing is kept

    def first(self, volume: str, entry: FileEntry) -> bytes | None:
        """Path in the target of a name of this inode that was restored, ``None`` if there is none yet."""
        if entry.links < 2 or entry.inode == 0:
            return None
        key = (volume, str(entry.inode))  # as text: 64 bits without sign do not fit an INTEGER
        found = self._rows.execute("SELECT path, missing FROM names WHERE volume = ? AND inode = ?", key).fetchone()
        if found is None:
            return None
        if found[1] <= 1:
            self._rows.execute("DELETE FROM names WHERE volume = ? AND inode = ?", key)
        else:
            self._rows.execute("UPDATE names SET missing = missing - 1 WHERE volume = ? AND inode = ?", key)
        return bytes(found[0])

    def restored(self, volume: str, entry: FileEntry, path: bytes) -> None:
        """The first name of an inode is there now."""
        if entry.links < 2 or entry.inode == 0:
            return
        row = (volume, str(entry.inode), path, min(entry.links - 1, 2**31))
        self._rows.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?)", row)

    def close(self) -> None:
        """The temporary database goes with its connection."""
        self._rows.close()
