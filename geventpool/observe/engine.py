"""What SQLAlchemy tells of an engine's queries.

By the dialect's events `do_execute` and its like: around the driver's call itself, so that a kill is seen,
too. Any of the engine's own events (`before_cursor_execute`) would have SQLAlchemy take a way that is half
as long again for every statement.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

from sqlalchemy import event, exc
from sqlalchemy.engine import Engine

from ..errors import ConfigError
from ..sqlalchemy import GeventPool
from .dbapi import rows_of
from .observer import Observer
from .settings import Settings
from .watcher import Watcher, watcher_of


def pool_of(engine: Any) -> GeventPool:
    """The pool of an engine.

    Raises:
        ConfigError: it is none of ours.
    """
    pool = getattr(engine, "pool", None)
    if not isinstance(pool, GeventPool):
        raise ConfigError(
            "target",
            engine,
            "give a ConnectionPool, or an engine on a GeventPool: "
            "create_engine(url, poolclass=GeventPool), or geventpool.sqlalchemy.wrap(engine)",
        )
    return pool


def attach(engine: Engine, settings: Settings) -> Observer:
    """Watches an engine's pool, also when the engine is disposed of, and so gets another one."""
    pool = pool_of(engine)
    log: Any = pool.logger  # which heeds `echo_pool`
    observer = Observer(pool.core, settings, engine.dialect.name, log)

    def connected(_connection: Any, record: Any) -> None:
        core = record._pool.core
        if watcher_of(core) is None and observer.is_attached:
            observer.watch(core)

    targets: list[tuple[Any, str, Any]] = [(pool, "connect", connected)]
    if not settings.figures_only:
        targets += [
            (engine, "do_execute", _execute),
            (engine, "do_executemany", _execute_many),
            (engine, "do_execute_no_params", _execute_no_params),
        ]
    for target in targets:
        if not event.contains(*target):  # engines may share a dialect
            event.listen(*target)
            observer.on_detach(partial(_remove, *target))
    return observer


def _remove(*target: Any) -> None:
    with contextlib.suppress(exc.InvalidRequestError):  # it is gone with what it listened to
        event.remove(*target)


def _execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    return _run(context, cursor, statement, context.dialect.do_execute, (statement, parameters))


def _execute_many(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    return _run(context, cursor, statement, context.dialect.do_executemany, (statement, parameters))


def _execute_no_params(cursor: Any, statement: str, context: Any) -> bool:
    return _run(context, cursor, statement, context.dialect.do_execute_no_params, (statement,))


def _run(context: Any, cursor: Any, text: str, do: Any, arguments: tuple[Any, ...]) -> bool:
    """Sends a query as SQLAlchemy would, and is told how it ends, whatever comes.

    Returns:
        True, by which SQLAlchemy knows that it is done; False: do it yourself.
    """
    fairy: Any = context.root_connection._dbapi_connection
    record: Any = getattr(fairy, "_connection_record", None)
    entry = getattr(record, "entry", None)
    if entry is None:
        return False  # it is detached, or of another pool
    watcher = watcher_of(
        record._pool.core
    )  # also while a connection is new and has no proxy of ours
    if not isinstance(watcher, Watcher):
        return False
    hold = watcher.holds.get(entry)
    if hold is None:
        return False
    connection = fairy.dbapi_connection
    watcher.query_began(hold, text, connection)
    hold.cursor = hold.executed  # SQLAlchemy makes a cursor for each query
    is_error = True
    try:
        do(cursor, *arguments, context)
        is_error = False
    finally:
        rows = -1 if is_error else rows_of(cursor)
        watcher.query_ended(hold, rows, connection, is_error=is_error)
    return True
