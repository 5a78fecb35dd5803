"""OpenID Connect: what the site says of its provider, and who somebody is that comes from there.

Whoever signs in this way gets roles and machines anew from their groups each time. A user of this appliance with a password is
never taken over by a name that a provider tells.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.auth.names import clean_name, is_name
from api.auth.roles import EVERY_MACHINE, Role
from api.refusals import SignInRefused
from catalog.access.values import User

if TYPE_CHECKING:
    from api.auth.access import Access

_TELL = "tell whoever manages the groups there, or [web.oidc] of this appliance"


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """``issuer``: its address, as its tokens name it. ``secret``: reads the client's secret each time. ``name_claim``: what
    people are called here; ``groups_claim``: the list that ``roles`` and ``machines`` speak of. ``roles``: group -> role; who
    is in none of them is not let in. ``machines``: group -> patterns; where any are said, who is in none of these groups is not
    let in either. ``domains``: of the confirmed mail addresses of those who are let in; any, where none is said. ``label``: of
    the button. ``url``: where browsers find this console, where it is not what they say themselves."""

    issuer: str
    client_id: str
    secret: Callable[[], str] = field(repr=False)
    scopes: tuple[str, ...] = ("openid", "profile", "email", "groups")
    name_claim: str = "preferred_username"
    groups_claim: str = "groups"
    roles: Mapping[str, Role] = field(default_factory=dict)
    machines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    domains: tuple[str, ...] = ()
    ca_bundle: Path | None = None
    label: str = "Single sign-on"
    url: str = ""


class Documents:
    """What a provider publishes of itself, kept for a while; from any thread."""

    def __init__(self, seconds: float = 3600.0) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, Any]] = {}

    def get(self, address: str, fetch: Callable[[str], Any], *, anew: bool = False) -> Any:
        """What is kept of this address, or what ``fetch`` brings."""
        with self._lock:
            known = self._kept.get(address)
        if known is not None and not anew and time.monotonic() - known[0] < self._seconds:
            return known[1]
        brought = fetch(address)
        with self._lock:
            self._kept[address] = (time.monotonic(), brought)
        return brought


def admit(access: "Access", settings: OidcSettings, claims: Mapping[str, Any]) -> User:
    """The user that these claims of a good token make: a new one, or the one that came before, with the roles of today. Raises
    ``SignInRefused`` with the reason: whoever reads it has proved who they are."""
    subject = str(claims["sub"])
    issuer = str(claims["iss"])
    groups = _words(claims.get(settings.groups_claim))
    _check_domain(settings, claims)
    roles = [role for group, role in settings.roles.items() if group in groups]
    machines = _machines(settings, groups)
    good = bool(roles and machines)
    with access.store.transaction() as unit:
        known = unit.users.of_provider(issuer, subject)
        if known is not None and (known.disabled or not good):
            unit.sessions.end_all(known.name)
            unit.users.put(replace(known, roles=()))  # tokens of theirs may nothing, too
        if known is None and good:
            user = User(_name(settings, claims), "", None, (), (), access.now(), issuer=issuer, subject=subject)
            if unit.users.find(user.name) is not None:
                raise SignInRefused(
                    f"the name {user.name} belongs to somebody else here",
                    hint="an administrator can remove or rename that user",
                )
            known = unit.users.add(user)
        if known is not None and good and not known.disabled:
            today = replace(
                known,
                display_name=str(claims.get("name") or known.display_name or known.name)[:128],
                roles=tuple(role.value for role in Role if role in roles),
                machines=machines,
            )
            return known if today == known else unit.users.put(today)
    if known is not None and known.disabled:
        raise SignInRefused("this user is disabled here", hint="an administrator can enable it")
    if roles:
        raise SignInRefused("none of your groups reaches a machine here", hint=_TELL)
    raise SignInRefused("none of your groups has a role here", hint=_TELL)


def _machines(settings: OidcSettings, groups: Iterable[str]) -> tuple[str, ...]:
    """All, where the site says nothing of machines. Else who leaves the only group that limited them reaches none, not all."""
    if not settings.machines:
        return EVERY_MACHINE
    return tuple(dict.fromkeys(pattern for group in sorted(groups) for pattern in settings.machines.get(group, ())))


def _name(settings: OidcSettings, claims: Mapping[str, Any]) -> str:
    for claim in (settings.name_claim, "preferred_username", "email"):
        name = clean_name(str(claims.get(claim) or ""))
        if is_name(name):
            return name
    raise SignInRefused(f"the provider tells no name that can be one here ({settings.name_claim})", hint=_TELL)


def _check_domain(settings: OidcSettings, claims: Mapping[str, Any]) -> None:
    if not settings.domains:
        return
    _, at, domain = str(claims.get("email") or "").rpartition("@")
    confirmed = claims.get("email_verified") is True
    if not at or not confirmed or domain.lower() not in {each.lower() for each in settings.domains}:
        raise SignInRefused("your mail address is of no domain that is let in, or is not confirmed there", hint=_TELL)


def _words(value: Any) -> frozenset[str]:
    """A list of words, or one."""
    if isinstance(value, str):
        return frozenset({value})
    return (
        frozenset(each for each in value if isinstance(each, str)) if isinstance(value, list | tuple) else frozenset()
    )
