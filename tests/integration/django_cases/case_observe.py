"""Holders, transactions and queries of Django's aliases."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from django.core.management import call_command
from django.db import DatabaseError, connections, transaction

import geventpool.django
import geventpool.observe
from geventpool import ConfigError
from geventpool.django import alias_pool
from geventpool.observe.files import VARIABLE, publisher
from geventpool.observe.watcher import watcher_of

from ...stress.test_kill_sweep import Kill
from .conftest import DRIVER, IS_MYSQL, PID, Order, ask, request

Alias = Callable[..., str]
IS_BLOCKING = DRIVER == "mysqlclient"


@pytest.fixture(autouse=True)
def _nobody_observes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    yield
    published = publisher()
    if published is not None:
        published.stop()
    alias_pool.followers.clear()


def test_a_holder_has_three_stacks_and_its_transaction(alias: Alias) -> None:
    name = alias()
    observer = geventpool.observe.attach(name)
    with transaction.atomic(using=name):
        Order.objects.using(name).create(words="secret")
        pid = ask(name)
        (holder,) = observer.holders()
        assert (holder.pool, holder.connection) == (name, pid)
        assert holder.state == "idle in transaction"
        assert holder.in_transaction_for is not None
        assert holder.queries >= 2
        assert "secret" not in holder.tell()
        for lines in (holder.taken_at, holder.cursor_at, holder.executed_at, holder.now_at):
            assert any(
                line[2] == "test_a_holder_has_three_stacks_and_its_transaction" for line in lines
            )
        assert Path(__file__).name in holder.site
    assert observer.holders()[0].in_transaction_for is None
    connections[name].close()
    assert observer.holders() == []
    observer.detach()


def test_queries_are_counted_by_fingerprint_and_failing_ones_too(alias: Alias) -> None:
    name = alias()
    observer = geventpool.observe.attach(name)
    for number in range(5):
        assert list(Order.objects.using(name).filter(words=f"word {number}")) == []
    with pytest.raises(DatabaseError):
        ask(name, "select nothing_of_the_kind")
    connections[name].close()
    assert observer.queries is not None
    by_calls = observer.queries.report("calls")
    assert by_calls[0].calls == 5
    assert "words" in by_calls[0].text
    assert Path(__file__).name in str(by_calls[0].site)
    (failed,) = [query for query in observer.queries.report("errors") if query.errors]
    assert (failed.calls, failed.errors) == (1, 1)
    observer.detach()


@pytest.mark.skipif(IS_BLOCKING, reason="no kill can arrive in what blocks the hub")
@pytest.mark.parametrize("kind", [gevent.GreenletExit, gevent.Timeout, Kill])
def test_a_kill_in_a_query_leaves_no_hold_behind(alias: Alias, kind: Any) -> None:
    name = alias()
    observer = geventpool.observe.attach(name)
    sleep = f"select {'sleep' if IS_MYSQL else 'pg_sleep'}(5)"
    victim = gevent.spawn(request, name, sleep)
    gevent.sleep(0.2)
    (holder,) = observer.holders()
    assert holder.state == "active"
    victim.kill(kind)
    assert observer.holders() == []
    assert observer.watcher.holds == {}
    assert observer.queries is not None
    assert sum(query.errors for query in observer.queries.report("errors")) == 1
    observer.detach()


def test_many_rows_and_a_page_of_many_are_seen(alias: Alias) -> None:
    name = alias()
    observer = geventpool.observe.attach(name)
    Order.objects.using(name).bulk_create([Order(words=str(number)) for number in range(25)])
    rows = Order.objects.using(name).order_by("pk").iterator(chunk_size=10)
    assert [order.words for order in rows] == [str(number) for number in range(25)]
    with connections[name].cursor() as cursor:
        cursor.executemany("insert into cases_order (words) values (%s)", [("a",), ("b",)])
    assert observer.queries is not None
    texts = " ".join(query.text.lower() for query in observer.queries.report("calls"))
    assert "insert into" in texts
    assert "select" in texts
    observer.detach()


def test_a_prepared_plan_is_told_of_as_the_statement_that_it_is(alias: Alias) -> None:
    name = alias()
    geventpool.django.add_prepare_target(Order.objects.using(name).filter(words=""))
    observer = geventpool.observe.attach(name)
    for _ in range(3):
        list(Order.objects.using(name).filter(words="x"))
    assert observer.queries is not None
    (query,) = [one for one in observer.queries.report("calls") if "words" in one.text]
    assert query.calls == 3
    assert "EXECUTE" not in query.text
    observer.detach()


def test_detached_the_drivers_own_cursors_are_back(alias: Alias) -> None:
    name = alias()
    observer = geventpool.observe.attach(name)
    with pytest.raises(ConfigError, match="watched already"):
        geventpool.observe.attach(name)
    with connections[name].cursor() as cursor:
        assert type(cursor.cursor).__module__ == "geventpool.observe.dbapi"
    observer.detach()
    with connections[name].cursor() as cursor:
        assert type(cursor.cursor).__module__ != "geventpool.observe.dbapi"
    geventpool.observe.attach(name).detach()


def test_what_is_no_alias_or_has_no_pool_is_refused() -> None:
    with pytest.raises(ConfigError, match="no such alias"):
        geventpool.observe.attach("nothing")
    with pytest.raises(ConfigError, match="ENGINE"):
        geventpool.observe.attach("stock")


def test_an_observer_follows_its_alias_to_another_pool(alias: Alias) -> None:
    name = alias()
    observer = geventpool.observe.attach(name)
    request(name)
    wrapper = connections[name].copy()
    wrapper.settings_dict["OPTIONS"] = {"connect_timeout": 7}  # the same place, another pool
    with wrapper.cursor() as cursor:
        cursor.execute(PID)
        assert len(observer.holders()) == 1
    wrapper.close()
    assert sum(observer.figures.hold.counts) == 2
    observer.detach()


def test_a_setting_observes_from_the_first_borrow_and_publishes(
    alias: Alias, tmp_path: Path
) -> None:
    name = alias(POOL={"observe": {"stacks": 0.0, "held_after": None}})
    assert ask(name)
    pool = geventpool.django.pool(name)
    assert watcher_of(pool.core).observer.settings.stacks == 0.0
    published = publisher()
    assert published is not None
    published.write()
    (said,) = geventpool.observe.read_snapshots(tmp_path)
    (found,) = [one for one in said["pools"] if one["name"] == name]
    assert len(found["observed"]["holders"]) == 1
    watcher_of(pool.core).observer.detach()


def test_a_directory_that_cannot_be_written_hinders_nobody(alias: Alias, caplog: Any) -> None:
    name = alias(POOL={"observe": {"publish": "/proc/nothing"}})
    assert request(name)
    assert "nothing is published" in caplog.text
    watcher_of(geventpool.django.pool(name).core).observer.detach()


@pytest.mark.parametrize(
    "observe", ["yes", {"stack": 1}, {"stacks": 2}, {"queries": "many"}], ids=repr
)
def test_a_wrong_setting_is_told(alias: Alias, observe: object) -> None:
    name = alias(POOL={"observe": observe})
    with pytest.raises(ConfigError, match=r"observe|stacks|queries"):
        geventpool.django.pool(name)


PROGRAM = """
from tests.integration.django_cases.conftest import *
import sys
from django.db import transaction
import geventpool.observe
import geventpool.django
geventpool.observe.attach("default", held_after=None)
geventpool.observe.publish()
with transaction.atomic():
    ask()
    geventpool.observe.publish()
    print("ready", flush=True)
    sys.stdin.readline()
"""


def test_top_shows_the_holders_of_another_process(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[3],
        env={**os.environ, VARIABLE: str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        out = io.StringIO()
        call_command("geventpool", "top", database="default", count=1, stdout=out)
    finally:
        process.communicate("\n", timeout=20)
    assert "holders, longest first" in out.getvalue()
    assert str(process.pid) in out.getvalue()
