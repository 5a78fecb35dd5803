"""Signing in with a name and a password, and the first administrator.

::

    count the attempt (by name, by address)  ->  look at the password  ->  take the count back  ->  a new session

Every path to "no" does the same work and says the same words, whether the name is known, disabled, or signs in elsewhere.
"""

import hmac
from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from ipaddress import IPv6Address, ip_address, ip_network

from api.auth import passwords, sessions
from api.auth.access import Access
from api.auth.names import clean_name
from api.auth.roles import EVERY_MACHINE, Caller, Role
from api.auth.sessions import Begun
from api.desk import Desk
from api.refusals import SignInRefused, TooMany
from catalog.access.sign_ins import Patience
from catalog.access.values import User
from proxy.errors import SetupRefused

BY_NAME = Patience(free=5, longest=60.0)
"""At most 1,440 guesses a day at one name, however many machines guess. A longer wait would let whoever knows a name keep its
owner out."""

BY_ADDRESS = Patience(free=20, longest=900.0)
"""Many people may sit behind one address; who guesses at many names from one is slowed to a hundred a day."""

# IPv6 networks of this size belong to one customer, who has all addresses in them.
_OWN_NETWORK = 64


def sign_in(desk: Desk, name: str, password: str, *, remote: str, agent: str = "", before: str = "") -> Begun:
    """``before``: cookie of a session that this one takes the place of. Raises ``SignInRefused``, ``TooMany``."""
    access = desk.access
    name = clean_name(name)
    keys = _keys(name, remote)
    _count(access, keys)
    with access.store.transaction(write=False) as unit:
        user = unit.users.find(name)
    right = passwords.matches(password, user.password if user is not None else None, access.cost)
    if user is None or user.disabled or not right:
        # Who is not known may have typed a password where the name goes.
        desk.audit.record(f"nobody@{remote}", "sign-in-refused", user=user.name if user is not None else None)
        raise SignInRefused
    _take_back(access, user, password, keys)
    return welcome(desk, user, remote=remote, agent=agent, before=before)


def welcome(desk: Desk, user: User, *, remote: str, agent: str = "", before: str = "") -> Begun:
    """A session for somebody who has proved who they are, here or elsewhere."""
    desk.audit.record(f"{user.name}@{remote}", "sign-in", agent=agent[:200], provider=user.issuer)
    return sessions.begin(desk.access, user.name, remote=remote, agent=agent, before=before)


def prove(desk: Desk, caller: Caller, password: str, *, remote: str) -> None:
    """That it is really the one who is signed in, before they change what keeps others out; counted like a sign-in. Raises
    ``SignInRefused``, ``TooMany``."""
    access = desk.access
    keys = _keys(caller.name, remote)
    _count(access, keys)
    with access.store.transaction(write=False) as unit:
        user = unit.users.find(caller.name)
    if not passwords.matches(password, user.password if user is not None else None, access.cost):
        desk.audit.record(caller.who, "password-refused")
        raise SignInRefused("the current password is not the one", hint="type it again")
    with access.store.transaction() as unit:
        unit.sign_ins.succeeded(*keys)


def sign_out(desk: Desk, cookie: str, who: str) -> None:
    """End the session of this cookie; nothing happens where there is none."""
    if sessions.end(desk.access, cookie):
        desk.audit.record(who, "sign-out")


def needs_setup(access: Access) -> bool:
    """Whether there is no user yet."""
    with access.store.transaction(write=False) as unit:
        return not unit.users.any()


def set_up(desk: Desk, code: str, name: str, password: str, *, remote: str, agent: str = "") -> Begun:
    """Make the first administrator, who is signed in then. Raises ``SetupRefused``, ``PasswordRefused``, ``TooMany``,
    ``ConfigurationError``: the name cannot be one."""
    access = desk.access
    keys = {_key("address", _network(remote)): BY_ADDRESS}
    if not needs_setup(access):
        raise SetupRefused("there are users already", hint="sign in; an administrator adds more users")
    name = clean_name(name, new=True)
    passwords.check(password, name)
    _count(access, keys)
    _check_code(access, code)
    now = access.now()
    user = User(name, name, passwords.hashed(password, access.cost), (Role.ADMINISTRATOR.value,), EVERY_MACHINE, now)
    desk.audit.record(f"{name}@{remote}", "setup", user=name)
    with access.store.transaction() as unit:
        if unit.users.any() or not _is_code(unit.setup_code.holds(now), code):
            raise SetupRefused("somebody else was faster", hint="sign in; if it was not you, look at the access log")
        unit.users.add(user)
        unit.users.set_password(name, user.password or "", now)
        unit.setup_code.use()
        unit.sign_ins.succeeded("", *keys)
    return sessions.begin(access, name, remote=remote, agent=agent)


def _check_code(access: Access, code: str) -> None:
    with access.store.transaction(write=False) as unit:
        known = unit.setup_code.holds(access.now())
    if not _is_code(known, code):
        raise SetupRefused("the code is wrong, or older than a day")


def _is_code(known: str | None, code: str) -> bool:
    """As people type it: without regard to case, spaces and what looks alike."""
    plain = "".join(letter for letter in code.upper() if letter.isascii() and letter.isalnum())
    plain = plain.translate(str.maketrans("OIL", "011"))
    typed = "-".join(plain[place : place + 5] for place in range(0, len(plain), 5))
    return hmac.compare_digest(sessions.digest(typed), known or "")


def _take_back(access: Access, user: User, password: str, keys: Mapping[str, Patience]) -> None:
    """The count is taken back. A hash of another cost is made anew while the password is at hand."""
    outdated = user.password is not None and passwords.is_outdated(user.password, access.cost)
    anew = passwords.hashed(password, access.cost) if outdated else None
    name, address = keys
    with access.store.transaction() as unit:
        unit.sign_ins.succeeded(name, address)
        if anew is not None and unit.users.get(user.name).password == user.password:
            unit.users.set_password(user.name, anew)


def _count(access: Access, keys: Mapping[str, Patience]) -> None:
    with access.store.transaction() as unit:
        wait = unit.sign_ins.attempt(keys, access.now())
    if wait > timedelta():
        raise TooMany("attempts to sign in", after=max(1.0, wait.total_seconds()))


def _keys(name: str, remote: str) -> dict[str, Patience]:
    return {_key("name", name): BY_NAME, _key("address", _network(remote)): BY_ADDRESS}


def _key(kind: str, text: str) -> str:
    return sha256(f"{kind}\0{text}".encode(errors="surrogatepass")).hexdigest()


def _network(remote: str) -> str:
    try:
        address = ip_address(remote.partition("%")[0])
    except ValueError:
        return remote
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(ip_network((address, _OWN_NETWORK), strict=False))
    return str(address)
