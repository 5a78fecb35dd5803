"""The command line, run in this process."""

import json
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from appliance.cli import app, commands


@pytest.fixture
def command_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, Any, str]]:
    """``command_line(configuration, *words)``: exit code, JSON document, all that was said."""

    def run(config: Path, *words: str) -> tuple[int, Any, str]:
        commands.register(words)
        monkeypatch.setattr(sys, "argv", ["lanfree", "--config", str(config), "--json", *words])
        capfd.readouterr()
        code = app.run()
        # The engine's library keeps the stderr that it finds first: this one is closed before another test uses it.
        for handler in logging.getLogger("dbos").handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
                handler.setStream(sys.__stderr__)
        said = capfd.readouterr()
        return code, json.loads(said.out) if said.out.strip() else None, said.out + said.err

    return run


@pytest.fixture
def lanfree(command_line: Callable[..., tuple[int, Any, str]], tmp_path: Path) -> Callable[..., tuple[int, Any, str]]:
    """The same, for the configuration in ``tmp_path``: ``lanfree(*words)``."""
    return partial(command_line, tmp_path / "lanfree.toml")
