"""The share rule: within the size, nothing left while somebody lacks it, fair, and nobody starves."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from geventpool.fleet.rows import LENGTH, Row, rightful, smallest_size, unpack
from geventpool.fleet.share import TURN, Need, next_turn, shares

SIZES = st.integers(0, 60)
MEMBERS = st.lists(
    st.builds(Need, needs=st.integers(0, 30), keeps=st.integers(0, 30)), min_size=0, max_size=12
)
TIMES = st.floats(0, 1e7)


@given(SIZES, MEMBERS, TIMES)
def test_never_more_than_there_are_nor_than_anybody_wants(size, members, now) -> None:
    given_out = shares(size, members, now)
    assert sum(given_out) <= size
    for share, member in zip(given_out, members, strict=True):
        assert 0 <= share <= max(member)


@given(SIZES, MEMBERS, TIMES)
def test_nothing_is_left_while_somebody_lacks_it(size, members, now) -> None:
    given_out = shares(size, members, now)
    assert sum(given_out) == min(size, sum(max(member) for member in members))
    if sum(member.needs for member in members) >= size:
        for share, member in zip(given_out, members, strict=True):
            assert share <= member.needs, "something is kept idle that another needs"


@given(SIZES, MEMBERS, TIMES)
def test_who_lacks_something_has_at_most_one_less_than_anybody(size, members, now) -> None:
    given_out = shares(size, members, now)
    lacking = [share for share, one in zip(given_out, members, strict=True) if share < one.needs]
    if lacking:
        assert max(given_out) <= min(lacking) + 1


@given(SIZES, MEMBERS, TIMES)
def test_who_needs_something_comes_before_what_others_would_keep(size, members, now) -> None:
    for share, one in zip(shares(size, members, now), members, strict=True):
        if share < one.needs:
            kept = sum(
                max(0, mine - other.needs)
                for mine, other in zip(shares(size, members, now), members, strict=True)
            )
            assert kept == 0


@given(st.integers(1, 20), st.integers(1, 12), st.integers(1, 10**6))
def test_nobody_starves_where_all_lack_something(size, number, turn) -> None:
    members = [Need(size + 1, 0)] * number
    had: Counter[int] = Counter()
    for later in range(number):
        for place, share in enumerate(shares(size, members, (turn + later + 0.5) * TURN)):
            had[place] += share
    assert set(had.values()) == {size}, "each has had as much in as many turns as there are members"


@given(SIZES, MEMBERS, TIMES)
def test_nothing_idle_moves_because_of_the_time(size, members, now) -> None:
    if sum(member.needs for member in members) <= size:
        assert shares(size, members, now) == shares(size, members, now + 7.7 * TURN)


@given(st.binary(max_size=40 * LENGTH), st.integers(0, 40), TIMES)
def test_whatever_is_read_as_rows_makes_no_error_and_grants_no_more(read, asks, now) -> None:
    rows = unpack(read)
    assert sum(rightful(rows, now, asks).values()) <= smallest_size(rows)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=7, max_size=7), st.booleans(), st.booleans())
def test_a_row_is_read_as_it_was_written(numbers, is_short, is_aware) -> None:
    row = Row(0, *numbers, is_short, is_aware, 1.5)
    told = unpack(row.pack())
    if numbers[0]:
        assert told == [row._make((0, *(min(one, 10**9) for one in numbers), *row[-3:]))]
    else:
        assert not told


@given(TIMES)
def test_the_next_turn_is_ahead(now) -> None:
    assert now < next_turn(now) <= now + 1.01 * TURN
