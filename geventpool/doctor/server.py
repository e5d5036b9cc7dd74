"""What a database server says of itself and of its connections, and how long it takes to say it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gevent

from ..drivers import driver_for
from ..drivers.base import Driver, is_patched

Ask = Callable[[str], Sequence[Sequence[Any]]]
"""Runs a statement and returns its rows."""

ACTIVE, IDLE, IN_TRANSACTION = "active", "idle", "idle in transaction"

_CONNECTS, _QUESTIONS = 3, 9
_TICK, _NAP = 0.005, 0.1


@dataclass(frozen=True)
class Session:
    """One connection, as the server sees it.

    Attributes:
        id: the server's number of it.
        user: whose.
        database: to which.
        state: `ACTIVE`, `IDLE` or `IN_TRANSACTION`; empty: the user may not see it.
        seconds: since it is in this state.
        is_locked: it waits for another one's lock.
    """

    id: int
    user: str
    database: str
    state: str
    seconds: float
    is_locked: bool = False


@dataclass
class Server:
    """What was measured.

    Attributes:
        error: why it could not be reached, or not be asked.
        database: `"mysql"` or `"postgresql"`; empty: another one, of which only times are known.
        driver: of the connections.
        version: as it says.
        connect_seconds: what connecting takes, the quickest of some.
        connect_cpu: of these, the seconds for which this process computed, and could do nothing else.
        round_trip: seconds of the smallest question, the quickest of some.
        ran_meanwhile: how often another greenlet ran while a query took its time; `None`: cannot be
            told, as this process is not monkey-patched.
        blocking: what the driver's file says of that; `None`: nothing.
        variables: settings of the server, by name, as this session sees them.
        sessions: the others.
        sees_all: other users' are among them.
        user_limit: connections that this user, or this database, may have; 0: no limit of its own.
        is_read_only: it takes no writes.
        proxy: what stands in between; empty: nothing, as far as can be told.
        is_pooled_by_transaction: a transaction may have another session of the server's than the last.
        unseen: what this user may not ask.
    """

    error: BaseException | None = None
    database: str = ""
    driver: str = ""
    version: str = ""
    connect_seconds: float = 0.0
    connect_cpu: float = 0.0
    round_trip: float = 0.0
    ran_meanwhile: int | None = None
    blocking: str | None = None
    variables: dict[str, str] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    sees_all: bool = True
    user_limit: int = 0
    is_read_only: bool = False
    proxy: str = ""
    is_pooled_by_transaction: bool = False
    unseen: list[str] = field(default_factory=list)

    def number(self, name: str, default: float = 0.0) -> float:
        """A setting of the server's that is a number."""
        try:
            return float(self.variables.get(name, default))
        except ValueError:
            return default

    @property
    def room(self) -> int:
        """Connections that are there for this user: all, without those that are kept for others."""
        reserved = sum(map(self.number, ("superuser_reserved_connections", "reserved_connections")))
        return int(self.number("max_connections") - reserved)

    def count(self, state: str, database: str | None = None) -> int:
        """How many sessions are in a state."""
        return sum(one.state == state and database in (None, one.database) for one in self.sessions)


def measure(connect: Callable[[], Any], is_ours: bool) -> Server:
    """Connects some times, asks, and closes all again. Switches greenlets.

    Args:
        connect: opens a connection of the driver's own.
        is_ours: it is for a geventpool, which has the driver not stall the hub.
    """
    server = Server()
    opened: list[Any] = []
    try:
        for _ in range(_CONNECTS):
            opened.append(_connect(server, connect, is_first=not opened))
            if is_ours:
                driver_for(opened[0]).tune()
        _ask_all(server, opened)
    except Exception as error:
        server.error = error
    finally:
        for connection in opened:
            with contextlib.suppress(Exception):  # its server may be gone
                connection.close()
    return server


def _connect(server: Server, connect: Callable[[], Any], is_first: bool) -> Any:
    began, cpu = time.perf_counter(), time.thread_time()
    connection = connect()
    seconds, cpu = time.perf_counter() - began, time.thread_time() - cpu
    if not is_first:  # which may import, and look up names
        is_second = server.connect_seconds == 0.0
        server.connect_seconds = seconds if is_second else min(seconds, server.connect_seconds)
        server.connect_cpu = cpu if is_second else min(cpu, server.connect_cpu)
    return connection


def _ask_all(server: Server, opened: list[Any]) -> None:
    driver = driver_for(opened[0])
    server.driver = driver.name
    server.blocking = driver.blocks_hub(opened[0])
    server.database = driver.database if driver.database in _READERS else _find_out(opened[0])
    with _asking(opened[0]) as ask:
        ask("SELECT 1")
        times = []
        for _ in range(_QUESTIONS):
            began = time.perf_counter()
            ask("SELECT 1")
            times.append(time.perf_counter() - began)
        server.round_trip = min(times)
        if server.database in _READERS:
            read(server, ask)
            if is_patched():
                server.ran_meanwhile = _ticks(lambda: ask(_NAPS[server.database]))
    if server.database in _READERS:
        _leave_out(server, opened[1:])
        _look_for_proxy(server, opened)


def _leave_out(server: Server, own: list[Any]) -> None:
    """Our own connections are none of the program's."""
    numbers = set()
    for connection in own:
        with _asking(connection) as ask:
            numbers.add(int(ask(_WHO[server.database])[0][0]))
    server.sessions = [one for one in server.sessions if one.id not in numbers]


def _find_out(connection: Any) -> str:
    """Of a driver that geventpool does not know."""
    with _asking(connection) as ask:
        try:
            version = str(ask("SELECT version()")[0][0]).lower()
        except Exception:
            return ""
    return "postgresql" if version.startswith("postgresql") else "mysql"


@contextlib.contextmanager
def _asking(connection: Any) -> Iterator[Ask]:
    cursor = connection.cursor()

    def ask(statement: str) -> Sequence[Sequence[Any]]:
        cursor.execute(statement)
        rows: Sequence[Sequence[Any]] = cursor.fetchall()
        return rows

    try:
        yield ask
    finally:
        with contextlib.suppress(Exception):
            cursor.close()
            connection.rollback()


def _ticks(work: Callable[[], object]) -> int:
    """How often another greenlet runs during a piece of work. Switches greenlets."""
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            gevent.sleep(_TICK)
            ticks += 1

    ticker = gevent.spawn(tick)
    try:
        work()
    finally:
        ticker.kill()
    return ticks


def read(server: Server, ask: Ask) -> None:
    """Has a server tell of itself. Its `database` is known."""
    _READERS[server.database](server, ask)


def _named(ask: Ask, question: str, names: Sequence[str]) -> dict[str, str]:
    """The server's settings of these names."""
    wanted = ", ".join(f"'{name}'" for name in names)
    return {str(name): str(value) for name, value in ask(f"{question} ({wanted})")}


_MYSQL_NAMES = (
    "max_connections",
    "max_user_connections",
    "wait_timeout",
    "interactive_timeout",
    "thread_cache_size",
    "skip_name_resolve",
    "read_only",
    "idle_transaction_timeout",
    "innodb_lock_wait_timeout",
    "max_statement_time",
    "version",
    "version_comment",
)


def _read_mysql(server: Server, ask: Ask) -> None:
    server.variables = _named(ask, "SHOW VARIABLES WHERE Variable_name IN", _MYSQL_NAMES)
    server.version = server.variables.get("version", "")
    server.user_limit = int(server.number("max_user_connections"))
    # A user who may write in spite of it is none that an application should be.
    server.is_read_only = server.variables.get("read_only", "OFF") in ("ON", "1")
    rows = ask(
        "SELECT id, user, COALESCE(db, ''), command, time, COALESCE(state, '') "
        "FROM information_schema.processlist WHERE id <> CONNECTION_ID() "
        "AND command NOT IN ('Daemon', 'Binlog Dump')"
    )
    begun, locked = _transactions(server, ask)
    for number, user, database, command, seconds, state in rows:
        is_idle = command == "Sleep"
        waits = number in locked or ("lock" in state.lower() and state.startswith("Waiting"))
        server.sessions.append(
            Session(
                int(number),
                str(user),
                str(database),
                (IN_TRANSACTION if number in begun else IDLE) if is_idle else ACTIVE,
                float(seconds or 0),
                waits and not is_idle,
            )
        )


def _transactions(server: Server, ask: Ask) -> tuple[set[int], set[int]]:
    """Who has a transaction, and who waits for another's lock; it takes the right PROCESS to see."""
    try:
        rows = ask("SELECT trx_mysql_thread_id, trx_state FROM information_schema.innodb_trx")
    except Exception:
        server.unseen.append("transactions and other users' connections (the right PROCESS)")
        server.sees_all = False
        return set(), set()
    return {int(row[0]) for row in rows}, {int(row[0]) for row in rows if row[1] == "LOCK WAIT"}


_POSTGRESQL_NAMES = (
    "max_connections",
    "superuser_reserved_connections",
    "reserved_connections",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "statement_timeout",
    "lock_timeout",
    "tcp_keepalives_idle",
    "default_transaction_read_only",
    "server_version",
)
_MILLISECONDS = (
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "statement_timeout",
)


def _read_postgresql(server: Server, ask: Ask) -> None:
    question = "SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN"
    server.variables = _named(ask, question, _POSTGRESQL_NAMES)
    for name in _MILLISECONDS:
        server.variables[name] = f"{server.number(name) / 1000:g}"
    server.version = f"PostgreSQL {server.variables.get('server_version', '')}"
    ((user, database, is_standby),) = ask(
        "SELECT (SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = current_user), "
        "(SELECT datconnlimit FROM pg_catalog.pg_database WHERE datname = current_database()), "
        "pg_catalog.pg_is_in_recovery()"
    )
    server.user_limit = min(
        (one for one in (user, database) if one is not None and one >= 0), default=0
    )
    server.is_read_only = bool(
        is_standby or server.variables.get("default_transaction_read_only") == "on"
    )
    for row in ask(
        "SELECT pid, COALESCE(usename, ''), COALESCE(datname, ''), COALESCE(state, ''), "
        "COALESCE(extract(epoch FROM clock_timestamp() - state_change), 0), "
        "COALESCE(wait_event_type = 'Lock', false) FROM pg_catalog.pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
    ):
        number, user, database, state, seconds, waits = row
        state = IN_TRANSACTION if state.startswith(IN_TRANSACTION) else state
        server.sees_all = server.sees_all and bool(state)
        one = Session(int(number), user, database, state, float(seconds), bool(waits))
        server.sessions.append(one)
    if not server.sees_all:
        server.unseen.append("what other users' connections do (the role pg_read_all_stats)")


_READERS: dict[str, Callable[[Server, Ask], None]] = {
    "mysql": _read_mysql,
    "postgresql": _read_postgresql,
}
_NAPS = {"mysql": f"SELECT SLEEP({_NAP})", "postgresql": f"SELECT pg_sleep({_NAP})"}
_WHO = {"mysql": "SELECT CONNECTION_ID()", "postgresql": "SELECT pg_backend_pid()"}


def _look_for_proxy(server: Server, opened: list[Any]) -> None:
    """Something in between gives a client a number that is not that of the server's session."""
    who = _WHO[server.database]
    first, second = opened[:2]
    with _asking(first) as ask:
        own = int(ask(who)[0][0])
    driver = driver_for(first)
    # A number that no server can have given is told as `None`.
    is_told = type(driver).server_id is not Driver.server_id
    if is_told and driver.server_id(first) != own:
        server.proxy = "PgBouncer or its like" if server.database == "postgresql" else "a proxy"
    if "ProxySQL" in server.variables.get("version_comment", ""):
        server.proxy = "ProxySQL"
    # While somebody else is in a transaction, the first one gets its old session back, or another.
    with _asking(second) as other:
        other(who)
        with _asking(first) as ask:
            server.is_pooled_by_transaction = int(ask(who)[0][0]) != own
