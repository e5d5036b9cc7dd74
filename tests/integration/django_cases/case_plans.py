"""Prepared plans on real servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import gevent
import pytest
from django.db import DatabaseError, OperationalError, connections, transaction

import geventpool.django
from geventpool import ConfigError
from geventpool.django import add_prepare_target, plans
from geventpool.plans import MOST_FOR_EACH_CONNECTION, PlanLost

from .conftest import DRIVER, IS_MYSQL, Order, ask

Alias = Callable[..., str]


@pytest.fixture(autouse=True)
def _no_targets() -> Iterator[None]:
    yield
    plans._targets.clear()


def figures(alias: str) -> tuple[int, int]:
    """How many plans the alias's session has, or has had prepared; how often they were run."""
    if IS_MYSQL:
        with connections[alias].cursor() as cursor:
            cursor.execute(
                "show session status where variable_name in ('Com_prepare_sql', 'Com_execute_sql')"
            )
            found = {name.lower(): int(value) for name, value in cursor.fetchall()}
        return found["com_prepare_sql"], found["com_execute_sql"]
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "select count(*), coalesce(sum(generic_plans + custom_plans), 0) from pg_prepared_statements"
        )
        prepared, runs = cursor.fetchone()
    return prepared, int(runs)


def fill(alias: str) -> list[int]:
    Order.objects.using(alias).bulk_create(
        [Order(words=f"it's 100% of {number}") for number in range(30)]
    )
    return list(Order.objects.using(alias).order_by("pk").values_list("pk", flat=True))


def test_a_queryset_is_prepared_once_and_run_by_its_plan(alias: Alias) -> None:
    name = alias()
    keys = fill(name)
    add_prepare_target(Order.objects.using(name).filter(pk=0))
    for key in keys[:10]:
        (order,) = Order.objects.using(name).filter(pk=key)
        assert order.pk == key
    assert figures(name) == (1, 10)
    connections[name].close()
    assert Order.objects.using(name).filter(pk=keys[3]).count() == 1  # another statement
    assert [order.pk for order in Order.objects.using(name).filter(pk=keys[3])] == [keys[3]]
    assert figures(name) == (1, 11)


def test_all_pages_have_one_plan(alias: Alias) -> None:
    name = alias()
    keys = fill(name)
    add_prepare_target(Order.objects.using(name).filter(words__contains="%").order_by("pk")[:5])
    add_prepare_target(Order.objects.using(name).filter(words__contains="%").order_by("pk")[5:10])
    for page in range(0, 30, 5):
        orders = Order.objects.using(name).filter(words__contains="it's 100%").order_by("pk")
        assert [order.pk for order in orders[page : page + 5]] == keys[page : page + 5]
    # The first page has no OFFSET.
    assert figures(name) == (2, 6)


def test_get_and_first_have_plans_of_their_own(alias: Alias) -> None:
    name = alias()
    keys = fill(name)
    add_prepare_target(Order.objects.using(name).filter(pk=0)[:21])
    add_prepare_target(Order.objects.using(name).order_by("pk")[:1])
    for key in keys[:3]:
        assert Order.objects.using(name).get(pk=key).pk == key
    first = Order.objects.using(name).first()
    assert first is not None
    assert first.pk == keys[0]
    assert figures(name) == (2, 4)


def test_sql_is_a_target_too_also_without_parameters_and_with_percent_signs(alias: Alias) -> None:
    name = alias()
    fill(name)
    with_parameters = (
        "select count(*) from cases_order where words like %s and words like '%%of 1%%'"
    )
    without = "select count(*) from cases_order where words like '%%of 2%%'"
    assert add_prepare_target(with_parameters, name) is add_prepare_target(with_parameters, name)
    for _ in range(3):
        assert ask(name, with_parameters, "it%") == 11
    assert figures(name) == (1, 3)
    add_prepare_target(without.replace("%%", "%%%%"), name)
    assert ask(name, "select count(*) from cases_order where words like %s", "%of 2%") == 11


def test_each_connection_prepares_for_itself_and_again_after_it_was_lost(alias: Alias) -> None:
    name = alias(POOL={"max_size": 3})
    add_prepare_target("select %s + 1", name)

    def work(number: int) -> Any:
        answer = ask(name, "select %s + 1", number)
        gevent.sleep(0.01)
        return answer

    workers = [gevent.spawn(work, number) for number in range(9)]
    assert [int(worker.get(timeout=60)) for worker in workers] == list(range(1, 10))
    geventpool.django.pool(name).disconnect()
    assert int(ask(name, "select %s + 1", 41)) == 42
    assert figures(name)[0] == 1


def test_a_plan_that_was_dropped_is_prepared_again(alias: Alias) -> None:
    name = alias()
    target = add_prepare_target("select %s + 1", name)
    assert int(ask(name, "select %s + 1", 1)) == 2
    with connections[name].cursor() as cursor:
        if IS_MYSQL:
            cursor.execute(f"deallocate prepare {target.name}")
        else:
            cursor.execute("discard all")
    assert int(ask(name, "select %s + 1", 2)) == 3
    assert int(ask(name, "select %s + 1", 3)) == 4


@pytest.mark.skipif(IS_MYSQL, reason="an error of MySQL's does not give the transaction up")
def test_in_a_transaction_the_error_says_what_to_do(alias: Alias) -> None:
    name = alias()
    statement = "select * from changing where a = %s"
    add_prepare_target(statement, name)

    def rows() -> Any:
        with connections[name].cursor() as cursor:
            cursor.execute(statement, [1])
            return cursor.fetchall()

    with connections["stock"].cursor() as other:
        other.execute("drop table if exists changing")
        other.execute("create table changing (a int)")
        other.execute("insert into changing values (1)")
        assert rows() == [(1,)]
        other.execute("alter table changing add b int default 5")
        with pytest.raises(OperationalError, match="run the whole transaction again") as raised:
            with transaction.atomic(using=name):
                rows()
        assert isinstance(raised.value, PlanLost)
        # Outside of one it is prepared again without a word.
        assert rows() == [(1, 5)]
        other.execute("alter table changing add c int default 6")
        assert rows() == [(1, 5, 6)]
        with transaction.atomic(using=name):
            assert rows() == [(1, 5, 6)]
        other.execute("drop table changing")


@pytest.mark.skipif(DRIVER == "psycopg", reason="psycopg bounds its plans by itself")
def test_a_connection_has_a_bounded_number_of_plans(alias: Alias) -> None:
    name = alias()
    statements = [f"select %s + {number}" for number in range(MOST_FOR_EACH_CONNECTION + 5)]
    for statement in statements:
        add_prepare_target(statement, name)
    for statement in statements * 2:
        ask(name, statement, 1)
    if not IS_MYSQL:
        assert figures(name)[0] == MOST_FOR_EACH_CONNECTION
    session = connections[name]._session
    assert len(session.prepared) == MOST_FOR_EACH_CONNECTION


def test_parameters_of_the_wrong_number_are_told_as_ever(alias: Alias) -> None:
    name = alias()
    sql = "select words from cases_order where words = %s and id = %s"

    def told(alias: str) -> list[type[Exception]]:
        found = []
        for parameters in (["a"], ["a", 1, 2]):
            with connections[alias].cursor() as cursor:
                try:
                    cursor.execute(sql, parameters)
                except Exception as error:
                    found.append(type(error))
        return found

    unprepared = told(name)
    add_prepare_target(sql, name)
    assert told(name) == unprepared == told("stock")
    assert len(unprepared) == 2


def test_without_parameters_percent_signs_are_what_they_are(alias: Alias) -> None:
    name = alias()
    add_prepare_target("select 'a%%b'", name)
    assert ask(name, "select 'a%%b'") == "a%%b"
    with connections[name].cursor() as cursor:
        cursor.execute("select 'a%%b'", [])
        with connections["stock"].cursor() as other:
            other.execute("select 'a%%b'", [])
            assert cursor.fetchone() == other.fetchone()


OF_POSTGRESQL = [
    ("real", "16777216", 16777217),
    ("time", "'03:00'", timedelta(days=1, hours=3)),
    ("interval", "'03:00'", time(3)),
    ("interval", "'1 day'", timedelta(days=1)),
    ("boolean", "true", True),
    ("uuid", "'00000000-0000-0000-0000-000000000001'", UUID(int=1)),
]


@pytest.mark.parametrize(
    ("kind", "value", "parameter"),
    [
        ("integer", "3", 2.5),
        ("integer", "3", Decimal("2.5")),
        ("integer", "3", -(2**40)),
        ("date", "'2024-01-02'", datetime(2024, 1, 1, 12)),
        ("numeric(9, 3)", "2.5", Decimal("2.5")),
        ("double precision", "2.5", 2.5),
        *([] if IS_MYSQL else OF_POSTGRESQL),
    ],
)
def test_a_parameter_is_compared_as_it_is(
    alias: Alias, kind: str, value: str, parameter: Any
) -> None:
    """The plan's parameter has the column's type, which is too narrow for it."""
    name = alias()
    with connections["stock"].cursor() as other:
        other.execute("drop table if exists narrow")
        other.execute(f"create table narrow (a {kind})")
        other.execute(f"insert into narrow values ({value})")
        try:
            for comparison in (">", "<", "="):
                sql = f"select count(*) from narrow where a {comparison} %s"
                add_prepare_target(sql, name)
                assert ask(name, sql, parameter) == ask("stock", sql, parameter), comparison
            assert figures(name)[0] == 3
        finally:
            connections[name].close()
            other.execute("drop table narrow")


def test_a_queryset_that_asks_nothing_is_refused() -> None:
    for nothing in (Order.objects.none(), Order.objects.filter(pk__in=[])):
        with pytest.raises(ConfigError, match="statement"):
            add_prepare_target(nothing)


@pytest.mark.skipif(IS_MYSQL, reason="PREPARE of MySQL's replaces what has the same name")
def test_a_plan_that_is_there_already_is_no_error(alias: Alias) -> None:
    """As behind a proxy that gives one server's session to several clients, one after the other."""
    name = alias()
    target = add_prepare_target("select %s + 1", name)
    with connections[name].cursor() as cursor:
        cursor.execute(f"prepare {target.name} as {target.postgresql()}")
        cursor.execute("prepare _pg3_0 as select 1")
    assert int(ask(name, "select %s + 1", 1)) == 2
    assert int(ask(name, "select %s + 1", 2)) == 3


@pytest.mark.skipif(not IS_MYSQL, reason="a limit of MySQL's")
def test_when_the_server_has_no_room_for_a_plan_the_statement_runs_without(alias: Alias) -> None:
    name = alias()
    add_prepare_target("select %s + 1", name)
    with connections["stock"].cursor() as other:
        other.execute("select @@global.max_prepared_stmt_count")
        (before,) = other.fetchone()
        other.execute("set global max_prepared_stmt_count = 0")
        try:
            assert int(ask(name, "select %s + 1", 1)) == 2
            assert not connections[name]._session.prepared
        finally:
            other.execute("set global max_prepared_stmt_count = %s", [before])
    assert int(ask(name, "select %s + 1", 2)) == 3
    assert len(connections[name]._session.prepared) == 1


def test_errors_are_djangos_and_others_statements_go_on_as_ever(alias: Alias) -> None:
    name = alias()
    add_prepare_target("select nothing_of_the_kind where 1 = %s", name)
    with pytest.raises(DatabaseError):
        ask(name, "select nothing_of_the_kind where 1 = %s", 1)
    add_prepare_target("insert into cases_order (words) values (%s)", name)
    with connections[name].cursor() as cursor:
        for word in ("it's", "50%", "ü", "back\\slash"):
            cursor.execute("insert into cases_order (words) values (%s)", [word])
            assert cursor.rowcount == 1
        cursor.executemany("insert into cases_order (words) values (%s)", [["a"], ["b"]])
        cursor.execute("select words from cases_order order by id")
        assert [word for (word,) in cursor] == ["it's", "50%", "ü", "back\\slash", "a", "b"]
