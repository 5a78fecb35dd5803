"""Searches over ten million file versions: median and 95th percentile of each kind of pattern, and the query plans.

    python tests/bench/catalog/bench_search.py [--versions 10000000] [--directory /var/tmp] [--limit 100] [--plans]

A fleet of machines of one operating system, with data of their own: paths of words, numbers, dates and digests, made up but
in the proportions of real ones. The database is written with plain SQL and removed afterwards. Warm: each pattern is asked
once before it is measured. Goal: median under 100 ms.
"""

import argparse
import random
import re
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import event

from catalog.patterns import Kind
from catalog.search import Query
from catalog.tables import OPEN
from catalog.text import digest, searchable
from catalog.unit_of_work import Catalog

GOAL_MS = 100.0

# Files of a machine that come with its operating system, and those that only it has.
SYSTEM_FILES, SYSTEM_DIRECTORIES = 150_000, 18_000
OWN_FILES, OWN_DIRECTORIES = 170_000, 9_000
# One file in four was changed once since the first restore point: a second version.
CHANGED = 4

WORDS = re.findall(
    r"\w+",
    "account addon admin agent alpha analysis annual apache archive article asset audit backup balance bank bench beta "
    "block board branch budget build bundle cache calendar campaign catalog channel chart client cloud cluster code color "
    "common compile config contact contract control convert core crypto custom daemon data debug default delta deploy "
    "design device digest domain draft driver dummy editor email engine entry error event example export factory feature "
    "figure filter final finance folder format frame gateway general group handler hardware header health helper history "
    "home icon image import index input install invoice kernel label language layout legal letter library license link list "
    "local locale logger login machine main manager manual market master media meeting memory message metric mirror mobile "
    "module monitor network nginx notes object office offer option order output package page panel parser party patch "
    "payment people phone photo picture plan plugin policy portal postgres presentation price print private process product "
    "profile project protocol proxy public query queue recipe record release remote render report request research result "
    "review router sample scan schema script search secure sensor server service session setting shared sheet signal simple "
    "source spec stage statement static status storage stream style summary supplier support survey switch symbol system "
    "table target task team template terminal test theme thread ticket timer token tool trace training transfer travel "
    "tunnel update upload user utility value vector vendor version video view virtual volume warning web widget window work",
)
ENDINGS = re.findall(r"\w+", "so py c h conf html md txt json xml js png svg gz mo service rules desktop pc")
OWN_ENDINGS = re.findall(r"\w+", "pdf docx xlsx jpg png eml csv log sql zip mp4 pptx txt json js map py")

# What is shown, and the query.
PATTERNS: tuple[tuple[str, Query], ...] = (
    ("a word in many names", Query("report")),
    ("a word in names and directories", Query("nginx")),
    ("two words joined", Query("invoice_photo")),
    ("part of a date in names", Query("2023-07")),
    ("part of a digest, one file", Query("")),  # filled in from the data
    ("nothing has it", Query("xyzzyplugh")),
    ("three characters", Query("tax")),
    ("with a slash, across the boundary", Query("nginx/serv")),
    ("a whole path", Query("/etc/nginx/nginx.conf")),
    ("a directory with a slash behind", Query("/backup/")),
    ("glob *.conf", Query("*.conf")),
    ("glob report*2024*.pdf", Query("report*2024*.pdf")),
    ("glob /etc/*/*.service", Query("/etc/*/*.service")),
    ("extension gz", Query("gz", Kind.EXTENSION)),
    ("exact name", Query("nginx.conf", Kind.NAME)),
    ("substring, one machine", Query("report", machines=frozenset({"m7"}))),
    ("substring, in one restore point", Query("report", point="m1-p0")),
    ("substring, larger than 900 MiB", Query("report", min_size=900 << 20)),
    ("substring, changed since 2026", Query("budget", modified_since=datetime(2026, 1, 1, tzinfo=UTC))),
    ("substring, deleted files", Query("report", deleted=True)),
    ("two characters, frequent", Query("qu")),
    ("two characters, rare", Query("q9")),
    ("one character", Query("z")),
)


# Whose plans are shown: one goes through all lookups, one through directories.
SHOWN = ("part of a digest, one file", "a directory with a slash behind")


def build(path: Path, versions: int) -> None:
    """Write the database."""
    with Catalog(f"sqlite:///{path}"):
        pass
    chance = random.Random(12)  # the same database each time
    db = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = OFF", "synchronous = OFF", "foreign_keys = OFF", "cache_size = -1000000"):
        db.execute(f"PRAGMA {pragma}")
    db.execute("BEGIN")
    texts = Texts(db)
    for table in ("template", "own"):
        db.execute(
            f"CREATE TEMP TABLE {table} (path_id INTEGER, name_id INTEGER, PRIMARY KEY (path_id, name_id)) WITHOUT ROWID"
        )
    system = [_system_directory(chance) for _ in range(SYSTEM_DIRECTORIES)]
    template = [("/etc/nginx", "nginx.conf")] + [_system_file(chance, system) for _ in range(SYSTEM_FILES)]
    db.executemany("INSERT OR IGNORE INTO template VALUES (?, ?)", [texts.place(each) for each in template])
    number, known = 0, 0
    while known < versions:
        own = [_own_directory(chance, i) for i in range(OWN_DIRECTORIES)]
        rows = [texts.place(_own_file(chance, own)) for _ in range(OWN_FILES)]
        texts.write()
        db.execute("DELETE FROM own")
        db.executemany("INSERT OR IGNORE INTO own VALUES (?, ?)", rows)
        known += _machine(db, number)
        number += 1
    db.execute("COMMIT")
    db.execute("ANALYZE")
    db.execute("PRAGMA journal_mode = WAL")
    db.close()


class Texts:
    """Names and paths, each once; their rows go out in bulk."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._ids: tuple[dict[str, int], dict[str, int]] = ({}, {})
        self._new: tuple[list[tuple[object, ...]], list[tuple[object, ...]]] = ([], [])

    def place(self, path: tuple[str, str]) -> tuple[int, int]:
        """Rows of a directory's path and a name."""
        directory, name = path
        paths, names = self._ids
        if directory not in paths:
            paths[directory] = len(paths) + 1
            text = directory.encode()
            self._new[0].append((paths[directory], digest(text), text, searchable(text)))
        if name not in names:
            names[name] = len(names) + 1
            self._new[1].append((names[name], name.encode(), searchable(name.encode())))
        return paths[directory], names[name]

    def write(self) -> None:
        """Write what is new, in one statement each; the triggers fill the indexes."""
        self._db.execute("CREATE TEMP TABLE IF NOT EXISTS new_paths (id, digest, path, folded)")
        self._db.execute("CREATE TEMP TABLE IF NOT EXISTS new_names (id, name, folded)")
        self._db.executemany("INSERT INTO new_paths VALUES (?, ?, ?, ?)", self._new[0])
        self._db.executemany("INSERT INTO new_names VALUES (?, ?, ?)", self._new[1])
        for table in ("paths", "names"):
            self._db.execute(f"INSERT INTO {table} SELECT * FROM new_{table}")
            self._db.execute(f"DELETE FROM new_{table}")
        for new in self._new:
            new.clear()


def _pick(chance: random.Random, words: Sequence[str]) -> str:
    """Faster than ``choice``, which matters for millions."""
    return words[int(chance.random() * len(words))]


def _system_directory(chance: random.Random) -> str:
    top = _pick(chance, ("/usr/share", "/usr/lib", "/etc", "/usr/include", "/var/lib", "/usr/share/doc", "/opt"))
    return "/".join((top, *chance.choices(WORDS, k=chance.choice((1, 2, 2, 3, 4)))))


def _system_file(chance: random.Random, directories: Sequence[str]) -> tuple[str, str]:
    directory, first, second = _pick(chance, directories), _pick(chance, WORDS), _pick(chance, WORDS)
    shape = chance.random()
    if shape < 0.15:
        common = ("index.html", "README.md", "__init__.py", "Makefile", "copyright", "changelog.gz")
        return directory, _pick(chance, common)
    if shape < 0.25:
        return directory, f"lib{first}_{second}.so.{int(90 * shape)}"
    number = int(chance.random() * 999) if shape < 0.6 else ""
    return directory, f"{first}-{second}{number}.{_pick(chance, ENDINGS)}"


def _own_directory(chance: random.Random, number: int) -> str:
    """Of the kind that ``_own_file`` expects for the number."""
    first, second, third = chance.choices(WORDS, k=3)
    match number % 10:
        case 0 | 1 | 2 | 3:
            return f"/home/{first}{number % 40}/documents/{second}/{2015 + number % 12}"
        case 4 | 5:
            return f"/srv/media/{first}/{second}/{2010 + number % 16}"
        case 6 | 7:
            return f"/srv/www/{first}/node_modules/{second}-{third}/dist"
        case 8:
            return f"/srv/git/{first}.git/objects/{number % 256:02x}"
        case _:
            return f"/var/backup/{first}/{second}"


def _own_file(chance: random.Random, directories: Sequence[str]) -> tuple[str, str]:
    place, some = int(chance.random() * len(directories)), chance.getrandbits(48)
    first, second = WORDS[some % len(WORDS)], WORDS[(some >> 8) % len(WORDS)]
    match place % 10:
        case 0 | 1 | 2 | 3:
            day = f"{2015 + some % 12}-{1 + (some >> 16) % 12:02}-{1 + (some >> 20) % 28:02}"
            name = f"{first}_{second} {day}.{OWN_ENDINGS[(some >> 30) % len(OWN_ENDINGS)]}"
        case 4 | 5:
            name = f"IMG_{some % 10**8:08}.jpg"
        case 6 | 7:
            name = f"{first}.{second}.{('js', 'map', 'ts')[(some >> 16) % 3]}"
        case 8:
            name = f"{chance.getrandbits(160):040x}"
        case _:
            name = f"{first}-{(some >> 16) % 10**6}.{('log', 'sql', 'log.gz')[some % 3]}"
    return directories[place], name


def _machine(db: sqlite3.Connection, number: int) -> int:
    """All rows of one machine with two restore points; how many versions."""
    machine, volume = f"m{number}", number + 1
    db.execute("INSERT INTO machines VALUES (?, ?, 'host')", (machine, machine))
    db.execute("INSERT INTO volumes VALUES (?, ?, 'root')", (volume, machine))
    for point in (0, 1):
        db.execute(
            "INSERT INTO restore_points (id, machine_id, position, machine_name, host, hypervisor, run, created_at, level,"
            " consistency, frozen_seconds, reasons, files_indexed_at)"
            " VALUES (?, ?, ?, ?, 'h', 'kvm', 'r', '2026-01-01', 'full', 'filesystem', 0, '[]', '2026-01-01')",
            (f"{machine}-p{point}", machine, point + 1, machine),
        )
    db.execute("CREATE TEMP TABLE held AS SELECT * FROM template UNION SELECT * FROM own")
    db.execute(
        "INSERT INTO directories (volume_id, path_id) SELECT ?, path_id FROM (SELECT DISTINCT path_id FROM held)",
        (volume,),
    )
    before = db.execute("SELECT coalesce(max(id), 0) FROM files").fetchone()[0]
    db.execute(
        "INSERT INTO files (directory_id, name_id) SELECT d.id, h.name_id FROM held h"
        " JOIN directories d ON d.path_id = h.path_id AND d.volume_id = ? ORDER BY d.id, h.name_id",
        (volume,),
    )
    db.execute("DROP TABLE held")
    insert = (
        "INSERT INTO versions"
        " (file_id, volume_id, first, until, content, type, size, mode, uid, gid, mtime_ns, ctime_ns, inode)"
        " SELECT id, ?, ?, ?, randomblob(16), 'file', abs(random()) % 1000000000, 420, 0, 0,"
        " (1500000000 + abs(random()) % 280000000) * 1000000000, 1, id FROM files WHERE id > ? AND "
    )
    gone = f"id % 50 = 7 AND id % {CHANGED} <> 0"
    counts = (
        db.execute(f"{insert} id % {CHANGED} <> 0 AND NOT ({gone})", (volume, 1, OPEN, before)),
        db.execute(f"{insert} id % {CHANGED} = 0", (volume, 1, 2, before)),
        db.execute(f"{insert} id % {CHANGED} = 0", (volume, 2, OPEN, before)),
        db.execute(f"{insert} {gone}", (volume, 1, 2, before)),
    )
    return sum(cursor.rowcount for cursor in counts)


def measure(catalog: Catalog, query: Query, rounds: int) -> tuple[list[float], int, bool]:
    """Milliseconds of each round after a first one; files found; whether the page is all that the limit allows."""
    times: list[float] = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        with catalog.transaction(write=False) as unit:
            found = unit.files.search(query)
        times.append(1000 * (time.perf_counter() - began))
    return times[1:], len(found.files), found.complete


@contextmanager
def statements(catalog: Catalog) -> Iterator[list[tuple[str, Any]]]:
    """What is asked of the database meanwhile."""
    asked: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        asked.append((statement, parameters))

    engine = catalog._engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", note)


def print_plans(catalog: Catalog, query: Query) -> None:
    """EXPLAIN QUERY PLAN of every different question of a search."""
    with statements(catalog) as asked, catalog.transaction(write=False) as unit:
        unit.files.search(query)
    seen: set[str] = set()
    with catalog._engine.connect() as connection:
        for statement, parameters in asked:
            shape = statement.split("IN (")[0]
            if not statement.startswith("SELECT") or shape in seen:
                continue
            seen.add(shape)
            print(f"    {' '.join(statement.split())[:150]} …")
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters):
                print(f"        {row[3]}")


def main() -> None:
    """Build, measure, print, remove."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--versions", type=int, default=10_000_000)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"))  # on a disk, not in memory
    parser.add_argument("--limit", type=int, default=100, help="files on a page")
    parser.add_argument("--database", type=Path, help="measure in this one; it is built where it is missing, and stays")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--plans", action="store_true", help="the plans of every pattern, not of two")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="lanfree-bench-") as directory:
        path: Path = options.database or Path(directory) / "catalog.db"
        if not path.exists():
            began = time.perf_counter()
            build(path, options.versions)
            print(f"built in {time.perf_counter() - began:.0f} s", flush=True)
        db = sqlite3.connect(path)
        tables = ("versions", "files", "names", "paths", "machines")
        counts = {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
        (rare,) = db.execute("SELECT substr(folded, 6, 12) FROM names WHERE length(folded) = 40").fetchone()
        db.close()
        size = path.stat().st_size
        print(f"{counts}, {size / 2**30:.2f} GiB, {size / counts['versions']:.0f} bytes a version", flush=True)
        with Catalog(f"sqlite:///{path}") as catalog:
            report(catalog, options, rare)


def report(catalog: Catalog, options: argparse.Namespace, rare: str) -> None:
    """The table, then the plans."""
    medians: list[float] = []
    print(f"{'pattern':38} {'median ms':>10} {'p95 ms':>8} {'files':>6}")
    queries = [(title, _filled(query, rare, options.limit)) for title, query in PATTERNS]
    for title, query in queries:
        times, files, complete = measure(catalog, query, options.rounds)
        times.sort()
        medians.append(statistics.median(times))
        p95 = times[min(len(times) - 1, round(0.95 * len(times)))]
        print(
            f"{title:38} {medians[-1]:10.1f} {p95:8.1f} {files:6}{'' if complete else '  stopped early, says so'}",
            flush=True,
        )
    median = statistics.median(medians)
    print(
        f"median over all patterns {median:.1f} ms, slowest {max(medians):.1f} ms (goal: median under {GOAL_MS:.0f} ms)"
    )
    for title, query in queries if options.plans else [each for each in queries if each[0] in SHOWN]:
        print(f"plans of: {title}")
        print_plans(catalog, query)


def _filled(query: Query, rare: str, limit: int) -> Query:
    return replace(query, pattern=query.pattern or rare, limit=limit)


if __name__ == "__main__":
    main()
