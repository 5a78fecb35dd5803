"""Passwords: kept as Argon2id hashes (RFC 9106), in the PHC text format; new ones refused when they are easy to guess.

What is asked of a new one is what NIST SP 800-63B (revision 4, section 3.1.1.2) asks: length, and that it is none of those that
are tried first. No rules about kinds of characters: they make passwords worse.
"""

import os
import re
import threading
import unicodedata
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from api.refusals import TooMany
from proxy.errors import PasswordRefused

SHORTEST = 12
"""Characters. NIST asks for 15 where the password is all that there is; with waits between attempts 12 are out of reach, too,
and are what people accept without writing them down."""

LONGEST = 256
"""Characters: nobody types more, and hashing takes its time by the work, not by the length."""

_SALT, _HASH = 16, 32

# Hashes at once: each takes its memory and a core for 0.1 s. More sign-ins than that at once are somebody who guesses.
_AT_ONCE = 2
_turns = threading.BoundedSemaphore(_AT_ONCE)

# Sign-ins that wait for their turn: each holds one of the threads that answer everybody else.
_WAITING = 8
_places = threading.BoundedSemaphore(_AT_ONCE + _WAITING)

# Seconds that a sign-in waits for its turn.
_PATIENCE = 10.0


@cache
def _common() -> frozenset[str]:
    """Those of at least 12 characters that lists of leaked passwords have at their top, and keyboards at hand. Shorter ones are
    refused anyhow."""
    return frozenset(Path(__file__).with_name("common_passwords.txt").read_text(encoding="ascii").split())


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a hash: memory in KiB, passes, lanes."""

    memory: int
    passes: int
    lanes: int

    @property
    def prefix(self) -> str:
        """How PHC texts of this cost begin."""
        return f"$argon2id$v=19$m={self.memory},t={self.passes},p={self.lanes}$"


COST = Cost(memory=64 * 1024, passes=3, lanes=4)
"""RFC 9106's recommendation where 2 GiB of memory for a sign-in are too many; 0.11 s on one core. More memory lets a few who
sign in at once press on a proxy that deduplicates; less than 19 MiB (OWASP) would help those who guess."""


def hashed(password: str, cost: Cost = COST) -> str:
    """A PHC text of a new salt. Raises ``TooMany``."""
    with _turn():
        return _argon2(cost).derive_phc_encoded(_bytes(password))


def matches(password: str, phc: str | None, cost: Cost = COST) -> bool:
    """Whether it is the one. Takes the same time where there is none (``None``): an answer tells nobody which names there are.
    Raises ``TooMany``."""
    with _turn():
        if phc is None or len(password) > LONGEST:
            _argon2(cost).derive(b"")
            return False
        try:
            Argon2id.verify_phc_encoded(_bytes(password), phc)
        except InvalidKey:
            return False
        return True


def is_outdated(phc: str, cost: Cost = COST) -> bool:
    """Whether it was made at another cost, so that it should be made anew when the password is at hand."""
    return not phc.startswith(cost.prefix)


def check(password: str, name: str) -> None:
    """Refuse a new password that is tried early. Raises ``PasswordRefused``."""
    folded = password.casefold()
    if len(password) < SHORTEST:
        raise PasswordRefused(f"it has fewer than {SHORTEST} characters")
    if len(password) > LONGEST:
        raise PasswordRefused(f"it has more than {LONGEST} characters")
    bare, own = _letters(folded), _letters(name)
    if folded == name.casefold() or (own and own in bare and not bare.replace(own, "")):
        raise PasswordRefused("it is the name of the user")
    if folded in _common() or folded.rstrip("0123456789!.?") in _common():
        raise PasswordRefused("it is among those that are tried first")
    if len(set(folded)) < 5 or _is_a_row(folded):  # aaaabbbbcccc
        raise PasswordRefused("its characters repeat, or follow each other")


def _letters(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.casefold())


def _is_a_row(text: str) -> bool:
    """``abcdefghijkl``, ``987654321098``."""
    steps = {ord(after) - ord(before) for before, after in pairwise(text)}
    return len(steps) == 1


def _argon2(cost: Cost) -> Argon2id:
    return Argon2id(
        salt=os.urandom(_SALT),
        length=_HASH,
        iterations=cost.passes,
        lanes=cost.lanes,
        memory_cost=cost.memory,
    )


def _bytes(password: str) -> bytes:
    """The same for the same letters, whichever keyboard composed them."""
    return unicodedata.normalize("NFC", password).encode(errors="surrogatepass")


class _turn:  # noqa: N801  # read as a statement
    """One of the hashes that are made at once."""

    def __enter__(self) -> None:
        if not _places.acquire(blocking=False):
            raise TooMany("people sign in", after=_PATIENCE)
        if not _turns.acquire(timeout=_PATIENCE):
            _places.release()
            raise TooMany("people sign in", after=_PATIENCE)

    def __exit__(self, *_: object) -> None:
        _turns.release()
        _places.release()
