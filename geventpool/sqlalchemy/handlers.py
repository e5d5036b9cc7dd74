"""How the core treats SQLAlchemy's record of a connection."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from sqlalchemy import exc
from sqlalchemy.pool.base import _ConnDialect

from .. import drivers
from ..base_pool import ConnectionHandlers, getter
from ..drivers.abandoned_queries import AbandonedQuery
from . import compat
from .errors import kill_behind
from .proxy import Record, RecordPool

_REPLACED = ("abandoned", "expired", "dead", "invalidated", "check interrupted")


class RecordHandlers(ConnectionHandlers):
    """How the core treats a record: as its connection, through SQLAlchemy's events and dialect."""

    _pool: RecordPool

    def __init__(self, pool: RecordPool) -> None:
        super().__init__(pool, self._open_record, lambda: pool._invoke_creator(cast(Any, None)))
        self.connection_of = getter("dbapi_connection")

    def _open_record(self) -> Record:
        pool = self._pool
        try:  # not looked at before: another thread may open, too
            record, is_new = pool._spares.pop(), False
        except IndexError:
            record, is_new = Record(pool, connect=False), True
        try:
            record.get_connection()
        except BaseException:
            # 1.4 and the first of 2.0 leave a connection here that a listener failed to configure.
            connection, record.dbapi_connection = record.dbapi_connection, None
            if not is_new:
                pool._spares.append(record)
            if connection is not None:
                pool._close_connection(connection, terminate=True)
            raise
        return record

    def close(self, record: Any, cause: str) -> None:
        # Like QueuePool: what takes the place of a connection that is no good keeps its record, and
        # so its `record_info`; the record of a surplus connection goes with it.
        try:
            record.close()
        finally:
            if cause in _REPLACED:
                self._pool._spares.append(record)
            elif cause == "owner ended":
                record.entry = None  # whoever still refers to it has nothing to give back

    def abandoned(self, record: Any) -> AbandonedQuery | None:
        if record.dbapi_connection is None:
            abandoned: AbandonedQuery | None = (
                record.abandoned
            )  # it was invalidated, and so is closed already
            record.abandoned = None
            return abandoned
        return super().abandoned(record.dbapi_connection)

    def is_busy(self, record: Any) -> bool:
        return record.dbapi_connection is not None and super().is_busy(record.dbapi_connection)

    def move(self, record: Any) -> None:
        if record.dbapi_connection is not None:
            super().move(record.dbapi_connection)

    def check(self, record: Any) -> bool:
        pool, connection = self._pool, record.dbapi_connection
        pool.logger.debug("Pool pre-ping on connection %s", connection)
        if type(pool._dialect) is _ConnDialect:
            is_alive = drivers.driver_for(connection).ping(connection)
        else:
            before = sys.exc_info()[1]  # what the caller is handling already
            try:
                is_alive = compat.ping(pool._dialect, connection)
            except Exception as failure:
                # Some dialects set autocommit back in a `finally`, which fails after a kill.
                kill = kill_behind(failure, before)
                if kill is None:
                    raise
                raise kill from None
        if not is_alive:
            error = exc.InvalidatePoolError()
            pool.logger.info(
                "Disconnection detected on checkout, invalidating all pooled connections prior to "
                "current timestamp"
            )
            record.invalidate(error)
            was_lent: Any = SimpleNamespace(_connection_record=record)
            pool._invalidate(was_lent, error, _checkin=False)
        return is_alive

    def needs_check(self, record: Any) -> bool:
        return bool(record.driver.needs_ping)

    def is_clean(self, record: Any) -> bool:
        # The fairy has reset it, between SQLAlchemy's events; a listener may have broken it since.
        return not (self._pool.dispatch.checkin and self._is_broken(record.dbapi_connection))

    def reset(self, record: Any) -> bool:
        return super().reset(record.dbapi_connection)

    def fileno(self, record: Any) -> int | None:
        connection = record.dbapi_connection
        return None if connection is None else record.driver.fileno(connection)

    def socket_of(self, record: Any) -> Callable[[Any], object] | None:
        return self._socket_of(record.dbapi_connection, "dbapi_connection.")

    def on_reconnect(self, record: Any, tell: Callable[[], object]) -> None:
        super().on_reconnect(record.dbapi_connection, tell)

    def means_hangup(self, record: Any, peeked: bytes) -> bool:
        return super().means_hangup(record.dbapi_connection, peeked)
