"""The models of other pools beside the real ones, in virtual time: each figure has to agree.

The real pools run on gevent's patched locks; their connections are opened, and their users hold them, by
a `FakeClock`. The two ancestors are not on any package index: their tests run where they can be imported.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from queue import Empty
from random import Random
from types import SimpleNamespace
from typing import Any

import gevent
import psycopg_pool
import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy.pool import QueuePool

from geventpool.simulator import Trace, make_trace
from geventpool.simulator import peers as models
from geventpool.simulator.peers import Peer
from geventpool.testing import FakeClock, settle

CONNECT = 0.02


@dataclass
class Server:
    """Counts what a real pool does."""

    clock: FakeClock
    opens: int = 0
    open_seconds: float = 0.0
    waits: list[float] = field(default_factory=list)

    def connect(self) -> Connection:
        self.opens += 1
        self.clock.sleep(CONNECT)
        return Connection(self)


class Connection:
    """Enough of one for SQLAlchemy, and for psycopg's pool."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.since = server.clock.now()
        self.pgconn = SimpleNamespace(transaction_status=TransactionStatus.IDLE)

    def rollback(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        self.server.open_seconds += self.server.clock.now() - self.since


def drive(
    trace: Trace,
    server: Server,
    take: Callable[[], Any],
    give: Callable[[Any], object],
    horizon: float,
) -> float:
    """Replays a trace with a greenlet for each request; returns how long connections were held."""
    clock, held = server.clock, []

    def request(hold: float) -> None:
        asked = clock.now()
        connection = take()
        if clock.now() > asked:
            server.waits.append(clock.now() - asked)
        clock.sleep(hold)
        held.append(hold)
        give(connection)

    for at, hold in trace:
        clock.call_later(at - clock.now(), lambda hold=hold: gevent.spawn(request, hold), ref=True)
    clock.advance(horizon - clock.now())
    assert len(held) == len(trace)
    return sum(held)


def agree(model: Peer, trace: Trace, server: Server, held: float, horizon: float) -> None:
    model.run(trace, horizon)
    assert model.opens == server.opens
    assert sorted(model.waits.seconds) == pytest.approx(sorted(server.waits), abs=1e-6)
    assert model.idle_seconds == pytest.approx(server.open_seconds - held, rel=1e-6, abs=1e-3)


def loads() -> list[Trace]:
    """Some bursts, a batch at once, a steady load: two minutes of each."""
    traces = []
    for family, seed in (("bursts", 1), ("batches", 0), ("steady", 3), ("near-idle", 1)):
        end = 4000.0 if family == "near-idle" else 120.0
        # No two at the same instant: then the order would be the real pool's own affair.
        chance = Random(seed)
        rows = (
            (t + chance.random() / 100, hold) for t, hold in make_trace(family, seed) if t < end
        )
        traces.append(Trace(family, rows))
    return traces


@pytest.fixture(params=loads(), ids=lambda trace: trace.name)
def trace(request: pytest.FixtureRequest) -> Trace:
    return request.param  # type: ignore[no-any-return]


def run_queuepool(
    pool: Any, trace: Trace, server: Server, horizon: float, ticks: Callable[[], object] = int
) -> float:
    held = drive(trace, server, pool.connect, lambda connection: connection.close(), horizon)
    pool.dispose()
    settle()
    return held


@pytest.mark.parametrize(("size", "overflow"), [(1, 3), (5, 10), (3, -1), (0, 0)])
def test_queuepool(trace: Trace, size: int, overflow: int) -> None:
    server = Server(FakeClock(trace.start))
    pool = QueuePool(server.connect, pool_size=size, max_overflow=overflow, timeout=1000)
    horizon = trace.last_return + 500
    held = run_queuepool(pool, trace, server, horizon)
    agree(models.QueuePool(CONNECT, size, overflow), trace, server, held, horizon)


@pytest.mark.parametrize(("least", "most"), [(4, 100), (1, 3), (0, 20)])
def test_psycopg_pool(trace: Trace, least: int, most: int) -> None:
    clock = FakeClock(trace.start)
    server = Server(clock)
    pool: Any = psycopg_pool.ConnectionPool(
        connection_class=SimpleNamespace(connect=lambda _, **kw: server.connect()),  # type: ignore[type-var]
        min_size=least,
        max_size=most,
        timeout=1000,
        open=True,
        max_idle=10**6,
    )
    max_idle = 20.0

    def shrink() -> None:
        pool._shrink_pool()  # what its scheduler does every `max_idle` seconds
        clock.call_later(max_idle, shrink, ref=True)

    clock.call_later(max_idle, shrink, ref=True)
    horizon = trace.last_return + 500
    held = drive(trace, server, pool.getconn, pool.putconn, horizon)
    pool.close()
    agree(models.PsycopgPool(CONNECT, most, least, max_idle), trace, server, held, horizon)


def test_saautopool(trace: Trace) -> None:
    ancestor = pytest.importorskip("saautopool", reason="SAAutoPool is on no package index")
    clock = FakeClock(trace.start)
    server = Server(clock)

    class OnFakeClock(ancestor.SAAutoPool):  # type: ignore[misc,name-defined]
        def _get_time(self) -> float:
            return clock.now()

    pool = OnFakeClock(server.connect, pool_size=50, max_overflow=0, timeout=1000)
    pool.next_update = -math.inf  # its clock counts from 1970
    horizon = trace.last_return + 500
    held = run_queuepool(pool, trace, server, horizon)
    agree(models.SAAutoPool(CONNECT, 50, timeout=math.inf), trace, server, held, horizon)


def test_djangoqueuepool(trace: Trace) -> None:
    try:
        ancestor = importlib.import_module("django_db_conn_pool.mysqlalchemy.pool")
    except ImportError:
        pytest.skip("django-db-conn-pool is on no package index")
    clock = FakeClock(trace.start)
    server = Server(clock)
    pool = ancestor.DjangoQueuePool(
        server.connect,
        core_pool_size=5,
        unload_timeout=2.0,
        pool_size=30,
        max_overflow=0,
        timeout=1000,
    )
    get = pool._pool.get

    def get_by_fake_clock(block: bool, timeout: float = 1000) -> Any:
        if not block or timeout > 100:
            return get(block, timeout)
        throw = partial(gevent.get_hub().loop.run_callback, gevent.getcurrent().throw, Empty)
        timer = clock.call_later(timeout, throw, ref=True)
        try:
            return get(True, 1000)
        finally:
            timer.stop()

    pool._pool.get = get_by_fake_clock
    ancestor.sqlalchemy.util.queue.Empty = Empty

    def retire() -> None:
        pool._do_retire()
        clock.call_later(5.0, retire, ref=True)

    clock.call_later(5.0, retire, ref=True)
    horizon = trace.last_return + 500
    held = run_queuepool(pool, trace, server, horizon)
    agree(models.DjangoQueuePool(CONNECT, 30), trace, server, held, horizon)
