"""A server that is not the one to write to any more: beside Django's own backend, which reconnects."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import DatabaseError, connections, transaction

import geventpool.django
from tools.servers import MariaDB, PostgreSQL, Standby

from ..dbapi import open_connection, run
from ..proxy import Proxy
from .conftest import DRIVER, IS_MYSQL, KIND, ask

Alias = Callable[..., str]
WRITES = 100
SIZE = 4
INSERT = "insert into failover_hits (x) values (1)"
USER = "shop"
BY_HAND = "pymysql" if IS_MYSQL else DRIVER


class Address:
    """It leads to a server that takes writes, or to one that does not."""

    def __init__(self, proxy: Proxy, demoted: Any, primary: Any, demote: Callable[[int], None]):
        self.proxy, self.demoted, self.primary, self.demote = proxy, demoted, primary, demote

    def settings(self) -> dict[str, str]:
        return {
            "HOST": self.proxy.host,
            "PORT": str(self.proxy.port),
            "USER": USER,
            "PASSWORD": USER,
            "NAME": self.primary.database,
        }

    def fail_over(self) -> None:
        self.demote(1)
        self.proxy.lead_to(self.primary.host, self.primary.port)


def prepare(server: Any) -> Any:
    administrator = open_connection(BY_HAND, server.url(BY_HAND))
    run(administrator, "create table failover_hits (x int)")
    if IS_MYSQL:
        run(administrator, f"create user {USER}@'%' identified by '{USER}'")
        run(administrator, f"grant insert, select on {server.database}.* to {USER}@'%'")
    else:
        run(administrator, f"create role {USER} login password '{USER}'")
        run(administrator, f"grant insert, select on failover_hits to {USER}")
    administrator.commit()
    return administrator


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Any, Any, Callable[[int], None]]]:
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(MariaDB() if IS_MYSQL else PostgreSQL())
        stack.enter_context(contextlib.closing(prepare(primary)))
        if not IS_MYSQL:  # the standby is read only all the time
            yield stack.enter_context(Standby(primary)), primary, lambda _: None
            return
        demoted = stack.enter_context(MariaDB())
        administrator = stack.enter_context(contextlib.closing(prepare(demoted)))

        def demote(is_on: int) -> None:
            run(administrator, f"set global read_only = {is_on}")

        yield demoted, primary, demote
        demoted.kill()  # to stop it in order takes seconds
        primary.kill()


@pytest.fixture
def address(servers: Any) -> Iterator[Address]:
    demoted, primary, demote = servers
    with Proxy(demoted.host, demoted.port) as proxy:
        yield Address(proxy, demoted, primary, demote)
    demote(0)


def write(alias: str, *statements: str) -> bool:
    """What a request does that writes."""
    try:
        with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            for statement in (*statements, INSERT):
                cursor.execute(statement)
    except DatabaseError:
        return False
    finally:
        connections[alias].close_if_unusable_or_obsolete()
    return True


def fill(alias: str) -> None:
    """From now on so many are idle."""
    pool = geventpool.django.pool(alias)
    loans = [pool.lend() for _ in range(SIZE)]
    for loan in loans:
        run(loan.connection, "select 1")
        loan.close()


def test_after_a_failover_one_write_fails_and_no_idle_connection_is_met(
    alias: Alias, address: Address
) -> None:
    name = alias(**address.settings(), POOL={"max_size": SIZE, "min_idle": SIZE})
    fill(name)
    address.fail_over()
    assert sum(write(name) for _ in range(WRITES)) == WRITES - 1


def test_djangos_own_backend_reconnects_for_each_request(alias: Alias, address: Address) -> None:
    name = alias(**address.settings(), ENGINE=f"django.db.backends.{KIND}")
    ask(name, "select 1")
    connections[name].close()
    address.fail_over()
    assert sum(write(name) for _ in range(WRITES)) == WRITES


def test_a_connection_that_is_kept_for_longer_than_a_request_goes_with_the_error(
    alias: Alias, address: Address
) -> None:
    name = alias(**address.settings(), CONN_MAX_AGE=None)
    ask(name, "select 1")
    address.fail_over()
    assert sum(write(name) for _ in range(WRITES)) == WRITES - 1


def test_who_reads_only_on_purpose_has_no_storm_of_connects(alias: Alias, address: Address) -> None:
    address.proxy.lead_to(address.primary.host, address.primary.port)
    name = alias(**address.settings())
    ask(name, "select 1")
    before = address.proxy.figures().opened
    on_purpose = ("start" if IS_MYSQL else "set") + " transaction read only"
    began = time.monotonic()
    assert not any(write(name, on_purpose) for _ in range(WRITES))
    # A session of MySQL's cannot be told from a server that is read only by default.
    rounds = 1 + int(time.monotonic() - began) if IS_MYSQL else 0
    assert address.proxy.figures().opened - before <= rounds
    assert write(name)


def test_an_error_of_the_users_own_has_the_connection_replaced(
    alias: Alias, address: Address
) -> None:
    asked: list[BaseException] = []

    def is_disconnect(error: BaseException) -> bool:
        asked.append(error)
        return "nowhere" in str(error)

    name = alias(**address.settings(), POOL={"is_disconnect": is_disconnect})
    ask(name, "select 1")
    connections[name].close()
    before = address.proxy.figures().opened
    assert not write(name, "select * from nowhere")
    assert ask(name, "select 1") == 1
    assert address.proxy.figures().opened - before == 1
    assert {type(error).__module__.partition(".")[0] for error in asked} == {
        {"mysqlclient": "MySQLdb"}.get(DRIVER, DRIVER)
    }
    connections[name].close()
