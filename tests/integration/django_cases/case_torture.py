"""What `tests/stress` does to a pool, done through Django: the same must be true."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from django.db import Error, InterfaceError, OperationalError, connections, models, transaction
from sqlalchemy import make_url

import geventpool.django
from geventpool.django import AliasPool, plans
from tools.servers import MariaDB, PostgreSQL

from ...stress import test_random_kills as random_kills
from ...stress.scene import GREENLETS, MAX_SIZE, SLACK, STEP, Connects, Load, Scene
from ...stress.server_side import Observer, make_databases, new_random
from ..dbapi import eventually
from ..proxy import Proxy
from .conftest import DRIVER, IS_MYSQL

Alias = Callable[..., str]
SLEEP = f"select {'sleep' if IS_MYSQL else 'pg_sleep'}(%s)"
SAVED = "update django_hits set x = %s where id = %s"
NAME = "geventpool_django_torture"
OF_DRIVER = "pymysql" if IS_MYSQL else DRIVER


class Hit(models.Model):
    """A row that a request has written."""

    x = models.IntegerField()

    class Meta:
        app_label = "cases"
        db_table = "django_hits"


def prepare(engine: Any) -> None:
    with engine.begin() as connection:
        key = "int auto_increment primary key" if IS_MYSQL else "serial primary key"
        connection.exec_driver_sql(f"create table django_hits (id {key}, x int)")


@pytest.fixture(scope="module")
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    databases = make_databases(request, NAME, prepare)
    yield next(databases)(OF_DRIVER)
    next(databases, None)


@pytest.fixture(autouse=True)
def _nothing_is_left_of_the_test_before(url: str) -> None:
    observer = Observer(url)
    observer.assert_settles(lambda: 0)
    observer.close()


def pool_of(alias: str) -> AliasPool:
    return geventpool.django.pool(alias)


def ask(wrapper: Any, token: int) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute(f"select {token}")
        assert cursor.fetchone() == (token,), "another's answer"


def nap(alias: str, seconds: float) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(SLEEP, [seconds])


@contextlib.contextmanager
def a_request(alias: str) -> Iterator[None]:
    """What Django does before and after a view."""
    connections[alias].close_if_unusable_or_obsolete()
    try:
        yield
    finally:
        connections[alias].close_if_unusable_or_obsolete()


class DjangoKills(random_kills.Load):
    """Two hundred greenlets whose views write in nested blocks."""

    def __init__(self, alias: str, url: str, numbers: random.Random) -> None:
        self.alias = alias
        self.numbers = numbers
        self.engine: Any = SimpleNamespace(pool=pool_of(alias))
        self.observer = Observer(url)
        self.tokens = itertools.count(1)
        self.counts: Counter[str] = Counter()
        self.most_connections = 0
        self.is_over = False

    def request(self) -> None:
        token = next(self.tokens)
        with a_request(self.alias):
            with transaction.atomic(using=self.alias, durable=True):
                hit = Hit.objects.using(self.alias).create(x=token % 1000)
                nap(self.alias, 0.003)
                with (
                    contextlib.suppress(ZeroDivisionError),
                    transaction.atomic(using=self.alias),
                ):
                    with connections[self.alias].cursor() as cursor:
                        cursor.execute(SAVED, [-1, hit.pk])
                    nap(self.alias, 0.002)
                    raise ZeroDivisionError
                found = Hit.objects.using(self.alias).get(pk=hit.pk)
                assert found.x == token % 1000, "the savepoint was not rolled back"
            ask(connections[self.alias], token)

    def check(self) -> None:
        pool = self.engine.pool
        wrappers = [connections[self.alias].copy() for _ in range(random_kills.MAX_SIZE)]
        with gevent.Timeout(random_kills.LONGEST):
            for token, wrapper in enumerate(wrappers):
                ask(wrapper, token)
        for wrapper in wrappers:
            wrapper.close()
        assert not Hit.objects.using(self.alias).filter(x=-1).exists()
        connections[self.alias].close()
        self.observer.assert_settles(lambda: pool.stats().size)
        stats = pool.stats()
        assert (stats.in_use, stats.opening, stats.closing, stats.waiting) == (0, 0, 0, 0)
        assert stats.owners_ended == 0
        self.observer.close()


@pytest.fixture
def targets() -> Iterator[None]:
    yield
    plans._targets.clear()


@pytest.mark.parametrize("how", ["bare", "observed", "prepared"])
@pytest.mark.usefixtures("targets")
def test_random_kills_cost_no_more_than_the_requests_that_they_hit(
    alias: Alias, url: str, how: str
) -> None:
    settings: dict[str, Any] = {"max_size": random_kills.MAX_SIZE, "timeout": random_kills.LONGEST}
    if how == "observed":
        settings["observe"] = {"publish": False, "held_after": None}
    name = alias(NAME=NAME, POOL=settings)
    if how == "prepared":
        plans.add_prepare_target(Hit.objects.using(name).filter(pk=0)[:21])
        plans.add_prepare_target(SLEEP, name)
        plans.add_prepare_target(SAVED, name)
    load = DjangoKills(name, url, new_random())
    goodput = load.run(kills=True)
    assert load.counts["killed"] > 10  # how many it can be depends on what else the machine does
    assert goodput == 1.0, load.counts
    # MySQL has no cancel message: a helper connection beside the pool ends abandoned queries.
    assert load.most_connections <= random_kills.MAX_SIZE + IS_MYSQL
    if how == "observed":
        [listener] = pool_of(name).core.listeners
        assert listener.holds == {}
        listener.observer.detach()


def test_time_outs_around_long_queries_leave_no_abandoned_queries(alias: Alias, url: str) -> None:
    name = alias(NAME=NAME, POOL={"max_size": MAX_SIZE, "timeout": 30})
    observer, most, timed_out = Observer(url), [0], []
    goes_on = [True]

    def work() -> None:
        for _ in range(5):
            with contextlib.suppress(OperationalError), a_request(name):
                with gevent.Timeout(0.1, False):
                    with transaction.atomic(using=name):
                        Hit.objects.using(name).create(x=-2)
                        nap(name, 4.0)
                    raise AssertionError("it was not timed out")
                timed_out.append(1)

    def watch() -> None:
        while goes_on:
            most[0] = max(most[0], len(observer.ids()))
            gevent.sleep(0.01)

    watcher = gevent.spawn(watch)
    workers = [gevent.spawn(work) for _ in range(GREENLETS)]
    began = time.monotonic()
    gevent.joinall(workers, timeout=60, raise_error=True)
    assert all(worker.dead for worker in workers)
    assert len(timed_out) == 5 * GREENLETS
    with a_request(name):
        ask(connections[name], 7)
        assert Hit.objects.using(name).filter(x=-2).count() == 0
    goes_on.clear()
    watcher.get(timeout=20)
    assert most[0] <= MAX_SIZE + IS_MYSQL
    assert time.monotonic() - began < 60
    observer.assert_settles(lambda: pool_of(name).stats().size)
    observer.close()


def test_a_greenlet_goes_on_after_a_time_out_that_it_has_caught(alias: Alias, url: str) -> None:
    """In one request, and in the same block: what comes next never reads the answer before."""
    name = alias(NAME=NAME, POOL={"max_size": 1, "timeout": 20})
    for token in range(5):
        with a_request(name):
            with gevent.Timeout(0.05, False):
                nap(name, 3.0)
            try:
                ask(connections[name], token)
            except Error:
                connections[name].close()
                ask(connections[name], token)
        with a_request(name), contextlib.suppress(Error), transaction.atomic(using=name):
            Hit.objects.using(name).create(x=-3)
            with gevent.Timeout(0.05, False):
                nap(name, 3.0)
            ask(connections[name], token)
    with a_request(name):
        assert not Hit.objects.using(name).filter(x=-3).exists()
    assert pool_of(name).stats().in_use == 0


class DjangoScene(Scene):
    """An alias under load. What is opened for it is counted as for an engine."""

    def __init__(self, alias: str, url: str) -> None:
        self._url = url
        self.alias = alias
        self.connects = Connects()
        opener = self.pool.opener
        dialect = SimpleNamespace(connect=opener.open_connection)
        self.pool._connect = lambda: self.connects.connect(dialect, None, (), {})
        self.observer = Observer(url)
        self.most = 0

    def __exit__(self, *_: object) -> None:
        self.observer.close()

    @property
    def pool(self) -> Any:
        return pool_of(self.alias)

    def ask(self, wrapper: Any) -> None:
        ask(wrapper, next(self.tokens))

    tokens = itertools.count(1)

    def request(self, seconds: float = 0.0) -> None:
        with a_request(self.alias):
            if seconds:
                nap(self.alias, seconds)
            self.ask(connections[self.alias])

    def lend(self, count: int) -> list[Any]:
        wrappers = [connections[self.alias].copy() for _ in range(count)]
        with gevent.Timeout(20):
            for wrapper in wrappers:
                self.ask(wrapper)
        return wrappers


class DjangoLoad(Load):
    """Requests."""

    EXPECTED = (Error,)


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"max_size": MAX_SIZE, "min_idle": MAX_SIZE, "timeout": 30}


def test_while_a_server_is_down_requests_fail_fast_and_its_return_is_found(
    alias: Alias, settings: Any
) -> None:
    with (MariaDB if IS_MYSQL else PostgreSQL)() as server:
        name = alias(NAME=server.database, PORT=str(server.port), POOL=settings)
        with DjangoScene(name, server.url(OF_DRIVER)) as scene:
            load = DjangoLoad(scene)
            _, up_at = scene.survive_a_kill(server, load, 1.0)
            kinds = {type(one.error) for one in load.errors()}
            assert kinds <= {OperationalError, InterfaceError}, "the database's own errors"
            assert max(one.ended - one.began for one in load.ended) < STEP + SLACK
            assert max(one.ended for one in load.errors()) - up_at < STEP + SLACK
            scene.assert_right()
        pool_of(name).close()


def test_all_connections_killed_cost_one_error_where_they_were_in_use_and_none_idle(
    alias: Alias, url: str, settings: Any
) -> None:
    with DjangoScene(alias(NAME=NAME, POOL=settings), url) as scene:
        scene.fill()
        in_use = scene.lend(2)
        assert scene.kill_all() == MAX_SIZE
        scene.assert_only_used_ones_fail(in_use, (OperationalError, InterfaceError))


def test_all_connections_killed_under_load_cost_at_most_one_error_each(
    alias: Alias, url: str, settings: Any
) -> None:
    with DjangoScene(alias(NAME=NAME, POOL=settings), url) as scene:
        scene.fill()
        load = DjangoLoad(scene, pause=0.002)
        gevent.sleep(0.1)
        killed = scene.kill_all()
        gevent.sleep(0.2)
        load.stop()
        assert killed == MAX_SIZE
        assert len(load.errors()) <= killed
        scene.assert_right()


def test_connections_reset_by_the_network_cost_one_error_where_they_were_in_use_and_none_idle(
    alias: Alias, url: str, settings: Any
) -> None:
    where = make_url(url)
    with Proxy(where.host or "", where.port or 0) as proxy:
        port = str(make_url(proxy.url(url)).port)
        with DjangoScene(alias(NAME=NAME, PORT=port, POOL=settings), url) as scene:
            scene.fill()
            in_use = scene.lend(2)
            proxy.cut()
            scene.assert_only_used_ones_fail(in_use, (OperationalError, InterfaceError))
            scene.pool.disconnect()
            assert eventually(lambda: proxy.figures().live == 0)


def test_requests_beyond_the_maximum_are_served_in_turn_with_a_task_that_never_ends_its_request(
    alias: Alias, url: str
) -> None:
    """A worker of a task queue that sends no `request_finished` keeps one, as long as it lives."""
    name = alias(NAME=NAME, POOL={"max_size": 3, "timeout": 20})
    goes_on = [True]

    def task() -> None:
        number = 0
        while goes_on[0]:
            number += 1
            ask(connections[name], number)
            gevent.sleep(0.001)

    def view(number: int) -> None:
        for _ in range(20):
            with a_request(name):
                ask(connections[name], number)

    tasks = [gevent.spawn(task) for _ in range(2)]
    views = [gevent.spawn(view, number) for number in range(GREENLETS)]
    gevent.joinall(views, timeout=20, raise_error=True)
    assert all(one.dead for one in views)
    assert pool_of(name).stats().in_use == 2
    goes_on[0] = False
    gevent.joinall(tasks, timeout=20, raise_error=True)
    assert eventually(lambda: pool_of(name).stats().in_use == 0)
    assert pool_of(name).stats().size <= 3
