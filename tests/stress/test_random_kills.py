"""Two hundred greenlets on ten connections, killed at random, beside the same without kills."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator

import gevent
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine

from geventpool.sqlalchemy import GeventPool

from ..integration.dbapi import eventually
from .server_side import IS_WHOLE, Observer, make_databases, new_random
from .test_kill_sweep import KINDS, Kill

GREENLETS = 200
MAX_SIZE = 10
# So many are to hit, at this pace; and without any, so many requests are enough to compare with.
KILLS = 1500 if IS_WHOLE else 75
KILLS_PER_SECOND = 100.0
CALM_REQUESTS = 10 * KILLS
LONGEST = 60
LONGEST_RUN = 40 * KILLS / KILLS_PER_SECOND


def prepare(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("create table hits (x int)"))


@pytest.fixture(scope="module")
def url_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    yield from make_databases(request, "geventpool_kills", prepare)


class Load:
    """Greenlets that work one request after the other until they are told to end.

    Attributes:
        counts: requests by how they ended: `done`, `killed`, or the name of an error.
        most_connections: the most that the server was ever seen to have.
    """

    def __init__(self, url: str, numbers: random.Random) -> None:
        self.numbers = numbers
        self.engine = create_engine(
            url, poolclass=GeventPool, max_size=MAX_SIZE, pool_timeout=LONGEST
        )
        self.observer = Observer(url)
        self.nap = text(f"select {'sleep' if self.observer.is_mysql else 'pg_sleep'}(0.005)")
        self.tokens = itertools.count(1)
        self.counts: Counter[str] = Counter()
        self.most_connections = 0
        self.is_over = False

    def request(self) -> None:
        token = next(self.tokens)
        with self.engine.begin() as connection:
            connection.execute(text("insert into hits values (:x)"), {"x": token % 1000})
            connection.execute(self.nap)
            answer = connection.execute(text(f"select {token}")).scalar_one()
        assert answer == token, "another's answer"

    def work(self) -> None:
        while not self.is_over:
            try:
                self.request()
            except (gevent.GreenletExit, gevent.Timeout, Kill):
                self.counts["killed"] += 1
            except Exception as error:
                self.counts[f"{type(error).__name__}: {error}"[:200]] += 1
            else:
                self.counts["done"] += 1

    def kill(self, workers: list[gevent.Greenlet]) -> None:
        while not self.is_over:
            gevent.sleep(self.numbers.expovariate(KILLS_PER_SECOND))
            victim = self.numbers.choice(workers)
            error = self.numbers.choice(KINDS)()
            gevent.get_hub().loop.run_callback(self.strike, victim, error)

    def strike(self, victim: gevent.Greenlet, error: BaseException) -> None:
        # Not while it is between two requests: there nobody would catch it.
        if not victim.dead and victim.gr_frame is not None and not self.is_over:
            victim.throw(error)

    def sample(self) -> None:
        pool = self.engine.pool
        while not self.is_over:
            pool.core.ledger.check()
            stats = pool.stats()
            assert stats.size == stats.idle + stats.in_use + stats.opening + stats.closing
            assert stats.size <= MAX_SIZE
            self.most_connections = max(self.most_connections, len(self.observer.ids()))
            gevent.sleep(0.02)

    def run(self, *, kills: bool) -> float:
        """Runs until enough have been killed, or done.

        Returns:
            The share of the requests that were done, of those that nobody has killed.
        """
        workers = [gevent.spawn(self.work) for _ in range(GREENLETS)]
        others = [gevent.spawn(self.sample)]
        if kills:
            others.append(gevent.spawn(self.kill, workers))
        how, enough = ("killed", KILLS) if kills else ("done", CALM_REQUESTS)
        assert eventually(lambda: self.counts[how] > enough, LONGEST_RUN), self.counts
        self.is_over = True
        gevent.joinall(workers + others, timeout=LONGEST, raise_error=True)
        assert all(one.dead for one in workers + others), "somebody hangs"
        print(f"kills={kills}: {dict(self.counts)}, {self.most_connections} connections at most")
        self.check()
        return self.counts["done"] / (self.counts.total() - self.counts["killed"])

    def check(self) -> None:
        pool = self.engine.pool
        with gevent.Timeout(LONGEST):
            lent = [self.engine.connect() for _ in range(MAX_SIZE)]
        for token, connection in enumerate(lent):
            assert connection.execute(text(f"select {token}")).scalar_one() == token
            connection.close()
        self.observer.assert_settles(lambda: pool.stats().size)
        stats = pool.stats()
        assert (stats.in_use, stats.opening, stats.closing, stats.waiting) == (0, 0, 0, 0)
        assert stats.owners_ended == 0
        self.engine.dispose()
        self.observer.close()


@pytest.mark.parametrize("driver", ["pymysql", "psycopg2", "psycopg"])
def test_random_kills_cost_no_more_than_the_requests_that_they_hit(
    url_of: Callable[[str], str], driver: str
) -> None:
    numbers = new_random()
    without = Load(url_of(driver), numbers)
    undisturbed = without.run(kills=False)
    assert undisturbed == 1.0, without.counts
    under_fire = Load(url_of(driver), numbers)
    goodput = under_fire.run(kills=True)
    assert goodput >= 0.9 * undisturbed, under_fire.counts
    assert without.most_connections <= MAX_SIZE
    assert under_fire.most_connections <= MAX_SIZE, (
        "MySQL's queries are ended through the pool's own"
    )
