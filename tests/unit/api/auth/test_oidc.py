"""What no real provider tells: tokens that are not good, documents that are not its own."""

import base64
import hmac
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from api.auth import oidc, oidc_client
from api.auth.access import Access
from api.auth.oidc import Documents, OidcSettings
from api.auth.oidc_client import Pending, Provider
from api.auth.roles import Role
from api.refusals import ProviderFailed, SignInRefused, TooMany

pytestmark = pytest.mark.slow

ISSUER = "https://id.example"
SETTINGS = OidcSettings(ISSUER, "lanfree", lambda: "the client's secret", roles={"ops": Role.OPERATOR})
PENDING = Pending("s" * 43, "n" * 43, "v" * 43, "/console/")
KNOWN = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys", "authorization_endpoint": f"{ISSUER}/auth"}


@pytest.fixture(scope="module")
def key() -> RSAKey:
    return RSAKey.generate_key(2048, parameters={"kid": "k1"})


@pytest.fixture
def documents(key: RSAKey) -> Documents:
    """What the provider publishes, as if it had been fetched."""
    made = Documents()
    keys = KeySet([key]).as_dict(private=False)
    made.get(f"{ISSUER}/keys", lambda _: keys)
    made.get(f"{ISSUER}/.well-known/openid-configuration", lambda _: KNOWN)
    return made


def token(key: Any, alg: str = "RS256", **claims: Any) -> str:
    now = int(time.time())
    facts = {"iss": ISSUER, "aud": "lanfree", "sub": "u1", "exp": now + 300, "iat": now, "nonce": PENDING.nonce}
    facts = {name: value for name, value in {**facts, **claims}.items() if value is not None}
    return jwt.encode({"alg": alg, "kid": "k1"}, facts, key, algorithms=[alg])


def checked(documents: Documents, text: str) -> dict[str, Any]:
    return Provider(SETTINGS, documents)._checked(KNOWN, text, PENDING)


def test_a_good_token_is_taken(key: RSAKey, documents: Documents) -> None:
    assert checked(documents, token(key))["sub"] == "u1"
    assert checked(documents, token(key, aud=["lanfree", "other"], azp="lanfree"))["sub"] == "u1"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "other"},
        {"aud": ["other"]},
        {"aud": ["lanfree", "other"]},
        {"aud": ["lanfree", "other"], "azp": "other"},
        {"aud": None},
        {"sub": None},
        {"exp": 1},
        {"exp": None},
        {"exp": "soon"},
        {"iat": None},
        {"iat": 2**40},
        {"nbf": 2**40},
        {"nonce": "of another sign-in"},
        {"nonce": None},
    ],
    ids=str,
)
def test_a_token_that_is_not_for_this_sign_in_is_refused(
    key: RSAKey, documents: Documents, claims: dict[str, Any]
) -> None:
    with pytest.raises(SignInRefused):
        checked(documents, token(key, **claims))


def test_a_token_of_another_key_is_refused(documents: Documents) -> None:
    with pytest.raises(SignInRefused):
        checked(documents, token(RSAKey.generate_key(2048, parameters={"kid": "k1"})))
    with pytest.raises(SignInRefused):
        checked(documents, token(ECKey.generate_key("P-256", parameters={"kid": "k1"}), "ES256"))


def test_signatures_that_anybody_could_make_are_refused(key: RSAKey, documents: Documents) -> None:
    """``none``; a shared secret; the public key taken for one."""
    shared = token(OctKey.import_key("the client's secret"), "HS256")
    head, payload, _ = shared.split(".")
    mac = hmac.digest(key.as_pem(private=False), f"{head}.{payload}".encode(), "sha256")
    forged = [shared, f"{head}.{payload}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"]
    forged += [f"eyJhbGciOiJub25lIn0.{payload}.", f"eyJhbGciOiJub25lIiwia2lkIjoiazEifQ.{payload}.", "", "a.b.c"]
    for text in forged:
        with pytest.raises(SignInRefused):
            checked(documents, text)


def test_a_provider_with_another_name_is_not_believed(documents: Documents) -> None:
    for other in ({**KNOWN, "issuer": "https://evil.example"}, {}):
        documents.get(f"{ISSUER}/.well-known/openid-configuration", lambda _, said=other: said, anew=True)
        with pytest.raises(ProviderFailed, match="calls itself otherwise"):
            Provider(SETTINGS, documents).address_for(PENDING, "https://lanfree/oidc/callback")


@pytest.mark.parametrize(
    "address", ["http://id.example/auth", "file:///etc/passwd", "", "https://", "ftp://id.example"]
)
def test_endpoints_are_asked_over_tls_only(documents: Documents, address: str) -> None:
    said = {**KNOWN, "authorization_endpoint": address}
    documents.get(f"{ISSUER}/.well-known/openid-configuration", lambda _: said, anew=True)
    with pytest.raises(ProviderFailed, match="no https address"):
        Provider(SETTINGS, documents).address_for(PENDING, "https://lanfree/oidc/callback")


def test_the_answer_of_another_provider_is_refused(documents: Documents) -> None:
    provider = Provider(SETTINGS, documents)
    provider.check_issuer(None)
    provider.check_issuer(ISSUER)
    with pytest.raises(SignInRefused):
        provider.check_issuer("https://evil.example")
    said = {**KNOWN, "authorization_response_iss_parameter_supported": True}
    documents.get(f"{ISSUER}/.well-known/openid-configuration", lambda _: said, anew=True)
    with pytest.raises(SignInRefused):
        provider.check_issuer(None)


@pytest.mark.parametrize("cookie", ["", "x", "é", "WzFd", "W10", PENDING.packed()[:-4], "W1tbW1tb" * 1000])
def test_a_cookie_that_is_none_of_ours_begins_nothing(cookie: str) -> None:
    assert Pending.unpacked(cookie) is None


def test_a_cookie_brings_back_what_was_begun() -> None:
    assert Pending.unpacked(PENDING.packed()) == PENDING
    first, second = Pending.new("/x"), Pending.new("/x")
    assert len({first.state, first.nonce, first.verifier, second.state}) == 4


def test_documents_are_kept_for_their_time_only() -> None:
    asked: list[str] = []
    documents = Documents(seconds=3600)
    for anew in (False, False, True):
        documents.get("a", lambda address: asked.append(address) or {}, anew=anew)
    assert asked == ["a", "a"]
    passing = Documents(seconds=0)
    for _ in range(2):
        passing.get("b", lambda address: asked.append(address) or {})
    assert asked[2:] == ["b", "b"]


@pytest.mark.parametrize("groups", ["ops", ["ops", 7, None]])
def test_one_group_may_be_told_as_a_word(access: Access, groups: object) -> None:
    claims = {"iss": ISSUER, "sub": "u1", "preferred_username": "Zoe", "groups": groups}
    assert oidc.admit(access, SETTINGS, claims).roles == ("operator",)


def test_who_has_no_name_that_can_be_one_is_told(access: Access) -> None:
    claims = {"iss": ISSUER, "sub": "u1", "preferred_username": "no name", "groups": ["ops"]}
    assert oidc.admit(access, SETTINGS, {**claims, "email": "zoe@example.org"}).name == "zoe@example.org"
    with pytest.raises(SignInRefused, match="no name that can be one"):
        oidc.admit(access, SETTINGS, {**claims, "sub": "u2", "email": "\u202ezoe"})


def test_where_groups_say_machines_who_is_in_none_of_them_reaches_none(access: Access) -> None:
    limited = replace(SETTINGS, machines={"databases": ("db-*",), "all": ("*",)})
    claims = {"iss": ISSUER, "sub": "u1", "preferred_username": "zoe", "groups": ["ops", "databases"]}
    assert oidc.admit(access, limited, claims).machines == ("db-*",)
    with pytest.raises(SignInRefused, match="none of your groups reaches a machine"):
        oidc.admit(access, limited, {**claims, "groups": ["ops"]})
    with access.store.transaction(write=False) as unit:
        assert unit.users.get("zoe").roles == (), "tokens of theirs may nothing, too"
    assert oidc.admit(access, SETTINGS, {**claims, "groups": ["ops"]}).machines == ("*",), "nothing is said of machines"


def test_strangers_hold_few_of_the_threads_that_answer_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc_client, "_places", threading.BoundedSemaphore(1))
    oidc_client._places.acquire()
    with pytest.raises(TooMany):
        Provider(SETTINGS, Documents()).address_for(PENDING, "https://lanfree/oidc/callback")
