"""A pool that is told to disconnect, or to change, while it is used."""

from __future__ import annotations

from collections.abc import Callable

import gevent
from django.db import connections

import geventpool.django

from .conftest import IS_MYSQL, ask, request

Alias = Callable[..., str]


def still_there(pids: set[int]) -> int:
    """How many of these connections the server has."""
    listed = ", ".join(map(str, pids))
    table = "information_schema.processlist where id" if IS_MYSQL else "pg_stat_activity where pid"
    count: int = ask("stock", f"select count(*) from {table} in ({listed})")
    return count


def all_gone(pids: set[int]) -> bool:
    """The server takes a moment to see that a client has hung up."""
    with gevent.Timeout(60, False):
        while still_there(pids):
            gevent.sleep(0.005)
        return True
    return False


def test_a_pool_that_is_disconnected_at_each_request_keeps_nothing(alias: Alias) -> None:
    name = alias(POOL={"max_size": 4, "min_idle": 2})
    pool = geventpool.django.pool(name)
    pids: set[int] = set()
    most = [0]

    def client() -> None:
        for _ in range(10):
            pids.add(request(name))
            most[0] = max(most[0], pool.stats().size)
            gevent.sleep(0)
            connections[name].close()
            pool.disconnect()

    gevent.joinall([gevent.spawn(client) for _ in range(20)], raise_error=True)
    assert most[0] <= 4
    assert all_gone(pids)
    assert pool.stats().size == 0


def test_what_is_lent_when_the_pool_disconnects_is_closed_when_it_comes_back(alias: Alias) -> None:
    name = alias(POOL={"min_idle": 2})
    pid = ask(name)
    connections[name].close_pool()
    assert ask(name) == pid
    connections[name].close()
    assert all_gone({pid})
    another = request(name)
    connections[name].close()
    assert geventpool.django.pool(name).stats().idle == 1, "somebody has asked anew"
    assert still_there({another}) == 1


def test_a_cap_that_was_set_by_hand_stays_when_settings_are_functions(alias: Alias) -> None:
    timeout = [5.0]
    name = alias(POOL={"pool_size": 2, "max_overflow": 3, "timeout": lambda: timeout[0]})
    pool = geventpool.django.pool(name)
    pool.resize(1)
    pool.configure(recycle=60)
    request(name)
    assert (pool.stats().max_size, pool.config.recycle) == (1, 60)
    timeout[0] = 7.0
    request(name)
    assert (pool.stats().max_size, pool.config.timeout) == (1, 7.0)
    timeout[0] = 5.0
    request(name)
    assert (pool.stats().max_size, pool.config.timeout) == (1, 5.0)
    connections[name].close()
