"""What people write into a search, and where in the database its matches can be.

A path is its directory and its name, kept apart and each once for all files. A text without ``/`` therefore lies in the
name or in the directory; with ``/`` it also may lie across the boundary: what is before its last ``/`` ends the directory,
what is behind begins the name. Candidates come from indexes that may say too much; ``rank`` has the last word.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from fnmatch import translate

from catalog.text import searchable

# A trigram index knows nothing of shorter texts.
GRAM = 3

END = "\1"
"""Behind each text in the index, so that "ends with" is something that can be looked up (``migrations/versions/0002``)."""

_WILD = re.compile(r"(\*+|\?|\[!?\]?[^\]]*\])")


class Kind(StrEnum):
    """How a pattern is meant; always without regard to case.

    ``SUBSTRING``: anywhere in the path. ``GLOB``: ``*``, ``?``, ``[…]``; for the name alone, or with a ``/`` in it for the
    whole path, where ``*`` crosses ``/``. ``AUTO``: a glob when it has ``*``, ``?`` or ``[``, else a substring. ``NAME``:
    the whole name. ``EXTENSION``: what follows a dot at the name's end (``gz``, ``tar.gz``).
    """

    AUTO = "auto"
    SUBSTRING = "substring"
    GLOB = "glob"
    NAME = "name"
    EXTENSION = "extension"


class Rank(IntEnum):
    """Why a file is found; better ones first."""

    EXACT = 0
    PREFIX = 1
    NAME = 2
    DIRECTORY = 3


class Where(StrEnum):
    """Where candidates are looked up, and in which order they come."""

    BEGINNING = "names that begin with a text, in alphabetical order"
    NAMES = "names that hold texts, in the order in which they were first seen"
    PATHS = "directory paths that hold texts, in the order in which they were first seen"


@dataclass(frozen=True, slots=True)
class Lookup:
    """One way to candidates. ``texts``: all are in each candidate; none: all there are. For ``BEGINNING`` just one.
    ``ranks``: what this lookup answers for; other lookups find the others. ``accepts``: whether a name, or a path, can be.
    ``directory``: texts that are in the path of the directory, for ``BEGINNING``."""

    where: Where
    texts: tuple[str, ...]
    ranks: frozenset[Rank]
    accepts: Callable[[str], bool]
    directory: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern understood. ``rank``: of a file by its directory and its name, folded; ``None``: not meant. ``either``: the
    first two lookups lead to the same files, and the second is the better one where it has few candidates."""

    lookups: Sequence[Lookup]
    rank: Callable[[str, str], Rank | None]
    either: bool = False


def understood(pattern: str, kind: Kind = Kind.AUTO) -> Pattern:
    """The lookups of a pattern and its meaning. An empty pattern means every file."""
    text = searchable(_encoded(pattern))
    if kind is Kind.AUTO:
        kind = Kind.GLOB if _WILD.search(text) else Kind.SUBSTRING
    if kind is Kind.EXTENSION:
        end = "." + text.lstrip(".")
        return _of_names((end + END,), lambda name: name.endswith(end))
    if kind is Kind.NAME:
        lookup = Lookup(Where.BEGINNING, (text,), frozenset({Rank.EXACT}), lambda name: name == text)
        return Pattern((lookup,), lambda _, name: Rank.EXACT if name == text else None)
    if text in ("", "/"):
        return Pattern((_lookup(Where.PATHS, (), Rank.NAME, _anything),), lambda *_: Rank.NAME)
    if kind is Kind.GLOB:
        return _glob(text)
    return _across(text) if "/" in text else _within(text)


def _encoded(pattern: str) -> bytes:
    """A pattern as bytes of a name; those of names that are not UTF-8 come as PEP 383 has them."""
    try:
        return pattern.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half of a pair, which no name has
        return pattern.encode(errors="backslashreplace")


def _within(text: str) -> Pattern:
    def rank(directory: str, name: str) -> Rank | None:
        if text in name:
            return Rank.EXACT if name == text else Rank.PREFIX if name.startswith(text) else Rank.NAME
        return Rank.DIRECTORY if text in directory else None

    lookups = (
        Lookup(Where.BEGINNING, (text,), frozenset({Rank.EXACT, Rank.PREFIX}), _anything),
        _lookup(Where.NAMES, (text,), Rank.NAME, lambda name: text in name and not name.startswith(text)),
        _lookup(Where.PATHS, (text,), Rank.DIRECTORY, lambda path: text in path),
    )
    return Pattern(lookups, rank)


def _across(text: str) -> Pattern:
    before, _, behind = text.rpartition("/")

    def rank(directory: str, name: str) -> Rank | None:
        if name.startswith(behind) and directory.rstrip("/").endswith(before):
            return Rank.EXACT if name == behind else Rank.PREFIX
        return Rank.DIRECTORY if text in directory else None

    ranks = frozenset({Rank.EXACT, Rank.PREFIX})
    ends = (before + END,) if len(before) >= GRAM - 1 else ()
    by_name = Lookup(Where.BEGINNING, (behind,), ranks, _anything, ends)
    by_directory = Lookup(Where.PATHS, ends, ranks, lambda path: path.rstrip("/").endswith(before))
    within = _lookup(Where.PATHS, (text,), Rank.DIRECTORY, lambda path: text in path)
    either = "" if not behind else "either" if ends else "name"
    lookups = {"": (by_directory, within), "name": (by_name, within), "either": (by_name, by_directory, within)}[either]
    return Pattern(lookups, rank, either=either == "either")


def _glob(text: str) -> Pattern:
    matches = re.compile(translate(text)).match
    pieces = [p for p in _WILD.split(text) if p]
    literal = ["" if _WILD.fullmatch(p) else p for p in pieces]
    if "/" not in text:
        if literal[0] and not any(len(t) >= GRAM for t in literal[1:]) and len(literal[0]) < GRAM:
            lookup = _lookup(Where.BEGINNING, (literal[0],), Rank.NAME, lambda name: matches(name) is not None)
            return Pattern((lookup,), lambda _, name: Rank.NAME if matches(name) else None)
        texts = (*literal[:-1], literal[-1] + END if literal[-1] else "")
        return _of_names(texts, lambda name: matches(name) is not None)

    def rank(directory: str, name: str) -> Rank | None:
        return Rank.NAME if matches(directory.rstrip("/") + "/" + name) else None

    # The last literal, behind its last "/", ends the name; of every literal, what is before its last "/" is in the directory.
    end = literal[-1].rpartition("/")[2]
    if len(end) >= GRAM - 1:
        return Pattern((_lookup(Where.NAMES, (end + END,), Rank.NAME, lambda name: name.endswith(end)),), rank)
    within = tuple(t.rpartition("/")[0] for t in literal)
    return Pattern((_lookup(Where.PATHS, within, Rank.NAME, _anything),), rank)


def _of_names(texts: tuple[str, ...], matches: Callable[[str], bool]) -> Pattern:
    return Pattern(
        (_lookup(Where.NAMES, texts, Rank.NAME, matches),), lambda _, name: Rank.NAME if matches(name) else None
    )


def _lookup(where: Where, texts: tuple[str, ...], rank: Rank, accepts: Callable[[str], bool]) -> Lookup:
    """What is too short for the index is left out: fewer texts, more candidates."""
    if where is not Where.BEGINNING:
        texts = tuple(t for t in texts if len(t) >= GRAM)
    return Lookup(where, texts, frozenset({rank}), accepts)


def _anything(_: str) -> bool:
    return True
