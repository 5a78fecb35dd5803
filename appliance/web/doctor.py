"""Rows of ``lanfree doctor`` about API and console: does the port answer, is its certificate one that browsers take, do its
names lead here?"""

import http.client
import socket
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from appliance import probes
from appliance.config import Settings
from appliance.doctor import Check
from appliance.probes import Finding
from appliance.web import listening, names, tls
from proxy.errors import ConfigurationError

_ANSWER_SECONDS = 10.0
"""For an answer of this machine: a process that is just being started takes some seconds."""

_PORT_REMEDY = "'ss -ltnp' shows who has the port; end that, or say another address in [web]"


def checks(settings: Settings) -> Sequence[Check]:
    """None where no console is configured."""
    if not settings.web.enabled:
        return ()
    certificate = settings.web.certificate_file
    return (
        Check("web.port", _PORT_REMEDY, partial(_port, settings)),
        Check(
            "web.certificate",
            f"bring a new one to {certificate}"
            if certificate
            else "check the clock; 'lanfree web' makes a new one at its start",
            partial(_certificate, settings),
        ),
        Check("web.names", "correct DNS or /etc/hosts, or [web] names and url", partial(_names, settings)),
    )


def _port(settings: Settings) -> Finding:
    running = listening.found(settings.state.directory / "web")
    if running is not None:
        return _answer(settings, running)
    try:
        listening.listen(settings.web).close()
    except ConfigurationError as error:
        return probes.fail(error.message, error.hint)
    return probes.ok(f"{settings.web.address} is free; the console does not run now")


def _answer(settings: Settings, running: listening.Running) -> Finding:
    host, _ = settings.web.listen
    identity = tls.known(settings.web, settings.state.directory / "web")
    where = host if host and host not in {"0.0.0.0", "::"} else "127.0.0.1"  # noqa: S104  # compared with
    context = ssl.create_default_context()
    context.check_hostname = False
    if identity is not None and identity.authority is not None:
        context.load_verify_locations(identity.authority)
    else:
        context.verify_mode = ssl.CERT_NONE  # what was brought is looked at by itself
    connection = http.client.HTTPSConnection(where, running.port, timeout=_ANSWER_SECONDS, context=context)
    try:
        name = names.names_of(settings.web)[0]
        connection.request("GET", "/api/v1/health/live", headers={"Host": name if ":" not in name else f"[{name}]"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return probes.fail(
            f"{running.url} (process {running.pid}) does not answer: {error}",
            "look at its log: journalctl -u lanfree; end it, 'lanfree serve' starts it anew",
        )
    finally:
        connection.close()
    return probes.ok(f"{running.url} answers") if status == http.client.OK else probes.fail(f"answers with {status}")


def _certificate(settings: Settings) -> Finding:
    identity = tls.known(settings.web, settings.state.directory / "web")
    if identity is None:
        return probes.ok("is made at the first start")
    now = datetime.now(UTC)
    certificate = identity.certificate
    told = f"SHA-256 {identity.fingerprint}, until {identity.expires_at:%Y-%m-%d}"
    if certificate.not_valid_before_utc > now:
        return probes.fail(f"{told}; it is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
    if identity.expires_at <= now:
        return probes.fail(f"{told}: it has expired")
    problem = tls.chain_problem(identity) if identity.authority is None else ""
    if problem:
        remedy = f"write the certificates of its issuers into {identity.certificate_file}, after its own"
        return probes.warn(f"{told}; {problem}", remedy)
    if identity.expires_at - now < tls.RENEW_BEFORE and identity.authority is None:
        return probes.warn(f"{told}: it expires soon")
    return probes.ok(told)


def _names(settings: Settings) -> Finding:
    """Names that a person wrote down lead to this machine; its own host name is no other one's."""
    web = settings.web
    host = names.host_of(web.url)
    wanted = [*web.names, *([host] if host else [])]
    ours = {*names.own_addresses(), *names.LOCAL}
    wrong = []
    for name in dict.fromkeys(wanted):
        try:
            found = {str(each[4][0]) for each in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
        except OSError:
            wrong.append(f"{name} is not known to DNS")
            continue
        if not found & ours and name != host:  # a reverse proxy may have a machine of its own
            wrong.append(f"{name} is {', '.join(sorted(found))}, which is another machine")
    if wrong:
        return probes.warn("; ".join(wrong))
    if not wanted and names.own_name().partition(".")[0] in {"localhost", "debian"}:
        return probes.warn(f"this machine is called {names.own_name()}: no browser finds it by that", "say [web] names")
    return probes.ok(f"browsers come to {names.address_of(web)}")
