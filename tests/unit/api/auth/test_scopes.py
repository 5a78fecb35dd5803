from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.auth.scopes import within

PATTERNS = st.lists(st.text("ab-*?[]", min_size=1, max_size=5), max_size=3)


@pytest.mark.parametrize(
    ("mine", "theirs", "both"),
    [
        (["*"], ["*"], ["*"]),
        (["db-*"], ["*"], ["db-*"]),
        (["*"], ["db-*", "web-1"], ["db-*", "web-1"]),
        (["db-7"], ["db-*"], ["db-7"]),
        (["db-prod-*"], ["db-*"], ["db-prod-*"]),
        (["db-*"], ["db-prod-*"], ["db-prod-*"]),
        (["web-*"], ["db-*"], []),
        (["*-prod"], ["db-*"], []),
        (["db-?"], ["db-*"], ["db-?"]),
        ([], ["*"], []),
        (["m-0123"], ["m-0123"], ["m-0123"]),
    ],
)
def test_what_two_lists_allow_together(mine: list[str], theirs: list[str], both: list[str]) -> None:
    assert list(within(mine, theirs)) == both


@given(PATTERNS, PATTERNS, st.lists(st.text("ab-", max_size=5), max_size=20))
def test_nothing_is_ever_added(mine: list[str], theirs: list[str], names: list[str]) -> None:
    both = within(mine, theirs)
    for name in names:
        if any(fnmatchcase(name, pattern) for pattern in both):
            assert any(fnmatchcase(name, pattern) for pattern in mine)
            assert any(fnmatchcase(name, pattern) for pattern in theirs)
