"""A unit of work on a real server, killed at its first switch to the hub, its second, and so on.

The pool is full at that moment, and somebody waits behind the victim. After each kill: it came out as
itself, the one behind is served, the whole maximum can be borrowed at once and no more, no answer is
another's, the server has no transaction open and no connection that the pool does not count.

In its short form each kill is of one kind, taken at random; with GEVENTPOOL_STRESS=1 all kinds are tried.
"""

from __future__ import annotations

import gc
import itertools
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import gevent
import greenlet
import pytest
from gevent.event import Event
from sqlalchemy import Engine, ForeignKey, String, create_engine, insert, text
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeout
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from geventpool import ConnectionPool, PoolClosed, PoolTimeout
from geventpool.pool import BasePool
from geventpool.sqlalchemy import GeventPool

from ..integration.dbapi import open_connection, run
from .server_side import IS_WHOLE, Observer, make_databases, new_random

MAX_SIZE = 2
LAST_SWITCH = 200
# Nobody is to be served because a timeout is over: this is beyond the longest wait for anything.
TIMEOUT = 120
LONGEST = 30

_tokens = itertools.count(1)


class Kill(BaseException):
    """Neither an Exception nor anything that gevent knows."""


KINDS: list[type[BaseException]] = [gevent.GreenletExit, gevent.Timeout, Kill]


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    lines: Mapped[list[Line]] = relationship()


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))


class Page(Base):
    __tablename__ = "pages"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    words: Mapped[str] = mapped_column(String(2000))


def prepare(engine: Engine) -> None:
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        pages = [{"number": number, "words": "word " * 400} for number in range(100)]
        connection.execute(insert(Page), pages)


class Sweep:
    """An engine's pool, the units of work, and what must be true after each kill."""

    def __init__(self, driver: str, url: str) -> None:
        self.observer = Observer(url)
        self.nap = f"select {'sleep' if self.observer.is_mysql else 'pg_sleep'}(0.003)"
        values = "values ()" if self.observer.is_mysql else "default values"
        self.insert = f"insert into orders {values}"
        self.make(driver, url)

    def make(self, driver: str, url: str) -> None:
        self.engine = create_engine(
            url, poolclass=GeventPool, max_size=MAX_SIZE, pool_timeout=TIMEOUT
        )

    def close(self) -> None:
        self.engine.dispose()
        self.observer.close()

    @property
    def pool(self) -> BasePool:
        return self.engine.pool  # type: ignore[return-value]

    def lend(self) -> Any:
        return self.engine.connect()

    def ask(self, connection: Any) -> None:
        """Is the answer this question's?"""
        token = next(_tokens)
        assert connection.execute(text(f"select {token}")).scalar_one() == token

    def begin_again(self) -> None:
        """A new pool, if the one before was closed."""
        if self.pool.core.is_closed:
            self.engine.dispose()

    def transaction(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(self.insert))
            connection.execute(text(self.nap))
            self.ask(connection)

    def nested_transaction(self) -> None:
        with self.engine.begin() as connection:
            with connection.begin_nested():
                connection.execute(text(self.insert))
                connection.execute(text(self.nap))
            with suppress(ZeroDivisionError), connection.begin_nested():
                connection.execute(text(self.insert))
                raise ZeroDivisionError
            self.ask(connection)

    def orm_session(self) -> None:
        with Session(self.engine) as session:
            order = Order(lines=[Line(), Line()])
            session.add(order)
            session.flush()
            session.execute(text(self.nap))
            session.commit()
            assert len(order.lines) == 2

    def streamed_result_left_in_the_middle(self) -> None:
        # Slow enough that the rows come in several pieces, and large enough that these are sent.
        sleep = "sleep" if self.observer.is_mysql else "pg_sleep"
        pages = text(f"select number, words, {sleep}(0.0005) from pages order by number")
        with self.lend() as connection:
            streaming = connection.execution_options(stream_results=True, max_row_buffer=10)
            result = streaming.execute(pages)  # not dropped here: its finalizer would read the rest
            numbers = [number for number, _, _ in result.fetchmany(50)]
            assert numbers == list(range(50))
        with self.lend() as connection:
            self.ask(connection)

    def raw_connection(self) -> None:
        with closing(self.engine.raw_connection()) as connection:
            for sql in (self.insert, self.nap):
                run(connection, sql)
            connection.commit()

    def reset_of_an_open_transaction(self) -> None:
        with closing(self.engine.raw_connection()) as connection:
            for sql in (self.insert, self.nap):
                run(connection, sql)

    def opening(self) -> None:
        self.pool.core.close_idle("disposed")
        self.transaction()

    def pinging(self) -> None:
        for entry in self.pool.core.ledger.idle:
            entry.is_suspect = True  # as if something had happened on its socket
        self.transaction()

    def disposing(self) -> None:
        self.transaction()
        self.pool.core.dispose()

    def closing(self) -> None:
        self.transaction()
        self.pool.close()

    def waiting_in_a_full_pool(self) -> None:
        holder = gevent.spawn(self._hold, 0.005)
        gevent.sleep(0)
        try:
            self.transaction()
        finally:
            holder.join()

    def _hold(self, seconds: float) -> None:
        with self.lend():
            gevent.sleep(seconds)

    def behind(self) -> None:
        """Waits behind the victim, and must be served whatever becomes of it."""
        with self.lend() as connection:
            self.ask(connection)

    def check(self) -> None:
        """What must be true after any kill."""
        self.begin_again()
        with gevent.Timeout(LONGEST):
            lent = [self.lend() for _ in range(MAX_SIZE)]
        for connection in lent:
            self.ask(connection)
        for timeout in (0, 0.001):
            self.pool.configure(timeout=timeout)
            with pytest.raises((PoolTimeout, SQLAlchemyTimeout)):
                self.lend()
        self.pool.configure(timeout=TIMEOUT)
        while lent:
            lent.pop().close()
        del connection
        self.observer.assert_settles(lambda: self.pool.stats().size)
        stats = self.pool.stats()
        assert (stats.in_use, stats.waiting, stats.opening, stats.owners_ended) == (0, 0, 0, 0)


class PlainSweep(Sweep):
    """The same with a pool of DBAPI connections."""

    def make(self, driver: str, url: str) -> None:
        def connect() -> Any:
            return open_connection(driver, url)

        self._connect = connect
        self._pool = ConnectionPool(connect, max_size=MAX_SIZE, timeout=TIMEOUT)

    def close(self) -> None:
        self._pool.close()
        self.observer.close()

    @property
    def pool(self) -> ConnectionPool:
        return self._pool

    def lend(self) -> Any:
        return self._pool.connection()

    def ask(self, connection: Any) -> None:
        token = next(_tokens)
        assert run(connection, f"select {token}") == [(token,)]

    def begin_again(self) -> None:
        if self._pool.core.is_closed:
            self._pool = ConnectionPool(self._connect, max_size=MAX_SIZE, timeout=TIMEOUT)

    def transaction(self) -> None:
        with self.lend() as connection:
            for sql in (self.insert, self.nap):
                run(connection, sql)
            self.ask(connection)
            connection.commit()

    def reset_of_an_open_transaction(self) -> None:
        with self.lend() as connection:
            for sql in (self.insert, self.nap):
                run(connection, sql)


BOTH = [
    "transaction",
    "reset_of_an_open_transaction",
    "opening",
    "pinging",
    "disposing",
    "closing",
    "waiting_in_a_full_pool",
]
UNITS = [
    (Sweep, "nested_transaction"),
    (Sweep, "orm_session"),
    (Sweep, "streamed_result_left_in_the_middle"),
    (Sweep, "raw_connection"),
    *((kind, unit) for kind in (Sweep, PlainSweep) for unit in BOTH),
]


@pytest.fixture(scope="module")
def url_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    yield from make_databases(request, "geventpool_sweep", prepare)


@pytest.fixture
def _quiet_pymysql(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyMySQL's finalizer of an unread result reads on, though its connection is closed, and fails."""
    before = sys.unraisablehook

    def report(unraisable: Any) -> None:
        where = getattr(unraisable.object, "__qualname__", "")
        if where not in ("MySQLResult.__del__", "SSCursor.close"):
            before(unraisable)

    monkeypatch.setattr(sys, "unraisablehook", report)


class Strike:
    """Throws an error into a greenlet at its n-th switch away from itself.

    Args:
        victim: the greenlet.
        number: n.
        error: thrown.
        delay: seconds between the switch and the error; what it waits for may then be there, too.

    Attributes:
        has_switched: there was an n-th switch.
        has_hit: the error was thrown. If not, what the victim waited for came first, and it ended.
    """

    def __init__(
        self, victim: gevent.Greenlet, number: int, error: BaseException, delay: float
    ) -> None:
        self._victim, self._number, self._error = victim, number, error
        self._timer = gevent.get_hub().loop.timer(delay) if delay else None
        self._switches = itertools.count(1)
        self.has_switched = self.has_hit = False

    def __enter__(self) -> Strike:
        self._before = greenlet.settrace(self._trace)
        hub = gevent.get_hub()
        self._not_error = hub.NOT_ERROR
        hub.NOT_ERROR = (BaseException,)  # nothing to print: it is asserted
        return self

    def __exit__(self, *_: object) -> None:
        gevent.get_hub().NOT_ERROR = self._not_error
        greenlet.settrace(self._before)
        if self._timer is not None:
            self._timer.close()

    def _trace(self, kind: str, greenlets: tuple[Any, Any]) -> None:
        if kind != "switch" or greenlets[0] is not self._victim or self._victim.dead:
            return
        if next(self._switches) == self._number:
            self.has_switched = True
            if self._timer is None:
                gevent.get_hub().loop.run_callback(self._hit)
            else:
                self._timer.start(self._hit)

    def _hit(self) -> None:
        if not self._victim.dead:
            self.has_hit = True
            self._victim.throw(self._error)


def must_end(one: gevent.Greenlet, who: str) -> None:
    one.join(LONGEST)
    where = "" if one.gr_frame is None else "".join(traceback.format_stack(one.gr_frame))
    assert one.dead, f"{who} hangs:\n{where}"


def kill_once(sweep: Sweep, unit: str, number: int, error: BaseException, delay: float) -> bool:
    """One unit of work in a full pool with somebody behind it, killed. False: there was no such switch."""
    is_over, is_lent = Event(), Event()

    def other() -> None:
        with sweep.lend() as connection:
            is_lent.set()
            is_over.wait()
            sweep.ask(connection)

    holder = gevent.spawn(other)
    assert is_lent.wait(LONGEST)
    victim = gevent.Greenlet(getattr(sweep, unit))
    with Strike(victim, number, error, delay) as strike:
        victim.start()
        behind = gevent.spawn(sweep.behind)
        must_end(victim, "the victim")
        must_end(behind, "the one behind it")
    is_over.set()
    must_end(holder, "the other holder")
    came_out = victim.exception if victim.exception is not None else victim.value
    expected = error if strike.has_hit else None
    assert came_out is expected, f"{error!r} came out as {came_out!r}"
    assert (unit == "closing" and isinstance(behind.exception, PoolClosed)) or behind.successful()
    assert holder.successful()
    return strike.has_switched


def sweep_over(sweep: Sweep, unit: str, kinds: list[type[BaseException]]) -> None:
    numbers: random.Random = new_random()
    getattr(sweep, unit)()
    sweep.check()
    for number in range(1, LAST_SWITCH):
        # At once, always: what is wrong at a switch is then found in every run. And a moment later, when
        # what the victim waits for may be there.
        delays = [0.0, 0.001] if IS_WHOLE or numbers.random() < 0.3 else [0.0]
        has_switched = False
        # On a busy machine the answer to a short unit may be there before anybody waits for it.
        for delay in delays if number > 1 else delays * 30:
            if has_switched and number == 1 and delay == delays[0]:
                break
            try:
                has_switched |= kill_once(sweep, unit, number, numbers.choice(kinds)(), delay)
                sweep.check()
            except BaseException:
                print(f"the unit was killed {delay} s after its switch number {number}")
                raise
        if not has_switched:
            assert number > 1, "no switch was ever hit"
            return
    pytest.fail(f"the unit switches more than {LAST_SWITCH} times")


# The drivers say what they think of a result that is left in the middle, as the unit leaves it.
@pytest.mark.filterwarnings("ignore:<psycopg.ServerCursor:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Previous unbuffered result:UserWarning")
@pytest.mark.usefixtures("_quiet_pymysql")
@pytest.mark.parametrize("driver", ["pymysql", "psycopg", "psycopg2", "pg8000"])
@pytest.mark.parametrize(("door", "unit"), UNITS, ids=lambda one: getattr(one, "__name__", one))
@pytest.mark.parametrize(
    "kind", KINDS if IS_WHOLE else [None], ids=lambda kind: "any" if kind is None else kind.__name__
)
def test_a_kill_at_any_switch_comes_out_as_itself_and_loses_nothing(
    url_of: Callable[[str], str],
    driver: str,
    door: type[Sweep],
    unit: str,
    kind: type[BaseException] | None,
) -> None:
    sweep = door(driver, url_of(driver))
    try:
        sweep_over(sweep, unit, KINDS if kind is None else [kind])
    finally:
        sweep.close()
        gc.collect()
