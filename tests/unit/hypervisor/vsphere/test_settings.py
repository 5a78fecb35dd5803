"""What is configured of a vCenter must say how it is known."""

from pathlib import Path
from typing import Any

import pytest

from proxy.errors import ConfigurationError
from proxy.hypervisor.vsphere.settings import VsphereSettings, plain_thumbprint

DIGEST = "0123456789abcdef" * 4


def made(**changed: Any) -> VsphereSettings:
    given = {"name": "lab", "host": "vc", "user": "u", "password_file": Path("/p"), "thumbprint": DIGEST}
    return VsphereSettings(**{**given, **changed})


@pytest.mark.parametrize(
    "written",
    [
        DIGEST,
        DIGEST.upper(),
        ":".join(DIGEST[i : i + 2] for i in range(0, 64, 2)),
        f"sha256:{DIGEST}",
        f"SHA-256={DIGEST.upper()}",
        f" {DIGEST} ",
    ],
)
def test_a_thumbprint_is_taken_however_it_is_written(written: str) -> None:
    assert plain_thumbprint(written) == DIGEST
    assert made(thumbprint=written).port == 443


@pytest.mark.parametrize("written", ["ab" * 20, "zz" * 32, DIGEST[:-2], "none"])
def test_what_is_no_sha256_is_refused(written: str) -> None:
    with pytest.raises(ConfigurationError, match="SHA-256"):
        made(thumbprint=written)


def test_a_vcenter_that_could_be_anybody_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="neither thumbprint nor ca_bundle"):
        made(thumbprint="")
    assert made(thumbprint="", ca_bundle=Path("/ca.pem")).thumbprint == ""
