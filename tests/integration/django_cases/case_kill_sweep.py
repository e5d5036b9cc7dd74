"""The kill sweep of `tests/stress`, through Django's ORM: the same kills, and the same must be true."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import gevent
import pytest
from django.db import connections, models, transaction

import geventpool.django
from geventpool.django import AliasPool

from ...stress.server_side import IS_WHOLE, Observer, make_databases
from ...stress.test_kill_sweep import KINDS, MAX_SIZE, TIMEOUT, Sweep, sweep_over
from ...stress.test_kill_sweep import prepare as prepare_tables
from .conftest import DRIVER, IS_MYSQL, KIND

if DRIVER == "mysqlclient":
    pytest.skip("no kill can arrive in what blocks the hub", allow_module_level=True)

_tokens = itertools.count(1)


class Purchase(models.Model):
    """The sweep's table `orders`."""

    class Meta:
        app_label = "cases"
        db_table = "orders"
        managed = False


class Page(models.Model):
    """The sweep's table `pages`."""

    number = models.IntegerField(primary_key=True)
    words = models.CharField(max_length=2000)

    class Meta:
        app_label = "cases"
        db_table = "pages"
        managed = False


class DjangoSweep(Sweep):
    """The units of work are an application's, as a request would run them."""

    def __init__(self, alias: str, url: str) -> None:
        self.alias = alias
        self.observer = Observer(url)
        self.nap = f"select {'sleep' if IS_MYSQL else 'pg_sleep'}(0.003)"
        self.insert = f"insert into orders {'values ()' if IS_MYSQL else 'default values'}"

    def close(self) -> None:
        geventpool.django.pool(self.alias).close()
        self.observer.close()

    @property
    def pool(self) -> AliasPool:
        return geventpool.django.pool(self.alias)

    @contextlib.contextmanager
    def lend(self) -> Iterator[Any]:
        wrapper = connections[self.alias].copy()
        wrapper.ensure_connection()
        try:
            yield wrapper
        finally:
            wrapper.close()

    def ask(self, wrapper: Any) -> None:
        token = next(_tokens)
        with wrapper.cursor() as cursor:
            cursor.execute(f"select {token}")
            assert cursor.fetchone() == (token,)

    def run(self, sql: str) -> None:
        with connections[self.alias].cursor() as cursor:
            cursor.execute(sql)

    def request(self, view: Callable[[], object]) -> None:
        try:
            view()
        finally:
            connections[self.alias].close_if_unusable_or_obsolete()

    def begin_again(self) -> None:
        pass

    def transaction(self) -> None:
        def view() -> None:
            with transaction.atomic(using=self.alias):
                self.run(self.insert)
                self.run(self.nap)
                self.ask(connections[self.alias])

        self.request(view)

    def autocommit(self) -> None:
        def view() -> None:
            self.run(self.insert)
            self.run(self.nap)
            self.ask(connections[self.alias])

        self.request(view)

    def nested_transaction(self) -> None:
        def view() -> None:
            with transaction.atomic(using=self.alias):
                with transaction.atomic(using=self.alias):
                    self.run(self.insert)
                    self.run(self.nap)
                with suppress(ZeroDivisionError), transaction.atomic(using=self.alias):
                    self.run(self.insert)
                    raise ZeroDivisionError

        self.request(view)

    def orm(self) -> None:
        def view() -> None:
            with transaction.atomic(using=self.alias):
                purchase = Purchase.objects.using(self.alias).create()
                Purchase.objects.using(self.alias).select_for_update().get(pk=purchase.pk)
                self.run(self.nap)
            assert Purchase.objects.using(self.alias).filter(pk=purchase.pk).exists()

        self.request(view)

    def iterator_left_in_the_middle(self) -> None:
        def view() -> None:
            self.run(self.nap)
            # Kept: a generator that is dropped ends its cursor, where a kill would be lost.
            self.pages = Page.objects.using(self.alias).order_by("number").iterator(chunk_size=10)
            assert [next(self.pages).number for _ in range(25)] == list(range(25))

        self.request(view)

    def left_in_a_transaction(self) -> None:
        """The greenlet just ends."""
        if not isinstance(gevent.getcurrent(), gevent.Greenlet):
            gevent.spawn(self.left_in_a_transaction).get()
            return
        connections[self.alias].set_autocommit(False)
        self.run(self.insert)
        self.run(self.nap)

    def reset_of_an_open_transaction(self) -> None:
        def view() -> None:
            connections[self.alias].set_autocommit(False)
            self.run(self.insert)
            self.run(self.nap)
            connections[self.alias].close()

        self.request(view)

    def _hold(self, seconds: float) -> None:
        with self.lend():
            gevent.sleep(seconds)

    def behind(self) -> None:
        with self.lend() as wrapper:
            self.ask(wrapper)

    def check(self) -> None:
        with gevent.Timeout(30):
            wrappers = [connections[self.alias].copy() for _ in range(MAX_SIZE)]
            for wrapper in wrappers:
                self.ask(wrapper)
        for timeout in (0, 0.001):
            self.pool.configure(timeout=timeout)
            with pytest.raises(geventpool.PoolTimeout), self.lend():
                pass
        self.pool.configure(timeout=TIMEOUT)
        for wrapper in wrappers:
            wrapper.close()
        self.observer.assert_settles(lambda: self.pool.stats().size)
        stats = self.pool.stats()
        assert (stats.in_use, stats.waiting, stats.opening, stats.owners_ended) == (0, 0, 0, 0)


UNITS = [
    "transaction",
    "autocommit",
    "nested_transaction",
    "orm",
    "iterator_left_in_the_middle",
    "left_in_a_transaction",
    "reset_of_an_open_transaction",
    "opening",
    "pinging",
    "disposing",
    "waiting_in_a_full_pool",
]


@pytest.fixture(scope="module")
def url_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    yield from make_databases(request, "geventpool_django_sweep", prepare_tables)


@pytest.mark.parametrize("kinds", [[kind] for kind in KINDS] if IS_WHOLE else [KINDS])
@pytest.mark.parametrize("pings", [False, True])
@pytest.mark.parametrize("unit", UNITS)
def test_a_kill_at_any_switch_leaves_the_pool_right(
    unit: str, pings: bool, kinds: Any, alias: Callable[..., str], url_of: Callable[[str], str]
) -> None:
    if pings and unit not in ("transaction", "pinging") and not IS_WHOLE:
        pytest.skip("only with GEVENTPOOL_STRESS")
    url = url_of("pymysql" if IS_MYSQL else DRIVER)
    settings = {"max_size": MAX_SIZE, "timeout": TIMEOUT, "django_pre_ping": pings}
    name = alias(ENGINE=f"geventpool.django.{KIND}", NAME="geventpool_django_sweep", POOL=settings)
    sweep = DjangoSweep(name, url)
    try:
        sweep_over(sweep, unit, kinds)
    finally:
        sweep.close()
