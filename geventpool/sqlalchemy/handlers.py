"""How the core treats SQLAlchemy's record of a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from ..drivers.ghosts import Ghost
from ..pool import ConnectionHandlers, getter

if TYPE_CHECKING:
    from .pool import GeventPool

_REPLACED = ("abandoned", "expired", "dead", "invalidated", "check interrupted")


class RecordHandlers(ConnectionHandlers):
    """How the core treats a record: as its connection, through SQLAlchemy's events and dialect."""

    _pool: GeventPool

    def __init__(self, pool: GeventPool) -> None:
        super().__init__(pool, pool._open_record, lambda: pool._invoke_creator(cast(Any, None)))
        self.connection_of = getter("dbapi_connection")

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

    def ghost(self, record: Any) -> Ghost | None:
        if record.dbapi_connection is None:
            ghost: Ghost | None = record.ghost  # it was invalidated, and so is closed already
            record.ghost = None
            return ghost
        return super().ghost(record.dbapi_connection)

    def is_busy(self, record: Any) -> bool:
        return record.dbapi_connection is not None and super().is_busy(record.dbapi_connection)

    def move(self, record: Any) -> None:
        if record.dbapi_connection is not None:
            super().move(record.dbapi_connection)

    def check(self, record: Any) -> bool:
        return self._pool._ping(record)

    def needs_check(self, record: Any) -> bool:
        return bool(record.driver.needs_ping)

    def is_clean(self, record: Any) -> bool:
        # The fairy has reset it, between SQLAlchemy's events; a listener may have broken it since.
        return not (self._pool.dispatch.checkin and self._is_broken(record.dbapi_connection))

    def reset(self, record: Any) -> bool:
        return False

    def fileno(self, record: Any) -> int | None:
        connection = record.dbapi_connection
        return None if connection is None else record.driver.fileno(connection)

    def socket_of(self, record: Any) -> Callable[[Any], object] | None:
        return self._socket_of(record.dbapi_connection, "dbapi_connection.")

    def on_reconnect(self, record: Any, tell: Callable[[], object]) -> None:
        super().on_reconnect(record.dbapi_connection, tell)

    def is_farewell(self, record: Any, peeked: bytes) -> bool:
        return super().is_farewell(record.dbapi_connection, peeked)
