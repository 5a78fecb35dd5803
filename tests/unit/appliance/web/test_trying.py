"""First connections to hypervisors that somebody wants to add."""

import os
import stat

import pytest

from appliance.web import trying
from proxy.errors import ConfigurationError


def test_a_password_that_is_tried_is_on_no_disk_and_in_no_file_of_others() -> None:
    with trying._in_memory("s3cret") as file:
        assert [file.read_text(), file.read_text()] == ["s3cret\n"] * 2, "each login reads it anew"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert str(file.readlink()).startswith("/memfd:")
        assert not os.get_inheritable(int(file.name))
    assert not file.exists()


def test_what_could_not_be_stored_is_not_tried() -> None:
    with pytest.raises(ConfigurationError, match="one line"), trying._in_memory("two\nlines"):
        pass
