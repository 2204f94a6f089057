"""An order of any length, computed place by place."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.shuffle import shuffled


@given(st.integers(1, 3000), st.integers(0, 1 << 31))
def test_every_number_stands_at_one_place(count, seed):
    order = shuffled(np.arange(count), count, (seed, "quest", 0))
    assert sorted(order.tolist()) == list(range(count))


def test_a_place_can_be_asked_for_alone_in_an_order_of_any_length():
    whole = shuffled(np.arange(1000), 1000, (1, "quest", 0))
    assert [int(shuffled(np.array([place]), 1000, (1, "quest", 0))[0]) for place in (0, 17, 999)] == whole[
        [0, 17, 999]
    ].tolist()
    far = shuffled(np.arange(10**12 - 4, 10**12), 10**12, (1, "quest", 0))
    assert len(set(far.tolist())) == 4 and far.max() < 10**12


def test_orders_of_seeds_and_epochs_are_unlike_each_other_and_unlike_none():
    """Of two unlike orders one number stands at the same place, on average, and neighbours are a third apart."""
    orders = [shuffled(np.arange(5000), 5000, name) for name in ((1, "q", 0), (1, "q", 1), (2, "q", 0), (1, "r", 0))]
    orders.append(np.arange(5000))
    for place, one in enumerate(orders):
        for other in orders[:place]:
            assert (one == other).sum() < 10 and abs(np.corrcoef(one, other)[0, 1]) < 0.06
    for order in orders[:-1]:
        assert abs(np.abs(np.diff(order)).mean() / 5000 - 1 / 3) < 0.02
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.06


def test_the_order_is_the_same_on_every_machine():
    assert shuffled(np.arange(8), 8, (1, "quest", 0)).tolist() == [7, 6, 5, 3, 4, 2, 1, 0]
