"""What a new job begins with."""

from api.ui.pages.job_edit import _fresh, _wrong
from proxy.errors import ServerRefused


def test_a_second_run_of_a_day_does_not_let_the_first_one_go() -> None:
    keep = _fresh("Europe/Berlin").retention
    assert keep is not None
    assert (keep.last, keep.daily, keep.weekly, keep.monthly) == (3, 14, 8, 12)


def test_what_is_wrong_is_called_as_its_field_and_not_by_its_number_in_a_list() -> None:
    wrong = (("#/policy/blackout/0/first", "no date"), ("#/policy/window/1", "no window"), ("#/", "nothing"))
    said = _wrong(ServerRefused(422, "invalid", "", fields=wrong))
    for words in ("<b>First</b>: no date", "<b>Window</b>: no window", "<b>Policy</b>: nothing"):
        assert words in said
