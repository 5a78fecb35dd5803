"""The console's certificate."""

import ssl
import stat
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from appliance.config_web import Web
from appliance.web import tls
from proxy.errors import ConfigurationError

pytestmark = pytest.mark.slow

WEB = Web(address="127.0.0.1:0", names=("backup.example",))


def _read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(path.read_bytes())[0]


def test_an_authority_and_a_certificate_are_made_once(tmp_path: Path) -> None:
    made = tls.identity(WEB, tmp_path / "web")
    again = tls.identity(WEB, tmp_path / "web")
    assert made.fingerprint == again.fingerprint
    assert tls.authority_fingerprint(made) == tls.fingerprint(_read(tmp_path / "web" / "ca.pem"))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "web").glob("*-key.pem")}
    assert modes == {"ca-key.pem": 0o600, "server-key.pem": 0o600}
    assert stat.S_IMODE((tmp_path / "web").stat().st_mode) == 0o700


def test_browsers_take_it_under_each_of_its_names(tmp_path: Path) -> None:
    made = tls.identity(WEB, tmp_path)
    assert made.authority is not None
    store = Store([_read(made.authority)])
    for name in ("backup.example", "localhost"):
        verifier = PolicyBuilder().store(store).build_server_verifier(x509.DNSName(name))
        assert verifier.verify(made.certificate, []) is not None
    life = made.certificate.not_valid_after_utc - made.certificate.not_valid_before_utc
    assert life <= timedelta(days=397)


def test_the_authority_may_sign_for_nobody_else(tmp_path: Path) -> None:
    tls.identity(WEB, tmp_path)
    constraints = _read(tmp_path / "ca.pem").extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    permitted = [str(each.value) for each in constraints.value.permitted_subtrees or ()]
    assert "backup.example" in permitted
    assert not {"example", "com", "0.0.0.0/0", "::/0"} & set(permitted)
    basic = _read(tmp_path / "ca.pem").extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.value.ca, basic.value.path_length) == (True, 0)


def test_the_certificate_is_made_anew_before_its_end_by_the_same_authority(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    first = tls.identity(WEB, tmp_path, now=now)
    still = tls.identity(WEB, tmp_path, now=first.expires_at - tls.RENEW_BEFORE - timedelta(days=1))
    then = tls.identity(WEB, tmp_path, now=first.expires_at - tls.RENEW_BEFORE + timedelta(days=1))
    assert still.fingerprint == first.fingerprint
    assert then.fingerprint != first.fingerprint
    assert then.certificate.issuer == first.certificate.issuer
    assert not list(tmp_path.glob("ca.pem.until-*"))


def test_an_authority_that_would_end_before_what_it_signs_is_followed_by_another(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    first = tls.authority_fingerprint(tls.identity(WEB, tmp_path, now=now))
    late = tls.identity(WEB, tmp_path, now=now + timedelta(days=3650 - 300))
    assert tls.authority_fingerprint(late) != first
    assert len(list(tmp_path.glob("ca.pem.until-*"))) == 1


def test_a_new_name_gets_a_certificate_and_an_authority_that_may_sign_it(tmp_path: Path) -> None:
    first = tls.identity(WEB, tmp_path)
    authority = tls.authority_fingerprint(first)
    private = tls.identity(WEB.model_copy(update={"names": ("backup.example", "10.9.8.7")}), tmp_path)
    assert private.fingerprint != first.fingerprint
    assert tls.authority_fingerprint(private) == authority
    other = tls.identity(WEB.model_copy(update={"names": ("backup.other",)}), tmp_path)
    assert tls.authority_fingerprint(other) != authority


def test_files_that_do_not_fit_are_made_anew(tmp_path: Path) -> None:
    first = tls.identity(WEB, tmp_path)
    other = ec.generate_private_key(ec.SECP256R1())
    first.key_file.write_bytes(_pem(other))
    made = tls.identity(WEB, tmp_path)
    assert made.fingerprint != first.fingerprint
    made.context()


def test_old_versions_of_the_protocol_are_refused(tmp_path: Path) -> None:
    assert tls.identity(WEB, tmp_path).context().minimum_version == ssl.TLSVersion.TLSv1_2


# --- brought along --------------------------------------------------------------------------------------------------------


def _pem(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    kind = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kind)


def _signed(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=90))
        .sign(signer, hashes.SHA256())
    )


def _bring(tmp_path: Path, chain: Sequence[x509.Certificate], key: bytes, mode: int = 0o600) -> Web:
    certificate_file, key_file = tmp_path / "site.pem", tmp_path / "site.key"
    certificate_file.write_bytes(b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain))
    key_file.write_bytes(key)
    key_file.chmod(mode)
    return Web(certificate_file=certificate_file, key_file=key_file)


@pytest.fixture
def keys() -> list[ec.EllipticCurvePrivateKey]:
    return [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]


def test_a_certificate_that_was_brought_is_shown_as_it_is(
    tmp_path: Path, keys: list[ec.EllipticCurvePrivateKey]
) -> None:
    chain = [_signed("site", keys[0], "inner", keys[1]), _signed("inner", keys[1], "root", keys[2])]
    web = _bring(tmp_path, chain, _pem(keys[0]))
    found = tls.identity(web, tmp_path / "web")
    assert found.fingerprint == tls.fingerprint(chain[0])
    assert found.authority is None
    assert not (tmp_path / "web").exists()
    found.context()


def test_one_that_cannot_be_used_is_refused_with_what_to_do(
    tmp_path: Path, keys: list[ec.EllipticCurvePrivateKey]
) -> None:
    site = _signed("site", keys[0], "inner", keys[1])
    cases = [
        (_bring, ([site], _pem(keys[1])), "is not the key"),
        (_bring, ([site], _pem(keys[0]), 0o644), "others than its owner"),
        (_bring, ([site], _pem(keys[0], b"secret")), "password"),
        (_bring, ([site], b"nonsense"), "no private key"),
        (_bring, ([], _pem(keys[0])), "no certificate"),
    ]
    for bring, arguments, why in cases:
        web = bring(tmp_path, *arguments)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=why):
            tls.identity(web, tmp_path / "web")


def test_a_chain_in_the_wrong_order_or_without_its_middle_is_told(
    tmp_path: Path, keys: list[ec.EllipticCurvePrivateKey]
) -> None:
    site, inner = _signed("site", keys[0], "inner", keys[1]), _signed("inner", keys[1], "root", keys[2])
    root = _signed("root", keys[2], "root", keys[2])

    def problem(*chain: x509.Certificate) -> str:
        return tls.chain_problem(tls.identity(_bring(tmp_path, chain, _pem(keys[0])), tmp_path / "web"))

    assert problem(site, inner, root) == ""
    assert "not issued by" in problem(site, root, inner)
