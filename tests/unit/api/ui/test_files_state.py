"""Where somebody is in the files of a restore point."""

from api.schemas.guest_names import bytes_of, id_of
from api.ui.pages.files_state import ROOT, ancestors, name_of, parent_of, person_of


def way(path: bytes, *roots: bytes) -> list[bytes]:
    return [bytes_of(one) for one in ancestors(id_of(path), [id_of(root) for root in roots])]


def test_the_way_leads_from_the_root_down_to_the_directory() -> None:
    assert way(b"/srv/data/x", b"/") == [b"/", b"/srv", b"/srv/data", b"/srv/data/x"]
    assert way(b"/", b"/") == [b"/"]


def test_a_drive_is_one_step_below_the_root() -> None:
    assert way(b"C:/Users/alice", b"C:", b"D:") == [b"/", b"C:", b"C:/Users", b"C:/Users/alice"]
    assert way(b"C:", b"C:") == [b"/", b"C:"]


def test_a_volume_that_is_mounted_nowhere_is_one_step_whatever_slashes_its_device_has() -> None:
    assert way(b"/dev/sdb1:/var", b"/", b"/dev/sdb1:") == [b"/", b"/dev/sdb1:", b"/dev/sdb1:/var"]


def test_names_that_are_no_text_stay_what_they_are() -> None:
    path = b"/srv/\xff\xfe"
    assert way(path, b"/")[-1] == path
    assert name_of(id_of(path)) == "%FF%FE"
    assert bytes_of(parent_of(id_of(path))) == b"/srv"


def test_the_parent_of_what_lies_in_the_root_is_the_root() -> None:
    assert parent_of(id_of(b"/etc")) == ROOT
    assert parent_of(id_of(b"C:")) == ROOT
    assert name_of(ROOT) == "/"


def test_a_person_whose_name_is_an_address_of_mail_is_told_from_others() -> None:
    assert person_of("ada@192.0.2.7") == "ada"
    assert person_of("ada@corp.example@2001:db8::7") == "ada@corp.example"
    assert person_of("ada (token ci)@192.0.2.7") != "ada"
    assert person_of("ada") == "ada"
