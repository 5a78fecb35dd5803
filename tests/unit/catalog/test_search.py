from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from catalog import candidates
from catalog import search as searching
from catalog.patterns import Kind, Rank, Where, understood
from catalog.search import Query
from catalog.tables import NameRow
from catalog.unit_of_work import Catalog
from proxy.errors import SearchRefused

pytestmark = pytest.mark.slow

PATHS = [
    b"/etc/nginx/nginx.conf",
    b"/etc/nginx/sites/web.conf",
    b"/usr/lib/nginx/module.so",
    b"/var/nginx.conf/readme",
    b"/home/my.nginx.conf.bak",
    b"/home/nginx.config",
    b"/x",
    b"/etc",
    b"/a/a/a",
    b"/srv/backup.tar.gz",
    "/home/Grüße Ärger.TXT".encode(),
    b"/home/\xff\xfe.c",
    b"/home/100%_sure[1].txt",
    b'/home/quo"te.txt',
    b"/home/C",
]

FIND = [
    ("nginx.conf", [0, 5, 4, 3]),  # exact, then what begins so, then what holds it, then directories
    ("NGINX", [0, 5, 3, 4, 1, 2]),
    ("etc/ng", [0, 1]),
    ("etc/nginx/nginx.conf", [0]),
    ("/etc/nginx/", [0, 1]),
    ("nginx/m", [2]),
    ("/x", [6]),
    ("/e", [7, 0, 1]),
    ("a/a", [8]),
    ("grüsse ärger", [10]),
    ("\\xff", [11]),
    ("%_sure", [12]),
    ("[1]", [12]),
    ('o"t', [13]),
    ("z", [9]),
    ("nowhere", []),
    ("", list(range(len(PATHS)))),
    ("/", list(range(len(PATHS)))),
]


@pytest.fixture
def filled(catalog: Catalog, make: Any) -> Catalog:
    with catalog.transaction() as unit:
        unit.restore_points.add(make.point(1))
    catalog.index("p1", [[make.record(path, size=i, mtime_ns=i * 10**9) for i, path in enumerate(PATHS)]])
    return catalog


def found(catalog: Catalog, query: Query) -> list[bytes]:
    with catalog.transaction(write=False) as unit:
        answer = unit.files.search(query)
    assert answer.complete
    assert answer.after is None
    return [f.path for f in answer.files]


@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "paths"), FIND, ids=[pattern for pattern, _ in FIND])
def test_a_substring_is_found_wherever_it_lies_in_the_path(pattern: str, paths: list[int], filled: Catalog) -> None:
    answer = found(filled, Query(pattern, Kind.SUBSTRING))
    assert sorted(answer) == sorted(PATHS[i] for i in paths)
    ranks = [understood(pattern, Kind.SUBSTRING).rank(*_folded(path)) for path in answer]
    assert ranks == sorted(ranks, key=lambda rank: Rank.DIRECTORY if rank is None else rank)


def _folded(path: bytes) -> tuple[str, str]:
    directory, _, name = path.rpartition(b"/")
    return tuple(part.decode(errors="backslashreplace").casefold() for part in (directory or b"/", name))  # type: ignore[return-value]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "kind", "paths"),
    [
        ("*.conf", Kind.AUTO, [0, 1]),
        ("*.c", Kind.AUTO, [11]),
        ("n*g", Kind.AUTO, [5]),
        ("?", Kind.GLOB, [6, 8, 14]),
        ("*[1]*", Kind.GLOB, [12]),
        ("*[[]1]*", Kind.GLOB, [12]),
        ("/etc/*", Kind.GLOB, [0, 1]),
        ("/*", Kind.GLOB, list(range(len(PATHS)))),
        ("/etc/*.conf", Kind.GLOB, [0, 1]),
        ("*/nginx/*", Kind.GLOB, [0, 1, 2]),
        ("/etc/nginx/[a-n]*", Kind.GLOB, [0]),
        ("*backup*", Kind.GLOB, [9]),
        ("no*where", Kind.GLOB, []),
        ("conf", Kind.EXTENSION, [0, 1]),
        (".TAR.gz", Kind.EXTENSION, [9]),
        ("gz", Kind.EXTENSION, [9]),
        ("c", Kind.EXTENSION, [11]),
        ("nginx.conf", Kind.NAME, [0]),
        ("NGINX.CONF", Kind.NAME, [0]),
        ("nginx", Kind.NAME, []),
        ("*.conf", Kind.NAME, []),
    ],
)
def test_globs_extensions_and_names_mean_what_they_say(
    pattern: str, kind: Kind, paths: list[int], filled: Catalog
) -> None:
    assert sorted(found(filled, Query(pattern, kind))) == sorted(PATHS[i] for i in paths)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["", "nginx", "n", "conf", "/e", "nginx/", "*.conf", "*/nginx*"])
def test_pages_go_on_where_the_last_one_ended_and_leave_nothing_out(pattern: str, filled: Catalog) -> None:
    whole = found(filled, Query(pattern))
    for limit in (1, 2, 3):
        pages: list[bytes] = []
        query = Query(pattern, limit=limit)
        with filled.transaction(write=False) as unit:
            while True:
                page = unit.files.search(query)
                assert len(page.files) <= limit
                pages += [f.path for f in page.files]
                query = replace(query, after=page.after)
                if page.after is None:
                    break
        assert pages == whole


def test_a_search_that_looks_at_too_much_says_so_and_goes_on(filled: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "LOOKED_AT_MOST", 1)
    monkeypatch.setattr(searching, "FIRST_PORTION", 4)
    monkeypatch.setattr(searching, "LARGEST_PORTION", 4)
    monkeypatch.setattr(candidates, "FIRST_TEXTS", 2)
    monkeypatch.setattr(candidates, "MOST_TEXTS", 2)
    seen: list[bytes] = []
    query, stops = Query("n", limit=100), 0
    with filled.transaction(write=False) as unit:
        while True:
            page = unit.files.search(query)
            seen += [f.path for f in page.files]
            stops += not page.complete
            if page.after is None:
                break
            assert not page.complete
            query = replace(query, after=page.after)
    assert stops > 1
    monkeypatch.undo()
    assert seen == found(filled, Query("n"))


def test_a_place_of_another_search_or_of_none_is_refused(filled: Catalog) -> None:
    with filled.transaction(write=False) as unit:
        after = unit.files.search(Query("n", limit=1)).after
        assert after is not None
        for wrong in (Query("m", after=after), Query("n", deleted=True, after=after), Query("n", after="nonsense")):
            with pytest.raises(SearchRefused):
                unit.files.search(wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("narrowed", "paths"),
    [
        ({"min_size": 12}, [12, 13, 14]),
        ({"min_size": 3, "max_size": 4}, [3, 4]),
        ({"modified_since": datetime.fromtimestamp(13, UTC)}, [13, 14]),
        ({"modified_until": datetime.fromtimestamp(2, UTC)}, [0, 1]),
        ({"machines": frozenset({"m1"}), "max_size": 0}, [0]),
        ({"machines": frozenset({"m2"})}, []),
        ({"types": frozenset({"directory"})}, []),
        ({"types": frozenset({"file", "fifo"}), "max_size": 1}, [0, 1]),
        ({"point": "p1", "max_size": 1}, [0, 1]),
        ({"point": "p1", "machines": frozenset({"m2"})}, []),
        ({"deleted": True}, []),
    ],
)
def test_a_search_is_narrowed_down(narrowed: dict[str, Any], paths: list[int], filled: Catalog) -> None:
    assert sorted(found(filled, Query(**narrowed))) == sorted(PATHS[i] for i in paths)


def test_deleted_files_and_all_versions_are_found(catalog: Catalog, make: Any) -> None:
    contents = ({b"/x": 1, b"/gone": 1}, {b"/x": 2}, {b"/x": 2, b"/y": 1})
    for number, state in enumerate(contents, 1):
        with catalog.transaction() as unit:
            unit.restore_points.add(make.point(number))
        catalog.index(f"p{number}", [make.files(state)])
    with catalog.transaction(write=False) as unit:
        deleted = unit.files.search(Query(deleted=True)).files
        every = unit.files.search(Query("x", all_versions=True)).files
        newest = unit.files.search(Query("x")).files
        small = unit.files.search(Query("x", all_versions=True, max_size=1)).files
    assert [(f.path, f.last_point, f.superseded) for f in deleted] == [(b"/gone", "p1", True)]
    assert [(f.size, f.first_point, f.last_point, f.superseded) for f in every] == [
        (2, "p2", "p3", False),
        (1, "p1", "p1", True),
    ]
    assert [f.size for f in newest] == [2]
    assert [f.size for f in small] == [1]


def test_long_patterns_are_answered_by_the_trigram_index(filled: Catalog) -> None:
    lookup = next(each for each in understood("nginx").lookups if each.where is Where.NAMES)
    with filled.transaction(write=False) as unit:
        session = unit.files._session
        question = candidates.Candidates(session, lookup, None)._texts(NameRow, 0, 10)
        sqlite = session.get_bind().dialect.name == "sqlite"
        if not sqlite:
            for setting in ("enable_seqscan", "enable_indexscan"):  # so few names need no index
                session.execute(text(f"SET LOCAL {setting} = off"))
        told = question.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
        explain = "EXPLAIN QUERY PLAN" if sqlite else "EXPLAIN"
        plan = str(session.connection().exec_driver_sql(f"{explain} {told}").all())
    assert ("VIRTUAL TABLE INDEX" if sqlite else "ix_names_search") in plan
