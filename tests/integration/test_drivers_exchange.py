"""A connection in the middle of an exchange, or used by two greenlets at once, reaches nobody else."""

from __future__ import annotations

import contextlib
import functools
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from geventpool import ConnectionPool, drivers
from geventpool.drivers import State, driver_for
from geventpool.sqlalchemy import GeventPool

from .dbapi import (
    COOPERATIVE,
    MYSQL,
    eventually,
    module_of,
    open_connection,
    run,
    server_of,
    set_autocommit,
)

Open = Callable[[], Any]
_DIALECTS = {"mysql.connector": "mysqlconnector", "MySQLdb": "mysqldb"}
OVERLAPPING = ["pymysql", "pg8000", "mysql.connector"]  # the others wait for each other, or refuse
WHOLE_RESULT = "select seq from seq_1_to_3000000"
SHORT_RESULT = "select seq from seq_1_to_30000"  # more than the buffers hold


class Late(Exception):
    """What a program's own time-out may raise."""


def opener(request: pytest.FixtureRequest, name: str) -> Open:
    """What opens a connection in autocommit mode, so that nothing has to be rolled back."""
    server = server_of(request, name)

    def open_one() -> Any:
        connection = open_connection(name, server.url("any"))
        set_autocommit(name, connection, True)
        return connection

    return open_one


def sleep_for(name: str, seconds: float) -> str:
    return f"select {'pg_' if name in COOPERATIVE and name not in MYSQL else ''}sleep({seconds})"


@contextlib.contextmanager
def geventpool_of(open_one: Open) -> Iterator[ConnectionPool]:
    with contextlib.closing(ConnectionPool(open_one, max_size=1, reclaim_after=None)) as pool:
        yield pool


class OfQueuePool:
    """SQLAlchemy's pool with the interface of ours."""

    def __init__(self, open_one: Open) -> None:
        self.pool = QueuePool(open_one, pool_size=1, max_overflow=0)

    @contextlib.contextmanager
    def connection(self) -> Iterator[Any]:
        fairy: Any = self.pool.connect()
        try:
            yield fairy.dbapi_connection
        finally:
            with contextlib.suppress(Exception):
                fairy.close()


def quietly(work: Callable[[], object]) -> None:
    """Does it; what a misuse raises is the misuser's own business."""
    with contextlib.suppress(Exception, gevent.Timeout):
        work()


def wrong_answers(pool: Any, rounds: int = 5) -> int:
    """How many of the next borrowers get another answer than theirs, or an error."""
    wrong = 0
    for number in range(101, 101 + rounds):
        try:
            with gevent.Timeout(60), pool.connection() as connection:
                wrong += run(connection, f"select {number}") != [(number,)]
        except (Exception, gevent.Timeout):
            wrong += 1
    return wrong


# Two greenlets on one connection.


def by_its_own_cursor(connection: Any) -> Callable[[], object]:
    return lambda: run(connection, "select 2")


def by_a_cursor_from_before(connection: Any) -> Callable[[], object]:
    cursor = connection.cursor()

    def ask() -> object:
        cursor.execute("select 2")
        return cursor.fetchall()

    return ask


def by_commit(connection: Any) -> Callable[[], object]:
    return connection.commit  # type: ignore[no-any-return]


def by_rollback(connection: Any) -> Callable[[], object]:
    return connection.rollback  # type: ignore[no-any-return]


SCENES = [
    (name, second)
    for name in COOPERATIVE
    for second in (by_its_own_cursor, by_a_cursor_from_before, by_commit, by_rollback)
    # By itself psycopg2 stops the whole process: the first one holds a mutex while it waits.
    if name != "psycopg2" or second in (by_its_own_cursor, by_a_cursor_from_before)
]


def overlap(name: str, pool: Any, second: Callable[..., Any]) -> Any:
    """Two greenlets use a connection at once; it is returned when both have their answer or error."""
    with pool.connection() as connection:
        also_ask = second(connection)
        first = gevent.spawn(quietly, lambda: run(connection, sleep_for(name, 0.2)))
        gevent.sleep(0)  # it has sent its question
        quietly(also_ask)
        first.join()
        return connection


@pytest.mark.parametrize(("name", "second"), SCENES)
def test_the_next_borrower_gets_the_answer_to_its_own_question_after_two_greenlets_on_one_connection(
    request: pytest.FixtureRequest, name: str, second: Callable[..., Any]
) -> None:
    with geventpool_of(opener(request, name)) as pool:
        overlap(name, pool, second)
        assert wrong_answers(pool) == 0


@pytest.mark.parametrize("name", ["pg8000"])
def test_queuepool_gives_the_next_borrowers_other_peoples_answers(
    request: pytest.FixtureRequest, name: str
) -> None:
    """The same scene, for comparison; with PyMySQL its rollback fails by chance."""
    pool = OfQueuePool(opener(request, name))
    overlap(name, pool, by_its_own_cursor)
    assert wrong_answers(pool) > 0
    pool.pool.dispose()


@pytest.mark.parametrize("name", OVERLAPPING)
def test_a_connection_that_two_greenlets_have_used_at_once_is_never_lent_again(
    request: pytest.FixtureRequest, name: str
) -> None:
    """Also if both have got their answers, or the second asks as often as it likes."""
    with geventpool_of(opener(request, name)) as pool:
        with pool.connection() as used:
            first = gevent.spawn(quietly, lambda: run(used, sleep_for(name, 0.2)))
            gevent.sleep(0)
            for _ in range(3):
                quietly(lambda: run(used, "select 2"))
            first.join()
            quietly(lambda: run(used, "select 3"))
            assert driver_for(used).state(used) is State.BROKEN
        with pool.connection() as other:
            assert other is not used


@pytest.mark.parametrize("name", COOPERATIVE)
def test_a_connection_returned_while_another_greenlet_still_asks_is_closed(
    request: pytest.FixtureRequest, name: str
) -> None:
    with geventpool_of(opener(request, name)) as pool:
        with pool.connection() as used:
            late = gevent.spawn(quietly, lambda: run(used, sleep_for(name, 0.5)))
            gevent.sleep(0)
        assert wrong_answers(pool) == 0
        with pool.connection() as other:
            assert other is not used
        late.join(10)
        assert late.dead


@pytest.mark.parametrize("name", ["pymysql", "pg8000"])
def test_the_first_of_two_greenlets_still_gets_its_own_answer(
    request: pytest.FixtureRequest, name: str
) -> None:
    """As without us: what is wrong is the second one's doing."""
    answers: list[Any] = []
    question = f"select 7 from ({sleep_for(name, 0.2)}) as late"
    with geventpool_of(opener(request, name)) as pool, pool.connection() as connection:
        first = gevent.spawn(lambda: answers.append(run(connection, question)))
        gevent.sleep(0)
        quietly(by_its_own_cursor(connection))
        first.join()
    assert answers == [[(7,)]]


def test_a_second_greenlet_that_begins_while_the_first_one_sends_is_seen(
    request: pytest.FixtureRequest,
) -> None:
    long_question = f"select length('{'x' * 15_000_000}')"
    with geventpool_of(opener(request, "pymysql")) as pool:
        with pool.connection() as used:
            first = gevent.spawn(quietly, lambda: run(used, long_question))
            gevent.sleep(0)
            assert driver_for(used).state(used) is State.BROKEN, "it sends"
            quietly(used.ping)
            first.join()
            assert driver_for(used).state(used) is State.BROKEN
        assert wrong_answers(pool) == 0


def test_a_second_greenlet_in_the_rows_of_an_unbuffered_result_is_seen(
    request: pytest.FixtureRequest,
) -> None:
    from pymysql.cursors import SSCursor

    with geventpool_of(opener(request, "pymysql")) as pool:
        with pool.connection() as used:
            cursor = used.cursor(SSCursor)
            # Rows so long that the server does not wait for the last one.
            row = "seq, repeat('x', 100000), sleep(if(seq > 1, 0.3, 0))"
            cursor.execute(f"select {row} from seq_1_to_3")
            reader = gevent.spawn(quietly, cursor.fetchall)
            gevent.sleep(0)
            quietly(cursor.fetchone)
            reader.join()
            assert driver_for(used).state(used) is State.BROKEN
        assert wrong_answers(pool) == 0


def test_pymysqls_rarer_exchanges_leave_a_clean_connection(request: pytest.FixtureRequest) -> None:
    with geventpool_of(opener(request, "pymysql")) as pool, pool.connection() as connection:
        driver = driver_for(connection)
        for exchange in (
            connection.ping,
            connection.show_warnings,
            lambda: connection.set_character_set("utf8mb4"),
            lambda: connection.select_db(connection.db),
            lambda: connection.autocommit(True),
            connection.begin,
            connection.commit,
            lambda: (connection.close(), connection.connect()),
            lambda: run(connection, "select 1"),
        ):
            exchange()
            connection.rollback()
            assert driver.state(connection) is State.CLEAN


@pytest.mark.parametrize("name", OVERLAPPING)
def test_an_engine_s_connection_shared_by_two_greenlets_reaches_nobody_else(
    request: pytest.FixtureRequest, name: str
) -> None:
    wrong: dict[Any, int] = {}
    for kind in (GeventPool, QueuePool):
        with engine_of(request, name, kind) as engine:
            with contextlib.suppress(Exception), engine.connect() as connection:
                ask = functools.partial(connection.execute, text(sleep_for(name, 0.2)))
                first = gevent.spawn(quietly, ask)
                gevent.sleep(0)
                quietly(lambda: connection.execute(text("select 2")))
                first.join()
            wrong[kind] = sum(not answers(engine, number) for number in range(101, 106))
    assert wrong[GeventPool] == 0
    assert wrong[QueuePool] >= 0  # by chance: its rollback may read what is left, or fail


# Left by something that is not the database's answer.


@contextlib.contextmanager
def engine_of(request: pytest.FixtureRequest, name: str, kind: Any, **said: Any) -> Iterator[Any]:
    server = server_of(request, name)
    url = make_url(server.url(_DIALECTS.get(name, name)))
    arguments = {"use_pure": True} if name == "mysql.connector" else {}
    sizes = {"pool_size": 1, "max_overflow": 0}
    engine = create_engine(url, poolclass=kind, connect_args=arguments, **sizes, **said)
    yield engine
    engine.dispose()


def answers(engine: Any, number: int) -> bool:
    """Does the next one who asks get the answer to that question?"""
    try:
        with gevent.Timeout(60), engine.connect() as connection:
            return bool(connection.scalar(text(f"select {number}")) == number)
    except (Exception, gevent.Timeout):
        return False


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A DBAPI of which nothing is known."""
    monkeypatch.delitem(drivers._BY_MODULE, "mysql.connector")
    drivers.by_class.clear()
    yield "mysql.connector"
    drivers.by_class.clear()


@pytest.mark.parametrize("second", [by_its_own_cursor, by_a_cursor_from_before, by_commit])
def test_two_greenlets_on_one_connection_of_an_unknown_driver_cost_the_next_borrower_nothing(
    request: pytest.FixtureRequest, unknown: str, second: Callable[..., Any]
) -> None:
    with geventpool_of(opener(request, unknown)) as pool:
        overlap(unknown, pool, second)
        assert wrong_answers(pool) == 0


@pytest.mark.parametrize("thrown", [None, Late, KeyboardInterrupt, gevent.GreenletExit])
@pytest.mark.parametrize("is_swallowed", [False, True])
def test_an_unknown_driver_that_was_left_in_mid_query_is_closed(
    request: pytest.FixtureRequest, unknown: str, thrown: Any, is_swallowed: bool
) -> None:
    with geventpool_of(opener(request, unknown)) as pool:
        for _ in range(4):
            with contextlib.suppress(gevent.Timeout, Late, KeyboardInterrupt, gevent.GreenletExit):
                with pool.connection() as used:
                    with contextlib.ExitStack() as stack:
                        if is_swallowed:
                            errors = gevent.Timeout, Late, KeyboardInterrupt, gevent.GreenletExit
                            stack.enter_context(contextlib.suppress(*errors))
                        stack.enter_context(gevent.Timeout(0.02, thrown))
                        run(used, "select sleep(0.5)")
            with pool.connection() as other:
                assert other is not used
            assert wrong_answers(pool, 3) == 0


def test_queuepool_lends_an_unknown_driver_s_connection_that_was_left_in_mid_query(
    request: pytest.FixtureRequest, unknown: str
) -> None:
    """The same scene, for comparison."""
    pool = OfQueuePool(opener(request, unknown))
    with pytest.raises(Late), pool.connection() as used, gevent.Timeout(0.02, Late):
        run(used, "select sleep(0.5)")
    assert wrong_answers(pool) > 0
    pool.pool.dispose()


@pytest.mark.parametrize("thrown", [None, Late])
@pytest.mark.parametrize("name", COOPERATIVE)
def test_an_engine_s_connection_that_was_left_in_mid_query_is_closed(
    request: pytest.FixtureRequest, name: str, thrown: Any
) -> None:
    with engine_of(request, name, GeventPool) as engine:
        for number in range(101, 105):
            with contextlib.suppress(Exception, gevent.Timeout):
                with engine.connect() as connection, gevent.Timeout(0.02, thrown):
                    connection.execute(text(sleep_for(name, 0.5)))
            assert answers(engine, number)


@pytest.mark.parametrize("name", [*COOPERATIVE, "MySQLdb", "mariadb"])
def test_an_error_of_the_program_or_of_the_database_does_not_cost_a_sound_connection(
    request: pytest.FixtureRequest, name: str
) -> None:
    module = module_of(name)
    with geventpool_of(opener(request, name)) as pool:
        for error in (ValueError, gevent.Timeout, module.Error):
            with pytest.raises(error), pool.connection() as connection:
                assert run(connection, "select 1") == [(1,)]
                if error is module.Error:
                    run(connection, "select nonsense")
                raise error
        assert pool.stats().opened == 1


def test_what_cannot_be_watched_is_closed_after_a_kill_and_kept_after_an_error(
    mariadb: Any,
) -> None:
    from geventpool.testing import FakeConnection, FakeDriver

    class Slots(FakeConnection):
        """As if it were written in C."""

        def __setattr__(self, name: str, value: object) -> None:
            if name == "__class__":
                raise TypeError("__class__ assignment only supported for mutable types")
            super().__setattr__(name, value)

    numbers = itertools.count(1)
    pool = ConnectionPool(lambda: Slots(FakeDriver(), next(numbers)))
    for error, closed in ((ValueError, 0), (gevent.Timeout, 1), (KeyboardInterrupt, 2)):
        with pytest.raises(error), pool.connection():
            raise error
        assert sum(pool.stats().closed.values()) == closed
    pool.close()


def test_an_unknown_driver_whose_cursors_cannot_be_watched_is_closed_after_a_kill() -> None:
    from geventpool.testing import FakeConnection, FakeDriver

    class Cursor:
        __slots__ = ()

        def execute(self, sql: str) -> None:
            """It would write to the socket itself."""

        def fetchone(self) -> None:
            """And read from it."""

    class WithSlots(FakeConnection):
        def cursor(self) -> Any:
            return Cursor()

    class WithContexts(FakeConnection):
        @contextlib.contextmanager
        def cursor(self) -> Iterator[Any]:
            yield Cursor()

    for kind in (WithSlots, WithContexts):
        pool = ConnectionPool(functools.partial(kind, FakeDriver(), 1))
        for error, closed in ((ValueError, 0), (gevent.Timeout, 1), (KeyboardInterrupt, 2)):
            with pytest.raises(error), pool.connection() as connection:
                connection.cursor()
                raise error
            assert sum(pool.stats().closed.values()) == closed
        pool.close()


# An unbuffered result that was not read to its end.


@contextlib.contextmanager
def nothing_is_drained() -> Iterator[None]:
    """PyMySQL warns when it reads what is left of a result."""
    with warnings.catch_warnings(record=True) as drained:
        warnings.simplefilter("always")
        yield
    assert [str(one.message) for one in drained] == []


def is_at_work(observer: Any) -> bool:
    """Does the server still send the result?"""
    query = "select info from information_schema.processlist where info like %s"
    cursor = observer.cursor()
    cursor.execute(query, [f"{WHOLE_RESULT}%"])
    rows = cursor.fetchall()
    cursor.close()
    return bool(rows)


@pytest.fixture
def observer(mariadb: Any) -> Iterator[Any]:
    with contextlib.closing(open_connection("pymysql", mariadb.url("pymysql"))) as connection:
        connection.autocommit(True)
        yield connection


def read_a_row(connection: Any, result: str = WHOLE_RESULT) -> Any:
    from pymysql.cursors import SSCursor

    cursor = connection.cursor(SSCursor)
    cursor.execute(result)
    cursor.fetchone()
    return cursor


def test_a_result_that_was_not_read_to_its_end_is_abandoned_when_it_comes_back(
    request: pytest.FixtureRequest, observer: Any
) -> None:
    with geventpool_of(opener(request, "pymysql")) as pool, nothing_is_drained():
        with pool.connection() as used:
            cursor = read_a_row(used)
        with pool.connection() as other:
            assert other is not used
        assert pool.stats().closed["abandoned"] == 1
        assert eventually(lambda: not is_at_work(observer))
        del cursor


def _close_a_connection(engine: Any) -> None:
    with engine.connect() as connection:
        stream(connection)


def _leave_a_begin_block(engine: Any) -> None:
    with contextlib.suppress(ValueError), engine.begin() as connection:
        stream(connection)
        raise ValueError


def _close_a_session(engine: Any) -> None:
    with Session(engine) as session:
        stream(session)


def _roll_a_session_back(engine: Any) -> None:
    session = Session(engine)
    stream(session)
    session.rollback()


def _leave_a_session_s_begin_block(engine: Any) -> None:
    with contextlib.suppress(ValueError), Session(engine) as session, session.begin():
        stream(session)
        raise ValueError


def stream(asked: Any, query: str = WHOLE_RESULT) -> None:
    result = asked.execute(text(query).execution_options(stream_results=True))
    result.fetchone()


@pytest.mark.parametrize(
    "leave",
    [
        _close_a_connection,
        _leave_a_begin_block,
        _close_a_session,
        _roll_a_session_back,
        _leave_a_session_s_begin_block,
    ],
)
def test_sqlalchemy_s_rollback_on_the_way_to_the_pool_does_not_read_to_the_end(
    request: pytest.FixtureRequest, observer: Any, leave: Callable[[Any], None]
) -> None:
    with engine_of(request, "pymysql", GeventPool) as engine, nothing_is_drained():
        leave(engine)
        assert answers(engine, 101)
        assert engine.pool.stats().closed["abandoned"] == 1
        assert eventually(lambda: not is_at_work(observer))


@pytest.mark.filterwarnings("ignore:Previous unbuffered result was left incomplete")
def test_a_program_that_rolls_back_in_the_middle_of_a_result_goes_on_with_its_connection(
    request: pytest.FixtureRequest, mariadb: Any
) -> None:
    with geventpool_of(opener(request, "pymysql")) as pool:
        with pool.connection() as used:
            run(used, "set @kept = 5")
            read_a_row(used, SHORT_RESULT)
            used.rollback()
            assert run(used, "select @kept") == [(5,)]
        assert pool.stats().opened == 1
        assert wrong_answers(pool) == 0
    engines = engine_of(request, "pymysql", GeventPool, future=True)  # for 1.4
    with engines as engine, engine.connect() as connection:
        connection.execute(text("set @kept = 5"))
        stream(connection, SHORT_RESULT)
        connection.rollback()
        assert connection.scalar(text("select @kept")) == 5
        with Session(connection, future=True) as session:
            stream(session, SHORT_RESULT)
        assert connection.scalar(text("select @kept")) == 5
