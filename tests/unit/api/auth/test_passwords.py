import threading
import time

import pytest

from api.auth import passwords
from api.auth.passwords import COST, Cost
from api.refusals import TooMany
from proxy.errors import PasswordRefused
from tests.unit.api.auth.conftest import CHEAP

pytestmark = pytest.mark.slow

GOOD = "a donkey sings at noon"


def test_a_hash_is_argon2id_of_a_salt_of_its_own() -> None:
    first, second = passwords.hashed(GOOD), passwords.hashed(GOOD)
    assert first.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert first != second
    assert passwords.matches(GOOD, first) and not passwords.matches(GOOD + " ", first)
    assert not passwords.is_outdated(first) and passwords.is_outdated(first, CHEAP)


def test_the_cost_is_not_below_what_owasp_asks_for() -> None:
    assert COST.memory >= 19 * 1024 and COST.passes >= 2


@pytest.mark.parametrize("phc", [None, "", "$argon2id$", "$2b$12$abcdefghijklmnopqrstuu", "\0"])
def test_what_is_no_hash_matches_nothing(phc: str | None) -> None:
    assert not passwords.matches("", phc, CHEAP)
    assert not passwords.matches(GOOD, phc, CHEAP)


def test_passwords_of_any_letters_work() -> None:
    for password in ("пароль из слов", "密码密码密码密码密码密码", "a\0b" * 5, "\ud800" * 12, " " * 3 + GOOD):
        phc = passwords.hashed(password, CHEAP)
        assert passwords.matches(password, phc, CHEAP)
        assert not passwords.matches(password[:-1], phc, CHEAP)


def test_a_letter_is_the_same_however_a_keyboard_makes_it() -> None:
    phc = passwords.hashed("caf\u00e9 au lait, bitte", CHEAP)
    assert passwords.matches("cafe\u0301 au lait, bitte", phc, CHEAP)


def test_what_is_longer_than_any_password_is_not_hashed() -> None:
    phc = passwords.hashed("x" * 257, Cost(8, 1, 1))
    assert not passwords.matches("x" * 257, phc, CHEAP)


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("elevenchars", "fewer than 12"),
        ("", "fewer than 12"),
        ("x" * 257, "more than 256"),
        ("alice-archer", "the name of the user"),
        ("Alice_Archer99", "the name of the user"),
        ("alicearcher-alicearcher", "the name of the user"),
        ("Password1234", "tried first"),
        ("administrator", "tried first"),
        ("administrator2026!", "tried first"),
        ("lanfreelanfree", "tried first"),
        ("aaaaaaaaaaaaaaaa", "repeat"),
        ("ababababababab", "repeat"),
        ("abcdefghijklmno", "follow each other"),
    ],
)
def test_what_is_easy_to_guess_is_refused(password: str, why: str) -> None:
    with pytest.raises(PasswordRefused, match=why):
        passwords.check(password, "alice-archer")


@pytest.mark.parametrize("password", [GOOD, "tr0ub4dor&3xy", "correct horse battery", "éèàùôîâêûçëï", "7f3a9c1e5b2d"])
def test_what_is_not_is_taken(password: str) -> None:
    assert passwords.check(password, "alice") is None


def test_strangers_hold_few_of_the_threads_that_answer_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_places", threading.BoundedSemaphore(2))
    with passwords._turn(), passwords._turn():
        began = time.monotonic()
        with pytest.raises(TooMany, match="people sign in"):
            passwords.matches(GOOD, None, CHEAP)
        assert time.monotonic() - began < passwords._PATIENCE / 2, "it waits for no turn"
    assert not passwords.matches(GOOD, None, CHEAP), "and it goes on afterwards"
