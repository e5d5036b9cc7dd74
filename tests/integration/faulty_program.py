"""A program that does all that one should not do with a pool, and publishes it: for the page's tests."""

from gevent import monkey

monkey.patch_all()

import logging  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from sqlalchemy import create_engine, event, text  # noqa: E402

import geventpool.observe  # noqa: E402
from geventpool import ConnectionPool  # noqa: E402
from geventpool.sqlalchemy import GeventPool  # noqa: E402
from geventpool.testing import FakeDriver  # noqa: E402

logging.disable(logging.CRITICAL)
directory = sys.argv[1]
kept: list[Any] = []


def lists_orders() -> None:
    with engine.connect() as connection:
        connection.execute(text("select 'hunter2' where 1 = :n"), {"n": 1}).all()
        gevent.sleep(0.02)


def leaves_transaction_open() -> None:
    with engine.connect() as connection:
        connection.execute(text("create table if not exists t (n int)"))
        connection.execute(text("insert into t values (1)"))
        gevent.sleep(60)


def leaks() -> None:
    kept.append(engine.connect())


def asks_slowly() -> None:
    with engine.connect() as connection:
        connection.execute(text("select nap(0.3)")).all()


def computes() -> None:
    end = time.monotonic() + 1.0  # longer than anything else on a busy machine
    while time.monotonic() < end:
        pass


def keeps_all() -> None:
    with small.connection():
        gevent.sleep(2)


def finds_no_server() -> None:
    with broken.connection():
        pass


def cannot_connect() -> None:
    raise OSError("no server here, password=hunter2")


def again(act: Callable[[], None], pause: float) -> None:
    while True:
        try:
            act()
        except Exception as error:
            kept[:] = [*kept[-100:], repr(error)]
        gevent.sleep(pause)


engine = create_engine(
    f"sqlite:///{directory}/desk.sqlite3",
    poolclass=GeventPool,
    pool_size=8,
    max_overflow=0,
    pool_logging_name="desk",
)


@event.listens_for(engine, "connect")
def _add_nap(connection: Any, _record: object) -> None:
    connection.create_function("nap", 1, lambda seconds: gevent.sleep(seconds) or seconds)


small = ConnectionPool(FakeDriver().connect, name="small", max_size=2, timeout=1)
broken = ConnectionPool(cannot_connect, name="broken", timeout=1)
geventpool.observe.attach(
    engine, idle_in_transaction_after=0.5, held_after=1.0, slow_query_after=0.2
)
geventpool.observe.attach(small)
geventpool.observe.attach(broken)
geventpool.observe.publish(f"{directory}/snapshots", interval=0.5)

for _ in range(2):
    gevent.spawn(again, lists_orders, 0.03)
for _ in range(5):
    gevent.spawn(again, keeps_all, 0.01)
for fault, every in (
    (leaves_transaction_open, 1.0),
    (asks_slowly, 1.0),
    (computes, 4.0),
    (finds_no_server, 0.5),
):
    gevent.spawn(again, fault, every)
gevent.spawn(leaks)
geventpool.observe.watch_hub(0.1)
print("ready", flush=True)
gevent.sleep(float(sys.argv[2]))
