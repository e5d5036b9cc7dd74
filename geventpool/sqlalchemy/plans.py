"""`prepare(engine, statement)`: prepared plans for an engine's connections."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.sql import ClauseElement

from .. import drivers
from ..errors import ConfigError
from ..plans import PlanLost, Target, Targets, execute

_KEY = "geventpool.prepared"

_of_engine = "_geventpool_targets"


def prepare(engine: Engine, statement: str | ClauseElement) -> Target:
    """Has a statement prepared once in each connection of an engine, and run by its plan. Never connects.

    Args:
        engine: with a driver of PostgreSQL's, MySQL's or MariaDB's.
        statement: of SQLAlchemy's, with bind parameters; or SQL as the driver gets it (`echo=True`
            shows it), with the driver's placeholders.

    Raises:
        ConfigError: it cannot be prepared.
    """
    if not isinstance(engine, Engine):
        raise ConfigError("engine", engine, "give an Engine made by sqlalchemy.create_engine")
    names = drivers.with_plans()
    if getattr(engine.dialect.dbapi, "__name__", None) not in names:
        raise ConfigError("engine", engine, f"its driver is none of {', '.join(names)}")
    if isinstance(statement, ClauseElement):
        statement = str(statement.compile(dialect=engine.dialect))
    targets: Targets | None = getattr(engine, _of_engine, None)
    if targets is None:
        targets = Targets()
        setattr(engine, _of_engine, targets)
        event.listen(engine, "do_execute", _executor(targets))
        event.listen(engine, "do_execute_no_params", _executor_without(targets))
    return targets.add(statement)


def _executor(targets: Targets) -> Any:
    def do_execute(cursor: Any, statement: str, parameters: Any, context: Any) -> Any:
        found = targets.find(statement, parameters)
        if found is None or getattr(cursor, "name", None):  # a server-side cursor
            return None
        fairy = context.root_connection.connection
        prepared = fairy.info.setdefault(_KEY, OrderedDict())  # it is gone with the connection
        try:
            execute(cursor, fairy.dbapi_connection, *found, prepared)
        except PlanLost:
            fairy.invalidate(soft=True)  # another one next time
            raise
        return True

    return do_execute


def _executor_without(targets: Targets) -> Any:
    with_parameters = _executor(targets)

    def do_execute_no_params(cursor: Any, statement: str, context: Any) -> Any:
        return with_parameters(cursor, statement, None, context)

    return do_execute_no_params
