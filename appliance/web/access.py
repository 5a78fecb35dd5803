"""Who may sign in, for the API and for root's command line."""

import secrets
from dataclasses import replace
from datetime import timedelta
from functools import partial

from api.auth import passwords
from api.auth.access import Access, Rules
from api.auth.oidc import OidcSettings
from api.auth.roles import EVERY_MACHINE, Role
from api.auth.sessions import digest
from appliance.config_web import Oidc
from appliance.databases import first_line
from appliance.wiring import Services
from catalog.access.values import User

_CODE_HOLDS = timedelta(hours=24)

# Crockford's: no letters that are taken for digits, or for each other.
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

# 20 of 32 letters are 100 bits, which nobody guesses in a day and a person can type.
_GROUPS, _IN_GROUP = 4, 5


def access_of(services: Services) -> Access:
    """The store and the rules of the configuration as it is at each moment."""
    return Access(lambda: services.access, partial(_rules, services))


def needs_setup(services: Services) -> bool:
    """Whether there is nobody who could sign in. Raises ``AccessStoreFailed``."""
    with services.access.transaction(write=False) as unit:
        return not unit.users.any()


def setup_code(services: Services) -> str | None:
    """A new code that makes the first administrator within a day, once; codes before it hold no more. ``None`` where there
    are users. Only its digest is kept. Raises ``AccessStoreFailed``."""
    access = access_of(services)
    code = "-".join("".join(secrets.choice(_LETTERS) for _ in range(_IN_GROUP)) for _ in range(_GROUPS))
    with services.access.transaction() as unit:
        if unit.users.any():
            return None
        unit.setup_code.put(digest(code), access.now() + _CODE_HOLDS)
    return code


def set_password(services: Services, name: str, password: str) -> User:
    """For root, when nobody can sign in any more: the user's new password, as an enabled administrator of everything; made
    where there is none of this name. Sessions end. Raises ``PasswordRefused``, ``AccessStoreFailed``."""
    name = name.strip().lower()
    passwords.check(password, name)
    access = access_of(services)
    now, phc = access.now(), passwords.hashed(password, access.cost)
    with services.access.transaction() as unit:
        known = unit.users.find(name)
        if known is None:
            known = unit.users.add(User(name, name, None, (Role.ADMINISTRATOR.value,), EVERY_MACHINE, now))
        roles = tuple(dict.fromkeys((*known.roles, Role.ADMINISTRATOR.value)))
        user = unit.users.put(
            replace(known, roles=roles, machines=EVERY_MACHINE, disabled=False, password=phc, password_at=now)
        )
        unit.sessions.end_all(name)
    return user


def _rules(services: Services) -> Rules:
    web = services.settings.web
    return Rules(
        idle=timedelta(minutes=web.idle_minutes),
        longest=timedelta(hours=web.session_hours),
        four_eyes=web.four_eyes,
        oidc=None if web.oidc is None else _oidc(web.oidc, web.url or ""),
    )


def _oidc(section: Oidc, url: str) -> OidcSettings:
    return OidcSettings(
        issuer=section.issuer,
        client_id=section.client_id,
        secret=partial(first_line, section.client_secret_file, "[web.oidc] client_secret_file"),
        scopes=section.scopes,
        name_claim=section.name_claim,
        groups_claim=section.groups_claim,
        roles={group: Role(role) for group, role in section.roles.items()},
        machines=section.machines,
        domains=section.allowed_domains,
        ca_bundle=section.ca_bundle,
        label=section.label,
        url=url,
    )
