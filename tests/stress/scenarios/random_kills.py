"""Many greenlets on few connections, some of which are killed all the time."""

from __future__ import annotations

import random
from typing import Any

import gevent

from . import books
from .base import Context, Row, Scenario
from .kills import KINDS, Kill

GREENLETS, MAX_SIZE = 200, 10
KILLS_PER_SECOND = 50
SEED = 4711


class Crowd:
    """The greenlets, and what has become of their requests.

    Attributes:
        attempted: requests, but those that were killed.
        succeeded: those with the right answer.
        killed: those that were killed.
    """

    def __init__(self, pool: Any, nap: str, seconds: float) -> None:
        self.pool = pool
        self.nap = nap
        self.until = books.now() + seconds
        self.attempted = self.succeeded = self.killed = self.wrong = 0
        self.errors: dict[str, int] = {}
        self.workers = [gevent.spawn(self._work, place) for place in range(GREENLETS)]

    def kill_some(self, chance: random.Random) -> None:
        """Kills one of them every now and then, until the time is over."""
        loop = gevent.get_hub().loop
        while books.now() < self.until:
            gevent.sleep(chance.expovariate(KILLS_PER_SECOND))
            victim, kind = chance.choice(self.workers), chance.choice(KINDS)
            if not victim.dead:
                loop.run_callback(victim.throw, kind())

    def _work(self, place: int) -> None:
        token = place * 1_000_000
        while books.now() < self.until:
            token += 1
            try:
                with self.pool.connection() as connection:
                    connection.query(self.nap)
                    is_right = connection.query(f"select {token}") == token
                gevent.sleep(0.01)
            except (gevent.GreenletExit, gevent.Timeout, Kill):
                self.killed += 1
                continue
            except Exception as error:
                self.attempted += 1
                self.errors[type(error).__name__] = self.errors.get(type(error).__name__, 0) + 1
                continue
            self.attempted += 1
            self.succeeded += is_right
            self.wrong += not is_right

    def join(self) -> int:
        """Returns: how many never end."""
        gevent.joinall(self.workers, timeout=self.until - books.now() + 15)
        return sum(not worker.dead for worker in self.workers)


def run(context: Context) -> None:
    observer = context.observer()
    seconds = context.pick(60, 5, 2)
    nap = f"select {'sleep' if 'mysql' in context.url else 'pg_sleep'}(0.005)"
    calm_pool = context.make_pool(MAX_SIZE, timeout=5)
    calm = Crowd(calm_pool, nap, context.pick(20, 3, 1))
    calm_seconds = calm.until - books.now()
    calm.join()
    calm_pool.close()
    observer.clear()
    pool = context.make_pool(MAX_SIZE, timeout=5)
    crowd = Crowd(pool, nap, seconds)
    gevent.spawn(crowd.kill_some, random.Random(SEED))
    hung = crowd.join()
    share_calm = calm.succeeded / max(1, calm.attempted)
    share = crowd.succeeded / max(1, crowd.attempted)
    context.figures.update(
        {
            "attempted": crowd.attempted,
            "succeeded": crowd.succeeded,
            "killed": crowd.killed,
            "succeeded / attempted": round(share, 4),
            "the same without kills": round(share_calm, 4),
            "requests/s": round(crowd.succeeded / seconds),
            "requests/s without kills": round(calm.succeeded / calm_seconds),
            "errors": crowd.errors or 0,
            "connections opened": pool.connects.opened,
        }
    )
    context.expect(not hung, f"hung: {hung} of {GREENLETS} greenlets never ended")
    context.expect(not crowd.wrong, f"{crowd.wrong} answers of other queries")
    context.expect(share >= 0.9 * share_calm, f"only {share:.0%} of the attempts succeeded")
    if not hung:
        problem = books.are_right(pool, observer, 8)
        context.expect(not problem, f"afterwards: {problem}")


SCENARIO = Scenario(
    name="random_kills",
    title="Random kills",
    about=(
        f"{GREENLETS} greenlets on a pool of {MAX_SIZE} for 60 s; {KILLS_PER_SECOND} times a second one "
        "of them, drawn from a fixed seed, is killed wherever it is. Of the requests that were not "
        "killed as many succeed as in a run without kills, to within 10 %; every answer is right; in the "
        "end the maximum can be borrowed at once and the server agrees with the pool's books."
    ),
    run=run,
    rows=(Row("psycopg 3", "psycopg"), Row("PyMySQL", "pymysql")),
    limit=180,
)
