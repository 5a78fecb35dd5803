"""The section ``[web]``."""

from pathlib import Path

import pytest

from appliance.config import Settings, parse
from proxy.errors import ConfigurationError

OIDC = '[web.oidc]\nclient_id = "l"\nclient_secret_file = "/s"\n'


def _parse(text: str) -> Settings:
    return parse(f"[repository]\nunencrypted = true\n[web]\n{text}", Path("lanfree.toml"))


def test_the_console_is_reached_from_elsewhere_unless_somebody_says_otherwise() -> None:
    assert _parse("").web.listen == ("", 9728)
    assert _parse('address = "[::1]:0"').web.listen == ("::1", 0)
    assert _parse('address = "10.0.0.7:443"').web.listen == ("10.0.0.7", 443)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('address = "9728"', "host:port"),
        ('address = ":99999"', "host:port"),
        ('names = ["a b"]', "neither a host name nor an address"),
        ('url = "http://backup.example"', "https"),
        ('url = "https://backup.example/console"', "without a path"),
        ('url = "https://root:pw@backup.example"', "password"),
        ('certificate_file = "/x.pem"', "together"),
        ('hypervisor_networks = ["10.0.0.0/33"]', "10.0.0.0/33"),
        ('restore_directories = ["srv"]', "absolute"),
        ('restore_directories = ["/srv/../etc"]', "absolute"),
        ("idle_minutes = 0", "idle_minutes"),
        (OIDC + 'issuer = "http://sso.example"\nroles = {a = "auditor"}', "https"),
        (OIDC + 'issuer = "https://sso.example"\nroles = {a = "boss"}', "roles"),
        (OIDC + 'issuer = "https://sso.example"\nroles = {}', "roles"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        _parse(text)
    assert why in str(refused.value)
