"""The parts of the NBD adapter that need no server."""

from pathlib import Path

import pytest

from proxy.errors import RestoreRefused
from proxy.model import NbdAddress
from proxy.transport.nbd import NbdTarget, export_identity


@pytest.mark.parametrize(
    ("uri", "identity"),
    [
        ("nbd+unix:///vda?socket=/run/a", "nbd:vda"),
        ("nbds+unix:///vda?socket=/run/b", "nbd:vda"),
        ("nbd://host:10809/vda", "nbd:host/vda"),
        ("nbds://alice@host/a%20b?tls-certificates=/etc/pki", "nbd:host/a b"),
        ("nbd+unix:///?socket=/run/a", "nbd:"),
    ],
)
def test_an_identity_names_host_and_export_and_nothing_that_changes_or_is_secret(uri: str, identity: str) -> None:
    assert export_identity(uri) == identity


def test_a_target_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RestoreRefused, match="nbd:vda"):
        NbdTarget(NbdAddress(f"nbd+unix:///vda?socket={tmp_path}/s"))
