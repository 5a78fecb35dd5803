"""The helper's durable memory: until when each file is kept, and how far trusted time has come. SQLite, synced at every commit.

A file is known by its inode, not by its name: while the attribute is set the inode can neither go nor be used anew, whatever
happens to the directories above it.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from appliance.immutable.trusted_time import Mark

_TABLES = """
CREATE TABLE IF NOT EXISTS kept (
    root TEXT NOT NULL,
    inode INTEGER NOT NULL,
    name TEXT NOT NULL,     -- when it was last asked for; for people, and to find the file again after a crash
    until REAL NOT NULL,    -- trusted seconds
    done INTEGER NOT NULL,  -- the attribute is known to be set
    PRIMARY KEY (root, inode)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS kept_undone ON kept (root, name) WHERE done = 0;
CREATE TABLE IF NOT EXISTS mark (only INTEGER PRIMARY KEY CHECK (only = 1), trusted REAL, boot_id TEXT, booted REAL);
"""

# Beside the database, and longer than any commit: whoever else opens it (a person with sqlite3) should not fail.
_BUSY_SECONDS = 10.0


class Deadlines:
    """One connection; the caller lets one thread at a time in. Raises ``sqlite3.Error`` for a database that is damaged."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level=None)
        # A commit is in the log and synced when it returns.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_TABLES)

    def last_mark(self) -> Mark | None:
        row = self._db.execute("SELECT trusted, boot_id, booted FROM mark").fetchone()
        return Mark(*row) if row else None

    def keep_mark(self, mark: Mark) -> None:
        """Durable when it returns."""
        with self._db:
            self._put_mark(mark)

    def until(self, root: str, inode: int) -> float | None:
        """Trusted seconds, ``None`` for a file that nobody asked to keep."""
        row = self._db.execute("SELECT until FROM kept WHERE root = ? AND inode = ?", (root, inode)).fetchone()
        return float(row[0]) if row else None

    def extend(self, root: str, inode: int, name: str, until: float, mark: Mark) -> float:
        """Keep it until then at least; returns until when it is kept. Durable when it returns, the mark as well."""
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:
            self._db.execute(
                "INSERT INTO kept VALUES (?, ?, ?, ?, 0)"
                " ON CONFLICT DO UPDATE SET name = excluded.name, until = max(until, excluded.until)",
                (root, inode, name, until),
            )
            self._put_mark(mark)
            kept = self.until(root, inode)
        return until if kept is None else kept

    def done(self, root: str, inode: int) -> None:
        """The attribute is set."""
        self._db.execute("UPDATE kept SET done = 1 WHERE root = ? AND inode = ?", (root, inode))

    def forget(self, root: str, inode: int) -> None:
        """The attribute is cleared, or was never set."""
        self._db.execute("DELETE FROM kept WHERE root = ? AND inode = ?", (root, inode))

    def undone(self) -> Iterator[tuple[str, int, str]]:
        """Root, inode and name of files whose attribute may not be set yet: the helper ended in between."""
        yield from self._db.execute("SELECT root, inode, name FROM kept WHERE done = 0").fetchall()

    def count(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM kept").fetchone()[0])

    def close(self) -> None:
        self._db.close()

    def _put_mark(self, mark: Mark) -> None:
        self._db.execute("INSERT OR REPLACE INTO mark VALUES (1, ?, ?, ?)", (mark.trusted, mark.boot_id, mark.booted))
