"""The console's own words where the API's hints are for a shell."""

import re
from pathlib import Path

from api.ui.parts import advice as told
from api.ui.parts.advice import advice
from proxy.errors import RestoreRefused

ROOT = Path(__file__).parents[4]

HINTS = {
    "proxy/restore.py",
    "proxy/transport/signatures.py",
    "proxy/transport/file_target.py",
    "proxy/hypervisor/kvm/driver.py",
}
"""Who refuses restores with hints that name options."""


def test_what_a_shell_would_say_is_said_of_the_form() -> None:
    refused = RestoreRefused(
        "/x", "it carries data", hint="name an empty place; if what is there may go, say --overwrite"
    )
    assert "tick “What the places hold now may be overwritten”" in advice(refused.code, refused.hint)
    assert "dead" in advice("restore-refused", "bring it back, or say --without-host NAME if you know it to be dead")
    assert advice("restore-point-not-found", "'lanfree points' lists them").startswith("“Restore points” lists")


def test_other_hints_stay_as_they_are() -> None:
    assert advice("restore-refused", "merge that snapshot first") == "merge that snapshot first"
    assert advice("never-heard-of", "'lanfree points' lists them") == "'lanfree points' lists them"
    assert advice("restore-refused", "") == ""


def test_no_refusal_of_a_restore_names_an_option_without_words_of_the_console() -> None:
    hints = [
        hint
        for file in sorted(HINTS)
        for hint in re.findall(r'hint ?= ?"([^"]*)"', (ROOT / file).read_text())
        if " --" in hint
    ]
    assert len(hints) >= 7
    assert [hint for hint in hints if advice("restore-refused", hint) == hint] == []


def test_each_entry_still_speaks_of_a_hint_that_the_program_gives() -> None:
    said = "".join(
        path.read_text()
        for package in ("proxy", "mounter", "appliance", "catalog")
        for path in sorted((ROOT / package).rglob("*.py"))
    )
    assert [mark for _, mark in told._HERE if mark not in said] == []
