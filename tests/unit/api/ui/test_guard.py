"""Sockets of the console's pages."""

import pytest

pytestmark = pytest.mark.slow  # the console's library takes a second to load


def test_a_socket_speaks_for_its_own_page_alone() -> None:
    from api.ui.guard import of_own_page  # noqa: PLC0415

    heard: list[object] = []
    rooms = {"mine": ["mine", "page-1"], "new": ["new"]}
    listen = of_own_page(lambda _, message: heard.append(message), lambda socket: rooms.get(socket, []))
    own = {"client_id": "page-1", "id": 7}
    for socket, message in (
        ("mine", {"client_id": "page-2"}),
        ("new", own),
        ("gone", own),
        ("mine", {}),
        ("mine", "client_id"),
        ("mine", {"client_id": ["page-1"]}),
        ("mine", None),
    ):
        listen(socket, message)
    assert heard == []
    listen("mine", own)
    assert heard == [own]
