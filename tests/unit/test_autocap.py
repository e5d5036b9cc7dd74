"""`max_size="auto"`: real pools whose cap finds itself, in virtual time."""

from __future__ import annotations

import logging
import math
import random
import sqlite3

import gevent
import pytest

from geventpool import ConfigError, ConnectionPool, PoolConfig
from geventpool.config import AUTO_BOUND, make_config
from geventpool.simulator.knee import Knee
from geventpool.testing import settle

from .rings import nest_all


def test_auto_is_a_cap_that_moves_below_a_bound() -> None:
    config = make_config(max_size="auto")
    assert (config.max_size, config.auto_cap) == (AUTO_BOUND, True)
    assert PoolConfig(max_size="auto") == config  # type: ignore[arg-type]
    assert make_config(max_size="auto", fleet="host", fleet_size=40).max_size == 40
    assert make_config(max_size=64, auto_cap=True).max_size == 64
    assert not make_config().auto_cap


def test_a_word_that_is_no_cap_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_size='automatic'"):
        make_config(max_size="automatic")


def test_it_begins_where_a_pool_without_a_setting_stands(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size="auto")
    assert pool.stats().max_size == 20
    assert pool.cap_decision is None


def test_a_pool_without_it_has_no_listener(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock)
    assert pool.core.listener is None
    assert pool.stats().max_size == 20


def test_it_can_be_changed_while_the_pool_runs(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=50)
    pool.configure(max_size="auto")
    assert pool.stats().max_size == 20
    pool.configure(max_size=10)
    assert pool.stats().max_size == 10
    assert pool.core.listener is None
    assert pool.core.ledger.cap.limit == 10
    pool.configure(auto_cap=True)
    pool.configure(max_size=5)
    assert pool.stats().max_size == 5


class Server:
    """A query takes the longer the more of them run.

    Args:
        clock: the pool's.
        load: what it is like.
    """

    def __init__(self, clock, load: Knee) -> None:
        self.clock, self.load = clock, load
        self.running = self.done = self.most = 0
        self.chance = random.Random(1)

    def serve(self, pool: ConnectionPool) -> None:
        while True:
            with pool.connection(timeout=None):
                self.running += 1
                self.most = max(self.most, self.running)
                self.clock.sleep(self.load.seconds(self.running) * self.chance.uniform(0.7, 1.3))
                self.running -= 1
                self.done += 1


@pytest.mark.parametrize(
    ("load", "least", "most"),
    [(Knee(0.003, 0.9, 0.01), 2, 4), (Knee(0.001, 0.02, 0.0, 0.03), 30, 40)],
    ids=["one hot row", "waiting"],
)
def test_a_pool_finds_the_cap_of_its_server(driver, clock, caplog, load, least, most) -> None:
    caplog.set_level(logging.INFO, "geventpool")
    pool = ConnectionPool(driver.connect, clock=clock, max_size=40, auto_cap=True, name="it")
    server = Server(clock, load)
    callers = [gevent.spawn(server.serve, pool) for _ in range(60)]
    clock.advance(15.0)
    assert least <= pool.stats().max_size <= most
    before = server.done
    server.most = 0
    clock.advance(2.0)
    assert server.most == pool.stats().max_size, "found, it probes no more"
    assert (server.done - before) / 2.0 >= 0.9 * load.throughput(load.best(40))
    decision = pool.cap_decision
    assert decision is not None
    assert f"cap 20 → {pool.stats().max_size}: throughput" in str(decision)
    [record] = [one for one in caplog.records if "cap 20" in one.message]
    assert record.levelname == "INFO"
    assert "<it (" in record.message
    pool.core.ledger.check()
    gevent.killall(callers)


def test_a_ring_raises_the_cap_before_anybody_is_refused(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size="auto", timeout=30)
    assert nest_all(pool, clock, 20, 2.0) == []
    assert pool.stats().max_size == 21
    assert str(pool.cap_decision) == "cap 20 → 21: holders waited for each other"
    assert pool.stats().timeouts == 0


def test_at_the_bound_one_of_a_ring_is_refused(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=5, auto_cap=True, timeout=30)
    assert len(nest_all(pool, clock, 5, 2.0)) == 1
    assert pool.stats().max_size == 5


def test_what_somebody_outside_grants_holds_beside_it(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size="auto")
    pool.core.grant(math.inf)  # as a fleet does in which nobody is short
    assert pool.stats().max_size == 20
    pool.core.grant(3)
    lent = [pool.connection() for _ in range(3)]
    for one in lent:
        one.close()
    assert pool.stats().max_size == 3
    pool.configure(max_size="auto", timeout=1)
    assert pool.stats().max_size == 3
    pool.configure(max_size=50)
    assert pool.stats().max_size == 3


def test_a_forked_child_begins_with_what_was_found(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size="auto")
    pool.core.find(7)
    pool.core.begin_again()
    callers = [gevent.spawn(pool.connection) for _ in range(30)]
    settle()
    assert driver.attempts == 7
    gevent.killall(callers)


def test_a_database_in_memory_has_no_cap_to_be_found() -> None:
    url = "file:autocap?mode=memory&cache=shared"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(url, uri=True, check_same_thread=False)

    pool = ConnectionPool(connect, max_size="auto")
    with pool.connection():
        pass
    assert pool.stats().max_size == AUTO_BOUND
    assert pool.core.listener is None
    pool.close()
