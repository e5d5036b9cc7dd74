"""A process that forks while its pool has connections, and then uses the pool on both sides."""

from __future__ import annotations

import gc
import json
import os
import signal
from typing import Any

import gevent

from . import books
from .base import Context, Row, Scenario

MAX_SIZE = 5


def run(context: Context) -> None:
    observer = context.observer()
    pool = context.make_pool(MAX_SIZE, timeout=3)
    ours = "select connection_id()" if "mysql" in context.url else "select pg_backend_pid()"
    held = [pool.lend() for _ in range(4)]
    numbers = [connection.query(ours) for connection in held]
    for connection in held[2:]:
        connection.close()
    del held[2:]
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(12)
        try:
            _child(pool, ours, writing)
        finally:
            os._exit(0)
    os.close(writing)
    crossed, errors = _ask(pool, 1.0, 0)
    told = _read(reading)
    gevent.spawn(os.waitpid, child, 0).join(15)
    _judge_child(context, told, set(numbers))
    context.expect(not crossed, f"parent: {crossed} answers of other queries")
    context.expect(not errors, f"parent: {errors[:1]}")
    try:
        with gevent.Timeout(5):
            still = [connection.query(ours) for connection in held]
            for connection in held:
                connection.close()
        context.expect(still == numbers[:2], "the parent's lent connections were replaced")
    except (Exception, gevent.Timeout) as error:
        context.expect(False, f"the parent's lent connections: {type(error).__name__}")
    kept = len(set(numbers) & observer.others())
    context.figures["parent's connections kept"] = f"{kept} of 4"
    context.expect(kept == 4, f"{4 - kept} of the parent's 4 connections were ended")
    problem = books.borrow_all(pool, 4)
    context.expect(not problem, f"parent: {problem}")


def _ask(pool: Any, seconds: float, base: int) -> tuple[int, list[str]]:
    """Queries from 3 greenlets. Returns: wrong answers, and errors."""
    wrong, errors = 0, []
    until = books.now() + seconds

    def work(place: int) -> None:
        nonlocal wrong
        token = base + place
        try:
            with gevent.Timeout(seconds + 4):
                while books.now() < until:
                    token += 10
                    with pool.connection() as connection:
                        wrong += connection.query(f"select {token}") != token
                    gevent.sleep(0.001)
        except (Exception, gevent.Timeout) as error:
            errors.append(f"{type(error).__name__}: {error}".splitlines()[0][:100])

    gevent.joinall([gevent.spawn(work, place) for place in range(3)])
    return wrong, errors


def _child(pool: Any, ours: str, writing: int) -> None:
    told: dict[str, Any] = {"numbers": []}
    try:
        with gevent.Timeout(9):
            told["wrong"], told["errors"] = _ask(pool, 1.0, 1_000_000)
            connections = [pool.lend() for _ in range(2)]
            told["numbers"] = [connection.query(ours) for connection in connections]
            for connection in connections:
                connection.close()
            del connections
            pool.close()
            gc.collect()
    except (Exception, gevent.Timeout) as error:
        told.setdefault("errors", []).append(type(error).__name__)
    os.write(writing, json.dumps(told).encode())


def _read(reading: int) -> dict[str, Any]:
    """What the child has told, if it does so in time."""
    with gevent.Timeout(15, False):
        os.set_blocking(reading, False)
        told = b""
        while True:
            gevent.socket.wait_read(reading)
            part = os.read(reading, 65536)
            if not part:
                return dict(json.loads(told)) if told else {}
            told += part
    return {}


def _judge_child(context: Context, told: dict[str, Any], parents: set[int]) -> None:
    if not told:
        context.expect(False, "the child hung")
        return
    shared = len(parents & set(told["numbers"]))
    context.figures["parent's connections used by the child"] = shared
    context.figures["crossed answers in the child"] = told.get("wrong", "?")
    context.expect(not told.get("wrong"), f"child: {told.get('wrong')} answers of other queries")
    context.expect(shared == 0, f"the child uses {shared} of its parent's connections")
    context.expect(not told.get("errors"), f"child: {told.get('errors', [])[:1]}")


SCENARIO = Scenario(
    name="fork",
    title="Fork",
    about=(
        "`os.fork()` while 2 connections are lent and 2 idle; nothing is told to the pool. Both sides "
        "use it for a second at once, then the child closes it and collects. The child works with "
        "connections of its own, no answer is another query's, and all 4 connections of the parent are "
        "on the server and usable afterwards (nobody said goodbye on them). SQLAlchemy documents that "
        "one has to call `engine.dispose(close=False)` in the child by hand; here nobody did."
    ),
    run=run,
    rows=(Row("psycopg 3", "psycopg"), Row("PyMySQL", "pymysql")),
    limit=60,
)
