"""Certificates for NBD over TLS between the hosts (servers) and the proxy (client): one authority for each lab.

QEMU and libvirt look for fixed names in a directory: ``ca-cert.pem``, ``server-cert.pem``, ``server-key.pem``,
``client-cert.pem``, ``client-key.pem``.
"""

import shutil
from pathlib import Path

from proxy import command

CLIENT = "lanfree-proxy"
"""Common name of the client certificate."""

# A lab lives for minutes or days; a month is enough and limits what a forgotten key is good for.
_DAYS = "30"
_TIMEOUT = 20.0
_SERVER_NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:127.0.0.2,IP:::1"


def make_pki(directory: Path) -> None:
    """Fill ``directory``/server and ``directory``/client; keys are readable by the owner only. Raises ``ToolFailed``."""
    directory.mkdir(mode=0o700, exist_ok=True)
    authority, key = directory / "ca-cert.pem", directory / "ca-key.pem"
    rights = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
    _openssl("req", "-x509", *_new_key(key), "-subj", "/CN=lanfree lab", "-days", _DAYS, *rights, "-out", authority)
    _issue(directory, "server", "localhost", f"extendedKeyUsage=serverAuth\n{_SERVER_NAMES}\n")
    _issue(directory, "client", CLIENT, "extendedKeyUsage=clientAuth\n")


def _issue(directory: Path, role: str, name: str, extensions: str) -> None:
    place = directory / role
    place.mkdir(mode=0o700)
    request, config = place / "request.pem", place / "extensions"
    config.write_text(f"basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n{extensions}")
    _openssl("req", *_new_key(place / f"{role}-key.pem"), "-subj", f"/CN={name}", "-out", request)
    signer: list[str | Path] = ["-CA", directory / "ca-cert.pem", "-CAkey", directory / "ca-key.pem", "-CAcreateserial"]
    output: list[str | Path] = ["-extfile", config, "-out", place / f"{role}-cert.pem"]
    _openssl("x509", "-req", "-in", request, *signer, "-days", _DAYS, *output)
    shutil.copyfile(directory / "ca-cert.pem", place / "ca-cert.pem")
    for scaffold in (request, config):
        scaffold.unlink()


def _new_key(path: Path) -> list[str]:
    # Elliptic curves: made at once, where RSA would take a noticeable part of the lab's start.
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(path)]


def _openssl(*words: str | Path) -> None:
    command.run(["openssl", *words], timeout=_TIMEOUT)
