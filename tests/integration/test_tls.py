"""TLS contexts are made once, and every option means what it means without us."""

from __future__ import annotations

import contextlib
import inspect
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pg8000.core
import pg8000.dbapi
import pymysql
import pytest
from pymysql.connections import Connection

from geventpool import ConnectionPool
from geventpool.core.watch import look
from geventpool.drivers import driver_for, tune
from tools.servers import MariaDB, PostgreSQL

from .certificates import Authority, Pair
from .dbapi import eventually, open_connection, run

needs_preferred = pytest.mark.skipif(
    pymysql.VERSION[:2] < (1, 2),
    reason="NOT RUN: PyMySQL before 1.2 uses TLS only if it is told to",
)
needs_pg8000s_default = pytest.mark.skipif(
    "orig_ssl_context" not in inspect.getsource(pg8000.core),
    reason="NOT RUN: pg8000 before 1.31 uses TLS only if it is told to",
)


class Files:
    """All certificates of these tests.

    Attributes:
        right: the authority that has signed the server's certificate, for "localhost", and a client's.
        wrong: another one.
        plain, encrypted: a client's certificate, its key without a password and with "secret".
    """

    def __init__(self, directory: Path) -> None:
        self.right = Authority(directory, "right")
        self.wrong = Authority(directory, "wrong")
        self.server = self.right.issue("localhost")
        self.plain = self.right.issue("plain")
        self.encrypted = self.right.issue("encrypted", b"secret")
        self.stranger = self.wrong.issue("stranger")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls_mariadb(mariadb: Any, files: Files) -> Iterator[MariaDB]:
    """A MariaDB with TLS, and a user `known` who must show a certificate."""
    options = [
        f"--ssl-ca={files.right.file}",
        f"--ssl-cert={files.server.certificate}",
        f"--ssl-key={files.server.key}",
    ]
    with MariaDB(options=options) as server:
        with contextlib.closing(open_connection("pymysql", server.url("pymysql"))) as connection:
            run(connection, "create user known@'%' identified by 'known' require x509")
        yield server


@pytest.fixture(params=[False, True], ids=["untuned", "tuned"])
def is_tuned(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(autouse=True)
def as_tuned(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begins with the modules as they are without us; tunes them unless a test wants them so."""
    monkeypatch.setattr(Connection, "_create_ssl_ctx", inspect.unwrap(Connection._create_ssl_ctx))
    if hasattr(pg8000.core, "_make_socket"):
        original = inspect.unwrap(pg8000.core._make_socket)
        monkeypatch.setattr(pg8000.core, "_make_socket", original)
    if "is_tuned" not in request.fixturenames or request.getfixturevalue("is_tuned"):
        tune("pymysql")
        tune("pg8000.dbapi")


@pytest.fixture
def contexts_made(monkeypatch: pytest.MonkeyPatch) -> list[ssl.SSLContext]:
    """All default contexts that are made during the test."""
    made: list[ssl.SSLContext] = []
    make = ssl.create_default_context

    def count(*arguments: Any, **named: Any) -> ssl.SSLContext:
        made.append(make(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", count)
    return made


def connect(server: Any, host: str = "localhost", **arguments: Any) -> Any:
    """PyMySQL's connect, without anything of a pool."""
    arguments = {"user": server.user, "password": server.password, **arguments}
    return pymysql.connect(host=host, port=server.port, **arguments)


def cipher(server: Any, **arguments: Any) -> str:
    """The connection's cipher by the server's own account; "" for a plain connection."""
    with contextlib.closing(connect(server, **arguments)) as connection:
        return str(run(connection, "show session status like 'Ssl_cipher'")[0][1])


def is_refused(server: Any, **arguments: Any) -> bool:
    """Is there no connection with these settings, because of TLS?"""
    expected = pymysql.err.OperationalError, ssl.SSLError
    try:
        connect(server, **arguments).close()
    except expected as error:
        reason = repr(error)
    else:
        return False
    return any(word in reason for word in ("SSL", "TLS", "certificate", "Access denied"))


@needs_preferred
def test_preferred_means_tls_where_the_server_has_it_and_none_where_not(
    tls_mariadb: MariaDB, mariadb: Any, is_tuned: bool
) -> None:
    for _ in range(2):
        assert cipher(tls_mariadb)
        assert not cipher(mariadb, host="127.0.0.1")


@needs_preferred
def test_disabled_means_none(tls_mariadb: MariaDB, is_tuned: bool) -> None:
    assert cipher(tls_mariadb)
    assert not cipher(tls_mariadb, ssl_disabled=True)
    assert cipher(tls_mariadb)


@needs_preferred
def test_required_by_any_option_is_an_error_where_the_server_has_no_tls(
    mariadb: Any, files: Files, is_tuned: bool
) -> None:
    assert not cipher(mariadb, host="127.0.0.1")
    assert is_refused(mariadb, host="127.0.0.1", ssl_ca=str(files.right.file))
    assert is_refused(mariadb, host="127.0.0.1", ssl={"verify_mode": "none"})
    assert not cipher(mariadb, host="127.0.0.1")


def outcomes(files: Files) -> list[tuple[dict[str, Any], bool]]:
    """Settings of PyMySQL, and whether they let in a server with our certificate for `localhost`."""
    right, wrong = str(files.right.file), str(files.wrong.file)
    own = ssl.create_default_context(cafile=right)
    own_wrong = ssl.create_default_context(cafile=wrong)
    away = {"host": "127.0.0.1"}  # a name that is not in the certificate
    return [
        ({}, True),
        ({"ssl_ca": right}, True),
        ({"ssl_ca": wrong}, True),  # to verify is a setting of its own
        ({"ssl_ca": right, "ssl_verify_cert": True}, True),
        ({"ssl_ca": wrong, "ssl_verify_cert": True}, False),
        ({"ssl_verify_cert": True}, False),  # by the system's authorities
        ({"ssl_ca": wrong, "ssl_verify_cert": False}, True),
        ({"ssl_ca": right, "ssl_verify_cert": True, **away}, True),
        ({"ssl_ca": right, "ssl_verify_identity": True}, True),
        ({"ssl_ca": right, "ssl_verify_identity": True, **away}, False),
        ({"ssl_ca": wrong, "ssl_verify_identity": True}, False),
        ({"ssl": {"ca": right}}, True),
        ({"ssl": {"ca": right}, **away}, False),
        ({"ssl": {"ca": right, "check_hostname": False}, **away}, True),
        ({"ssl": {"ca": right, "check_hostname": 0}, **away}, True),
        ({"ssl": {"ca": wrong}}, False),
        ({"ssl": {"ca": wrong, "check_hostname": False}}, False),
        ({"ssl": {"ca": wrong, "check_hostname": False, "verify_mode": "none"}}, True),
        ({"ssl": {"ca": wrong, "check_hostname": False, "verify_mode": False}}, True),
        ({"ssl": {"ca": wrong, "check_hostname": False, "verify_mode": True}}, False),
        ({"ssl": {"verify_mode": "required"}}, False),
        ({"ssl": {"ca": right, "cipher": "no such cipher"}}, False),
        ({"ssl": own}, True),
        ({"ssl": own, **away}, False),
        ({"ssl": own_wrong}, False),
    ]


@needs_preferred
def test_every_option_means_what_it_means_whatever_was_used_before(
    tls_mariadb: MariaDB, files: Files, is_tuned: bool
) -> None:
    """Each after each other one, in both orders, so that none is served another's context."""
    for settings, is_let_in in (table := outcomes(files)) + table[::-1]:
        if is_let_in:
            assert cipher(tls_mariadb, **settings), settings
        else:
            assert is_refused(tls_mariadb, **settings), settings


@pytest.mark.skipif(
    pymysql.VERSION[:2] < (1, 1), reason="NOT RUN: PyMySQL before 1.1 has no ssl_key_password"
)
def test_a_clients_certificate_and_its_keys_password_mean_what_they_mean(
    tls_mariadb: MariaDB, files: Files, is_tuned: bool
) -> None:
    def settings(pair: Pair, **more: Any) -> dict[str, Any]:
        return {
            "user": "known",
            "password": "known",
            "ssl_ca": str(files.right.file),
            "ssl_cert": str(pair.certificate),
            "ssl_key": str(pair.key),
            **more,
        }

    for _ in range(2):
        assert cipher(tls_mariadb, **settings(files.plain))
        assert cipher(tls_mariadb, **settings(files.encrypted, ssl_key_password="secret"))
        assert is_refused(tls_mariadb, **settings(files.encrypted, ssl_key_password="guess"))
        assert is_refused(tls_mariadb, **settings(files.stranger))
        assert is_refused(tls_mariadb, user="known", password="known")
        with pytest.raises(OSError, match="No such file"):
            connect(tls_mariadb, ssl_cert="/nowhere", ssl_key="/nowhere")


def test_a_changed_file_is_seen_by_the_next_connect(
    tls_mariadb: MariaDB, files: Files, tmp_path: Path, is_tuned: bool
) -> None:
    file = tmp_path / "ca.pem"
    settings = {"ssl": {"ca": str(file)}}
    for _ in range(2):
        file.write_bytes(files.right.file.read_bytes())
        assert cipher(tls_mariadb, **settings)
        file.write_bytes(files.wrong.file.read_bytes())
        assert is_refused(tls_mariadb, **settings)
    file.unlink()
    with pytest.raises(OSError, match="No such file"):
        connect(tls_mariadb, **settings)


@pytest.mark.parametrize(
    "settings",
    [pytest.param({}, marks=needs_preferred), {"ssl_ca": "right"}, {"ssl": {"ca": "right"}}],
)
def test_equal_connects_make_one_context(
    tls_mariadb: MariaDB, files: Files, contexts_made: list[Any], settings: dict[str, Any]
) -> None:
    for _ in range(10):
        # Equal, not the same object.
        mine: dict[str, Any] = {**settings}
        if "ssl_ca" in mine:
            mine["ssl_ca"] = str(files.right.file)
        if "ssl" in mine:
            mine["ssl"] = {"ca": str(files.right.file)}
        assert cipher(tls_mariadb, **mine)
    assert len(contexts_made) == 1


def test_a_context_of_the_users_own_is_used_and_none_is_made(
    tls_mariadb: MariaDB, files: Files, contexts_made: list[Any]
) -> None:
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    own.load_verify_locations(str(files.right.file))
    with contextlib.closing(connect(tls_mariadb, ssl=own)) as connection:
        assert connection.ctx is own
    assert contexts_made == []


def test_a_subclass_that_changes_its_context_keeps_it_for_itself(tls_mariadb: MariaDB) -> None:
    class Stricter(Connection):  # type: ignore[misc]
        def _create_ssl_ctx(self, sslp: Any) -> Any:
            context = super()._create_ssl_ctx(sslp)
            context.verify_mode = ssl.CERT_REQUIRED
            return context

    settings = {"check_hostname": False}
    with pytest.raises(pymysql.err.OperationalError):
        Stricter(host="localhost", port=tls_mariadb.port, user="x", ssl=settings)
    assert cipher(tls_mariadb, ssl=settings)


def test_killed_connections_are_gone_from_the_pool_through_tls(tls_mariadb: MariaDB) -> None:
    url = tls_mariadb.url("pymysql")
    with contextlib.closing(ConnectionPool(lambda: open_connection("pymysql", url))) as pool:
        lent = [pool.connection() for _ in range(3)]
        numbers = [run(one, "select connection_id()")[0][0] for one in lent]
        for one in lent:
            one.close()
        assert pool.stats().idle == 3
        with contextlib.closing(open_connection("pymysql", url)) as observer:
            for number in numbers:
                run(observer, f"kill {number}")
        assert eventually(lambda: pool.stats().size == 0)
        assert pool.stats().closed == {"dead": 3}


def test_a_pool_without_a_framework_makes_one_context_from_its_second_connect_on(
    tls_mariadb: MariaDB, contexts_made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "_create_ssl_ctx", inspect.unwrap(Connection._create_ssl_ctx))
    monkeypatch.setattr("geventpool.drivers.pymysql._pessimists", {})
    url = tls_mariadb.url("pymysql")
    with contextlib.closing(ConnectionPool(lambda: open_connection("pymysql", url))) as pool:
        lent = [pool.connection() for _ in range(5)]
        for one in lent:
            one.close()
    assert len(contexts_made) <= 2


# PostgreSQL: pg8000 has the same habit; the others' library is libpq, in C.


@pytest.fixture(scope="module")
def tls_postgresql(postgresql: Any, files: Files) -> Iterator[PostgreSQL]:
    """A PostgreSQL with TLS."""
    with PostgreSQL() as server:
        with contextlib.closing(open_connection("psycopg", server.url("psycopg"))) as connection:
            connection.autocommit = True
            for file, pem in (
                ("server.crt", files.server.certificate),
                ("server.key", files.server.key),
            ):
                # The server's own account must own them.
                run(
                    connection,
                    f"copy (select unnest(string_to_array('{pem.read_text()}', e'\\n'))) "
                    f"to program 'umask 077; cat > {file}'",
                )
            run(connection, "alter system set ssl = on")
        server.restart()
        yield server


def is_encrypted(server: Any, **arguments: Any) -> bool:
    """By the server's own account."""
    with contextlib.closing(
        open_connection("pg8000", server.url("pg8000"), **arguments)
    ) as connection:
        return bool(
            run(connection, "select ssl from pg_stat_ssl where pid = pg_backend_pid()")[0][0]
        )


@needs_pg8000s_default
def test_pg8000s_settings_mean_what_they_mean(
    tls_postgresql: PostgreSQL, postgresql: Any, files: Files, is_tuned: bool
) -> None:
    right = ssl.create_default_context(cafile=str(files.right.file))
    right.check_hostname = False
    wrong = ssl.create_default_context(cafile=str(files.wrong.file))
    wrong.check_hostname = False
    for _ in range(2):
        assert is_encrypted(tls_postgresql)
        assert is_encrypted(tls_postgresql, ssl_context=True)
        assert is_encrypted(tls_postgresql, ssl_context=right)
        assert not is_encrypted(tls_postgresql, ssl_context=False)
        with pytest.raises(ssl.SSLError):
            is_encrypted(tls_postgresql, ssl_context=wrong)
        assert not is_encrypted(postgresql)
        assert not is_encrypted(postgresql, ssl_context=False)
        for required in (True, right):
            with pytest.raises(pg8000.dbapi.InterfaceError, match="Server refuses SSL"):
                is_encrypted(postgresql, ssl_context=required)
        with pytest.raises(pg8000.dbapi.InterfaceError, match="Can't create a connection"):
            pg8000.dbapi.connect(user="x", host="127.0.0.1", port=1)


@needs_pg8000s_default
def test_equal_connects_of_pg8000_make_one_context_for_each_of_its_two_defaults(
    tls_postgresql: PostgreSQL, postgresql: Any, contexts_made: list[Any]
) -> None:
    for _ in range(10):
        assert not is_encrypted(postgresql)
    assert len(contexts_made) == 1, "the first time it is left to pg8000"
    contexts_made.clear()
    for _ in range(10):
        assert is_encrypted(tls_postgresql)
        assert is_encrypted(tls_postgresql, ssl_context=True)
    assert len(contexts_made) == 2


@pytest.mark.parametrize("name", ["psycopg", "psycopg2", "pg8000"])
def test_connections_to_postgresql_killed_behind_tls_are_never_lent(
    tls_postgresql: PostgreSQL, name: str
) -> None:
    """What the server says before it closes may be a notification, for all that can be seen of it."""
    url = tls_postgresql.url(name)
    with contextlib.closing(ConnectionPool(lambda: open_connection(name, url))) as pool:
        with pool.connection() as connection:
            ((number, is_tls),) = run(
                connection, "select pid, ssl from pg_stat_ssl where pid = pg_backend_pid()"
            )
        assert is_tls or name == "pg8000", "before 1.31 it does without"
        watched = driver_for(connection).fileno(connection)
        assert watched is not None
        with contextlib.closing(open_connection(name, url)) as observer:
            run(observer, f"select pg_terminate_backend({number})")
        assert eventually(lambda: pool.stats().size == 0 or look(watched) == b"")
        gevent.sleep(0.01)  # a turn for the hub, whose watcher is what the pool goes by
        with pool.connection() as another:
            assert run(another, "select 7") == [(7,)]
        assert pool.stats().closed == {"dead": 1}
        assert pool.stats().pings == 0
