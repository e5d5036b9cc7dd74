"""What the drivers' files know without a server."""

from __future__ import annotations

import contextlib
import inspect
import os
import socket
import sqlite3
import ssl
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pymysql
import pytest
from pymysql.connections import Connection

import geventpool.drivers
from geventpool import ConnectionPool
from geventpool.drivers import Driver, Idle, State, driver_for, tune
from geventpool.drivers.mysqldb import MySQLdb
from geventpool.drivers.pg8000 import Pg8000, share_tls_context
from geventpool.drivers.postgresql import is_postgresql_full
from geventpool.drivers.psycopg import Psycopg
from geventpool.drivers.psycopg2 import Psycopg2
from geventpool.drivers.pymysql import PyMySQL
from geventpool.drivers.unknown import Unknown
from geventpool.errors import BlockingDriverWarning

ROOT = Path(__file__).resolve().parents[2]


def in_a_new_process(program: str) -> str:
    """Runs a program of its own, because patching and importing cannot be undone; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Which file is for which connection.


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("pymysql.connections", PyMySQL),
        ("MySQLdb.connections", MySQLdb),
        ("psycopg2.extensions", Psycopg2),
        ("psycopg", Psycopg),
        ("pg8000.dbapi", Pg8000),
        ("pymysqlish", Unknown),
    ],
)
def test_a_driver_is_found_by_the_module_of_the_connections_class(
    module: str, expected: type[Driver]
) -> None:
    kind = type("Connection", (), {"__module__": module})
    assert type(driver_for(kind())) is expected


def test_a_driver_is_found_for_a_subclass_of_the_users_own() -> None:
    class Mine(sqlite3.Connection):
        pass

    with contextlib.closing(sqlite3.connect(":memory:", factory=Mine)) as connection:
        assert driver_for(connection).name == "sqlite3"


def test_of_an_unknown_dbapi_nothing_is_taken_for_granted() -> None:
    driver = driver_for(object())
    assert driver.state(object()) is State.UNKNOWN
    assert driver.fileno(object()) is None
    assert driver.unsolicited(object(), b"x") is Idle.SUSPECT
    assert driver.blocks_hub(object()) is None
    assert driver.needs_ping


def test_the_ping_of_an_unknown_dbapi_leaves_no_transaction_and_lets_a_timeout_through() -> None:
    said: list[str] = []

    class Cursor:
        def execute(self, sql: str) -> None:
            said.append(sql)

        def fetchall(self) -> list[tuple[int]]:
            return [(1,)]

        def close(self) -> None:
            said.append("close")

    connection = SimpleNamespace(cursor=Cursor, rollback=lambda: said.append("rollback"))
    assert Driver().ping(connection)
    assert said == ["SELECT 1", "close", "rollback"]

    def fail(error: BaseException) -> Callable[[], Any]:
        def rollback() -> None:
            raise error

        return rollback

    connection.rollback = fail(OSError())
    assert not Driver().ping(connection)
    connection.rollback = fail(gevent.Timeout())
    with pytest.raises(gevent.Timeout):
        Driver().ping(connection)


def test_importing_the_drivers_imports_no_dbapi() -> None:
    program = """
        import sys
        import geventpool.drivers
        geventpool.drivers.tune("pymysql")
        geventpool.drivers.tune("pg8000.dbapi")
        geventpool.drivers.tune("nothing")
        names = ["pymysql", "MySQLdb", "mysql", "mariadb"]
        names += ["psycopg2", "psycopg", "pg8000", "sqlite3"]
        print([name for name in names if name in sys.modules])
    """
    assert in_a_new_process(program) == "[]"


# PyMySQL's bookkeeping.


class LoopSocket:
    """A socket that fails in the middle of what it is to send."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.is_closed = False

    def sendall(self, data: bytes) -> None:
        raise self.error

    def settimeout(self, seconds: float | None) -> None:
        pass

    def fileno(self) -> int:
        return -1 if self.is_closed else 99

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    "error", [gevent.Timeout(), gevent.GreenletExit(), ValueError(), OSError()]
)
def test_a_pymysql_connection_interrupted_while_it_sends_is_broken(error: BaseException) -> None:
    """Else the rollback on return would be read as the other half of what was being sent."""
    connection: Any = Connection(defer_connect=True)
    driver = driver_for(connection)
    driver.adopt(connection)
    assert driver.state(connection) is State.BROKEN, "it is not connected yet"
    connection._sock = sock = LoopSocket(error)
    connection._current_timeout = None
    connection.server_status = 2
    assert driver.state(connection) is State.CLEAN
    assert driver.fileno(connection) == 99
    with pytest.raises((type(error), pymysql.err.OperationalError)):
        connection.query("insert into log values ('…')")
    assert driver.state(connection) is State.BROKEN
    assert driver.fileno(connection) is None
    assert sock.is_closed


def test_an_adopted_connection_looks_like_any_other_and_is_adopted_once() -> None:
    connection: Any = Connection(defer_connect=True)
    driver = driver_for(connection)
    driver.adopt(connection)
    kind = type(connection)
    driver.adopt(connection)
    assert isinstance(connection, Connection)
    assert type(connection).__mro__[1] in (Connection, kind)
    assert type(connection).__module__ == Connection.__module__
    assert type(connection).__name__ == "Connection"
    assert driver_for(connection) is driver


def test_a_reader_of_the_users_own_stays_in_place() -> None:
    calls = []

    class Mine(Connection):  # type: ignore[misc]
        def _read_query_result(self, unbuffered: bool = False) -> int:
            calls.append(unbuffered)
            return 5

    connection: Any = Mine(defer_connect=True)
    driver_for(connection).adopt(connection)
    connection.server_status = 0
    assert connection._read_query_result(unbuffered=False) == 5
    assert calls == [False]


# TLS contexts.


@pytest.fixture
def untuned(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """PyMySQL as it is without us; put back afterwards."""
    monkeypatch.setattr(Connection, "_create_ssl_ctx", inspect.unwrap(Connection._create_ssl_ctx))
    return Connection(defer_connect=True)


def test_equal_tls_settings_share_a_context_and_different_ones_never(untuned: Any) -> None:
    tune("pymysql")
    ca = ssl.get_default_verify_paths().cafile or ssl.get_default_verify_paths().openssl_cafile
    settings: list[dict[str, Any]] = [
        {},
        {"verify_mode": True},
        {"verify_mode": 1},
        {"verify_mode": "1"},
        {"verify_mode": False},
        {"verify_mode": None},
        {"check_hostname": False},
        {"check_hostname": True},
        {"check_hostname": 1},
        {"cipher": "ALL"},
        {"cipher": "HIGH"},
        *([{"ca": ca}, {"ca": ca, "check_hostname": False}] if Path(ca).exists() else []),
    ]
    contexts = [untuned._create_ssl_ctx(dict(one)) for one in settings]
    assert len({id(context) for context in contexts}) == len(settings)
    again = [untuned._create_ssl_ctx(dict(reversed(one.items()))) for one in settings]
    assert all(old is new for old, new in zip(contexts, again, strict=True))


def test_settings_that_cannot_be_compared_get_a_context_each(untuned: Any) -> None:
    tune("pymysql")

    class Settings(dict):  # type: ignore[type-arg]
        pass

    assert untuned._create_ssl_ctx(Settings()) is not untuned._create_ssl_ctx(Settings())
    unhashable = {"more": []}
    assert untuned._create_ssl_ctx(unhashable) is not untuned._create_ssl_ctx(unhashable)


def test_the_contexts_that_are_kept_are_few(untuned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "_create_ssl_ctx", lambda self, sslp: object())
    tune("pymysql")
    first = untuned._create_ssl_ctx({"cipher": "0"})
    for number in range(31):
        untuned._create_ssl_ctx({"cipher": str(number)})
    assert untuned._create_ssl_ctx({"cipher": "0"}) is first
    for number in range(100, 200):
        untuned._create_ssl_ctx({"cipher": str(number)})
    assert untuned._create_ssl_ctx({"cipher": "0"}) is not first


def test_to_tune_twice_is_to_tune_once(untuned: Any) -> None:
    tune("pymysql")
    once = Connection._create_ssl_ctx
    tune("pymysql")
    tune("pymysql.connections")
    assert Connection._create_ssl_ctx is once


def test_a_pg8000_that_is_not_as_expected_is_left_alone() -> None:
    def another_make_socket(host: str, port: int) -> None:
        """Of another release."""

    for module in (SimpleNamespace(_make_socket=another_make_socket), SimpleNamespace()):
        before = dict(vars(module))
        share_tls_context(module)
        assert vars(module) == before


class FakeCore:
    """A `pg8000.core` whose sockets lead to us.

    Attributes:
        made: the other ends.
        asked: the TLS settings that were asked for.
    """

    InterfaceError = RuntimeError

    def __init__(self, result: Callable[[socket.socket], Any] = lambda sock: sock) -> None:
        self.made: list[socket.socket] = []
        self.asked: list[Any] = []

        def _make_socket(
            unix_sock: Any,
            orig_sock: Any,
            host: Any,
            port: Any,
            timeout: Any,
            source_address: Any,
            tcp_keepalive: Any,
            orig_ssl_context: Any,
        ) -> Any:
            self.asked.append(orig_ssl_context)
            ours, theirs = socket.socketpair()
            theirs.sendall(self.answer)
            theirs.shutdown(socket.SHUT_WR)
            self.made.append(theirs)
            self.ours = ours
            return result(ours)

        self.answer = b""
        self._make_socket = self.original = _make_socket

    def connect(self, wanted: Any) -> Any:
        return self._make_socket(None, None, "localhost", 5432, None, None, True, wanted)

    def close(self) -> None:
        for sock in (*self.made, self.ours):
            sock.close()


@pytest.mark.parametrize("answer", [b"", b"N"])
def test_a_socket_of_pg8000_is_closed_if_the_server_refuses_the_tls_that_is_wanted(
    answer: bytes,
) -> None:
    with contextlib.closing(FakeCore()) as core:
        share_tls_context(core)
        core.connect(None).close()
        assert core.asked == [None], "the first time it is left to pg8000"
        core.answer = answer
        with pytest.raises(RuntimeError, match="Server refuses SSL"):
            core.connect(True)
        assert core.ours.fileno() == -1
        core.connect(None).close()
        assert core.asked == [None, False, False]


def test_a_pg8000_that_returns_something_else_is_left_alone_from_then_on() -> None:
    """Release 1.31.0 returned a pair."""
    with contextlib.closing(FakeCore(lambda sock: (None, sock))) as core:
        share_tls_context(core)
        assert core.connect(None) == (None, core.ours)
        assert core._make_socket is core.original
        core.ours.close()


# What unasked-for bytes mean.


@pytest.mark.parametrize(
    ("peeked", "is_tls", "expected"),
    [
        (b"E\0\0\0\x40SFATAL", False, Idle.DEAD),
        (b"N\0\0\0\x40SNOTICE", False, Idle.SUSPECT),
        (b"S\0\0\0\x16TimeZone", False, Idle.SUSPECT),
        (b"A\0\0\0\x10", False, Idle.SUSPECT),
        (b"E\0\0\0\x40", True, Idle.SUSPECT),
        (b"\x17\x03\x03\0\x13", True, Idle.SUSPECT),
    ],
)
def test_only_an_error_is_a_farewell_of_postgresql(
    peeked: bytes, is_tls: bool, expected: Idle
) -> None:
    flag = SimpleNamespace(ssl_in_use=is_tls)
    assert Psycopg().unsolicited(SimpleNamespace(pgconn=flag), peeked) is expected
    assert Psycopg2().unsolicited(SimpleNamespace(info=flag), peeked) is expected
    sock = SimpleNamespace(do_handshake=None) if is_tls else SimpleNamespace()
    assert Pg8000().unsolicited(SimpleNamespace(_usock=sock), peeked) is expected


def test_whatever_mysql_says_unasked_is_a_farewell_unless_it_is_tls() -> None:
    error = b"\x1e\0\0\0\xff\x87\x07#70100"
    plain, tls = SimpleNamespace(), SimpleNamespace(do_handshake=None)
    assert PyMySQL().unsolicited(SimpleNamespace(_sock=plain), error) is Idle.DEAD
    assert PyMySQL().unsolicited(SimpleNamespace(_sock=tls), error) is Idle.SUSPECT
    assert MySQLdb().unsolicited(None, error) is Idle.DEAD
    assert MySQLdb().unsolicited(None, b"\x17\x03\x03\0\x13") is Idle.SUSPECT


# sqlite3.


def test_sqlite3_tells_its_state() -> None:
    connection = sqlite3.connect(":memory:")
    driver = driver_for(connection)
    assert not driver.needs_ping
    assert driver.state(connection) is State.CLEAN
    connection.execute("create table t (i)")
    connection.execute("insert into t values (1)")
    assert driver.state(connection) is State.IN_TRANSACTION
    connection.rollback()
    assert driver.state(connection) is State.CLEAN
    assert driver.fileno(connection) is None
    connection.close()
    assert driver.state(connection) is State.BROKEN


def test_sqlite3_warns_of_a_file_and_not_of_memory(tmp_path: Path) -> None:
    for place, is_file in ((":memory:", False), ("", False), (tmp_path / "shop.db", True)):
        with contextlib.closing(sqlite3.connect(place)) as connection:
            cure = driver_for(connection).blocks_hub(connection)
            assert (cure is not None) is is_file, place
            assert not is_file or "PostgreSQL or MySQL" in str(cure)


def test_rows_of_the_users_own_do_not_disturb_the_question(tmp_path: Path) -> None:
    """Python's documentation has this recipe for rows as dicts."""
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        connection.row_factory = lambda cursor, row: {
            column[0]: value for column, value in zip(cursor.description, row, strict=True)
        }
        connection.text_factory = bytes
        assert driver_for(connection).blocks_hub(connection) is not None
        assert connection.execute("select 1 as one").fetchone() == {"one": 1}


# Who blocks the hub.


@pytest.fixture
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not warned yet."""
    monkeypatch.setattr(geventpool.drivers, "_warned", set())


def warnings_of(connect: Callable[[], Any]) -> list[str]:
    """What a pool says of two connections."""
    with contextlib.closing(ConnectionPool(connect, reset_on_return=None)) as pool:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for _ in range(2):
                pool.connection().invalidate()
    return [str(one.message) for one in said if one.category is BlockingDriverWarning]


PIPE = os.pipe()


def fake_of(module: str) -> Callable[[], Any]:
    """Makes connections that come from a module by their name only."""
    return type(
        "Connection",
        (),
        {"__module__": module, "open": 1, "fileno": lambda self: PIPE[0], "close": int},
    )


def test_mysqlclient_is_warned_of_once_in_a_process_with_the_cure(nothing_said: None) -> None:
    (said,) = warnings_of(fake_of("MySQLdb.connections"))
    assert "blocks the gevent hub" in said
    assert "use PyMySQL instead (mysql+pymysql://…)" in said
    assert warnings_of(fake_of("MySQLdb.connections")) == []


def test_sqlite3_is_warned_of_once_in_a_process(nothing_said: None, tmp_path: Path) -> None:
    assert warnings_of(lambda: sqlite3.connect(":memory:")) == []
    assert len(warnings_of(lambda: sqlite3.connect(tmp_path / "shop.db"))) == 1
    assert warnings_of(lambda: sqlite3.connect(tmp_path / "shop.db")) == []


@pytest.mark.parametrize("driver", [PyMySQL(), Pg8000()], ids=lambda driver: driver.name)
def test_pure_python_is_never_warned_of(driver: Driver) -> None:
    assert driver.blocks_hub(object()) is None


def test_nobody_is_warned_in_a_program_that_is_not_patched() -> None:
    program = """
        import sqlite3, psycopg, psycopg2, psycopg2.extensions
        from geventpool.drivers.mysqldb import MySQLdb
        from geventpool.drivers.psycopg import Psycopg
        from geventpool.drivers.psycopg2 import Psycopg2
        from geventpool.drivers.sqlite3 import Sqlite3
        drivers = MySQLdb(), Psycopg(), Psycopg2()
        print([driver.blocks_hub(None) for driver in drivers],
              Sqlite3().blocks_hub(sqlite3.connect("")))
    """
    assert in_a_new_process(program) == "[None, None, None] None"


@pytest.mark.parametrize("is_psycogreen", [False, True])
def test_psycopg2_blocks_unless_it_has_a_wait_callback(is_psycogreen: bool) -> None:
    program = f"""
        from gevent import monkey
        monkey.patch_all()
        import psycopg2
        if {is_psycogreen}:
            from psycogreen.gevent import patch_psycopg
            patch_psycopg()
        from geventpool.drivers.psycopg2 import Psycopg2
        print(Psycopg2().blocks_hub(None))
    """
    said = in_a_new_process(program)
    if is_psycogreen:
        assert said == "None"
    else:
        assert "blocks the gevent hub" in said
        assert "psycogreen.gevent.patch_psycopg()" in said


@pytest.mark.parametrize("is_early", [True, False])
def test_psycopg_blocks_if_it_was_imported_before_the_patching(is_early: bool) -> None:
    program = f"""
        import warnings
        from gevent import monkey
        warnings.simplefilter("ignore")
        if {is_early}:
            import psycopg
        monkey.patch_all()
        import psycopg
        from geventpool.drivers.psycopg import Psycopg
        print(psycopg.pq.__impl__, Psycopg().blocks_hub(None))
    """
    said = in_a_new_process(program)
    if "python" in said.split()[0]:
        pytest.skip("NOT RUN: psycopg without its C part looks its functions up when it calls them")
    if is_early:
        assert "imported before gevent.monkey.patch_all()" in said
        assert "patch first" in said
    else:
        assert said.split()[1] == "None"


@pytest.mark.parametrize(
    ("sqlstate", "text", "is_full"),
    [
        (None, "FATAL:  no more connections allowed (max_client_conn)", True),
        ("08P01", "no more connections allowed (max_client_conn)", True),
        ("08P01", "client connections exceeded (max_user_client_connections)", True),
        ("08P01", "server conn crashed?", False),
        ("53300", "Entschuldigung, schon zu viele Verbindungen", True),
        ("28P01", "no more connections allowed", False),
    ],
)
def test_a_pooler_that_takes_no_more_clients_is_full(
    sqlstate: str | None, text: str, is_full: bool
) -> None:
    assert is_postgresql_full(Exception(text), sqlstate) is is_full
