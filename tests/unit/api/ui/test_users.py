"""What is typed about people."""

from api.ui.pages.users import patterns


def test_nobody_reaches_all_machines_because_nothing_was_typed() -> None:
    assert patterns(" , ") == []
    assert patterns("db-*, mail-01 ,") == ["db-*", "mail-01"]
    assert patterns("*") == ["*"]
