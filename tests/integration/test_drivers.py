"""Drivers against real servers: a connection that is called clean has no transaction open."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import pytest

from geventpool import ConnectionPool
from geventpool.drivers import State, driver_for

from .dbapi import (
    COOPERATIVE,
    EVERY,
    MYSQL,
    POSTGRESQL,
    SURE,
    Subject,
    eventually,
    make_subject,
    module_of,
    open_connection,
    run,
    server_of,
    set_autocommit,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def subject_of(request: pytest.FixtureRequest) -> Iterator[Callable[..., Subject]]:
    """Opens connections that are closed at the end, to a table `law` with a row 1."""
    made: list[Subject] = []

    def subject_of(name: str, **arguments: Any) -> Subject:
        module_of(name)
        url = server_of(request, name).url(name)
        subject = make_subject(name, url, **arguments)
        made.append(subject)
        run(subject.observer, "drop table if exists law, law_ddl, law_new")
        run(subject.observer, "create table law (id int primary key)")
        run(subject.observer, "insert into law values (1)")
        return subject

    yield subject_of
    for subject in made:
        subject.close()


def expect(subject: Subject, state: State) -> None:
    """The state, as far as the driver can tell; and always the law."""
    if subject.name not in SURE:
        assert subject.state is State.UNKNOWN
    elif state is State.CLEAN:
        assert subject.state is State.CLEAN
    else:
        assert subject.state in (State.IN_TRANSACTION, State.UNKNOWN)
    assert subject.is_in_transaction() == (state is State.IN_TRANSACTION)
    subject.assert_law("")


def fail(subject: Subject, sql: str) -> None:
    """Runs a statement that the database refuses."""
    with pytest.raises(module_of(subject.name).Error):
        run(subject.connection, sql)


@pytest.mark.parametrize("name", EVERY)
def test_a_fresh_connection_is_clean_or_unknown_or_asks_for_a_rollback(
    request: pytest.FixtureRequest, name: str
) -> None:
    connection = open_connection(name, server_of(request, name).url(name))
    driver = driver_for(connection)
    assert driver.state(connection) in (State.CLEAN, State.UNKNOWN)
    driver.adopt(connection)
    # PyMySQL and pg8000 cannot tell what was done with it before; a rollback settles it.
    assert driver.state(connection) is not State.BROKEN
    connection.rollback()
    run(connection, "select 1")
    connection.rollback()
    assert driver.state(connection) is (State.CLEAN if name in SURE else State.UNKNOWN)
    connection.close()
    assert driver.state(connection) is State.BROKEN


@pytest.mark.parametrize("name", EVERY)
def test_a_select_opens_a_transaction_and_a_commit_ends_it(
    subject_of: Callable[..., Subject], name: str
) -> None:
    subject = subject_of(name)
    run(subject.connection, "select * from law")
    expect(subject, State.IN_TRANSACTION)
    subject.connection.commit()
    expect(subject, State.CLEAN)
    run(subject.connection, "insert into law values (2)")
    expect(subject, State.IN_TRANSACTION)
    subject.connection.rollback()
    expect(subject, State.CLEAN)


@pytest.mark.parametrize("name", EVERY)
def test_a_statement_that_fails_first_in_a_transaction_leaves_it_open(
    subject_of: Callable[..., Subject], name: str
) -> None:
    """MySQL's error packet has no flags, and a duplicate key leaves its lock behind."""
    subject = subject_of(name)
    fail(subject, "insert into law values (1)")
    expect(subject, State.IN_TRANSACTION)
    subject.connection.rollback()
    expect(subject, State.CLEAN)


@pytest.mark.parametrize("name", EVERY)
def test_autocommit_leaves_nothing_open_and_an_explicit_transaction_is_seen_nevertheless(
    subject_of: Callable[..., Subject], name: str
) -> None:
    subject = subject_of(name)
    set_autocommit(name, subject.connection, True)
    run(subject.connection, "select * from law")
    expect(subject, State.CLEAN)
    run(subject.connection, "insert into law values (2)")
    expect(subject, State.CLEAN)
    fail(subject, "insert into law values (2)")
    assert not subject.is_in_transaction()
    run(subject.connection, "start transaction")
    run(subject.connection, "select * from law")
    expect(subject, State.IN_TRANSACTION)
    run(subject.connection, "rollback")
    expect(subject, State.CLEAN)


@pytest.mark.parametrize("name", MYSQL)
def test_ddl_commits_on_mysql(subject_of: Callable[..., Subject], name: str) -> None:
    subject = subject_of(name)
    run(subject.connection, "insert into law values (2)")
    run(subject.connection, "create or replace table law_ddl (id int)")
    expect(subject, State.CLEAN)


@pytest.mark.parametrize("name", POSTGRESQL)
def test_ddl_is_part_of_the_transaction_on_postgresql(
    subject_of: Callable[..., Subject], name: str
) -> None:
    subject = subject_of(name)
    run(subject.connection, "create table law_new (id int)")
    expect(subject, State.IN_TRANSACTION)
    subject.connection.rollback()
    expect(subject, State.CLEAN)


def test_an_empty_transaction_of_pymysql_is_not_clean(
    subject_of: Callable[..., Subject],
) -> None:
    subject = subject_of("pymysql")
    run(subject.connection, "start transaction")
    assert subject.state is State.IN_TRANSACTION
    run(subject.connection, "commit and chain")
    assert subject.state is State.IN_TRANSACTION
    run(subject.connection, "rollback")
    expect(subject, State.CLEAN)


def test_an_unbuffered_result_of_pymysql_is_broken_before_its_end(
    subject_of: Callable[..., Subject],
) -> None:
    from pymysql.cursors import SSCursor

    subject = subject_of("pymysql", autocommit=True)
    cursor = subject.connection.cursor(SSCursor)
    cursor.execute("select seq from seq_1_to_1000")
    cursor.fetchone()
    assert subject.state is State.BROKEN, "it is not to be read to the end by the pool"
    cursor.fetchall()
    assert subject.state is not State.BROKEN
    cursor.close()
    run(subject.connection, "select 1")
    expect(subject, State.CLEAN)


def test_a_statement_behind_another_of_pymysql_is_seen(
    subject_of: Callable[..., Subject],
) -> None:
    from pymysql.constants import CLIENT

    subject = subject_of("pymysql", autocommit=True, client_flag=CLIENT.MULTI_STATEMENTS)
    cursor = subject.connection.cursor()
    cursor.execute("set @a = 1; start transaction; insert into law values (2)")
    assert subject.state is not State.CLEAN
    while cursor.nextset():
        assert subject.state is not State.CLEAN
    expect(subject, State.IN_TRANSACTION)
    cursor.execute("select 1; rollback")
    assert subject.state is not State.CLEAN
    cursor.close()
    expect(subject, State.CLEAN)
    subject.connection.autocommit(False)
    cursor = subject.connection.cursor()
    cursor.execute("set @a = 1; insert into law values (1)")
    with pytest.raises(module_of("pymysql").IntegrityError):
        cursor.nextset()
    expect(subject, State.IN_TRANSACTION)


def test_what_was_done_with_a_connection_before_the_pool_had_it_is_not_taken_for_clean(
    mariadb: Any,
) -> None:
    """PyMySQL keeps no flags of a SELECT, for example one of `init_command`'s."""
    connection = open_connection(
        "pymysql", mariadb.url("pymysql"), init_command="select * from mysql.proc limit 1"
    )
    run(connection, "select table_name from mysql.innodb_table_stats limit 1")
    driver = driver_for(connection)
    driver.adopt(connection)
    assert driver.state(connection) is not State.CLEAN
    connection.close()


class Interrupted(Exception):
    """What a program's own timeout may raise."""


@pytest.mark.parametrize("name", COOPERATIVE)
@pytest.mark.parametrize("how", ["timeout", "timeout with an Exception", "kill"])
def test_a_connection_abandoned_in_mid_query_is_broken(
    subject_of: Callable[..., Subject], name: str, how: str
) -> None:
    subject = subject_of(name)
    query = "select sleep(5)" if name in MYSQL else "select pg_sleep(5)"

    def work() -> None:
        error = {"timeout": None, "kill": None}.get(how, Interrupted)
        with gevent.Timeout(30 if how == "kill" else 0.1, error):
            run(subject.connection, query)

    greenlet = gevent.spawn(work)
    gevent.sleep(0.1)
    if how == "kill":
        greenlet.kill()
    greenlet.join()
    assert not greenlet.successful() or isinstance(greenlet.value, gevent.GreenletExit)
    assert subject.state is State.BROKEN


@pytest.mark.parametrize("name", ["pymysql", "pg8000"])
def test_a_connection_left_in_the_middle_of_an_answer_is_broken(
    subject_of: Callable[..., Subject], name: str
) -> None:
    """By an error in the conversion of a value: the rest of the rows is still to be read."""

    def refuse(value: Any) -> Any:
        raise ArithmeticError(value)

    subject = subject_of(name, autocommit=True) if name == "pymysql" else subject_of(name)
    if name == "pymysql":
        from pymysql.constants import FIELD_TYPE

        subject.connection.decoders = {FIELD_TYPE.LONGLONG: refuse}
        query = "select seq from seq_1_to_1000"
    else:
        subject.connection.register_in_adapter(23, refuse)
        query = "select generate_series(1, 1000)"
    with pytest.raises(ArithmeticError):
        run(subject.connection, query)
    assert subject.state is State.BROKEN


@pytest.mark.parametrize("name", COOPERATIVE)
def test_the_pool_closes_what_was_abandoned_and_lends_the_rest(
    request: pytest.FixtureRequest, name: str
) -> None:
    url = server_of(request, name).url(name)
    query = "select sleep(5)" if name in MYSQL else "select pg_sleep(5)"
    with contextlib.closing(ConnectionPool(lambda: open_connection(name, url))) as pool:
        for _ in range(3):
            with pytest.raises(gevent.Timeout):
                with pool.connection() as connection, gevent.Timeout(0.1):
                    run(connection, query)
            with pool.connection() as connection:
                assert run(connection, "select 7") == [(7,)]
        assert pool.stats().closed["abandoned"] == 3
        assert pool.stats().in_use == 0


_COMMON = [
    "select 1",
    "select * from law",
    "select * from law for update",
    "insert into law values (1)",
    "insert into law values ({n})",
    "delete from law where id = {n}",
    "begin",
    "start transaction",
    "start transaction read only",
    "commit",
    "rollback",
    "commit and chain",
    "rollback and chain",
    "savepoint a",
    "rollback to savepoint a",
    "release savepoint a",
    "create table if not exists law_ddl (id int)",
    "drop table if exists law_ddl",
    "select nonsense",
    "select * from law_missing",
    "this is no statement",
]
_STATEMENTS = {
    "mysql": [
        *_COMMON,
        "set autocommit = 0",
        "set autocommit = 1",
        "start transaction with consistent snapshot",
        "lock tables law write",
        "unlock tables",
        "create or replace temporary table law_temporary (id int)",
        "insert into law_temporary values (1)",
        "xa start 'x'",
        "xa end 'x'",
        "xa rollback 'x'",
        "xa commit 'x' one phase",
        "call law_opens()",
        "call law_fails()",
        "call law_selects()",
        "select get_lock('law', 0)",
        "do release_lock('law')",
        "kill query connection_id()",
        "set statement max_statement_time = 0.001 for select sleep(1)",
        "handler law open",
        "handler law read first",
        "handler law close",
        "set @a = 1; insert into law values (1)",
        "select 1; begin",
        "begin; insert into law values (1); commit",
        "select 1; select nonsense",
        "flush tables",
    ],
    "postgresql": [
        *_COMMON,
        "begin isolation level serializable read only deferrable",
        "set session characteristics as transaction read write",
        "set local work_mem = '1MB'",
        "create temporary table law_temporary (id int) on commit drop",
        "declare c cursor for select * from law",
        "fetch 1 from c",
        "declare h cursor with hold for select * from law",
        "close all",
        "prepare transaction 'x'",
        "vacuum law",
        "listen law",
        "notify law, 'x'",
        "unlisten *",
        "do $$ begin insert into law values (0); commit; end $$",
        "do $$ begin raise 'no'; end $$",
        "select pg_cancel_backend(pg_backend_pid())",
        "select pg_advisory_lock(1)",
        "discard all",
        "reset all",
        "lock table law",
    ],
}
_PROCEDURES = [
    "create or replace procedure law_opens() begin start transaction; select * from law; end",
    "create or replace procedure law_fails() begin insert into law values (1); select 1; end",
    "create or replace procedure law_selects() begin select 1; select * from law; end",
]


def take_a_step(subject: Subject, choice: random.Random, statements: list[str]) -> str:
    """One thing that a program may do with a connection; the database may refuse it."""
    connection = subject.connection
    ways: list[tuple[str, Callable[[], Any]]] = [
        ("commit()", connection.commit),
        ("rollback()", connection.rollback),
        ("autocommit on", lambda: set_autocommit(subject.name, connection, True)),
        ("autocommit off", lambda: set_autocommit(subject.name, connection, False)),
    ]
    if choice.random() < 0.2:
        said, step = choice.choice(ways)
    else:
        said = choice.choice(statements).format(n=choice.randint(2, 9))
        if subject.name == "pymysql" and choice.random() < 0.2:
            step = partial(read_one_row, subject, said)
        else:
            step = partial(run, connection, said)
    with contextlib.suppress(module_of(subject.name).Error, UserWarning):
        step()
    return said


def read_one_row(subject: Subject, sql: str) -> None:
    """Leaves an unbuffered result unread."""
    from pymysql.cursors import SSCursor

    cursor = subject.connection.cursor(SSCursor)
    subject.cursors.append(cursor)
    cursor.execute(sql)
    cursor.fetchone()


@pytest.mark.filterwarnings("ignore:Previous unbuffered result was left incomplete")
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", SURE)
def test_clean_implies_that_the_server_has_no_transaction_open(
    request: pytest.FixtureRequest, subject_of: Callable[..., Subject], name: str, seed: int
) -> None:
    arguments: dict[str, Any] = {}
    if name == "pymysql":
        from pymysql.constants import CLIENT

        arguments["client_flag"] = CLIENT.MULTI_STATEMENTS
    subject = subject_of(name, **arguments)
    if name in MYSQL:
        for procedure in _PROCEDURES:
            run(subject.observer, procedure)
    choice = random.Random(seed)
    statements = _STATEMENTS["mysql" if name in MYSQL else "postgresql"]
    seen: list[State] = []
    for _ in range(200):
        said = take_a_step(subject, choice, statements)
        seen.append(subject.state)
        if subject.state is State.BROKEN:
            subject.close()
            subject = subject_of(name, **arguments)
        else:
            subject.assert_law(said)
    # That it is always in doubt would fulfil the law, too.
    assert seen.count(State.CLEAN) > 5
    assert seen.count(State.IN_TRANSACTION) > 5


@pytest.mark.parametrize("name", EVERY)
def test_a_connection_that_the_server_has_ended_is_never_clean_after_the_next_query(
    subject_of: Callable[..., Subject], name: str
) -> None:
    subject = subject_of(name)
    subject.kill()
    with pytest.raises((module_of(name).Error, OSError)):
        assert eventually(lambda: run(subject.connection, "select 1") is None)
    assert subject.state is not State.CLEAN


_PATCH = "from gevent import monkey; monkey.patch_all()"
_GREEN = "from psycogreen.gevent import patch_psycopg; patch_psycopg()"
_PROGRAM = """
import gevent
from geventpool.drivers import driver_for
from tests.integration.dbapi import open_connection, run
connection = open_connection({name!r}, {url!r})
ticks = 0
def tick():
    global ticks
    while True:
        ticks += 1
        gevent.sleep(0.01)
ticker = gevent.spawn(tick)
gevent.sleep(0)
run(connection, {query!r})
print("blocks" if ticks < 5 else "cooperates")
print("warns" if driver_for(connection).blocks_hub(connection) else "is silent")
"""


@pytest.mark.parametrize(
    ("name", "beginning", "expected"),
    [
        ("pymysql", _PATCH, "cooperates is silent"),
        ("pg8000", _PATCH, "cooperates is silent"),
        ("psycopg", _PATCH, "cooperates is silent"),
        ("psycopg", f"import psycopg; {_PATCH}", "blocks warns"),
        ("psycopg2", f"{_PATCH}; {_GREEN}", "cooperates is silent"),
        ("psycopg2", _PATCH, "blocks warns"),
        ("MySQLdb", _PATCH, "blocks warns"),
    ],
)
def test_what_blocks_the_hub_is_warned_of_and_what_cooperates_is_not(
    request: pytest.FixtureRequest, name: str, beginning: str, expected: str
) -> None:
    module_of(name)
    query = "select sleep(0.5)" if name in MYSQL else "select pg_sleep(0.5)"
    url = server_of(request, name).url(name)
    done = subprocess.run(
        [sys.executable, "-c", beginning + _PROGRAM.format(name=name, url=url, query=query)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.stdout.split("\n")[:2] == expected.split(" ", 1), done.stderr


FORKS_IN_A_CONNECT = """
from gevent import monkey
monkey.patch_all()
import ctypes, os, sys
import gevent, psycopg
from sqlalchemy import create_engine, text
from geventpool.sqlalchemy import GeventPool

fork = os.fork if sys.argv[2] == "os" else ctypes.PyDLL(None).fork

def ask():
    with engine.connect() as connection:
        return connection.scalar(text("select 1"))

failed = []
for steps in range(12):
    engine = create_engine(sys.argv[1], poolclass=GeventPool)
    asked = gevent.spawn(ask)
    for _ in range(steps):
        gevent.sleep(0)
    child = fork()
    if child == 0:
        try:
            gevent.sleep(0.01)
            os._exit(ask() - 1)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    asked.join(30)
    if asked.value != 1 or status:
        failed.append((steps, asked.exception, status))
    engine.dispose()
print(failed)
"""


@pytest.mark.parametrize("how", ["os", "c"])
def test_a_fork_while_psycopg_connects_spoils_neither_the_parent_s_connect_nor_the_child(
    request: pytest.FixtureRequest, how: str
) -> None:
    module_of("psycopg")
    url = server_of(request, "psycopg").url("psycopg")
    done = subprocess.run(
        [sys.executable, "-c", FORKS_IN_A_CONNECT, url, how],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
