"""Prepared plans: a statement is parsed and planned once for each connection, and only run after that.

::

    geventpool.sqlalchemy.prepare(engine, select(Order).where(Order.id == bindparam("id")))
    geventpool.django.add_prepare_target(Order.objects.filter(pk=0))

psycopg 3 prepares by itself, and is only told when. For psycopg2, PyMySQL and mysqlclient it is done by
statements: `PREPARE name …` when a connection meets a target for the first time, then `EXECUTE name …`.
The server infers the parameters' types. A trailing `LIMIT 10 OFFSET 20` counts as two parameters, so that
all pages have one plan. A plan that the server has lost, by `DISCARD`, `DEALLOCATE` or a changed table, is
prepared once again; inside of a transaction that PostgreSQL has given up for it, `PlanLost` is raised.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, TypeAlias
from uuid import UUID

from . import drivers
from .drivers import State
from .errors import ConfigError, GeventPoolError

MOST_TARGETS: Final = 1000
MOST_FOR_EACH_CONNECTION: Final = 100
"""The one that was not used for longest goes, when a connection is to have one more."""

Prepared: TypeAlias = "OrderedDict[str, Sequence[str]]"
"""The plans of a connection, the one used last at the end, with the types of their parameters."""

_INTEGERS: Final = {"smallint": 2**15, "integer": 2**31, "bigint": 2**63}
_EXACT_IN_A_REAL: Final = 2**24
_LOCAL: Final = "timestamp without time zone"
_ABSOLUTE: Final = "timestamp with time zone"

_PLACEHOLDER = re.compile(r"%(?:\((?P<name>\w+)\))?(?P<kind>.)", re.DOTALL)
_PAGE = re.compile(r" LIMIT (\d+)(?: OFFSET (\d+))?\s*$", re.IGNORECASE)
# Only what the SQL of an application's own code may be: Django's and SQLAlchemy's begin with these.
_TARGET = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH|VALUES)\b", re.IGNORECASE)

# invalid_sql_statement_name; duplicate_prepared_statement, of a session that was somebody else's before
_LOST_ON_POSTGRESQL = ("26000", "42P05")
_CHANGED_ON_POSTGRESQL = "0A000"  # feature_not_supported, of which one kind is meant
_LOST_ON_MYSQL = (1243, 1615)  # unknown handler; needs to be re-prepared
_TOO_MANY_ON_MYSQL = 1461  # max_prepared_stmt_count, of all sessions of the server together


class PlanLost(GeventPoolError):
    """The server has lost a prepared plan in the middle of a transaction: run that again."""


class Target:
    """A statement that is to be prepared.

    Attributes:
        text: as the driver gets it, with placeholders, and without the numbers of a LIMIT.
        name: of its plan, the same in all connections.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.name = f"geventpool_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self._order: list[int | str] = []
        parts, position = [], 0
        for match in _PLACEHOLDER.finditer(text):
            if match["kind"] not in ("s", "%"):
                raise ConfigError(
                    "statement", text, "give one with the placeholders %s or %(name)s"
                )
            parts.append(text[position : match.start()].replace("{", "{{").replace("}", "}}"))
            position = match.end()
            if match["kind"] == "%":
                parts.append("%")
            else:
                parts.append("{}")
                self._order.append(match["name"] or len(self._order))
        self._pieces = "".join([*parts, text[position:].replace("{", "{{").replace("}", "}}")])

    def postgresql(self) -> str:
        """With `$1` …; a name that is used twice is one parameter."""
        numbers = {key: number for number, key in enumerate(dict.fromkeys(self._order), 1)}
        return self._pieces.format(*(f"${numbers[key]}" for key in self._order))

    def mysql(self) -> str:
        """With question marks."""
        return self._pieces.format(*("?" for _ in self._order))

    def takes(self, parameters: Any) -> bool:
        """Are there as many as it has places? If not, the driver tells it as ever."""
        return hasattr(parameters, "keys") or len(parameters) == len(self._order)

    def values(self, parameters: Any, is_postgresql: bool) -> list[Any]:
        """The parameters in the order of the plan."""
        keys: Sequence[Any] = list(dict.fromkeys(self._order)) if is_postgresql else self._order
        return [parameters[key] for key in keys]


class Targets:
    """The statements that are to be prepared in one pool's connections."""

    def __init__(self) -> None:
        self._by_text: dict[str, Target] = {}

    def __len__(self) -> int:
        return len(self._by_text)

    def __iter__(self) -> Iterator[Target]:
        return iter(self._by_text.values())

    def add(self, text: str) -> Target:
        """Adds one; what is there already is only returned.

        Raises:
            ConfigError: it cannot be prepared, or there are too many.
        """
        if not isinstance(text, str) or not _TARGET.match(text):
            raise ConfigError(
                "statement", text, "give one SELECT, INSERT, UPDATE or DELETE statement"
            )
        key, _ = without_page(text, [])
        target = self._by_text.get(key)
        if target is None:
            if len(self._by_text) >= MOST_TARGETS:
                raise ConfigError("statement", text, f"there are {MOST_TARGETS} already")
            target = self._by_text[key] = Target(key)
        return target

    def find(self, text: Any, parameters: Any) -> tuple[Target, Any] | None:
        """The target that a statement is, with its parameters; `None`: none of them."""
        if type(text) is not str:
            return None
        target = self._by_text.get(text)
        if target is None:
            key, paged = without_page(text, parameters)
            target = self._by_text.get(key)
            if target is None:
                return None
        else:
            paged = parameters or ()
        if parameters is None and "%" in text:
            return None  # without parameters %% means %%
        return (target, paged) if target.takes(paged) else None


def without_page(text: str, parameters: Any) -> tuple[str, Any]:
    """The numbers of a LIMIT and OFFSET at the end become parameters, unless these have names."""
    page = _PAGE.search(text)
    if page is None or "%(" in text:
        return text, parameters
    numbers = [int(number) for number in page.groups() if number is not None]
    tail = " LIMIT %s" + (" OFFSET %s" if len(numbers) == 2 else "")
    return text[: page.start()] + tail, [*(parameters or ()), *numbers]


def execute(
    cursor: Any, connection: Any, target: Target, parameters: Any, prepared: Prepared
) -> Any:
    """Runs a target by its plan, which is prepared first if the connection has none. Switches greenlets.

    Args:
        cursor: of the driver's.
        connection: the driver's, to which it belongs.
        target: what to run.
        parameters: as for the cursor's `execute`.
        prepared: the plans that the connection has.

    Raises:
        PlanLost: the plan is gone, and the transaction with it. The connection is not to be lent again.
        Exception: the driver's.
    """
    driver = drivers.driver_for(connection)
    is_postgresql = driver.database == "postgresql"

    def run() -> Any:
        if not prepared and not driver.has_own_session(connection):
            return cursor.execute(target.text, parameters)
        if driver.plans == "driver":
            return driver.execute_prepared(connection, cursor, target.text, parameters)
        by_sql = _by_postgresql if is_postgresql else _by_mysql
        return by_sql(cursor, connection, target, parameters, prepared)

    try:
        return run()
    except Exception as error:
        if not is_lost(error):
            raise
        lost = error
    if is_postgresql and driver.state(connection) is not State.CLEAN:
        raise PlanLost(
            "the server has lost the prepared plan of a statement, by DISCARD, DEALLOCATE or a changed "
            "table, and given up the transaction for it: roll back and run the whole transaction again. "
            f"The statement: {target.text}"
        ) from lost
    if is_postgresql:
        cursor.execute("DEALLOCATE ALL")  # psycopg forgets its own when it sees this
    prepared.clear()
    return run()


def is_lost(error: BaseException) -> bool:
    """Does this error of a driver mean that the server has no such plan (any more)?"""
    code = error.args[0] if error.args else None
    if isinstance(code, int):
        return code in _LOST_ON_MYSQL
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state in _LOST_ON_POSTGRESQL or (
        state == _CHANGED_ON_POSTGRESQL and "cached plan" in str(error)
    )


def _by_postgresql(
    cursor: Any, connection: Any, target: Target, parameters: Any, prepared: Prepared
) -> Any:
    values = target.values(parameters, True)
    if _must_prepare(cursor, target, prepared):
        cursor.execute(f"PREPARE {target.name} AS {target.postgresql()}")
        prepared[target.name] = _types_of(cursor, target) if values else ()
    if not all(map(_is_kept, values, prepared[target.name])):
        return cursor.execute(target.text, parameters)
    return cursor.execute(f"EXECUTE {target.name}{_list(values)}", values or None)


def _types_of(cursor: Any, target: Target) -> Sequence[str]:
    """The types that the server has inferred for a plan's parameters."""
    cursor.execute(
        "SELECT parameter_types::text[] AS types FROM pg_prepared_statements "
        f"WHERE name = '{target.name}'"
    )
    (types,) = cursor.fetchone()
    return list(types)


def _is_kept(value: Any, kind: str) -> bool:
    """Is a value, as psycopg2 writes it, compared in the same way by the plan as in the statement itself?

    EXECUTE casts it to the type of the plan's parameter, as an assignment does: 3 of 2.5 for an integer, a
    day of a moment, a time of an interval, text of a number. Only of what is known to be kept, yes.
    """
    if value is None or isinstance(value, str):
        return True  # written without a type: in both it gets that of the parameter
    if isinstance(value, list):
        return kind.endswith("[]") and all(_is_kept(one, kind.removesuffix("[]")) for one in value)
    if isinstance(value, bool):
        return kind == "boolean"
    if isinstance(value, int):
        most = _EXACT_IN_A_REAL if kind == "real" else _INTEGERS.get(kind)
        return -most <= value < most if most else kind in ("numeric", "double precision")
    if isinstance(value, (float, Decimal)):
        return kind == "double precision" or (kind == "numeric" and math.isfinite(value))
    return kind in _KINDS_OF.get((type(value), _has_zone(value)), ())


_KINDS_OF: Final[dict[tuple[type, bool], tuple[str, ...]]] = {
    (date, False): ("date", _LOCAL, _ABSOLUTE),
    (datetime, False): (_LOCAL, _ABSOLUTE),
    (datetime, True): (_ABSOLUTE,),
    (time, False): ("time without time zone",),
    (time, True): ("time with time zone",),
    (timedelta, False): ("interval",),
    (UUID, False): ("uuid",),
    (bytes, False): ("bytea",),
    (memoryview, False): ("bytea",),
}


def _has_zone(value: object) -> bool:
    return getattr(value, "tzinfo", None) is not None


def _by_mysql(
    cursor: Any, connection: Any, target: Target, parameters: Any, prepared: Prepared
) -> Any:
    if _must_prepare(cursor, target, prepared):
        # The driver makes a literal of it, because it knows what a backslash means in this session.
        try:
            cursor.execute(f"PREPARE {target.name} FROM %s", (target.mysql(),))
        except Exception as error:
            if error.args[:1] == (_TOO_MANY_ON_MYSQL,):
                return cursor.execute(target.text, parameters or None)
            raise
        prepared[target.name] = ()
    values = target.values(parameters, False)
    if not values or "mariadb" in _version(connection):
        using = f" USING {', '.join(['%s'] * len(values))}" if values else ""
        return cursor.execute(f"EXECUTE {target.name}{using}", values or None)
    names = [f"@geventpool_{number}" for number in range(len(values))]
    cursor.execute("SET " + ", ".join(f"{name} = %s" for name in names), values)
    return cursor.execute(f"EXECUTE {target.name} USING {', '.join(names)}")


def _version(connection: Any) -> str:
    """MariaDB takes expressions after USING, MySQL only variables: a round trip more."""
    return str(connection.get_server_info()).lower()


def _must_prepare(cursor: Any, target: Target, prepared: Prepared) -> bool:
    if target.name in prepared:
        prepared.move_to_end(target.name)
        return False
    if len(prepared) >= MOST_FOR_EACH_CONNECTION:
        oldest, _ = prepared.popitem(last=False)
        cursor.execute(f"DEALLOCATE PREPARE {oldest}")
    return True


def _list(values: list[Any]) -> str:
    return f" ({', '.join(['%s'] * len(values))})" if values else ""
