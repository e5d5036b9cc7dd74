"""An engine under load and what is counted of it, for the tests of failing servers."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gevent
import pytest
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeout

from geventpool import PoolTimeout
from geventpool.sqlalchemy import GeventPool

from ..integration.dbapi import eventually
from ..integration.proxy import Proxy
from .server_side import Observer

DRIVERS = ["pymysql", "psycopg", "psycopg2"]
MAX_SIZE, GREENLETS = 5, 20
# The pool's own time-out: nobody is to wait for it, and who hangs does so for longer than LONGEST.
TIMEOUT, LONGEST = 30.0, 20.0
CONNECT_TIMEOUT = 1.0
# The opener's longest pause, and what a machine with other work may add: far from TIMEOUT together.
STEP, SLACK = 1.0, 10.0
# Successes after which the ramp may be left behind by who has waited: after a failure, and without one.
PROOF, FIRST_PROOF = 3, 1
A_MOMENT = 0.05  # between what the pool does and what is seen of it here

_tokens = itertools.count(1)


class Connects:
    """Every attempt to connect passes here; it is noted where they do not keep to the ramp.

    Attributes:
        begun: when each of them began.
        failed: when those began that came to nothing.
        in_flight: those that are under way.
        herds: (attempts under way, how many might be), where it was too many.
    """

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.failed: list[float] = []
        self.in_flight = 0
        self.herds: list[tuple[int, int]] = []
        self._successes: list[float] = []
        self._failures: list[float] = []

    def connect(self, dialect: Any, _record: Any, args: Any, kwargs: Any) -> Any:
        began = time.monotonic()
        self.begun.append(began)
        self.in_flight += 1
        may = self._may(began)
        if self.in_flight > may:
            self.herds.append((self.in_flight, may))
        try:
            connection = dialect.connect(*args, **kwargs)
        except BaseException:
            self.failed.append(began)
            self._failures.append(time.monotonic())
            raise
        finally:
            self.in_flight -= 1
        self._successes.append(time.monotonic())
        return connection

    def _may(self, now: float) -> int:
        """How many may be under way: one more for each success since the last failure.

        An attempt begins a moment after it was decided upon, and the pool counts a success a moment
        after we do: when the connection is set up.
        """
        failures = [at for at in self._failures if at < now - A_MOMENT]
        since = failures[-1] - A_MOMENT if failures else 0.0
        successes = sum(at > since for at in self._successes)
        is_proven = successes >= (PROOF if failures else FIRST_PROOF)
        return MAX_SIZE if is_proven else successes + 1


class Scene:
    """A pool on a server, perhaps through a proxy, and what the server itself says.

    Args:
        url: of the database.
        proxy: stands between.
        **settings: of the pool.

    Attributes:
        connects: the attempts to connect.
        observer: a connection beside the pool, and the proxy.
    """

    def __init__(self, url: str, proxy: Proxy | None = None, **settings: Any) -> None:
        self._url = url
        self.engine = create_engine(
            proxy.url(url) if proxy else url,
            poolclass=GeventPool,
            # What is idle stays: what becomes of it is the subject, and not the sizing.
            **{"max_size": MAX_SIZE, "min_idle": MAX_SIZE, "pool_timeout": TIMEOUT, **settings},
        )
        self.connects = Connects()
        event.listen(self.engine, "do_connect", self.connects.connect)
        self.observer = Observer(url)
        self.most = 0

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.dispose()
        self.observer.close()

    @property
    def pool(self) -> GeventPool:
        assert isinstance(self.engine.pool, GeventPool)
        return self.engine.pool

    @property
    def is_mysql(self) -> bool:
        return self.observer.is_mysql

    def nap(self, seconds: float) -> Any:
        """A query that takes so long."""
        return text(f"select {'sleep' if self.is_mysql else 'pg_sleep'}({seconds})")

    def ask(self, connection: Connection) -> None:
        """Is the answer this question's?"""
        token = next(_tokens)
        assert connection.execute(text(f"select {token}")).scalar_one() == token

    def request(self, nap: float = 0.0) -> None:
        with self.engine.connect() as connection:
            if nap:
                connection.execute(self.nap(nap))
            self.ask(connection)

    def lend(self, count: int) -> list[Connection]:
        """So many at once, each of which answers."""
        with gevent.Timeout(LONGEST):
            lent = [self.engine.connect() for _ in range(count)]
            for connection in lent:
                self.ask(connection)
        return lent

    def fill(self, count: int = MAX_SIZE) -> None:
        """From now on so many are idle."""
        for connection in self.lend(count):
            connection.close()
        assert self.pool.stats().idle == count

    def age(self) -> None:
        """As if what is idle had been so for an hour."""
        for entry in self.pool.core.ledger.idle:
            entry.idle_since -= 3600

    def observe_again(self) -> None:
        """After the server was gone."""
        self.observer = Observer(self._url)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """The server is asked all the time how many connections there are; nobody else asks meanwhile."""

        def watch() -> None:
            while goes_on:
                self.most = max(self.most, len(self.observer.ids()))
                gevent.sleep(0.01)

        goes_on = True
        watcher = gevent.spawn(watch)
        try:
            yield
        finally:
            goes_on = False
            watcher.get(timeout=LONGEST)

    def kill_all(self) -> int:
        """Ends all connections but the observer's, and sees that they are gone."""
        victims = self.observer.ids()
        kill = "kill {}" if self.is_mysql else "select pg_terminate_backend({})"
        for victim in victims:
            with contextlib.suppress(OperationalError):  # the pool has closed it itself by now
                self.observer.connection.execute(text(kill.format(victim)))
        assert eventually(lambda: not self.observer.ids() & victims)
        return len(victims)

    def survive_a_kill(self, server: Any, load: Load, seconds: float) -> tuple[float, float]:
        """The server is killed under load and started again: when. Until requests are served again."""
        with self.watching():
            assert eventually(lambda: len(load.ended) > 2 * GREENLETS)
        self.observer.close()
        assert load.errors() == []
        down_at = time.monotonic()
        server.kill()
        gevent.sleep(seconds)
        server.start()
        up_at = time.monotonic()
        # Its return is found within a second, because the next attempt is due by then.
        pace = self.pool.core.upkeep.pace
        assert pace.last_error is None or pace.retry_at - self.pool.core.clock.now() <= STEP
        self.observe_again()
        with self.watching():
            assert load.wait_for_recovery(STEP + SLACK)
            gevent.sleep(0.3)
        load.stop()
        assert self.most <= MAX_SIZE
        return down_at, up_at

    def assert_only_used_ones_fail(
        self, in_use: list[Any], errors: tuple[type[Exception], ...] = (OperationalError,)
    ) -> None:
        """All connections have just been ended, of which these are lent."""
        assert eventually(lambda: self.pool.stats().idle == 0), "gone before anybody asks"
        for _ in range(50):
            self.request()
        for one in in_use:
            with pytest.raises(errors):
                self.ask(one)
            one.close()
        for _ in range(50):
            self.request()
        self.assert_right()

    def assert_right(self, maximum: int = MAX_SIZE) -> None:
        """What must be true after anything."""
        pool = self.pool
        pool.configure(connect_timeout=LONGEST, timeout=TIMEOUT)  # what comes is no matter of time

        def figures() -> tuple[int, ...]:
            stats = pool.stats()
            return stats.in_use, stats.waiting, stats.opening, stats.closing

        pool.core.ledger.check()
        eventually(lambda: not any(figures()))
        assert figures() == (0, 0, 0, 0), "(in use, waiting, opening, closing)"
        self.observer.assert_settles(lambda: pool.stats().size)
        lent = self.lend(maximum)
        if maximum == MAX_SIZE:
            with pytest.raises(PoolTimeout):
                pool.core.acquire(0)
        while lent:
            lent.pop().close()
        pool.core.ledger.check()
        assert figures() == (0, 0, 0, 0), "(in use, waiting, opening, closing)"
        self.observer.assert_settles(lambda: pool.stats().size)
        assert self.connects.herds == [], "(connects under way, how many might be)"


def outcome(what: Callable[[], Any]) -> Any:
    """Its result, or the error that it raised."""
    try:
        return what()
    except (DBAPIError, PoolTimeout, gevent.Timeout) as error:
        return error


def all_at_once(scene: Scene, requests: int = 1) -> list[gevent.Greenlet]:
    """Greenlets that ask so often each; their values are the errors, or `None`."""

    def work() -> None:
        for _ in range(requests):
            scene.request(nap=0.005 if requests > 1 else 0.0)

    return [gevent.spawn(outcome, work) for _ in range(GREENLETS)]


def assert_served(workers: list[gevent.Greenlet], seconds: float = LONGEST) -> None:
    gevent.joinall(workers, timeout=seconds)
    hanging = sum(not worker.dead for worker in workers)
    gevent.killall(workers)
    assert hanging == 0
    assert [worker.value for worker in workers] == [None] * len(workers)


@dataclass(frozen=True)
class Ended:
    """A request of the load."""

    began: float
    ended: float
    error: BaseException | None


class Load:
    """Greenlets that ask all the time.

    Attributes:
        ended: their requests.
    """

    EXPECTED: tuple[type[Exception], ...] = (DBAPIError, SQLAlchemyTimeout)

    def __init__(self, scene: Scene, pause: float = 0.01) -> None:
        self._scene, self._pause = scene, pause
        self._goes_on = True
        self.ended: list[Ended] = []
        self._workers = [gevent.spawn(self._work) for _ in range(GREENLETS)]

    def _work(self) -> None:
        while self._goes_on:
            began, problem = time.monotonic(), None
            try:
                self._scene.request()
            except self.EXPECTED as error:
                problem = error
            self.ended.append(Ended(began, time.monotonic(), problem))
            gevent.sleep(self._pause)

    def stop(self) -> None:
        """Waits until all have ended; what they raised that no server explains is raised here."""
        self._goes_on = False
        gevent.joinall(self._workers, timeout=LONGEST, raise_error=True)
        assert all(worker.dead for worker in self._workers), "a request hangs"

    def wait_for_recovery(self, seconds: float) -> bool:
        """Waits until as many requests in a row have been served as there are greenlets, twice over."""

        enough = 2 * GREENLETS
        return eventually(lambda: not any(one.error for one in self.ended[-enough:]), seconds)

    def errors(self) -> list[Ended]:
        return [one for one in self.ended if one.error is not None]
