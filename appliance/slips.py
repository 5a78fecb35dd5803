"""What is wrong with something that a person wrote, in a person's words: configuration, policies of jobs, values on the command
line. Pure; the one place that knows the words of Pydantic.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

_HALF_DAY = re.compile(r"(?P<hour>1[0-2]|0?[1-9])(?:[:.](?P<minute>[0-5][0-9]))?\s*(?P<half>am|pm)", re.IGNORECASE)
_DIGITS = re.compile(r"(?P<hour>[01]?[0-9]|2[0-3])[:.]?(?P<minute>[0-5][0-9])?h?")

_LONGEST = 40
"""Characters of a value that are said again: enough to recognise it."""


def slips(error: ValidationError, model: type[BaseModel]) -> Sequence[tuple[tuple[str | int, ...], str]]:
    """Each with its place and what to do about it: ``(("schedule", "at", 0), "9pm is no time of day; write 21:00")``."""
    return [(each["loc"], _said(each, model)) for each in error.errors(include_url=False)]


def keys_at(model: type[BaseModel], place: Sequence[str | int]) -> Sequence[str]:
    """The keys that there are in this part of a document; none where it is no part."""
    part: type[BaseModel] | None = model
    for name in place:
        if isinstance(name, str) and part is not None:
            field = part.model_fields.get(name)
            part = _part(field.annotation) if field is not None else None
    return [] if part is None else list(part.model_fields)


def time_of_day(said: str) -> str:
    """How a time is written that was perhaps meant; an example, where nothing can be made of it."""
    text = said.strip()
    if found := _HALF_DAY.fullmatch(text):
        hour = int(found["hour"]) % 12 + (12 if found["half"].lower() == "pm" else 0)
        return f"{hour:02}:{found['minute'] or '00'}"
    if found := _DIGITS.fullmatch(text):
        return f"{int(found['hour']):02}:{found['minute'] or '00'}"
    return "22:00"


def _part(annotation: object) -> type[BaseModel] | None:
    """The model in ``Model``, ``Model | None``, ``tuple[Model, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _part(each)) is not None), None)


def _said(error: Any, model: type[BaseModel]) -> str:
    kind, given, place = str(error["type"]), error["input"], error["loc"]
    facts: Mapping[str, Any] = error.get("ctx") or {}
    if kind == "extra_forbidden":
        there = ", ".join(keys_at(model, place[:-1]))
        return f"there is no such key; there are: {there}" if there else "there is no such key"
    if kind in {"model_type", "dict_type", "model_attributes_type"}:
        return f"has keys of its own: {', '.join(keys_at(model, place))}"
    if kind in {"tuple_type", "list_type"}:
        return f"is a list: write [{_short(given)}]" if isinstance(given, str) else "is a list: write [...]"
    return _of_value(kind, given, facts) or _of_size(kind, facts) or str(error["msg"]).removeprefix("Value error, ")


def _of_value(kind: str, given: object, facts: Mapping[str, Any]) -> str:
    """Empty for what is another kind of slip."""
    if kind in {"literal_error", "enum"}:
        return f"{_short(given)} is none of: {str(facts['expected']).replace(chr(39), '').replace(' or ', ', ')}"
    if kind == "string_pattern_mismatch":
        return f"{_short(given)} is not of the form {facts['pattern']}"
    for beginning, words in _KINDS:
        if kind.startswith(beginning):
            return words.format(_short(given), time_of_day(given) if isinstance(given, str) else "22:00")
    return ""


_KINDS = (
    ("time_", "{0} is no time of day; write {1}"),
    ("date_", "{0} is no day; write it as 2026-12-24"),
    ("int_", "{0} is no whole number"),
    ("float_", "{0} is no number"),
    ("decimal_", "{0} is no number"),
    ("bool_", "is true or false, not {0}"),
    ("string_type", "{0} is no text; write it in quotes"),
    ("path_type", "{0} is no path; write it in quotes"),
    ("missing", "is missing"),
)
"""Beginning of Pydantic's name of a slip -> words; ``{0}``: what was given, ``{1}``: as a time of day."""


def _of_size(kind: str, facts: Mapping[str, Any]) -> str:
    for name, fact, words in _SIZES:
        if kind == name:
            return f"{words} {facts[fact]:g}"
    return ""


_SIZES = (
    ("greater_than", "gt", "has to be more than"),
    ("greater_than_equal", "ge", "has to be at least"),
    ("less_than", "lt", "has to be less than"),
    ("less_than_equal", "le", "has to be at most"),
    ("too_short", "min_length", "has too few entries: the least is"),
    ("too_long", "max_length", "has too many entries: the most is"),
)


def _short(given: object) -> str:
    text = given if isinstance(given, str) else repr(given)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
