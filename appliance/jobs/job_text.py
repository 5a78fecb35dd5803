"""Jobs as YAML text and back: what ``lanfree job export`` writes and ``lanfree job import`` reads. Pure.

::

    jobs:
      nightly:                      what is left out is as in a job without it (catalog.jobs.policy)
        enabled: false              only where its schedule begins nothing
        select: {include: ['folder=Prod']}
        schedule: {at: ['22:00'], days: [mon, tue]}

Plain scalars are read by the core schema of YAML 1.2 (null, true, false, numbers): older rules make ``22:00`` a number in base
60 and the key ``on`` a truth. Unknown and doubled keys are refused with their line; nothing but plain data is ever made.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from appliance.slips import slips as explained
from catalog.jobs.policy import Policy
from catalog.jobs.values import Job
from proxy.errors import ConfigurationError

LONGEST_TEXT = 1024 * 1024
"""Characters. Some thousand jobs fit; a file that somebody named by mistake is not read for minutes."""

DEEPEST = 16
"""Levels of a text; a job has seven. The reader's time grows with the square of them."""

LONGEST_NAME = 64
"""Of a job: it is a column of tables, a label of metrics, and part of restore points' reasons."""

_TAG = re.compile(r"tag:yaml\.org,2002:(str|int|float|bool|null|timestamp|map|seq|merge|value)")
"""What the composer guesses of texts without a tag. Whatever it guesses of a plain one, ``_SCALARS`` decides."""

_TIME = re.compile(r"[0-9]{1,2}(:[0-9]{2}){1,2}")

_NAME = re.compile(r"[^\W_](?:[\w .+@-]*[\w.+@-])?")

Path = tuple[str | int, ...]

_SCALARS = (
    (re.compile(r"|~|null|Null|NULL"), lambda text: None),
    (re.compile(r"true|True|TRUE"), lambda text: True),
    (re.compile(r"false|False|FALSE"), lambda text: False),
    (re.compile(r"[-+]?[0-9]+"), int),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
)
"""YAML 1.2.2, 10.3.2: how plain scalars are resolved; octal and hexadecimal numbers and infinities are texts here."""


@dataclass(frozen=True, slots=True)
class Written:
    """A job as a text says it."""

    policy: Policy
    enabled: bool = True


def write(jobs: Mapping[str, Written]) -> str:
    """As YAML that ``read`` takes back. Defaults are left out."""
    document = {"jobs": {name: _plain(job) for name, job in jobs.items()}}
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def read(text: str, source: str) -> dict[str, Written]:
    """``source``: what to call the text. Raises ``ConfigurationError`` with the line of the first slip, and the others as
    notes."""
    tree, lines = _parsed(text, source)
    if not isinstance(tree, dict) or set(tree) != {"jobs"} or not isinstance(tree["jobs"], dict):
        raise ConfigurationError(source, "it has no 'jobs:', or more than that", hint="'lanfree job export' writes one")
    slips: list[tuple[int, str]] = []
    found: dict[str, Written] = {}
    for name, body in tree["jobs"].items():
        at: Path = ("jobs", name)
        try:
            check_name(name)
            found[name] = _job(body)
        except ConfigurationError as error:
            slips.append((lines[at], error.message))
        except ValidationError as error:
            wrong = explained(error, Policy)
            slips += [(_line_of(lines, (*at, *place)), _slip((name, *place), said)) for place, said in wrong]
    if slips:
        raise _refusal(source, sorted(slips))
    return found


def value(text: str) -> Any:
    """One value of ``--set KEY=VALUE``, in YAML: ``7``, ``[mon, tue]``, ``{start: 22:00, end: 06:00}``. What begins with no
    bracket and no quote is one plain scalar, also where YAML would see more in it (``0 3 * * *``). Raises
    ``ConfigurationError``."""
    plain = text.strip()
    return _parsed(text, f"value {text!r}")[0] if plain.startswith(("[", "{", "'", '"')) else _scalar(plain)


def of(job: Job) -> Written:
    """A stored job."""
    return Written(job.policy, job.enabled)


def policy_of(document: Mapping[str, Any], name: str) -> Policy:
    """Raises ``ConfigurationError`` that names the first key that is wrong, and the others as notes."""
    try:
        return Policy.model_validate(document)
    except ValidationError as error:
        first, *others = [_slip(place, said) for place, said in explained(error, Policy)]
        refusal = ConfigurationError(f"job {name}", first)
        for other in others:
            refusal.add_note(other)
        raise refusal from None


def check_name(name: str) -> None:
    """Raises ``ConfigurationError`` for a name that could not be typed, or would be taken for something else."""
    if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"job {name!r}", f"a name is letters, digits, and ' ._+@-' within, {LONGEST_NAME} characters at most"
        )


def _plain(job: Written) -> dict[str, Any]:
    enabled = {} if job.enabled else {"enabled": False}
    document: dict[str, Any] = _short(job.policy.model_dump(mode="json", exclude_defaults=True))
    return {**enabled, **document}


def _short(part: Any) -> Any:
    """Times of day without seconds that are none."""
    match part:
        case dict():
            return {key: _short(each) for key, each in part.items()}
        case list() | tuple():
            return [_short(each) for each in part]
        case str() if re.fullmatch(r"\d\d:\d\d:00", part):
            return part[:5]
        case _:
            return part


def _job(body: object) -> Written:
    if body is None:
        body = {}
    if not isinstance(body, dict):
        raise ConfigurationError("job", "it has no keys")
    enabled = body.get("enabled", True)
    if not isinstance(enabled, bool):
        raise ConfigurationError("enabled", "is true or false")
    return Written(Policy.model_validate({key: each for key, each in body.items() if key != "enabled"}), enabled)


def _slip(place: Path, said: str) -> str:
    # Of a list of one, and of its first entry, the list is place enough: the slip says which text it is.
    where = ".".join(str(part) for part in (place[:-1] if place[-1:] == (0,) else place))
    return f"{where}: {said}" if where else said


def _refusal(source: str, slips: Sequence[tuple[int, str]]) -> ConfigurationError:
    (line, first), *others = slips
    error = ConfigurationError(f"{source}, line {line}", first)
    for line, slip in others:
        error.add_note(f"line {line}: {slip}")
    return error


def _line_of(lines: Mapping[Path, int], at: Path) -> int:
    """Of the deepest part of the path that the text has: what is missing has no line of its own."""
    while at not in lines:
        at = at[:-1]
    return lines[at]


def _parsed(text: str, source: str) -> tuple[Any, dict[Path, int]]:
    """Plain data, and the line (from 1) of each path in it."""
    if len(text) > LONGEST_TEXT:
        raise ConfigurationError(source, f"it is longer than {LONGEST_TEXT} characters")
    lines: dict[Path, int] = {(): 1}
    try:
        _check_events(text, source)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return (None if node is None else _data(node, (), lines, source)), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}, line {mark.line + 1}" if mark else source
        said = ": ".join(part for part in (error.context, error.problem) if part)
        hint = "a text that begins with * wants quotes" if "alias" in said else ""
        raise ConfigurationError(where, f"not valid YAML: {said}", hint=hint) from None
    except yaml.YAMLError as error:
        raise ConfigurationError(source, f"not valid YAML: {str(error).splitlines()[0]}") from None


def _check_events(text: str, source: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            hint = "a text that begins with * wants quotes"
            raise ConfigurationError(source, "aliases (*name) are not read", hint=hint)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ConfigurationError(source, f"it is nested more than {DEEPEST} levels deep")


def _data(node: yaml.Node, at: Path, lines: dict[Path, int], source: str) -> Any:
    lines.setdefault(at, node.start_mark.line + 1)
    if not _TAG.fullmatch(node.tag):
        raise ConfigurationError(f"{source}, line {node.start_mark.line + 1}", f"the tag {node.tag} is not read")
    match node:
        case yaml.MappingNode():
            return _mapping(node, at, lines, source)
        case yaml.SequenceNode():
            return [_data(each, (*at, n), lines, source) for n, each in enumerate(node.value)]
        case yaml.ScalarNode() if node.style is None:
            return _scalar(str(node.value))
        case _:
            return str(node.value)


def _scalar(text: str) -> Any:
    return next((make(text) for pattern, make in _SCALARS if pattern.fullmatch(text)), text)


def _mapping(node: yaml.MappingNode, at: Path, lines: dict[Path, int], source: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigurationError(f"{source}, line {line}", "a key is a plain text")
        key = str(key_node.value)
        if key in made:
            raise ConfigurationError(f"{source}, line {line}", f"{key} is said twice")
        lines[(*at, key)] = line
        made[key] = _data(value_node, (*at, key), lines, source)
    return made


class _Dumper(yaml.SafeDumper):
    """Lists are indented below their key, and short lists of plain values stand in one line."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        plain = all(not isinstance(each, dict | list) for each in sequence)
        return super().represent_sequence(tag, sequence, flow_style=plain)

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # Line breaks of all kinds survive as escapes alone: written as they are, some come back as others. Of times of day
        # some would get quotes (older readers take them for numbers) and some not; and some numbers none, which we read so.
        style = "'" if _TIME.fullmatch(data) or any(kind.fullmatch(data) for kind, _ in _SCALARS) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style if data.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_str)
