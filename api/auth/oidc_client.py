"""The code flow of OpenID Connect 1.0 with PKCE (RFC 7636), state and nonce; the only module that speaks to providers.

::

    browser  ── GET /oidc/login ──►  state, nonce, verifier into a cookie of ten minutes; to the provider with their digests
    browser  ◄─ sign in there ────►  provider
    browser  ── GET /oidc/callback?code&state ──►  code + verifier + client's secret  ──►  provider: id token
                                                   signature, issuer, audience, time, nonce; then the user (``oidc.admit``)

Nothing of it is kept here: what the browser has to bring back is in its own cookie, which no other site can set (``__Host-``).
"""

import base64
import json
import secrets
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from api.auth.oidc import Documents, OidcSettings
from api.refusals import ProviderFailed, SignInRefused, TooMany
from proxy.errors import ConfigurationError

COOKIE = "__Host-lanfree-oidc"
COOKIE_HOLDS = 600
"""Seconds in which somebody has to sign in there."""

CALLBACK = "/oidc/callback"

# Of the token endpoint and the like: who waits for longer does not believe any more that it works.
_PATIENCE = 10.0

# Questions to providers at once, over all browsers: each holds one of the threads that answer everybody else, and strangers can
# make the appliance ask.
_AT_ONCE = 6
_places = threading.BoundedSemaphore(_AT_ONCE)

_LARGEST = 1 << 20

# Signatures that anybody can check and only the provider can make. ``none`` and those with a shared secret are not among them.
_ALGORITHMS = (*("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"),)

# Seconds by which the provider's clock may differ.
_LEEWAY = 60


@dataclass(frozen=True, slots=True)
class Pending:
    """What a browser takes along while it is at the provider. ``next``: the local path where it goes afterwards."""

    state: str
    nonce: str
    verifier: str
    next: str

    @classmethod
    def new(cls, local: str) -> "Pending":
        """Of 256 random bits each."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        return cls(state, nonce, verifier, local)

    def packed(self) -> str:
        """For the cookie."""
        said = json.dumps([self.state, self.nonce, self.verifier, self.next])
        return base64.urlsafe_b64encode(said.encode()).decode().rstrip("=")

    @classmethod
    def unpacked(cls, cookie: str) -> "Pending | None":
        """``None`` for what is none."""
        try:
            parts = json.loads(base64.urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4)))
        except (ValueError, RecursionError):
            return None
        good = isinstance(parts, list) and len(parts) == 4 and all(isinstance(part, str) for part in parts)
        return cls(*parts) if good else None


class Provider:
    """One provider. ``documents``: what it publishes, kept over requests."""

    def __init__(self, settings: OidcSettings, documents: Documents) -> None:
        self._settings = settings
        self._documents = documents

    def address_for(self, pending: Pending, redirect: str) -> str:
        """Where the browser goes to sign in. Raises ``ProviderFailed``."""
        challenge = base64.urlsafe_b64encode(sha256(pending.verifier.encode()).digest()).decode().rstrip("=")
        known = self._published()
        scopes = " ".join(dict.fromkeys(("openid", *self._settings.scopes)))
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": redirect,
            "scope": scopes,
            "state": pending.state,
            "nonce": pending.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        address = self._endpoint(known, "authorization_endpoint")
        return f"{address}{'&' if urlsplit(address).query else '?'}{urlencode(asked)}"

    def claims_of(self, code: str, pending: Pending, redirect: str) -> Mapping[str, Any]:
        """Who signed in, as their id token and, for what is not in it, the provider's userinfo tell. Raises ``ProviderFailed``;
        ``SignInRefused``: the token is not for this sign-in."""
        known = self._published()
        answer = self._exchanged(known, code, pending, redirect)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise ProviderFailed(self._settings.issuer, "it gave no id token")
        claims = self._checked(known, token, pending)
        wanted = {self._settings.name_claim, self._settings.groups_claim, "email", "email_verified", "name"}
        if wanted <= claims.keys() or "userinfo_endpoint" not in known:
            return claims
        more = self._asked(self._endpoint(known, "userinfo_endpoint"), bearer=str(answer.get("access_token") or ""))
        if more.get("sub") != claims["sub"]:
            raise SignInRefused("the provider tells of somebody else than the one who signed in")
        return {**more, **claims}

    def check_issuer(self, told: str | None) -> None:
        """That the answer in the browser is of this provider, where it says so (RFC 9207). Raises ``SignInRefused``."""
        known = self._published()
        if told is None and known.get("authorization_response_iss_parameter_supported") is not True:
            return
        if told != known["issuer"]:
            raise SignInRefused("the answer is of another provider")

    def _published(self) -> Mapping[str, Any]:
        address = f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration"
        known = self._documents.get(address, self._asked)
        # One that tells another name would be believed for it.
        if str(known.get("issuer", "")).rstrip("/") != self._settings.issuer.rstrip("/"):
            raise ProviderFailed(self._settings.issuer, "it calls itself otherwise than [web.oidc] issuer")
        return dict(known)

    def _exchanged(self, known: Mapping[str, Any], code: str, pending: Pending, redirect: str) -> Mapping[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect,
            "code_verifier": pending.verifier,
        }
        client, secret = self._settings.client_id, self._settings.secret()
        ways = known.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        basic = "client_secret_basic" in ways
        if not basic:
            form |= {"client_id": client, "client_secret": secret}
        # RFC 6749, 2.3.1: both are encoded as forms are before they become a user and a password.
        auth = httpx.BasicAuth(_encoded(client), _encoded(secret)) if basic else None
        return self._asked(self._endpoint(known, "token_endpoint"), form=form, auth=auth)

    def _checked(self, known: Mapping[str, Any], token: str, pending: Pending) -> dict[str, Any]:
        address = self._endpoint(known, "jwks_uri")
        try:
            keys = KeySet.import_key_set(self._documents.get(address, self._asked))
            try:
                decoded = jwt.decode(token, keys, algorithms=_ALGORITHMS)
            except InvalidKeyIdError:  # the provider has a new key
                keys = KeySet.import_key_set(self._documents.get(address, self._asked, anew=True))
                decoded = jwt.decode(token, keys, algorithms=_ALGORITHMS)
            needed = jwt.JWTClaimsRegistry(
                leeway=_LEEWAY,
                iss={"essential": True, "value": known["issuer"]},
                aud={"essential": True, "value": self._settings.client_id},
                sub={"essential": True},
                exp={"essential": True},
                iat={"essential": True},
                nonce={"essential": True, "value": pending.nonce},
            )
            needed.validate(decoded.claims)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise SignInRefused(
                f"the provider's token is not good for this sign-in: {type(error).__name__}",
                hint="sign in again; check both clocks and [web.oidc] when it stays so",
            ) from None
        others = decoded.claims.get("aud") not in (self._settings.client_id, [self._settings.client_id])
        if others and decoded.claims.get("azp") != self._settings.client_id:
            raise SignInRefused("the provider's token is for another client")
        return dict(decoded.claims)

    def _endpoint(self, known: Mapping[str, Any], name: str) -> str:
        address = str(known.get(name, ""))
        parts = urlsplit(address)
        local = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
        if not parts.hostname or not (parts.scheme == "https" or local):
            raise ProviderFailed(self._settings.issuer, f"its {name} is no https address")
        return address

    def _asked(
        self, address: str, *, form: Mapping[str, str] | None = None, auth: httpx.Auth | None = None, bearer: str = ""
    ) -> Mapping[str, Any]:
        """An answer as JSON. What was sent (code, secrets) is in no error."""
        if not _places.acquire(blocking=False):
            raise TooMany("people sign in with the provider", after=_PATIENCE)
        try:
            return self._told(address, form, auth, bearer)
        finally:
            _places.release()

    def _told(
        self, address: str, form: Mapping[str, str] | None, auth: httpx.Auth | None, bearer: str
    ) -> Mapping[str, Any]:
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
        try:
            with httpx.Client(verify=self._trust(), timeout=_PATIENCE, follow_redirects=False, trust_env=False) as http:
                method = "GET" if form is None else "POST"
                with http.stream(method, address, data=form, auth=auth, headers=headers) as answer:
                    body = _read(answer)
        except httpx.HTTPError as error:
            raise ProviderFailed(self._settings.issuer, type(error).__name__) from None
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = None
        if not answer.is_success:
            code = said.get("error") if isinstance(said, dict) else None
            told = f" ({code})" if isinstance(code, str) and code.isidentifier() else ""
            raise ProviderFailed(self._settings.issuer, f"it answered with status {answer.status_code}{told}")
        if not isinstance(said, dict):
            raise ProviderFailed(self._settings.issuer, "its answer is no JSON object")
        return said

    def _trust(self) -> ssl.SSLContext:
        bundle = self._settings.ca_bundle
        try:
            return ssl.create_default_context(cafile=str(bundle) if bundle is not None else None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError("[web.oidc] ca_bundle", str(error)) from None


def _read(answer: httpx.Response) -> bytes:
    body = b""
    for part in answer.iter_bytes():
        body += part
        if len(body) > _LARGEST:
            raise httpx.TransportError("too long")
    return body


def _encoded(text: str) -> str:
    return urlencode({"": text})[1:]
