"""The console's certificate: one that an authority of this appliance's own signs, or one that was brought along.

The authority is made at the first start, for ten years, and may sign for nothing but this machine's names and for addresses of
private networks: whoever trusts it in a browser trusts it for no other site, should its key ever be stolen. What it signs lasts
397 days (browsers take no more) and is made anew in time, or when the machine has a new name; nothing has to be restarted.

In ``web/`` of the state directory::

    ca.pem      what browsers and clients are to trust      ca-key.pem      0600
    server.pem  certificate and authority                   server-key.pem  0600
"""

import fcntl
import os
import ssl
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.config_web import Web
from appliance.web.names import names_of
from proxy.durable import create_durably, replace_durably
from proxy.errors import ConfigurationError

AUTHORITY_LASTS = timedelta(days=3650)
CERTIFICATE_LASTS = timedelta(days=397)

RENEW_BEFORE = timedelta(days=30)
"""Before its end a certificate is made anew; one that was brought along is spoken of from then on."""

EARLIER = timedelta(hours=26)
"""So much before now certificates begin: clocks of browsers may be a time zone behind."""

_PRIVATE_4 = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10")
_PRIVATE_6 = ("fc00::/7", "fe80::/10", "::1/128")
PRIVATE_NETWORKS = tuple(map(ip_network, (*_PRIVATE_4, *_PRIVATE_6)))

PRIVATE_DOMAINS = ("localhost", "local", "lan", "internal", "home.arpa")
"""No public site has a name below these."""

_KEY_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Identity:
    """What the console shows of itself. ``authority``: the file of our own, ``None`` for a certificate that was brought."""

    certificate_file: Path
    key_file: Path
    certificate: x509.Certificate
    authority: Path | None

    @property
    def fingerprint(self) -> str:
        """SHA-256, as browsers show it."""
        return fingerprint(self.certificate)

    @property
    def expires_at(self) -> datetime:
        """End of the certificate."""
        return self.certificate.not_valid_after_utc

    def context(self) -> ssl.SSLContext:
        """For a server; TLS 1.2 at least. Raises ``ConfigurationError``."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        made.set_alpn_protocols(["http/1.1"])
        self.into(made)
        return made

    def into(self, context: ssl.SSLContext) -> None:
        """From now on this is shown to who connects anew. Raises ``ConfigurationError``."""
        try:
            context.load_cert_chain(self.certificate_file, self.key_file, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(str(self.certificate_file), f"cannot be used: {error}") from None


def identity(web: Web, directory: Path, *, now: datetime | None = None) -> Identity:
    """The one to be shown now; made or renewed if it is our own. ``directory``: ``web/`` of the state directory. Raises
    ``ConfigurationError`` for one that was brought and cannot be used; one that expired can, and is complained of elsewhere."""
    moment = now or datetime.now(UTC)
    if web.certificate_file is not None and web.key_file is not None:
        return _brought(web.certificate_file, web.key_file)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with _locked(directory):
            return _own(directory, names_of(web), moment)
    except OSError as error:
        raise ConfigurationError(str(error.filename or directory), f"cannot be made: {error.strerror}") from None


def known(web: Web, directory: Path) -> Identity | None:
    """The one that is shown, as the files are; nothing is made. Raises ``ConfigurationError``."""
    if web.certificate_file is not None and web.key_file is not None:
        return _brought(web.certificate_file, web.key_file)
    files = _Files(directory)
    if not files.certificate.exists():
        return None
    return Identity(files.certificate, files.key, _certificates(files.certificate)[0], files.authority)


def fingerprint(certificate: x509.Certificate) -> str:
    """``AB:CD:…``, SHA-256."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def authority_fingerprint(identity: Identity) -> str | None:
    """Of our own that signed it."""
    return fingerprint(_certificates(identity.authority)[0]) if identity.authority is not None else None


def chain_problem(identity: Identity) -> str:
    """Why browsers would not find the way from this certificate to an authority; empty if they do. Ours is always whole."""
    certificates = _certificates(identity.certificate_file)
    for issued, issuer in pairwise(certificates):
        if not _issued_by(issued, issuer):
            return f"{issued.subject.rfc4514_string()} is not issued by the certificate that follows it in the file"
    last = certificates[-1]
    if last.issuer == last.subject:
        return ""
    trusted = ssl.create_default_context()
    # Some systems keep their authorities in a directory that is only looked into by name: then nothing can be said.
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # some old authorities of the system's have serial numbers that are none any more
        names = {x509.load_der_x509_certificate(each).subject for each in trusted.get_ca_certs(binary_form=True)}
    if names and last.issuer not in names:
        return f"the certificate of its issuer {last.issuer.rfc4514_string()} is not in the file"
    return ""


@dataclass(frozen=True, slots=True)
class _Files:
    directory: Path

    @property
    def authority(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def authority_key(self) -> Path:
        return self.directory / "ca-key.pem"

    @property
    def certificate(self) -> Path:
        return self.directory / "server.pem"

    @property
    def key(self) -> Path:
        return self.directory / "server-key.pem"


def _own(directory: Path, names: Sequence[str], now: datetime) -> Identity:
    files = _Files(directory)
    if not _authority_fits(files, names, now):
        _make_authority(files, names, now)
    if not _certificate_fits(files, names, now):
        _make_certificate(files, names, now)
    return Identity(files.certificate, files.key, _certificates(files.certificate)[0], files.authority)


def _authority_fits(files: _Files, names: Sequence[str], now: datetime) -> bool:
    """Whether it is there, lasts longer than what it signs, and may sign for these names."""
    if not (files.authority.exists() and files.authority_key.exists()):
        return False
    authority = _certificates(files.authority)[0]
    if authority.not_valid_after_utc < now + CERTIFICATE_LASTS:
        return False
    permitted = authority.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
    return all(_permitted(name, permitted) for name in names)


def _certificate_fits(files: _Files, names: Sequence[str], now: datetime) -> bool:
    if not (files.certificate.exists() and files.key.exists()):
        return False
    certificate, authority = _certificates(files.certificate)[0], _certificates(files.authority)[0]
    shown = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return (
        certificate.not_valid_after_utc - RENEW_BEFORE > now
        and set(names) <= {str(name.value) for name in shown}
        and _issued_by(certificate, authority)
        and _belong_together(certificate, _private_key(files.key))
    )


def _make_authority(files: _Files, names: Sequence[str], now: datetime) -> None:
    """What was there is kept beside it, with its end in the name: who trusts it wants to know what became of it."""
    for old in (files.authority, files.authority_key):
        if old.exists():
            old.rename(old.with_name(f"{old.name}.until-{now:%Y%m%d%H%M%S}"))
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"Lanfree authority of {_host(names)}")
    made = (
        _builder(name, name, key.public_key(), now, AUTHORITY_LASTS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(_constraints(names), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(files.authority_key, _pem_key(key))
    replace_durably(files.authority, made.public_bytes(serialization.Encoding.PEM))


def _make_certificate(files: _Files, names: Sequence[str], now: datetime) -> None:
    authority, signer = _certificates(files.authority)[0], _private_key(files.authority_key)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(
            str(files.authority_key), "is not the key that was made for it", hint="remove both files"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        _builder(_name(f"Lanfree on {_host(names)}"), authority.subject, key.public_key(), now, CERTIFICATE_LASTS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    # A process that is killed between the two leaves files that do not fit: they are made anew at the next start.
    _write(files.key, _pem_key(key))
    pem = serialization.Encoding.PEM
    replace_durably(files.certificate, made.public_bytes(pem) + authority.public_bytes(pem))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lasts: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now - EARLIER + lasts)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _constraints(names: Sequence[str]) -> x509.NameConstraints:
    domains = dict.fromkeys([*PRIVATE_DOMAINS, *(name for name in names if _address(name) is None)])
    addresses = [address for name in names if (address := _address(name)) is not None]
    public = [ip_network(address) for address in addresses if not any(address in each for each in PRIVATE_NETWORKS)]
    subtrees: list[x509.GeneralName] = [x509.DNSName(domain) for domain in domains]
    subtrees += [x509.IPAddress(network) for network in (*PRIVATE_NETWORKS, *public)]
    return x509.NameConstraints(permitted_subtrees=subtrees, excluded_subtrees=None)


def _permitted(name: str, subtrees: Sequence[x509.GeneralName]) -> bool:
    """RFC 5280 4.2.1.10: a DNS name permits itself and what is below it."""
    address = _address(name)
    for subtree in subtrees:
        if isinstance(subtree, x509.DNSName) and address is None and f".{name}".endswith(f".{subtree.value}"):
            return True
        if isinstance(subtree, x509.IPAddress) and address is not None:
            network = subtree.value
            if isinstance(network, IPv4Network | IPv6Network) and address in network:
                return True
    return False


def _brought(certificate_file: Path, key_file: Path) -> Identity:
    certificates = _certificates(certificate_file)
    try:
        mode = key_file.stat().st_mode
    except OSError as error:
        raise ConfigurationError(str(key_file), f"cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise ConfigurationError(str(key_file), "others than its owner may read it", hint=f"chmod 600 {key_file}")
    if not _belong_together(certificates[0], _private_key(key_file)):
        raise ConfigurationError(
            str(key_file),
            f"is not the key of the first certificate in {certificate_file}",
            hint="the server's own certificate stands first, then what signed it; bring the key that it was asked for with",
        )
    return Identity(certificate_file, key_file, certificates[0], None)


def _certificates(path: Path) -> list[x509.Certificate]:
    """All of a file, in its order. Raises ``ConfigurationError``."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(str(path), f"cannot be read: {error.strerror}") from None
    except ValueError:
        hint = (
            "it begins with -----BEGIN CERTIFICATE-----; openssl x509 -inform der -in FILE makes it of a .cer or .der"
        )
        raise ConfigurationError(str(path), "is no certificate in PEM", hint=hint) from None


def _private_key(path: Path) -> PrivateKeyTypes:
    """Raises ``ConfigurationError``."""
    try:
        return serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigurationError(str(path), f"cannot be read: {error.strerror}") from None
    except TypeError:
        hint = f"openssl pkey -in {path} takes the password off; the file's mode protects it"
        raise ConfigurationError(str(path), "is protected by a password", hint=hint) from None
    except ValueError:
        raise ConfigurationError(str(path), "is no private key in PEM") from None


def _belong_together(certificate: x509.Certificate, key: PrivateKeyTypes) -> bool:
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _no_password() -> str:
    """OpenSSL would ask at the terminal otherwise."""
    return ""


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _host(names: Sequence[str]) -> str:
    return next((name for name in names if name != "localhost" and _address(name) is None), names[0])


def _general(name: str) -> x509.GeneralName:
    address = _address(name)
    return x509.DNSName(name) if address is None else x509.IPAddress(address)


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes) -> None:
    """A key is never readable for others, not even for a moment."""
    draft = path.with_name(f"{path.name}.draft")
    draft.unlink(missing_ok=True)
    create_durably(draft, data, mode=_KEY_MODE)
    draft.replace(path)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Two processes of one machine may start at once."""
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
