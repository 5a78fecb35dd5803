"""How much one caller does at once."""

import pytest

from api.at_once import AtOnce
from api.refusals import TooMany


def test_one_caller_has_so_many_at_once_and_others_have_theirs() -> None:
    streams = AtOnce(2, "streams", after=10.0)
    with streams.one_more("a"), streams.one_more("a"):
        with pytest.raises(TooMany, match="streams of one caller at once") as caught, streams.one_more("a"):
            pass
        assert caught.value.after == 10.0
        with streams.one_more("b"):
            assert streams.all() == 3
    with streams.one_more("a"):
        assert streams._now == {"a": 1}
    assert not streams._now


def test_the_count_goes_down_whatever_happens() -> None:
    streams = AtOnce(1, "streams")
    with pytest.raises(KeyError), streams.one_more("a"):
        raise KeyError
    with streams.one_more("a"), pytest.raises(TooMany), streams.one_more("a"):
        pass
    assert streams.all() == 0
