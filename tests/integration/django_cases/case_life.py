"""The life of a connection: borrowed, used, given back, lost."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from django.core.signals import request_finished, request_started
from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    close_old_connections,
    connection,
    connections,
    transaction,
)
from django.db.backends.signals import connection_created

import geventpool.django
from geventpool import PoolTimeout

from .conftest import DRIVER, IS_MYSQL, PID, Order, ask, kill, request

IS_BLOCKING = DRIVER == "mysqlclient"
Alias = Callable[..., str]


def in_greenlet(function: Callable[..., Any], *arguments: Any) -> Any:
    return gevent.spawn(function, *arguments).get(timeout=20)


def eventually(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        gevent.sleep(0.01)
    return value


def test_django_gets_the_drivers_own_connection(alias: Alias) -> None:
    name = alias()
    ask(name)
    theirs = connections["stock"]
    theirs.ensure_connection()
    ours = connections[name].connection
    assert isinstance(ours, type(theirs.connection))
    assert type(ours).__name__ == type(theirs.connection).__name__


def test_it_is_borrowed_at_the_first_use_and_comes_back_at_the_end(alias: Alias) -> None:
    name = alias()
    pool = geventpool.django.pool(name)
    assert pool.stats().opened == 0
    first = ask(name)
    assert pool.stats().in_use == 1
    request_finished.send(sender=None)
    assert pool.stats().in_use == 0
    request_started.send(sender=None)
    assert pool.stats().in_use == 0
    assert ask(name) == first
    close_old_connections()
    assert ask(name) == first
    connections[name].close()
    assert [pool.stats().opened, pool.stats().in_use] == [1, 0]


def test_greenlets_share_one_pool_for_each_alias(alias: Alias) -> None:
    name, other = alias(POOL={"max_size": 3}), alias(POOL={"max_size": 2})
    pids: set[tuple[str, int]] = set()

    def work(one: str) -> None:
        for _ in range(20):
            pids.add((one, request(one)))
            gevent.sleep(0)

    gevent.joinall([gevent.spawn(work, one) for one in (name, other) * 10], raise_error=True)
    assert len([pid for one, pid in pids if one == name]) <= 3
    assert len([pid for one, pid in pids if one == other]) <= 2


def test_a_transaction_left_open_is_rolled_back(alias: Alias) -> None:
    name = alias()
    connections[name].set_autocommit(False)
    Order.objects.using(name).create(words="lost")
    pid = ask(name)
    connections[name].close()
    assert ask(name) == pid
    assert connections[name].get_autocommit()
    assert not Order.objects.using(name).exists()


def test_an_error_in_an_atomic_block_keeps_the_connection(alias: Alias) -> None:
    name = alias()
    pid = request(name)
    with pytest.raises(DatabaseError), transaction.atomic(using=name):
        Order.objects.using(name).create(words="lost")
        ask(name, "select nothing_of_the_kind")
    assert ask(name) == pid
    assert not Order.objects.using(name).exists()


def test_an_atomic_block_commits_and_nests(alias: Alias) -> None:
    name = alias()
    done = []
    with transaction.atomic(using=name):
        Order.objects.using(name).create(words="kept")
        transaction.on_commit(lambda: done.append(1), using=name)
        with pytest.raises(ZeroDivisionError), transaction.atomic(using=name):
            Order.objects.using(name).create(words="lost")
            raise ZeroDivisionError
    connections[name].close()
    assert [order.words for order in Order.objects.using(name)] == ["kept"]
    assert done == [1]


def test_a_close_in_an_atomic_block_lets_nobody_go_on(alias: Alias) -> None:
    name = alias()
    with transaction.atomic(using=name):
        Order.objects.using(name).create(words="lost")
        connections[name].close()
        with pytest.raises(ProgrammingError, match="atomic"):
            ask(name)
    assert not Order.objects.using(name).exists()
    assert geventpool.django.pool(name).stats().opened == 1


@pytest.mark.parametrize("is_debugging", [False, True])
def test_a_cursor_that_is_kept_asks_on_nobody_elses_connection(
    alias: Alias, is_debugging: bool
) -> None:
    name = alias(POOL={"max_size": 1})
    wrapper = connections[name]
    wrapper.force_debug_cursor = is_debugging
    cursor = wrapper.cursor()
    cursor.execute(PID)
    wrapper.close()
    uses = (
        lambda: cursor.execute(PID),
        lambda: cursor.executemany("delete from cases_order where words = %s", [("a",)]),
        lambda: cursor.callproc("nothing"),
    )
    for use in uses:  # idle, or another's, or again this wrapper's own
        with pytest.raises(InterfaceError, match="given back"):
            use()
    wrapper.close()  # to show a query when debugging, some versions of Django connect
    other = gevent.spawn(ask, name)
    assert other.get(timeout=20)
    ask(name)
    for use in uses:
        with pytest.raises(InterfaceError, match="given back"):
            use()
    cursor.close()


def test_what_the_server_has_closed_is_not_lent(alias: Alias) -> None:
    name = alias()
    pids = set()

    def work() -> None:
        pids.add(ask(name))
        gevent.sleep(0.02)

    gevent.joinall([gevent.spawn(work) for _ in range(5)], raise_error=True)
    kill(*pids)
    eventually(lambda: geventpool.django.pool(name).stats().size == 0)
    assert request(name) not in pids


def test_a_connection_that_dies_in_a_request_costs_that_request_only(alias: Alias) -> None:
    name = alias()
    kill(ask(name))
    with pytest.raises(DatabaseError):
        ask(name)
    connections[name].close_if_unusable_or_obsolete()
    assert request(name)
    assert geventpool.django.pool(name).stats().size == 1


def test_an_atomic_block_whose_connection_dies_borrows_no_other(alias: Alias) -> None:
    name = alias()
    with pytest.raises(DatabaseError), transaction.atomic(using=name):
        kill(ask(name))
        ask(name)
    assert connections[name].connection is None
    assert geventpool.django.pool(name).stats().in_use == 0
    assert request(name)


def test_a_greenlet_that_ends_without_closing_gives_it_back_at_once(alias: Alias) -> None:
    # Not by what reclaims, and its look at who holds what: that is an hour away.
    name = alias(POOL={"max_size": 1, "timeout": 60, "reclaim_after": 3600})

    def leave() -> int:
        connections[name].set_autocommit(False)
        Order.objects.using(name).create(words="lost")
        return int(ask(name))

    assert len({in_greenlet(leave) for _ in range(5)}) == 1
    assert not Order.objects.using(name).exists()


def test_a_wrapper_that_is_dropped_gives_it_back(alias: Alias) -> None:
    name = alias()
    wrapper = connections[name].copy()
    wrapper.ensure_connection()
    pool = geventpool.django.pool(name)
    assert pool.stats().in_use == 1
    del wrapper
    gc.collect()
    assert eventually(lambda: pool.stats().in_use == 0)
    assert pool.stats().size == 1


def test_the_pools_time_out_is_djangos_operational_error(alias: Alias) -> None:
    name = alias(POOL={"max_size": 1, "timeout": 1.0})
    ask(name)

    def wait() -> None:
        with pytest.raises(OperationalError) as raised:
            ask(name)
        assert isinstance(raised.value, PoolTimeout)
        assert raised.value.why == "saturated"
        assert name in str(raised.value)

    in_greenlet(wait)


def test_conn_max_age_keeps_the_connection_between_requests(alias: Alias) -> None:
    name = alias(CONN_MAX_AGE=None, POOL={"reclaim_after": 3600})
    pool = geventpool.django.pool(name)

    def serve() -> None:
        pid = request(name)
        assert pool.stats().in_use == 1
        assert request(name) == pid

    in_greenlet(serve)
    assert eventually(lambda: pool.stats().in_use == 0)  # by itself: what reclaims is an hour away


def test_a_kept_connection_is_given_back_at_its_age(alias: Alias) -> None:
    name = alias(CONN_MAX_AGE=0.5)
    pool = geventpool.django.pool(name)
    request(name)  # opens one, which takes a part of the age
    connections[name].close()
    request(name)
    assert pool.stats().in_use == 1
    gevent.sleep(0.55)
    connections[name].close_if_unusable_or_obsolete()
    assert pool.stats().in_use == 0


def test_health_checks_find_a_kept_connection_that_died(alias: Alias) -> None:
    name = alias(CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True)
    pid = request(name)
    kill(pid)
    gevent.sleep(0.05)
    assert request(name) != pid
    assert geventpool.django.pool(name).stats().size == 1


@pytest.mark.skipif(IS_BLOCKING, reason="mysqlclient blocks the hub while it waits for the lock")
def test_select_for_update_makes_greenlets_wait_for_each_other(alias: Alias) -> None:
    name = alias()
    order = Order.objects.using(name).create(words="0")

    def add() -> None:
        with transaction.atomic(using=name):
            locked = Order.objects.using(name).select_for_update().get(pk=order.pk)
            gevent.sleep(0.005)
            locked.words = str(int(locked.words) + 1)
            locked.save(using=name)

    gevent.joinall([gevent.spawn(add) for _ in range(10)], raise_error=True)
    order.refresh_from_db(using=name)
    assert order.words == "10"


@pytest.mark.skipif(IS_MYSQL, reason="PostgreSQL's server-side cursors")
def test_a_server_side_cursor_ends_with_the_borrow(alias: Alias) -> None:
    name = alias()
    Order.objects.using(name).bulk_create([Order(words=str(number)) for number in range(50)])
    rows = Order.objects.using(name).iterator(chunk_size=10)
    next(rows)
    pid = ask(name)
    assert ask(name, "select count(*) from pg_cursors where name like '_django%%'") == 1
    connections[name].close()
    assert ask(name) == pid
    assert ask(name, "select count(*) from pg_cursors where name like '_django%%'") == 0
    rows.close()
    assert len(list(Order.objects.using(name).iterator(chunk_size=10))) == 50


def test_a_shared_connection_survives_the_greenlets_that_use_it(alias: Alias) -> None:
    name = alias(POOL={"reclaim_after": 0.05})
    wrapper = connections[name]
    pid = ask(name)
    wrapper.inc_thread_sharing()
    try:

        def use() -> int:
            connections[name] = wrapper
            return int(ask(name))

        assert {in_greenlet(use) for _ in range(3)} == {pid}
        gevent.sleep(0.2)
        assert ask(name) == pid
    finally:
        wrapper.dec_thread_sharing()

    def misuse() -> None:
        connections[name] = wrapper
        with pytest.raises(DatabaseError, match="same thread"):
            ask(name)

    in_greenlet(misuse)


def test_who_borrowed_through_a_shared_wrapper_and_ends_takes_nothing_with_him(
    alias: Alias,
) -> None:
    name = alias()
    wrapper = connections[name]
    wrapper.inc_thread_sharing()

    def borrow() -> int:
        connections[name] = wrapper
        return int(ask(name))

    borrower = gevent.spawn(borrow)
    borrower.rawlink(lambda _: wrapper.dec_thread_sharing())  # before what is linked at the borrow
    pid = borrower.get(timeout=20)
    gevent.sleep(0)
    assert wrapper.connection is not None
    assert ask(name) == pid


def test_what_was_borrowed_through_a_shared_wrapper_is_not_reclaimed_from_its_owner(
    alias: Alias,
) -> None:
    name = alias(POOL={"reclaim_after": 0.05})
    wrapper = connections[name]
    wrapper.inc_thread_sharing()

    def borrow() -> int:
        connections[name] = wrapper
        return int(ask(name))

    try:
        pid = in_greenlet(borrow)
    finally:
        wrapper.dec_thread_sharing()
    with transaction.atomic(name):
        gevent.sleep(0.2)
        assert ask(name) == pid


def test_a_receiver_of_connection_created_knows_a_new_connection(alias: Alias) -> None:
    name = alias()
    seen = []

    def receive(connection: Any, **_: Any) -> None:
        if connection.alias == name:
            seen.append(connection.is_new)

    connection_created.connect(receive)
    try:
        for _ in range(3):
            request(name)
    finally:
        connection_created.disconnect(receive)
    assert seen == [True, False, False]


def test_a_receiver_that_raises_leaves_nothing_half_prepared(alias: Alias) -> None:
    name = alias()

    def receive(connection: Any, **_: Any) -> None:
        if connection.alias == name:
            raise ZeroDivisionError

    connection_created.connect(receive)
    try:
        with pytest.raises(ZeroDivisionError):
            ask(name)
    finally:
        connection_created.disconnect(receive)
    assert connections[name].connection is None
    assert eventually(lambda: geventpool.django.pool(name).stats().in_use == 0)
    assert request(name)


def test_a_forked_child_has_connections_of_its_own(alias: Alias) -> None:
    name = alias()
    parents = ask(name)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, str(ask(name)).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    childs = int(os.read(read, 20) or b"0")
    os.close(read)
    assert childs not in (0, parents)
    assert ask(name) == parents


def test_a_ping_by_django_before_use_finds_the_dead(alias: Alias) -> None:
    name = alias(POOL="slow_and_safe")
    pings = []
    pid = request(name)
    wrapper = connections[name]
    is_usable = wrapper.is_usable
    wrapper.is_usable = lambda: pings.append(1) or is_usable()
    try:
        assert request(name) == pid
        assert len(pings) == 1
        wrapper.is_usable = lambda: pings.append(1) and len(pings) > 2 and is_usable()
        assert request(name) != pid
    finally:
        del wrapper.is_usable
    assert geventpool.django.pool(name).stats().size == 1


def test_settings_that_are_functions_are_asked_at_use(alias: Alias) -> None:
    most = [1]
    name = alias(POOL={"pool_size": lambda: most[0], "max_overflow": 0, "timeout": 1.0})
    ask(name)
    with pytest.raises(OperationalError):
        in_greenlet(ask, name)
    most[0] = 2
    assert in_greenlet(ask, name)


def test_the_default_connection_is_pooled() -> None:
    assert ask() == request()
    assert connection.connection is None
