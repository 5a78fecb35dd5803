"""What the API itself says no to, beside what the domain does (``proxy.errors``)."""

from api.auth.roles import Permission
from proxy.errors import ConfigurationError, TellPerson, TryAgain


class NotSignedIn(TellPerson):
    """Nobody is known to ask: no session, no token, or one that does not hold any more. Which of them is not said."""

    code = "not-signed-in"

    def __init__(self, why: str = "who asks is not known") -> None:
        super().__init__(why, hint="sign in, or send 'Authorization: Bearer TOKEN' with a token that has not expired")


class CsrfRefused(TellPerson):
    """A change with a session's cookie that the session's own page did not make. Nothing was done."""

    code = "csrf-refused"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the request is not taken: {why}", hint="load the page anew; programs send a token instead of a cookie"
        )


class SignInRefused(TellPerson):
    """Name and password do not belong together, or the user is disabled. Which of them is not said."""

    code = "sign-in-refused"

    def __init__(self, why: str = "name and password do not belong together", *, hint: str = "") -> None:
        super().__init__(why, hint=hint or "type both again; an administrator can set a new password")


class ProviderFailed(TryAgain):
    """The OpenID provider does not answer, or not as it should. Secrets and codes are never in it."""

    code = "provider-failed"

    def __init__(self, issuer: str, why: str) -> None:
        super().__init__(
            f"the OpenID provider {issuer} cannot be asked: {why}",
            hint="try again; administrators with a password can still sign in, and check [web.oidc]",
        )


class NotAllowed(TellPerson):
    """Whoever asks is known, and may not."""

    code = "not-allowed"

    def __init__(self, name: str, permission: Permission, of_what: str = "") -> None:
        super().__init__(
            f"{name} lacks the permission {permission.value}{of_what and ' '}{of_what}",
            hint="an administrator can give a role that has it",
        )


class BeyondReach(TellPerson):
    """Whoever asks may do such things, but not to all that this would concern."""

    code = "beyond-reach"

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name} may not: {what}", hint="ask somebody whose role reaches all machines")


class NotByToken(TellPerson):
    """What only a person does who signed in with a browser."""

    code = "not-by-token"

    def __init__(self, what: str) -> None:
        super().__init__(f"a token does not {what}", hint="sign in to the console and do it there")


class NotFound(TellPerson):
    """Nothing of this name, or nothing that whoever asks may see."""

    code = "not-found"

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"no {what} {name!r}")


class FieldRefused(ConfigurationError):
    """One field of a body says what cannot be. ``pointer``: JSON pointer to it (RFC 6901, as a fragment)."""

    code = "invalid"

    def __init__(self, pointer: str, detail: str, *, hint: str = "") -> None:
        super().__init__(pointer, detail, hint=hint)
        self.pointer, self.detail = pointer, detail


class Conflict(TellPerson):
    """What is there already, or what it does now, stands against it."""

    code = "conflict"


class Outdated(TellPerson):
    """``If-Match`` names another version than the one that is there."""

    code = "outdated"

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} was changed meanwhile", hint="get it again, and make the change anew")


class ConditionMissing(TellPerson):
    """A change without ``If-Match``: it could undo somebody else's unseen."""

    code = "condition-missing"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} is only changed with If-Match", hint="get it first, and send its ETag back as If-Match"
        )


class KeyReused(TellPerson):
    """An ``Idempotency-Key`` that was sent with another request before."""

    code = "idempotency-key-reused"

    def __init__(self) -> None:
        super().__init__(
            "this Idempotency-Key belongs to another request", hint="make a new key for each thing that is to be done"
        )


class KeyInUse(TryAgain):
    """The request of this ``Idempotency-Key`` is under way, or its process ended in the middle of it."""

    code = "idempotency-key-in-use"

    def __init__(self) -> None:
        super().__init__(
            "the request with this Idempotency-Key has no answer yet",
            hint="ask again in a moment; if it stays so, look whether what it asked for was begun",
        )


class AnswerNotKept(TellPerson):
    """What this ``Idempotency-Key`` was sent with is done; its answer held a secret, or was too large to be kept."""

    code = "answer-not-kept"

    def __init__(self) -> None:
        super().__init__(
            "this was done, and its answer is not shown twice",
            hint="look at what it made; undo that and send it with a new key if its answer was lost",
        )


class TooLarge(TellPerson):
    """More than is read of a request. Bytes."""

    code = "too-large"

    def __init__(self, what: str, most: int) -> None:
        super().__init__(f"{what} is larger than {most} bytes")


class TooSlow(TryAgain):
    """A request did not come whole within its time."""

    code = "too-slow"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the request was not there after {seconds:.0f} s")


class WrongHost(TellPerson):
    """Asked for under a name that this appliance does not have: a stranger's name that leads here, or a missing setting."""

    code = "wrong-host"

    def __init__(self) -> None:
        super().__init__(
            "this appliance does not have the name that it was asked for under",
            hint="use one of its names, or add this one to 'names' in [web] of its configuration",
        )


class TooMany(TryAgain):
    """More at once, or in a short time, than one caller may ask."""

    code = "too-many"

    def __init__(self, what: str, *, after: float = 1.0) -> None:
        super().__init__(f"too many {what}", hint=f"wait {after:.0f} s, then try again")
        self.after = after


class AddressRefused(TellPerson):
    """A hypervisor's address that is not taken over the API. Nobody was asked."""

    code = "address-refused"

    def __init__(self, why: str, *, hint: str = "") -> None:
        super().__init__(
            f"this address is not taken: {why}",
            hint=hint
            or "addresses look like qemu+ssh://root@kvm1.example/system; root can write others into the "
            "configuration file",
        )


class CertificateUnconfirmed(TellPerson):
    """Nobody has said yet that this is the right server's certificate. Nothing was sent to it."""

    code = "certificate-unconfirmed"

    def __init__(self, place: str, thumbprint: str) -> None:
        super().__init__(
            f"{place} shows the certificate {thumbprint}, and nobody has confirmed it",
            hint="compare it with what the server's own console shows, then send it as 'thumbprint'",
        )
        self.seen = thumbprint
