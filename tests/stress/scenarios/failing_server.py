"""A server that is killed under load and comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from tools.servers import MariaDB, PostgreSQL

from . import books
from .base import Context, Row, Scenario

GREENLETS, MAX_SIZE = 30, 10
CONNECT_TAKES = 0.02
LONGEST_ERROR = 1.5
LONGEST_RECOVERY = 2.0
MOST_IN_FLIGHT = 4


class Load:
    """Requests all the time, and how each one ended.

    Attributes:
        ended: for each request when it began, when it ended, and its error's name or nothing.
    """

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.goes_on = True
        self.ended: list[tuple[float, float, str]] = []
        self.workers = [gevent.spawn(self._work) for _ in range(GREENLETS)]

    def _work(self) -> None:
        while self.goes_on:
            began, problem = books.now(), ""
            try:
                with self.pool.connection() as connection:
                    connection.query("select 1")
            except Exception as error:
                problem = type(error).__name__
            self.ended.append((began, books.now(), problem))
            gevent.sleep(0.02)

    def stop(self) -> int:
        """Returns: how many greenlets never end."""
        self.goes_on = False
        gevent.joinall(self.workers, timeout=5)
        return sum(not worker.dead for worker in self.workers)


def run(context: Context) -> None:
    kind: Callable[[], Any] = MariaDB if "mysql" in context.url else PostgreSQL
    with kind() as server:
        pool = context.make_pool(
            MAX_SIZE, url=server.url(context.row.driver), delay=CONNECT_TAKES, checks=True
        )
        if context.pool != "django-db-geventpool" and not context.is_ours:
            context.notes.append("tests connections before it lends them (pre_ping, check)")
        load = Load(pool)
        gevent.sleep(context.pick(2, 1))
        down_at = books.now()
        server.kill()
        begun = pool.connects.begun
        pool.connects.most_in_flight = pool.connects.in_flight
        gevent.sleep(context.pick(6, 4, 2))
        in_flight_down, tried = pool.connects.most_in_flight, pool.connects.begun - begun
        server.start()
        up_at = books.now()  # it answers
        gevent.sleep(context.pick(8, 5, 3))
        in_flight = pool.connects.most_in_flight
        ends_at = books.now()
        hung = load.stop()
        _judge(context, load, down_at, up_at, ends_at)
        context.figures.update(
            {
                "attempts to connect while down": tried,
                "most connects in flight, while down": in_flight_down,
                "most connects in flight, in all": in_flight,
            }
        )
        context.expect(
            in_flight <= MOST_IN_FLIGHT, f"a herd: {in_flight} connects in flight at once"
        )
        context.expect(not hung, f"{hung} greenlets hang")
        pool.close()


def _judge(context: Context, load: Load, down_at: float, up_at: float, ends_at: float) -> None:
    waits = [
        min(end, up_at) - begin
        for begin, end, problem in load.ended
        if down_at < end and begin < up_at and (problem or end > up_at)
    ]
    longest = max(waits, default=0.0)
    good = [end for begin, end, problem in load.ended if not problem and end > up_at]
    bad = [end for begin, end, problem in load.ended if problem and end > up_at]
    first = min(good, default=float("inf")) - up_at
    last_error = max(bad, default=up_at) - up_at
    context.figures.update(
        {
            "longest wait for an error while down, s": round(longest, 2),
            "errors": sum(bool(problem) for _, _, problem in load.ended),
            "first success after the return, s": round(max(first, 0.0), 2) if good else "never",
            "last error after the return, s": round(last_error, 2),
        }
    )
    context.expect(
        longest <= LONGEST_ERROR, f"a caller waited {longest:.1f} s for its error", is_timing=True
    )
    context.expect(bool(good), "no recovery")
    context.expect(
        not good or first <= LONGEST_RECOVERY,
        f"the first success came {first:.1f} s after the server's return",
        is_timing=True,
    )
    context.expect(
        last_error <= LONGEST_RECOVERY,
        f"errors until {last_error:.1f} s after the server's return",
        is_timing=True,
    )


SCENARIO = Scenario(
    name="failing_server",
    title="Failing server",
    about=(
        f"{GREENLETS} greenlets on a pool of {MAX_SIZE}; a connect takes {CONNECT_TAKES * 1000:.0f} ms "
        "more than it would. The server is killed (-9), comes back 6 s later. How long a caller had to "
        f"wait for its error (at most {LONGEST_ERROR} s; who was left waiting until the return counts "
        "with the time until then), how long after the return the first request succeeded and the last "
        f"one failed (at most {LONGEST_RECOVERY:g} s), and how many connects were under way at once (at "
        f"most {MOST_IN_FLIGHT}). The peers test connections before they lend them, where they can."
    ),
    run=run,
    rows=(Row("psycopg 3", "psycopg"), Row("PyMySQL", "pymysql")),
    limit=90,
)
