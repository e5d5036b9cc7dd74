"""The pools, made alike: lend, query, give back, each in the way that its documentation shows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection, Engine, make_url

from geventpool.sqlalchemy import GeventPool


class Connects:
    """Every attempt to connect passes here.

    Args:
        delay: seconds that each one takes longer.

    Attributes:
        begun: attempts.
        opened: those that came to something.
        in_flight: those that are under way.
        most_in_flight: how many were at once.
    """

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.begun = self.opened = self.in_flight = self.most_in_flight = 0

    def connect(self, connect: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.begun += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.delay:
                time.sleep(self.delay)  # patched
            connection = connect(*args, **kwargs)
        finally:
            self.in_flight -= 1
        self.opened += 1
        return connection


class Adapter:
    """A pool, with the same words for all.

    Args:
        url: SQLAlchemy's.
        max_size: hard cap of connections.
        timeout: seconds to wait for a connection, where the pool has such a setting.
        delay: seconds by which connecting is slowed down.
        checks: have the pool test a connection before it lends it, where it does so only if told.
        **more: settings that only this pool has.

    Attributes:
        connects: counts the attempts to connect.
    """

    drivers: tuple[str, ...]

    def __init__(
        self,
        url: str,
        max_size: int,
        timeout: float = 30,
        delay: float = 0,
        checks: bool = False,
        **more: Any,
    ) -> None:
        self.url = make_url(url)
        self.max_size = max_size
        self.connects = Connects(delay)
        self._open(timeout, checks, more)

    def _open(self, timeout: float, checks: bool, more: dict[str, Any]) -> None:
        raise NotImplementedError

    def lend(self) -> Any:
        """A connection with `query(sql)`, `driver_connection` and `close()`, to be given back by hand."""
        raise NotImplementedError

    def connection(self) -> Any:
        """A `with` block: a connection that is given back at its end."""
        return contextlib.closing(self.lend())

    def transaction(self) -> Any:
        """A `with` block: a connection in a transaction that is committed at its end."""
        raise NotImplementedError

    def begin(self, lent: Any) -> None:
        """Begins a transaction that nobody ends, where the first query does not do so by itself."""

    def nested(self, lent: Any) -> Any:
        """A `with` block inside of a transaction: a savepoint."""
        raise NotImplementedError

    def counted(self) -> int:
        """How many connections the pool believes to have."""
        raise NotImplementedError

    def empty(self) -> None:
        """Closes what is idle."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends the pool."""
        self.empty()


class _Lent:
    """What SQLAlchemy lends."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @property
    def driver_connection(self) -> Any:
        return self.connection.connection.driver_connection

    def query(self, sql: str) -> Any:
        result = self.connection.exec_driver_sql(sql)
        return result.scalar() if result.returns_rows else None

    def close(self) -> None:
        self.connection.close()


class _SqlalchemyPool(Adapter):
    drivers = ("pymysql", "psycopg2", "psycopg")

    def _open(self, timeout: float, checks: bool, more: dict[str, Any]) -> None:
        self.engine = self._engine(self.url, pool_timeout=timeout, pool_pre_ping=checks, **more)

        @event.listens_for(self.engine, "do_connect")
        def connect(dialect: Any, record: Any, args: Any, kwargs: Any) -> Any:
            return self.connects.connect(dialect.connect, *args, **kwargs)

    def _engine(self, url: URL, **settings: Any) -> Engine:
        raise NotImplementedError

    def lend(self) -> _Lent:
        return _Lent(self.engine.connect())

    @contextlib.contextmanager
    def transaction(self) -> Iterator[_Lent]:
        with self.engine.begin() as connection:
            yield _Lent(connection)

    def nested(self, lent: _Lent) -> Any:
        return lent.connection.begin_nested()

    def empty(self) -> None:
        self.engine.dispose()


class Ours(_SqlalchemyPool):
    """GeventPool: nothing is configured but the maximum, and the timeout where a scenario has one."""

    def _engine(self, url: URL, **settings: Any) -> Engine:
        if settings["pool_timeout"] == 30:
            del settings["pool_timeout"]
        settings.pop("pool_pre_ping")
        return create_engine(url, poolclass=GeventPool, max_size=self.max_size, **settings)

    def counted(self) -> int:
        return int(self.engine.pool.stats().size)


class SqlalchemyQueuePool(_SqlalchemyPool):
    """SQLAlchemy's own pool, with the same hard cap."""

    _is_lifo = False

    def _engine(self, url: URL, **settings: Any) -> Engine:
        return create_engine(
            url,
            pool_size=self.max_size,
            max_overflow=0,
            pool_use_lifo=self._is_lifo,
            **settings,
        )

    def counted(self) -> int:
        pool: Any = self.engine.pool
        return int(pool.checkedin() + pool.checkedout())


class SqlalchemyQueuePoolLifo(SqlalchemyQueuePool):
    """The same, last in first out."""

    _is_lifo = True


def _arguments(url: URL) -> dict[str, Any]:
    return {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "dbname": url.database,
    }


class _LentDbapi:
    """A connection of psycopg 2 or 3, on loan."""

    def __init__(self, connection: Any, give_back: Callable[[Any], None]) -> None:
        self.driver_connection = connection
        self._give_back: Callable[[Any], None] | None = give_back

    def query(self, sql: str) -> Any:
        with self.driver_connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0] if cursor.description else None

    def close(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back(self.driver_connection)


@contextlib.contextmanager
def _savepoint(lent: _LentDbapi, ignored: type[Exception]) -> Iterator[None]:
    lent.query("savepoint inner_one")
    try:
        yield
    except BaseException:
        with contextlib.suppress(ignored):  # so does `atomic`
            lent.query("rollback to savepoint inner_one")
        raise
    lent.query("release savepoint inner_one")


class PsycopgPool(Adapter):
    """psycopg_pool.ConnectionPool, which is meant for psycopg 3 only."""

    drivers = ("psycopg",)

    def _open(self, timeout: float, checks: bool, more: dict[str, Any]) -> None:
        import psycopg
        from psycopg_pool import ConnectionPool

        connects = self.connects

        class CountedConnection(psycopg.Connection[Any]):
            @classmethod
            def connect(cls, *args: Any, **kwargs: Any) -> Any:
                return connects.connect(super().connect, *args, **kwargs)

        self._pool = ConnectionPool(
            connection_class=CountedConnection,
            kwargs=_arguments(self.url),
            min_size=min(more.pop("min_size", 1), self.max_size),
            max_size=self.max_size,
            timeout=timeout,
            check=ConnectionPool.check_connection if checks else None,
            open=True,
            **more,
        )

    def lend(self) -> _LentDbapi:
        return _LentDbapi(self._pool.getconn(), self._pool.putconn)

    @contextlib.contextmanager
    def connection(self) -> Iterator[_LentDbapi]:
        with self._pool.connection() as connection:
            yield _LentDbapi(connection, lambda _: None)

    transaction = connection  # commits at its end

    def nested(self, lent: _LentDbapi) -> Any:
        return lent.driver_connection.transaction()

    def counted(self) -> int:
        return int(self._pool.get_stats()["pool_size"])

    def empty(self) -> None:
        self._pool.drain()

    def close(self) -> None:
        self._pool.close()


class DjangoPool(Adapter):
    """The pool of django-db-geventpool, used as its `DatabaseWrapper` uses it; it has no timeout."""

    drivers = ("psycopg2", "psycopg")

    def _open(self, timeout: float, checks: bool, more: dict[str, Any]) -> None:
        module: Any
        if self.url.drivername.endswith("+psycopg2"):
            import psycopg2
            from django_db_geventpool.backends.postgresql_psycopg2 import base as module

            connect, self._error = psycopg2.connect, psycopg2.Error
        else:
            import psycopg
            from django_db_geventpool.backends.postgresql_psycopg3 import base as module

            connect, self._error = psycopg.connect, psycopg.Error
        self._in_transaction = module.DatabaseWrapper.INTRANS

        def connect_as_django(**arguments: Any) -> Any:
            connection = self.connects.connect(connect, **arguments)
            connection.autocommit = True  # as Django has it
            return connection

        self._pool = module.PostgresConnectionPool(
            connect=connect_as_django, MAX_CONNS=self.max_size, **_arguments(self.url)
        )

    def lend(self) -> _LentDbapi:
        return _LentDbapi(self._pool.get(), self._give_back)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[_LentDbapi]:
        with self.connection() as lent:
            connection = lent.driver_connection
            connection.autocommit = False  # so does `atomic`
            try:
                yield lent
                connection.commit()
            except BaseException:
                with contextlib.suppress(self._error):
                    connection.rollback()
                    connection.autocommit = True
                raise
            connection.autocommit = True

    def begin(self, lent: _LentDbapi) -> None:
        lent.driver_connection.autocommit = False

    def nested(self, lent: _LentDbapi) -> Any:
        return _savepoint(lent, self._error)

    def counted(self) -> int:
        return int(self._pool.size)

    def empty(self) -> None:
        self._pool.close()

    def _give_back(self, connection: Any) -> None:
        """`DatabaseWrapperMixin._close`."""
        if connection.closed:
            self._pool.close()
            return
        if connection.info.transaction_status == self._in_transaction:
            connection.rollback()
            connection.autocommit = True
        self._pool.put(connection)


OURS = "GeventPool"
ADAPTERS: dict[str, type[Adapter]] = {
    OURS: Ours,
    "QueuePool": SqlalchemyQueuePool,
    "QueuePool LIFO": SqlalchemyQueuePoolLifo,
    "psycopg_pool": PsycopgPool,
    "django-db-geventpool": DjangoPool,
}
