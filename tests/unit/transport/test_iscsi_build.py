"""The binding's build: when it is needed, and what it says when it cannot be done."""

from pathlib import Path

import pytest

from proxy.transport.iscsi import build


def test_a_module_without_the_mark_of_these_sources_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = tmp_path / "iscsi.h"
    header.write_text("/* 1.19 */")
    monkeypatch.setattr(build, "_header", lambda: header)
    module = tmp_path / "module.so"
    monkeypatch.setattr(build, "target", lambda: module)
    assert not build.up_to_date()
    module.write_bytes(b"\x7fELF..." + build._mark(header) + b"...")
    assert build.up_to_date()
    header.write_text("/* 1.20 */")  # another libiscsi was installed
    assert not build.up_to_date()


def test_what_is_missing_is_named_by_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "HEADER", "no/such/header.h")
    assert build.main() == 1
    assert "apt-get install libiscsi-dev" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.BuildFailed, match="apt-get install gcc"):
        build._need_compiler()
