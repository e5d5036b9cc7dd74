"""Observers on real servers: they agree with what the server says of itself, and tell no secrets."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, Engine
from sqlalchemy.pool import NullPool

import geventpool.observe
from geventpool import ConnectionPool, PoolTimeout
from geventpool.cli import main
from geventpool.observe.holds import ACTIVE, IDLE, IN_TRANSACTION
from geventpool.observe.prometheus import exposition
from geventpool.sqlalchemy import GeventPool

from .dbapi import ALL, MYSQL, module_of, open_connection, server_of, set_autocommit

SECRET = "hunter2-planted"


@pytest.fixture(params=ALL)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine with each driver, with a table."""
    module_of(request.param)
    url = server_of(request, request.param).url(request.param.lower())
    engine = create_engine(url, poolclass=GeventPool)
    with engine.begin() as connection:
        connection.execute(text("drop table if exists observed"))
        connection.execute(text("create table observed (a int, b varchar(99))"))
    yield engine
    with engine.begin() as connection:
        connection.execute(text("drop table observed"))
    engine.dispose()


class Server:
    """What the server says of its sessions, asked on a connection of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = create_engine(engine.url, poolclass=NullPool)

    def state(self, number: int) -> str:
        with self._engine.connect() as connection:
            if self._engine.dialect.name == "postgresql":
                ask = text("select state from pg_stat_activity where pid = :number")
                return str(connection.scalar(ask, {"number": number}))
            gevent.sleep(0.15)  # for so long InnoDB says of its transactions what it said before
            ask = text("select command from information_schema.processlist where id = :number")
            if connection.scalar(ask, {"number": number}) == "Query":
                return ACTIVE
            ask = text(
                "select count(*) from information_schema.innodb_trx where trx_mysql_thread_id = :number"
            )
            return IN_TRANSACTION if connection.scalar(ask, {"number": number}) else IDLE


def test_what_is_told_of_a_connection_is_what_the_server_says(engine: Engine) -> None:
    observer = geventpool.observe.attach(engine)
    server = Server(engine)

    def agree() -> str:
        [holder] = observer.holders()
        assert server.state(holder.connection) == holder.state
        return holder.state

    is_postgresql = engine.dialect.name == "postgresql"
    sleep = "select pg_sleep(1)" if is_postgresql else "select sleep(1)"
    insert = text("insert into observed values (1, 'x')")
    with engine.connect() as connection:
        assert agree() == IDLE
        connection.execute(insert)
        assert agree() == IN_TRANSACTION
        connection.commit()
        assert agree() == IDLE
        connection.execute(insert)
        connection.execute(text("select count(*) from observed"))
        assert agree() == IN_TRANSACTION
        connection.rollback()
        assert agree() == IDLE
        if is_cooperative(engine.dialect.driver):
            query = gevent.spawn(connection.execute, text(sleep))
            gevent.sleep(0.3)
            assert agree() == ACTIVE
            query.join()
    assert observer.holders() == []
    told: Counter[str] = Counter()
    for query_stats in observer.queries.report():  # type: ignore[union-attr]
        told[query_stats.text.partition(" ")[0]] += query_stats.calls
    assert told == {"insert": 2, "select": 1 + is_cooperative(engine.dialect.driver)}
    observer.detach()


def is_cooperative(driver: str) -> bool:
    """Do other greenlets run while a query does, as these tests are run?"""
    if driver == "psycopg2":
        from psycopg2 import extensions

        return extensions.get_wait_callback() is not None
    return driver != "mysqldb"


@pytest.mark.parametrize("name", ALL)
def test_the_raw_pool_agrees_with_the_server_too(name: str, request: pytest.FixtureRequest) -> None:
    module_of(name)
    served = server_of(request, name)
    url = served.url(name.lower())
    pool = ConnectionPool(lambda: open_connection(name, url), max_size=2)
    observer = geventpool.observe.attach(pool)
    server = Server(create_engine(served.url("pymysql" if name in MYSQL else "psycopg")))

    def agree(number: int | None) -> str:
        [holder] = observer.holders()
        assert number is None or holder.connection == number
        assert server.state(holder.connection) == holder.state
        return holder.state

    ask = "select connection_id()" if name in MYSQL else "select pg_backend_pid()"
    with pool.connection() as connection:
        cursor = connection.cursor()
        cursor.execute(ask)
        [number] = cursor.fetchone()
        cursor.execute("create table if not exists observed_raw (a int)")
        connection.commit()
        assert agree(number) == IDLE
        cursor.execute("insert into observed_raw values (%s)", (1,))
        assert agree(number) == IN_TRANSACTION
        assert observer.holders()[0].in_transaction_for > 0  # type: ignore[operator]
        connection.rollback()
        assert agree(number) == IDLE
        cursor.executemany("insert into observed_raw values (%s)", [(2,), (3,)])
        assert agree(number) == IN_TRANSACTION
        cursor.execute("commit")
        assert agree(number) == IDLE
        with pytest.raises(Exception, match="observed_nowhere"):
            cursor.execute("select * from observed_nowhere where a = 'planted'")
        connection.rollback()
        cursor.execute("drop table observed_raw")
        connection.commit()
        cursor.close()
    with pool.connection() as connection:  # the bookkeeping begins anew
        set_autocommit(name, connection, is_on=True)
        cursor = connection.cursor()
        cursor.execute(ask)
        assert agree(None) == IDLE
        cursor.close()
        set_autocommit(name, connection, is_on=False)
    told = {query.text: (query.calls, query.errors) for query in observer.queries.report()}  # type: ignore[union-attr]
    assert told["insert into observed_raw values (%s)"] == (2, 0)
    assert told["select * from observed_nowhere where a = ?"] == (1, 1)
    assert told[ask] == (2, 0)
    pool.close()


@pytest.mark.parametrize("name", ["psycopg", "pg8000"])
def test_a_connection_is_not_closed_under_a_commit_that_takes_its_time(
    name: str, postgresql: Any
) -> None:
    url = postgresql.url(name)
    pool = ConnectionPool(lambda: open_connection(name, url))
    observer = geventpool.observe.attach(pool, held_after=0.2, kill=True)
    with pool.connection() as connection:
        cursor = connection.cursor()
        cursor.execute("drop table if exists slow_commit")
        cursor.execute("create table slow_commit (a int)")
        cursor.execute(
            "create or replace function be_slow() returns trigger language plpgsql as "
            "$$begin perform pg_sleep(1); return null; end$$"
        )
        cursor.execute(
            "create constraint trigger be_slow after insert on slow_commit deferrable "
            "initially deferred for each row execute function be_slow()"
        )
        connection.commit()
        cursor.execute("insert into slow_commit values (1)")
        ending = gevent.spawn(connection.commit)
        gevent.sleep(0.3)
        assert observer.holders()[0].state == ACTIVE
        ending.get()
        assert observer.warnings == {"held for too long": 1}
    with pool.connection() as connection:
        cursor = connection.cursor()
        cursor.execute("select count(*) from slow_commit")
        assert cursor.fetchone()[0] == 1
        cursor.execute("drop table slow_commit")
        connection.commit()
    assert pool.stats().closed == {}
    pool.close()


def test_a_kill_ends_the_servers_transaction_too(mariadb: Any, caplog: Any) -> None:
    engine = create_engine(mariadb.url("pymysql"), poolclass=GeventPool)
    observer = geventpool.observe.attach(engine, idle_in_transaction_after=0.2, kill=True)
    with engine.connect() as connection:
        connection.execute(text("create table if not exists killed (a int)"))
        connection.execute(text("insert into killed values (1)"))
        [holder] = observer.holders()
        gevent.sleep(0.6)
        assert Server(engine).state(holder.connection) == IDLE  # it is not there any more
        with pytest.raises(Exception, match=r"closed|Lost|\(0, ''\)"):
            connection.execute(text("select 1"))
    stats = engine.pool.stats()  # type: ignore[attr-defined]
    assert (stats.closed, stats.in_use) == ({"killed": 1}, 0)
    assert "It is closed now" in caplog.text
    with engine.begin() as connection:
        assert connection.scalar(text("select count(*) from killed")) == 0
        connection.execute(text("drop table killed"))
    engine.dispose()


def test_statements_of_the_orm_and_of_streams_are_seen(engine: Engine) -> None:
    observer = geventpool.observe.attach(engine)
    with engine.connect() as connection:
        rows = [{"a": number, "b": "x"} for number in range(50)]
        connection.execute(text("insert into observed values (:a, :b)"), rows)
        streaming = connection.execution_options(stream_results=True)
        found = streaming.execute(text("select a from observed where b = :b"), {"b": "x"})
        assert len(found.fetchall()) == 50
    told = {query.text.partition(" ")[0]: query.calls for query in observer.queries.report()}  # type: ignore[union-attr]
    assert told == {"insert": 1, "select": 1}
    observer.detach()


@pytest.mark.parametrize("name", ["pymysql", "psycopg", "psycopg2", "pg8000"])
def test_a_planted_secret_appears_nowhere(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, logger="sqlalchemy")
    root = create_engine(server_of(request, name).url(name))
    is_mysql = name in MYSQL
    with root.begin() as connection:
        if is_mysql:
            connection.exec_driver_sql(f"create or replace user planted identified by '{SECRET}'")
            connection.exec_driver_sql("grant all on *.* to planted")
        else:
            connection.exec_driver_sql("drop role if exists planted")
            connection.exec_driver_sql(f"create role planted login password '{SECRET}'")
    url = root.url.set(username="planted", password=SECRET)
    engine = create_engine(
        url,
        poolclass=GeventPool,
        max_size=1,
        hide_parameters=True,
        echo_pool="debug",
    )
    observer = geventpool.observe.attach(
        engine, idle_in_transaction_after=0.1, held_after=0.1, slow_query_after=0.05
    )
    publisher = geventpool.observe.publish(tmp_path / "snapshots", interval=0.1)
    told: list[str] = []
    sleep = f"select {'sleep' if is_mysql else 'pg_sleep'}(0.1) from s where b = '{SECRET}'"
    with engine.connect() as connection:
        connection.execute(text("create temporary table s (a int, b varchar(99))"))
        connection.execute(text("insert into s values (1, :b)"), {"b": SECRET})
        connection.execute(text(sleep))
        connection.exec_driver_sql(f"select /* {SECRET} */ 1 -- {SECRET}\n")
        with pytest.raises(Exception, match="syntax") as caught:
            connection.execute(text("selekt :b"), {"b": SECRET})
        told.append(str(caught.value))
        gevent.sleep(0.4)
        engine.pool.configure(timeout=0.5)  # not before: a connect may take longer
        with pytest.raises(PoolTimeout) as late:
            engine.connect()
        told += [str(late.value), repr(late.value), repr(engine.pool), engine.pool.status()]
        told += [repr(engine), repr(connection.connection), repr(observer.settings)]
        told += [holder.tell() for holder in observer.holders()]
        told += [repr(holder) for holder in observer.holders()]
        publisher.write()
        for more in ([], ["--json"]):
            command = ["top", "--once", *more, "--directory", str(publisher.directory)]
            told.append(CliRunner().invoke(main, command).output)
        told += [geventpool.observe.report(), exposition().decode(), repr(observer)]
        told += [file.read_text() for file in publisher.directory.iterdir()]
    told += _what_failing_connects_say(url)
    told += [
        record.getMessage() + (record.exc_text or "")
        for record in caplog.records
        if record.name.startswith(("geventpool", "sqlalchemy.pool"))
    ]
    publisher.stop()
    observer.detach()
    engine.dispose()
    everything = "\n".join(told)
    assert "idle in transaction" in everything
    assert "(?) from s where b = ?" in everything
    # What the server itself quotes of a query in its error is the server's own.
    assert SECRET not in everything.replace(told[0], "")
    with root.begin() as connection:
        connection.exec_driver_sql("drop user planted")
    root.dispose()


def _what_failing_connects_say(url: URL) -> list[str]:
    """With a wrong password, a server that is not there, a database that is not, and a wrong option."""
    told = []
    for wrong, arguments in (
        (url.set(password=f"not-{SECRET}"), {}),
        (url.set(port=1), {}),
        (url.set(database="nowhere"), {}),
        (url, {"passwort": SECRET}),
    ):
        engine = create_engine(
            wrong, poolclass=GeventPool, connect_args=arguments, echo_pool="debug"
        )
        observer = geventpool.observe.attach(engine)
        with pytest.raises(Exception) as caught:  # noqa: PT011
            engine.connect()
        told += [str(caught.value), repr(caught.value), engine.pool.status()]
        told.append(geventpool.observe.report())
        observer.detach()
        engine.dispose()
    with pytest.raises(geventpool.ConfigError) as refused:
        geventpool.observe.attach(url.render_as_string(hide_password=False))  # type: ignore[arg-type]
    return [*told, str(refused.value)]


def test_an_observer_in_a_forked_child_begins_anew(mariadb: Any, tmp_path: Path) -> None:
    import subprocess

    code = f"""
from gevent import monkey; monkey.patch_all()
import gevent, json, os, sys
from sqlalchemy import create_engine, text
from geventpool.sqlalchemy import GeventPool
import geventpool.observe as observe

engine = create_engine({mariadb.url("pymysql")!r}, poolclass=GeventPool)
observer = observe.attach(engine)
watch = observe.watch_hub(0.05)
publisher = observe.publish({str(tmp_path / "fork")!r}, interval=0.05)
held = engine.connect()
held.execute(text("select 1"))
child = os.fork()
if not child:
    assert observer.holders() == [], observer.holders()
    with engine.connect() as connection:
        connection.execute(text("select 1"))
        assert len(observer.holders()) == 1
    from gevent.monkey import get_original
    get_original("time", "sleep")(0.2)
    gevent.sleep(0.2)
    assert watch.blocks >= 1
    pids = sorted(said["pid"] for said in observe.read_snapshots(publisher.directory))
    assert pids == sorted([os.getpid(), os.getppid()]), pids
    print("child is well", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
gevent.sleep(0.1)
assert len(observer.holders()) == 1
held.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "child is well" in done.stdout, done.stderr
    assert done.returncode == 0, done.stderr


def test_top_as_json_is_for_scripts(mariadb: Any, tmp_path: Path) -> None:
    engine = create_engine(
        mariadb.url("pymysql"), poolclass=GeventPool, pool_logging_name="scripted"
    )
    geventpool.observe.attach(engine)
    with engine.connect() as connection:
        connection.execute(text("select 1"))
    publisher = geventpool.observe.publish(tmp_path / "snapshots")
    command = ["top", "--once", "--json", "--directory", str(publisher.directory)]
    [said] = json.loads(CliRunner().invoke(main, command).output)
    publisher.stop()
    [pool] = [pool for pool in said["pools"] if pool["name"] == "scripted"]
    assert (pool["checkouts"], pool["observed"]["queries"]["fingerprints"]) == (1, 1)
    engine.dispose()


@pytest.mark.parametrize("engine", ["pymysql", "psycopg", "pg8000"], indirect=True)
def test_random_kills_leave_no_hold_behind(engine: Engine) -> None:
    import random

    rng = random.Random(3)
    observer = geventpool.observe.attach(
        engine, idle_in_transaction_after=0.01, slow_query_after=0.01
    )
    engine.pool.resize(3)  # type: ignore[attr-defined]
    before = observer.watcher.core.stats()
    sleep = "select pg_sleep(0.02)" if engine.dialect.name == "postgresql" else "select sleep(0.02)"

    def work() -> None:
        while True:
            with engine.begin() as connection:
                connection.execute(text("insert into observed values (1, 'x')"))
                connection.execute(text(sleep))

    greenlets = [gevent.spawn(work) for _ in range(8)]
    for _ in range(150):
        gevent.sleep(rng.uniform(0, 0.02))
        victim = rng.randrange(len(greenlets))
        greenlets[victim].kill(block=False)
        greenlets[victim] = gevent.spawn(work)
    gevent.killall(greenlets)
    core = observer.watcher.core
    with gevent.Timeout(20):
        while core.ledger.in_use or core.ledger.closing or core.ledger.opening:
            gevent.sleep(0.05)
    core.ledger.check()
    assert observer.holders() == []
    assert not observer.watcher.holds
    stats, figures = core.stats(), observer.figures
    assert sum(figures.acquire.counts) == stats.checkouts - before.checkouts
    # Who was killed while it was served has never had it, and the connection came back all the same.
    assert sum(figures.hold.counts) >= sum(figures.acquire.counts)
    assert figures.hold.total == pytest.approx(stats.hold_seconds - before.hold_seconds)
    assert figures.query_errors > 0
    observer.detach()
