"""What few jobs need, folded away in a job's form: days without backup, verification, retries, priority, commands.

Commands run on the proxy as itself: who may not configure it adds none by the API, and only reads them here.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from api.ui.markup import Markup, join, tag
from api.ui.pages.job_fields import area, choice, figure, listed, named, number, one_line, pairs, text_input
from api.ui.parts.dialogs import check, field
from api.ui.parts.part import Act
from api.ui.words import duration
from catalog.jobs.policy import Blackout, Hook, Policy, Retries, RetryOn
from proxy.errors import ConfigurationError

_NEW = Hook(command=("",))
"""What a command is as by default."""

_TIMES = (("before", "Before a run"), ("after", "After a run"))

_REASONS = (
    (RetryOn.TRY_AGAIN, "Something was busy, or away for a moment"),
    (RetryOn.TRANSPORT, "The way to the data failed"),
    (RetryOn.RUN_FAILED, "The backup failed: its snapshot, the guest, a write"),
    (RetryOn.STOP_ALL, "A host or the repository cannot be used"),
)

_PARTS = (
    ("blackout", "days without backup"),
    ("verify", "verification"),
    ("retries", "retries"),
    ("priority", "priority"),
    ("index", "names of files"),
    ("before", "commands before a run"),
    ("after", "commands after a run"),
)
"""Of a policy, and what its summary calls them."""


def more(policy: Policy, *, hooks: bool) -> Markup:
    """``hooks``: whether who looks at it may change commands."""
    plain = Policy()
    set_here = [said for name, said in _PARTS if getattr(policy, name) != getattr(plain, name)]
    inside = ", ".join(set_here) if set_here else "days without backup, verification, retries, priority, commands"
    summary = tag("summary", "More", tag("span", f": {inside}", cls="lf-dim"))
    # Browsers hand down no box-sizing through a fold.
    body = tag(
        "div",
        _days_off(policy),
        _figures(policy),
        _retries(policy),
        _commands(policy, hooks=hooks),
        style="box-sizing:border-box;padding-top:12px",
    )
    return tag("details", summary, body, cls="lf-more")


def _days_off(policy: Policy) -> Markup:
    help_ = join(
        "A day or days a line, the last one included: ",
        tag("code", "2026-12-24 to 2026-12-26: holidays"),
        ". Nothing begins then, and what runs ends cleanly.",
    )
    return named(
        "Days without backup", "blackout", area("blackout", [_days_text(one) for one in policy.blackout]), help_
    )


def _days_text(days: Blackout) -> str:
    span = f"{days.first}" if days.first == days.last else f"{days.first} to {days.last}"
    return f"{span}: {one_line(days.why)}" if one_line(days.why) else span


def _days(line: str) -> dict[str, str]:
    span, _, why = line.partition(":")
    first, to, last = span.partition(" to ")
    return {"first": first.strip(), "last": last.strip() if to else first.strip(), "why": why.strip()}


def _figures(policy: Policy) -> Markup:
    index = (("", "As configured"), ("yes", "Yes"), ("no", "No"))
    recorded = {None: "", True: "yes", False: "no"}[policy.index]
    return pairs(
        named(
            "Verify, every so many days",
            "verify",
            _figure("verify", policy.verify.days),
            "Restore points are read back within so many days, some each night; 0: never.",
        ),
        named(
            "Priority",
            "priority",
            _figure("priority", policy.priority),
            "Where jobs wait for each other, the larger number goes first; 0 is usual.",
        ),
        named(
            "Record names of files",
            "index",
            choice("index", recorded, index),
            "So that they are found without opening restore points.",
        ),
    )


def _retries(policy: Policy) -> Markup:
    retries = policy.retries
    boxes = [check(said, "retry_on", checked=each in retries.on, value=each.value) for each, said in _REASONS]
    return join(
        pairs(
            named(
                "Attempts", "attempts", _figure("attempts", retries.attempts), "In all for each machine; 1: no retry."
            ),
            named(
                "Wait, seconds",
                "retry_wait",
                _figure("retry_wait", retries.wait),
                "Before the second attempt; twice as long before each further one.",
            ),
        ),
        tag(
            "fieldset",
            tag("legend", "Try again when"),
            *boxes,
            tag("p", "What only a person can decide is never tried again.", cls="lf-dim lf-small"),
        ),
    )


def _figure(name: str, value: float) -> Markup:
    """Any text may be typed: a browser sends no form in which a number that is folded away is not as it should be, and shows
    nobody why. The API says it."""
    return text_input(name, figure(value), inputmode="decimal")


def _commands(policy: Policy, *, hooks: bool) -> Markup:
    if not hooks:
        return _read_only(policy)
    help_ = tag(
        "p",
        "A program on the proxy and its words, without a shell; quote words with spaces. It finds LANFREE_JOB, LANFREE_RUN "
        "and LANFREE_STATE in its environment, and is ended when its time is over. Empty a command to remove it; there is "
        "room for one more after saving.",
        cls="lf-dim lf-small",
    )
    return join(*(_rows(name, said, getattr(policy, name)) for name, said in _TIMES), help_)


def _read_only(policy: Policy) -> Markup:
    said = [tag("li", f"{title}: {words}") for title, words in _hooked(policy)]
    why = "Commands run on the proxy: only who may configure the appliance changes them."
    return tag(
        "div",
        tag("div", "Commands", cls="lf-legend"),
        tag("ul", *said, style="overflow-wrap:anywhere") if said else tag("p", "None."),
        tag("p", why, cls="lf-dim lf-small"),
    )


def _rows(name: str, said: str, hooks: Sequence[Hook]) -> Markup:
    """One each, and an empty one."""
    rows = [_row(name, n, hook) for n, hook in enumerate((*hooks, None))]
    return tag("fieldset", tag("legend", f"Commands {said[0].lower()}{said[1:]}"), *rows)


def _row(name: str, n: int, hook: Hook | None) -> Markup:
    """``n``: its place, by which its box is told from those of others: a browser sends only the boxes that are ticked."""
    known = hook or _NEW
    command, limit = f"f-{name}-command-{n}", f"f-{name}-timeout-{n}"
    shown = text_input(
        f"{name}_command", _command_text(hook) if hook else "", id=command, spellcheck="false", cls="lf-mono"
    )
    seconds = text_input(f"{name}_timeout", figure(known.timeout), id=limit, inputmode="decimal")
    within = field("Seconds at most", seconds, for_=limit)
    if name == "before":
        box = check("The run begins only if it succeeds", "before_required", checked=known.required, value=str(n))
        within = pairs(within, tag("div", box, cls="lf-inline"))
    return tag("div", field(f"Command {n + 1}", shown, for_=command), within)


def _command_text(hook: Hook) -> str:
    """Without ends of lines, as a browser shows it."""
    return "".join(shlex.join(hook.command).splitlines())


def _days_said(days: Blackout) -> str:
    first, last = (f"{day.day} {day:%b %Y}" for day in (days.first, days.last))
    span = first if first == last else f"{first} to {last}"
    return f"{span} ({days.why})" if days.why else span


def beside(policy: Policy) -> list[tuple[str, str]]:
    """As facts, as far as they say anything: what they are called, and what they say."""
    said = [("Not on", ", ".join(map(_days_said, policy.blackout)))]
    said += _hooked(policy)
    said.append(("Priority", str(policy.priority) if policy.priority else ""))
    said.append(("Files recorded", "" if policy.index is None else "yes" if policy.index else "no"))
    return [(name, words) for name, words in said if words]


def retries_said(retries: Retries) -> str:
    """In words."""
    if retries.attempts == 1:
        return "1"
    said = f"{retries.attempts}, waiting {duration(retries.wait)} at first"
    if set(retries.on) == set(RetryOn):
        return said
    reasons = "; ".join(words.lower() for each, words in _REASONS if each in retries.on)
    return f"{said}, only when: {reasons}" if reasons else "1: no reason is tried again"


def _hooked(policy: Policy) -> list[tuple[str, str]]:
    hooks = ((title, name, getattr(policy, name)) for name, title in _TIMES)
    return [(title, "; ".join(_hook_said(name, hook) for hook in found)) for title, name, found in hooks if found]


def _hook_said(name: str, hook: Hook) -> str:
    needed = ", and has to succeed" if name == "before" and hook.required else ""
    return f"{shlex.join(hook.command)} (at most {duration(hook.timeout)}{needed})"


def more_of(act: Act, before: Policy, there: Mapping[str, Any]) -> dict[str, Any]:
    """What was filled in. ``there``: the policy before as JSON. Raises ``ConfigurationError`` for a command without words."""
    days = [_days_text(one) for one in before.blackout]
    said: dict[str, Any] = {
        "blackout": listed(act.one("blackout"), days, there["blackout"], read=_days),
        "verify": {"days": number(act.one("verify") or "0")},
        "priority": number(act.one("priority") or "0"),
        "index": {"yes": True, "no": False}.get(act.one("index")),
        "retries": {
            "attempts": number(act.one("attempts")),
            "wait": number(act.one("retry_wait")),
            "on": _reasons(act.form.get("retry_on", ()), before.retries),
        },
    }
    for name, _ in _TIMES:
        if f"{name}_command" in act.form:  # else they were only shown
            said[name] = _hooks(act, name, getattr(before, name), there[name])
    return said


def _reasons(ticked: Sequence[str], before: Retries) -> list[str]:
    return list(before.on) if set(ticked) == set(before.on) else list(ticked)


def _hooks(act: Act, name: str, before: Sequence[Hook], there: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    required = act.form.get("before_required", ())
    rows = zip(act.form[f"{name}_command"], act.form.get(f"{name}_timeout", ()), strict=False)
    for n, (command, limit) in enumerate(rows):
        if not command.strip():
            continue
        hook = dict(there[n]) if n < len(there) else {}
        if not hook or command != _command_text(before[n]):
            hook["command"] = _words(command)
        hook["timeout"] = number(limit)
        if name == "before":
            hook["required"] = str(n) in required
        found.append(hook)
    return found


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        hint = "Close it; for the character itself write a backslash before it."
        raise ConfigurationError(command, "a quote or a backslash in it has no end", hint=hint) from None
