"""What `QueuePool` takes, and works with, `GeventPool` takes with the same meaning."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy
import pytest
import sqlalchemy
from sqlalchemy import create_engine, engine_from_config, exc
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool, QueuePool
from sqlalchemy.pool.base import reset_commit, reset_none, reset_rollback
from sqlalchemy.util import get_cls_kwargs

from geventpool import ConfigError
from geventpool.config import SETTINGS
from geventpool.sqlalchemy import GeventPool, wrap

TRUTHY = (
    True,
    False,
    1,
    0,
    2.5,
    "true",
    "false",
    "0",
    "",
    "yes",
    [1],
    [],
    numpy.bool_(False),
    None,
)
SIZES = (1, 3, 0, -1, -20, True, 3.0, 2.5, Decimal(3), Fraction(5, 2), numpy.int64(3), math.inf)
OVERFLOWS = (0, 2, -1, -2, -9, True, False, 1.0, 1.5, -0.5, Decimal(1), numpy.int64(1), math.inf)
TABLE: dict[str, tuple[Any, ...]] = {
    "pool_size": (*SIZES, numpy.float64(2.5), math.nan, "many", [], 10**12),
    "max_overflow": (*OVERFLOWS, math.nan, "many", [], 10**12),
    "pool_timeout": (0, 0.0, False, 0.01, Decimal(0), numpy.float64(0.01), -1, "soon"),
    "pool_recycle": (
        *(-1, -2, 0, 1, 3600, True, False, 0.5, -0.5, 1e10, Decimal(1), Fraction(1, 2)),
        *(numpy.int64(1), math.inf, math.nan, "soon", []),
    ),
    "pool_pre_ping": TRUTHY,
    "pool_use_lifo": TRUTHY,
    "pool_reset_on_return": (
        *(True, False, None, 1, 0, 1.0, "rollback", "commit", "none", "true", "maybe", 2, []),
        *(reset_rollback, reset_commit, reset_none, numpy.bool_(True), Decimal(1)),
    ),
    "echo_pool": (True, False, None, 1, 0, "debug", "yes"),
    "logging_name": ("shop", "", None, 5),
}
# As an .ini has them. SQLAlchemy reads the numbers there, but not the other ones.
TEXTS: dict[str, tuple[str, ...]] = {
    "pool_size": ("1", "3", "0", "3.0"),
    "max_overflow": ("0", "2", "-1"),
    "pool_timeout": ("0", "1.5"),
    "pool_recycle": ("-1", "0", "3600"),
    "pool_pre_ping": ("true", "false", "0", ""),
    "pool_use_lifo": ("true", "false", "0", ""),
    "pool_reset_on_return": ("rollback", "commit", "none", "true", "None"),
    "echo_pool": ("true", "false", "debug"),
}

# SQLAlchemy 1.4 says the same of `pool_size=0` as 2.x, no limit, but caps at `max_overflow`.
DOES_AS_IT_SAYS = not sqlalchemy.__version__.startswith("1.4")


def test_each_setting_that_queue_pool_has_is_compared() -> None:
    for name in SETTINGS.keys() & get_cls_kwargs(QueuePool):
        assert TABLE.keys() & {name, f"pool_{name}"}


def most(engine: Engine) -> int:
    """How many connections it lends at once, as far as one cares."""
    held = []
    try:
        for _ in range(40):
            held.append(engine.raw_connection())
    except (exc.TimeoutError, RecursionError):
        pass  # the latter of QueuePool, beyond an overflow that is below -1
    finally:
        for raw in held:
            raw.close()
    assert held, "nobody can work with that"
    return len(held)


def refusal(engine: Engine) -> str:
    """What a caller gets when all are lent."""
    with engine.connect(), pytest.raises(exc.TimeoutError):
        engine.connect()
    return "a time-out"


def is_replaced(engine: Engine) -> bool:
    """Whether a connection that is 10 s old is lent again."""
    raw: Any = engine.raw_connection()
    first = raw.dbapi_connection
    raw._connection_record.starttime -= 10
    raw.close()
    raw = engine.raw_connection()
    try:
        return raw.dbapi_connection is not first
    finally:
        raw.close()


def is_lifo(engine: Engine) -> bool:
    first, second = engine.raw_connection(), engine.raw_connection()
    last = second.dbapi_connection
    first.close()
    second.close()
    raw = engine.raw_connection()
    try:
        return raw.dbapi_connection is last
    finally:
        raw.close()


def pings(engine: Engine) -> bool:
    engine.connect().close()
    pool: Any = engine.pool
    return bool(pool.config.pre_ping if isinstance(pool, GeventPool) else pool._pre_ping)


def left_behind(engine: Engine) -> tuple[bool, int]:
    """Is a transaction still open after a return, and what has it written?"""
    raw: Any = engine.raw_connection()
    raw.execute("create table t (x int)")
    raw.commit()
    raw.execute("insert into t values (1)")
    connection = raw.dbapi_connection
    raw.close()
    is_open = connection.in_transaction
    connection.rollback()
    return is_open, connection.execute("select count(*) from t").fetchone()[0]


def says(engine: Engine) -> tuple[bool, bool]:
    engine.connect().close()
    logger: Any = engine.pool.logger
    return logger.isEnabledFor(logging.INFO), logger.isEnabledFor(logging.DEBUG)


def is_named(engine: Engine) -> Any:
    engine.connect().close()
    return engine.pool._orig_logging_name


LOOKS: dict[str, tuple[Callable[[Engine], Any], dict[str, Any]]] = {
    "pool_size": (most, {"max_overflow": 2, "pool_timeout": 0}),
    "max_overflow": (most, {"pool_size": 4, "pool_timeout": 0}),
    "pool_timeout": (refusal, {"pool_size": 1, "max_overflow": 0}),
    "pool_recycle": (is_replaced, {}),
    "pool_pre_ping": (pings, {}),
    "pool_use_lifo": (is_lifo, {}),
    "pool_reset_on_return": (left_behind, {}),
    "echo_pool": (says, {}),
    "logging_name": (is_named, {}),
}
numbers = itertools.count()


@contextmanager
def made(poolclass: type[Pool], folder: Path, said: dict[str, Any], is_ini: bool) -> Iterator[Any]:
    url = f"sqlite:///{folder}/{next(numbers)}.db"
    if is_ini:
        texts = {f"sqlalchemy.{name}": value for name, value in said.items()}
        engine = engine_from_config({"sqlalchemy.url": url, **texts}, poolclass=poolclass)
    else:
        engine = create_engine(url, poolclass=poolclass, **said)
    try:
        yield engine
    finally:
        engine.dispose()


def seen(poolclass: type[Pool], folder: Path, argument: str, value: Any, is_ini: bool) -> Any:
    """What comes of it; an exception where it cannot be worked with."""
    look, beside = LOOKS[argument]
    try:
        with made(poolclass, folder, {**beside, argument: value}, is_ini) as engine:
            return look(engine)
    except (Exception, pytest.fail.Exception) as error:
        return error


@pytest.mark.filterwarnings("ignore:unclosed database in:ResourceWarning")
@pytest.mark.parametrize(
    ("argument", "value", "is_ini"),
    [
        *((name, value, False) for name in TABLE for value in TABLE[name]),
        *((name, value, True) for name in TEXTS for value in TEXTS[name]),
    ],
    ids=repr,
)
def test_an_argument_means_what_it_means_to_queue_pool(
    argument: str, value: Any, is_ini: bool, tmp_path: Path
) -> None:
    logging.getLogger("sqlalchemy.pool").handlers.clear()  # echo adds one for each engine
    theirs = seen(QueuePool, tmp_path, argument, value, is_ini)
    ours = seen(GeventPool, tmp_path, argument, value, is_ini)
    if not isinstance(theirs, BaseException):
        assert not isinstance(ours, BaseException), repr(ours)
        is_said = DOES_AS_IT_SAYS or argument != "pool_size" or str(value) != "0"
        assert ours == (theirs if is_said else 40)


@pytest.mark.parametrize(
    ("said", "timeout"),
    [
        (None, None),
        (7, 7.0),
        ("10", 10.0),
        (Decimal("0.5"), 0.5),
        (True, 1.0),
        (-1, 0.0),
        (1e10, math.inf),
    ],
)
def test_a_time_out_of_any_kind_is_a_number_of_seconds(
    said: Any, timeout: float | None, tmp_path: Path
) -> None:
    with made(QueuePool, tmp_path, {"pool_timeout": said}, is_ini=False) as engine:
        engine.connect().close()
        assert wrap(engine).pool.config.timeout == timeout
    with made(GeventPool, tmp_path, {"pool_timeout": said}, is_ini=False) as engine:
        engine.connect().close()
        assert engine.pool.config.timeout == timeout


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ({"pool_size": -20}, "pool_size=-20: with max_overflow=10 it leaves no room"),
        ({"pool_size": 5, "max_overflow": -5}, "max_overflow=-5: .*leaves no room"),
        ({"pool_size": "many"}, "pool_size='many': give a number"),
        ({"pool_timeout": "soon"}, "timeout='soon': give a number of seconds"),
        ({"pool_timeout": math.nan}, "timeout=nan: give a number of seconds"),
        ({"pool_recycle": "1h"}, "recycle='1h': give a number of seconds"),
        ({"pool_reset_on_return": "maybe"}, "reset_on_return='maybe'"),
    ],
)
def test_what_queue_pool_cannot_work_with_either_is_refused_with_the_cure(
    said: dict[str, Any], cure: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=cure):
        create_engine(f"sqlite:///{tmp_path}/x.db", poolclass=GeventPool, **said)


def test_a_wrapped_pool_of_truthy_settings_keeps_their_meaning(tmp_path: Path) -> None:
    said = {"pool_pre_ping": 1, "pool_recycle": True, "pool_size": 2.5, "max_overflow": Decimal(1)}
    with made(QueuePool, tmp_path, said, is_ini=False) as engine:
        config = wrap(engine).pool.config
        assert (config.pre_ping, config.recycle, config.max_size) == (True, 1, 4)
