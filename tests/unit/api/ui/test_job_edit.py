"""What a new job begins with."""

from api.ui.pages.job_edit import _fresh


def test_a_second_run_of_a_day_does_not_let_the_first_one_go() -> None:
    keep = _fresh("Europe/Berlin").retention
    assert keep is not None
    assert (keep.last, keep.daily, keep.weekly, keep.monthly) == (3, 14, 8, 12)
