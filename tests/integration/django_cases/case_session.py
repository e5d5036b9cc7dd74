"""What a borrow costs, and what the session is like: counted and read on the wire."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from django.db import connections, transaction
from django.test import override_settings

import geventpool.django

from ..wire import Wire
from .conftest import DRIVER, IS_MYSQL, URL, Order, ask, request

Alias = Callable[..., str]
AUTOCOMMITS = 2 if IS_MYSQL else 0  # `atomic` switches it off and on, by statements


@pytest.fixture
def wire() -> Iterator[Wire]:
    assert URL.hostname is not None
    assert URL.port is not None
    with Wire(URL.hostname, URL.port) as wire:
        yield wire


pytestmark = pytest.mark.skipif(
    DRIVER == "mysqlclient", reason="it blocks the hub, in which the wire runs"
)


def round_trips(wire: Wire, unit: Callable[[], Any]) -> int:
    unit()
    wire.reset()
    for _ in range(10):
        unit()
    assert wire.round_trips % 10 == 0
    return wire.round_trips // 10


def test_a_request_with_one_query_is_one_round_trip(alias: Alias, wire: Wire) -> None:
    ours = alias(PORT=str(wire.port))
    assert round_trips(wire, lambda: request(ours)) == 1
    assert wire.opened == 0
    # Each greenlet has a wrapper of its own, which knows nothing yet.
    assert round_trips(wire, lambda: gevent.spawn(request, ours).get()) == 1
    stock = alias(
        PORT=str(wire.port), ENGINE=f"django.db.backends.{'mysql' if IS_MYSQL else 'postgresql'}"
    )
    theirs = round_trips(wire, lambda: request(stock))
    print(f"{DRIVER}: Django's own backend with CONN_MAX_AGE=0: {theirs} round trips")
    assert theirs > 3


def test_a_transaction_costs_what_it_costs_without_a_pool(alias: Alias, wire: Wire) -> None:
    name = alias(PORT=str(wire.port))

    def unit() -> None:
        with transaction.atomic(using=name):
            ask(name)
        connections[name].close()

    assert round_trips(wire, unit) == 3 - IS_MYSQL + AUTOCOMMITS


def test_isolation_level_and_role_are_set_once_for_each_connection(
    alias: Alias, wire: Wire
) -> None:
    if IS_MYSQL:
        name = alias(PORT=str(wire.port), OPTIONS={"isolation_level": "serializable"})
        show, expected = "select @@session.transaction_isolation", "SERIALIZABLE"
        if "mariadb" in connections["stock"].mysql_server_info.lower():
            show = "select @@session.tx_isolation"
    else:
        ask("stock", "select 1")
        with connections["stock"].cursor() as cursor:
            cursor.execute("drop role if exists case_role")
            cursor.execute("create role case_role")
        name = alias(
            PORT=str(wire.port),
            OPTIONS={"assume_role": "case_role", "isolation_level": 3},
        )
        show, expected = "select current_user", "case_role"
    for _ in range(5):
        assert request(name, show) == expected
    said = bytes(wire.sent).upper()
    assert said.count(b"ISOLATION LEVEL" if IS_MYSQL else b"SET ROLE") == 1
    connections[name].ensure_connection()
    if not IS_MYSQL:
        assert int(connections[name].isolation_level) == 3
        connections[name].close()
        geventpool.django.pool(name).disconnect()
        with connections["stock"].cursor() as cursor:
            cursor.execute("drop role case_role")


def test_an_isolation_level_that_other_settings_want_is_set_again(alias: Alias) -> None:
    first = alias(OPTIONS={"isolation_level": "repeatable read"} if IS_MYSQL else {})
    request(first)
    pool = geventpool.django.pool(first)
    connections.settings[first]["OPTIONS"] = {
        "isolation_level": "read committed" if IS_MYSQL else 3
    }
    request(first)
    assert geventpool.django.pool(first) is not pool


@pytest.mark.skipif(IS_MYSQL, reason="MySQL's sessions get no time zone from Django")
def test_a_time_zone_that_somebody_left_is_set_back(alias: Alias, wire: Wire) -> None:
    name = alias(PORT=str(wire.port), TIME_ZONE="Asia/Tokyo")
    assert request(name, "show timezone") == "Asia/Tokyo"
    with connections[name].cursor() as cursor:
        cursor.execute("set time zone 'Europe/Rome'")
    connections[name].close()
    assert request(name, "show timezone") == "Asia/Tokyo"
    wire.reset()
    request(name)
    assert wire.round_trips == 1
    with override_settings(USE_TZ=False, TIME_ZONE="Africa/Nairobi"):
        connections[name].settings_dict["TIME_ZONE"] = None
        for cached in ("timezone", "timezone_name"):
            connections[name].__dict__.pop(cached, None)
        assert request(name, "show timezone") == "Africa/Nairobi"


@pytest.mark.skipif(not IS_MYSQL, reason="MySQL's foreign_key_checks are the session's")
def test_constraint_checks_that_were_left_off_reach_nobody(alias: Alias) -> None:
    name = alias()
    with connections[name].constraint_checks_disabled():
        pid = ask(name)
    connections[name].close()
    assert ask(name) == pid
    connections[name].disable_constraint_checking()
    connections[name].close()
    assert request(name, "select @@foreign_key_checks") == 1
    assert request(name) != pid


@pytest.mark.skipif(not IS_MYSQL, reason="MySQL's server data")
def test_the_server_is_asked_about_itself_once_for_all_greenlets(alias: Alias, wire: Wire) -> None:
    name = alias(PORT=str(wire.port))

    def look() -> Any:
        return connections[name].mysql_version, connections[name].features.has_zoneinfo_database

    answers = {gevent.spawn(look).get() for _ in range(5)}
    assert len(answers) == 1
    assert bytes(wire.sent).count(b"@@sql_mode") == 1


def test_a_rollback_is_sent_on_return_only_if_a_transaction_is_open(
    alias: Alias, wire: Wire
) -> None:
    smart = alias(PORT=str(wire.port), POOL="fast_and_sane")
    safe = alias(PORT=str(wire.port), POOL="slow_and_safe")

    def unit(name: str) -> Callable[[], None]:
        return lambda: request(name)

    assert round_trips(wire, unit(smart)) == 1
    # The ping before; psycopg knows that there is nothing to roll back, and sends nothing.
    assert round_trips(wire, unit(safe)) == (3 if IS_MYSQL else 2)

    def left_open() -> None:
        connections[smart].set_autocommit(False)
        Order.objects.using(smart).create(words="lost")
        connections[smart].close()

    left_open()
    wire.reset()
    left_open()
    assert bytes(wire.sent).upper().count(b"ROLLBACK") == 1
    assert not Order.objects.using(smart).exists()
    connections[smart].close()


def test_a_shared_connection_that_two_greenlets_use_at_once_goes_to_nobody_else(
    alias: Alias,
) -> None:
    name = alias(POOL={"max_size": 1})
    wrapper = connections[name]
    wrapper.ensure_connection()
    wrapper.inc_thread_sharing()

    def use(sql: str) -> None:
        connections[name] = wrapper
        with contextlib.suppress(Exception):  # the second user's own business
            ask(name, sql)

    first = gevent.spawn(use, f"select {'sleep' if IS_MYSQL else 'pg_sleep'}(0.2)")
    gevent.sleep(0)  # it has sent its question
    gevent.spawn(use, "select 2").join()
    first.join()
    wrapper.dec_thread_sharing()
    wrapper.close()
    answers = [gevent.spawn(request, name, f"select {n}").get() for n in range(101, 106)]
    assert answers == list(range(101, 106))
