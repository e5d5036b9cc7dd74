"""A hundred greenlets on five connections: first come, first served, and everybody alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

import gevent
import pytest

from geventpool import ConnectionPool
from geventpool.sqlalchemy import GeventPool
from geventpool.testing import FakeDriver

from .server_side import IS_WHOLE

GREENLETS = 100
MAX_SIZE = 5
HELD = 0.002
ROUNDS = 200 if IS_WHOLE else 20


def plain() -> Callable[[], Any]:
    return ConnectionPool(FakeDriver().connect, max_size=MAX_SIZE).connection


def sqlalchemys() -> Callable[[], Any]:
    return GeventPool(FakeDriver().connect, max_size=MAX_SIZE).connect


@pytest.mark.parametrize("yields", [False, True], ids=["no other switch", "one other switch"])
@pytest.mark.parametrize("door", [plain, sqlalchemys])
def test_connections_are_handed_out_in_the_order_of_asking_and_to_all_alike(
    door: Callable[[], Callable[[], Any]], yields: bool
) -> None:
    borrow = door()
    asked: list[tuple[int, int]] = []
    served: list[tuple[int, int]] = []
    enough = ROUNDS * GREENLETS

    def client(name: int) -> None:
        number = 0
        while len(served) < enough:
            number += 1
            asked.append((name, number))
            with closing(borrow()):
                # Nobody switches between being handed a connection and this line but in the order of
                # the hand-outs: there is always somebody in line, so none is taken from the idle.
                served.append((name, number))
                gevent.sleep(HELD)
            if yields:
                gevent.sleep(0)

    clients = [gevent.spawn(client, name) for name in range(GREENLETS)]
    gevent.joinall(clients, timeout=60, raise_error=True)
    assert all(one.dead for one in clients), f"somebody starves: {len(served)} were served"
    violations = [place for place in range(enough) if asked[place] != served[place]]
    assert not violations, (
        f"{len(violations)} of {enough} out of order, the first at {violations[0]}"
    )
    counts = Counter(name for name, _ in served[:enough])
    least = min(counts[name] for name in range(GREENLETS))
    assert least >= 0.95 * ROUNDS, f"the least served got {least}, the mean is {ROUNDS}"
