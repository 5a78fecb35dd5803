"""What the doctor says of the console."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from appliance.config import Settings, State
from appliance.config_web import Web
from appliance.doctor import Outcome, Result
from appliance.web import listening, tls
from appliance.web.doctor import checks


def _rows(tmp_path: Path, web: Web) -> dict[str, Result]:
    settings = Settings(source=tmp_path / "lanfree.toml", state=State(directory=tmp_path / "state"), web=web)
    return {check.id: check.run() for check in checks(settings)}


def _brought(tmp_path: Path, days: int, *, issuer: str = "site") -> Web:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "site")]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=min(days, 0) - 30))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (tmp_path / "site.pem").write_bytes(made.public_bytes(pem))
    (tmp_path / "site.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (tmp_path / "site.key").chmod(0o600)
    return Web(address="127.0.0.1:0", certificate_file=tmp_path / "site.pem", key_file=tmp_path / "site.key")


def test_nothing_is_looked_at_where_no_console_is_wanted(tmp_path: Path) -> None:
    assert _rows(tmp_path, Web(enabled=False)) == {}


def test_before_the_first_start_all_is_well(tmp_path: Path) -> None:
    found = _rows(tmp_path, Web(address="127.0.0.1:0", names=("localhost",)))  # whatever this machine is called
    assert {row.outcome for row in found.values()} == {Outcome.OK}
    assert set(found) == {"web.port", "web.certificate", "web.names"}


def test_a_port_that_somebody_else_has_is_a_failure_with_its_remedy(tmp_path: Path) -> None:
    with listening.listen(Web(address="127.0.0.1:0")) as other:
        row = _rows(tmp_path, Web(address=f"127.0.0.1:{other.getsockname()[1]}"))["web.port"]
    assert row.outcome is Outcome.FAIL
    assert "ss -ltnp" in row.remedy


def test_a_process_that_does_not_answer_is_a_failure(tmp_path: Path) -> None:
    web = Web(address="127.0.0.1:0")
    tls.identity(web, tmp_path / "state" / "web")
    with listening.listen(web) as silent:
        port = silent.getsockname()[1]
    with listening.told(tmp_path / "state" / "web", listening.Running("https://x", port, os.getpid())):
        row = _rows(tmp_path, web)["web.port"]
    assert row.outcome is Outcome.FAIL
    assert "does not answer" in row.detail


@pytest.mark.parametrize(
    ("days", "issuer", "outcome", "word"),
    [
        (90, "site", Outcome.OK, "SHA-256"),
        (10, "site", Outcome.WARN, "expires soon"),
        (-1, "site", Outcome.FAIL, "expired"),
        (90, "an authority nobody knows", Outcome.WARN, "is not in the file"),
    ],
)
def test_a_certificate_that_was_brought_is_judged(
    tmp_path: Path, days: int, issuer: str, outcome: Outcome, word: str
) -> None:
    row = _rows(tmp_path, _brought(tmp_path, days, issuer=issuer))["web.certificate"]
    assert (row.outcome, word in row.detail) == (outcome, True)


def test_a_name_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    row = _rows(tmp_path, Web(address="127.0.0.1:0", names=("nowhere.invalid",)))["web.names"]
    assert row.outcome is Outcome.WARN
    assert "nowhere.invalid" in row.detail
