"""What the package imports, and when."""

import subprocess
import sys

import pytest

from proxy import repository

pytestmark = pytest.mark.slow

LOADED = "import sys, proxy.repository; print([name for name in sys.modules if name.startswith('proxy.repository.checking')])"


def test_backups_and_restores_import_nothing_of_what_only_checks() -> None:
    told = subprocess.run([sys.executable, "-c", LOADED], check=True, capture_output=True, text=True).stdout
    assert told.strip() == "[]"


def test_all_that_the_package_offers_is_there() -> None:
    assert [name for name in repository.__all__ if not hasattr(repository, name)] == []


def test_what_it_does_not_have_is_told_as_any_module_tells_it() -> None:
    with pytest.raises(AttributeError, match="no attribute 'backup'"):
        _ = repository.backup  # type: ignore[attr-defined]
