"""Users, and what is changed of them.

At every moment there is an administrator who can sign in with a password: whoever signs in elsewhere may be locked out by what
happens there. And nobody makes of a user, themselves among them, what they are not: who manages access for some machines, or by
a token that may do little else, gives nothing beyond that.
"""

from collections.abc import Sequence
from dataclasses import replace

from api.auth import passwords
from api.auth.access import Access
from api.auth.identify import caller_of
from api.auth.names import clean_name
from api.auth.roles import EVERY_MACHINE, Caller, Permission, Role, Via
from api.auth.scopes import within
from api.refusals import NotAllowed, NotByToken, Outdated
from catalog.access.store import Unit
from catalog.access.values import User
from proxy.errors import LastAdministrator, UserConflict


def add(
    access: Access,
    caller: Caller,
    name: str,
    password: str | None,
    roles: Sequence[Role],
    *,
    display_name: str = "",
    machines: tuple[str, ...] = EVERY_MACHINE,
) -> User:
    """A new user; without a password, one who signs in elsewhere. Raises ``NotAllowed``, ``UserConflict``, ``PasswordRefused``,
    ``ConfigurationError``."""
    name = clean_name(name, new=True)
    now = access.now()
    user = User(name, display_name or name, None, words(roles), machines, now)
    _make_sure_of_reach(caller, user)
    if password is not None:
        passwords.check(password, name)
        user = replace(user, password=passwords.hashed(password, access.cost), password_at=now)
    with access.store.transaction() as unit:
        return unit.users.add(user)


def change(
    access: Access,
    caller: Caller,
    name: str,
    *,
    revision: int,
    display_name: str | None = None,
    roles: Sequence[Role] | None = None,
    machines: tuple[str, ...] | None = None,
    disabled: bool | None = None,
) -> User:
    """What is not ``None``. Who is disabled is signed out. Raises ``UserNotFound``, ``NotAllowed``, ``Outdated``,
    ``LastAdministrator``."""
    with access.store.transaction() as unit:
        before = unit.users.get(clean_name(name))
        if before.revision != revision:
            raise Outdated(f"user {before.name}")
        after = replace(
            before,
            display_name=before.display_name if display_name is None else display_name,
            roles=before.roles if roles is None else words(roles),
            machines=before.machines if machines is None else machines,
            disabled=before.disabled if disabled is None else disabled,
        )
        _make_sure_of_reach(caller, before)
        _make_sure_of_reach(caller, after)
        if _can_manage(before) and not _can_manage(after):
            _make_sure_of_another(unit, before.name)
        if after.disabled:
            unit.sessions.end_all(after.name)
        return unit.users.put(after)


def remove(access: Access, caller: Caller, name: str) -> User:
    """With tokens and sessions. Raises ``UserNotFound``, ``NotAllowed``, ``LastAdministrator``."""
    with access.store.transaction() as unit:
        user = unit.users.get(clean_name(name))
        _make_sure_of_reach(caller, user)
        if _can_manage(user):
            _make_sure_of_another(unit, user.name)
        return unit.users.remove(user.name)


def set_password(access: Access, caller: Caller, name: str, password: str, *, keep: str = "") -> User:
    """All sessions of the user end, but for the one of digest ``keep``. Raises ``UserNotFound``, ``NotAllowed``,
    ``PasswordRefused``, ``UserConflict``: they sign in elsewhere."""
    name = clean_name(name)
    passwords.check(password, name)
    phc = passwords.hashed(password, access.cost)
    with access.store.transaction() as unit:
        user = unit.users.get(name)
        _make_sure_of_reach(caller, user)
        if user.issuer is not None:
            raise UserConflict(name, "they sign in with OpenID Connect", hint="change the password there")
        unit.users.set_password(name, phc, access.now())
        unit.sessions.end_all(name, besides=keep)
        return unit.users.get(name)


def make_sure(caller: Caller, permission: Permission) -> None:
    """For what only some callers need it for. Raises ``NotAllowed``."""
    if not caller.may(permission):
        raise NotAllowed(caller.name, permission)


def make_sure_of(access: Access, caller: Caller, name: str, *, what: str) -> None:
    """That the caller may end ways in of this user: a person their own, and of those who may no more than they do whoever
    manages access. A token that leaked locks nobody out. Raises ``NotAllowed``, ``NotByToken``, ``UserNotFound``."""
    if name != caller.name:
        make_sure(caller, Permission.MANAGE_ACCESS)
        with access.store.transaction(write=False) as unit:
            _make_sure_of_reach(caller, unit.users.get(name))
    elif caller.via is Via.TOKEN and not caller.may(Permission.MANAGE_ACCESS):
        raise NotByToken(what)


def words(roles: Sequence[Role]) -> tuple[str, ...]:
    """As the store keeps them: each once, in the order of the roles."""
    return tuple(role.value for role in Role if role in roles)


def _make_sure_of_reach(caller: Caller, user: User) -> None:
    """Whether all that the user may, on all machines that they reach, is the caller's too."""
    known = caller_of(user)
    machines = within(user.machines, caller.machines)
    if not known.permissions <= caller.permissions or set(user.machines) - set(machines):
        raise NotAllowed(caller.name, Permission.MANAGE_ACCESS, f"of a user who may more than they do: {user.name}")


def _can_manage(user: User) -> bool:
    # A scope of machines says nothing about users and settings; who is limited to some still manages all of these.
    return not user.disabled and Role.ADMINISTRATOR.value in user.roles and user.password is not None


def _make_sure_of_another(unit: Unit, name: str) -> None:
    if not any(_can_manage(user) for user in unit.users.list() if user.name != name):
        raise LastAdministrator(name)
