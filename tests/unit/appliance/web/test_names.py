"""Names and addresses of this machine."""

from appliance.config_web import Web
from appliance.web import names


def test_what_was_configured_comes_first_and_each_name_once() -> None:
    web = Web(names=("Backup.example", "::1"), url="https://console.example:8443")
    found = names.names_of(web)
    assert found[:3] == ("backup.example", "::1", "console.example")
    assert len(set(found)) == len(found)
    assert {"localhost", "127.0.0.1", names.own_name()} <= set(found)


def test_one_address_that_is_listened_on_is_the_only_one() -> None:
    found = names.names_of(Web(address="192.0.2.77:9728"))
    assert "192.0.2.77" in found
    assert not set(names.own_addresses()) & set(found)


def test_people_are_shown_an_address_that_they_can_type() -> None:
    assert names.address_of(Web(address="[::1]:0"), 5000) == "https://[::1]:5000"
    assert names.address_of(Web(names=("backup.example",))) == "https://backup.example:9728"
    assert names.address_of(Web(url="https://backup.example/", address="127.0.0.1:9728")) == "https://backup.example"
    assert names.address_of(Web()) == f"https://{names.own_name()}:9728"


def test_addresses_of_this_machine_are_those_that_others_reach() -> None:
    assert not {"127.0.0.1", "::1"} & set(names.own_addresses())
