"""Private database servers on loopback, each with a data directory of its own, always stopped.

    with MariaDB() as server:
        create_engine(server.url("pymysql"))

or from a shell: `python -m tools.servers mariadb` starts one, prints its URL and stops it at Ctrl-C.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from . import system_packages

_START_SECONDS = 60
_PR_SET_PDEATHSIG = 1
_PREFIX = "geventpool-"
_LOCK = "owner.lock"


class ServerError(RuntimeError):
    """A server could not be started; the text ends with what it logged."""


class Server:
    """A server process of ours.

    Attributes:
        host: loopback.
        port: a free one, chosen at the first start.
        user: has all rights.
        password: its password.
        database: an empty database for the tests.
        log: what the server says.
    """

    name = ""
    host = "127.0.0.1"
    user = "geventpool"
    password = "geventpool"
    database = "geventpool"

    def __init__(self, max_connections: int = 151) -> None:
        self.max_connections = max_connections
        _sweep()
        self._home = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{self.name}-"))
        self._lock = _lock(self._home)  # let go of by the system if we are killed
        self.log = self._home / "server.log"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)
        try:
            self._create()
            self.start()
            self._prepare()
        except BaseException:
            self.stop()
            raise

    def url(self, driver: str, database: str | None = None) -> str:
        """The SQLAlchemy URL for a driver (`pymysql`, `psycopg` …)."""
        return (
            f"{self._dialect}+{driver}://{self.user}:{self.password}@{self.host}:{self.port}/"
            f"{database or self.database}"
        )

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=self._in_child,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ServerError(f"{self.name} did not start:\n{self._tail()}")
            time.sleep(0.05)

    def restart(self) -> None:
        """Stops the server in order and starts it on the same port."""
        self._end(self._stop_signal)
        self.start()

    def kill(self) -> None:
        """Ends the server at once, as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends the server and removes its files."""
        atexit.unregister(self.stop)
        self._end(self._stop_signal)
        shutil.rmtree(self._home, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    _dialect = ""
    _stop_signal = signal.SIGTERM

    def _create(self) -> None:
        raise NotImplementedError

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _prepare(self) -> None:
        raise NotImplementedError

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
            return True
        return False

    def _in_child(self) -> None:
        # Whatever becomes of us, the server goes too.
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def _end(self, how: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def _run(self, command: list[str], **arguments: Any) -> None:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **arguments
        )
        if done.returncode:
            raise ServerError(f"{command[0]} failed:\n{done.stdout.decode(errors='replace')}")


class MariaDB(Server):
    """A MariaDB server.

    Args:
        max_connections: how many it allows.
        options: more of its command line's, such as `--ssl-ca=…`.
    """

    name = "mariadb"
    _dialect = "mysql"

    def __init__(self, max_connections: int = 151, options: Sequence[str] = ()) -> None:
        self._options = options
        super().__init__(max_connections)

    def _create(self) -> None:
        install = system_packages.find("mariadb-install-db")
        self._as = "root" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self._run(
            [
                str(install),
                "--no-defaults",
                f"--datadir={self._home / 'data'}",
                f"--user={self._as}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            # One that starts removes what it takes for left-over temporary tables of its own.
            env={**os.environ, "TMPDIR": str(self._home)},
        )
        # The account is made by the server itself while it starts.
        self._init = self._home / "init.sql"
        self._init.write_text(
            f"CREATE USER IF NOT EXISTS '{self.user}'@'%' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO '{self.user}'@'%' WITH GRANT OPTION;\n"
            f"CREATE DATABASE IF NOT EXISTS {self.database} CHARACTER SET utf8mb4;\n"
        )

    def _command(self) -> list[str]:
        return [
            str(system_packages.find("mariadbd")),
            "--no-defaults",
            f"--user={self._as}",
            f"--datadir={self._home / 'data'}",
            f"--socket={self._home / 'socket'}",
            f"--pid-file={self._home / 'pid'}",
            f"--tmpdir={self._home}",
            f"--port={self.port}",
            f"--bind-address={self.host}",
            f"--max-connections={self.max_connections}",
            f"--init-file={self._init}",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=16M",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-flush-method=nosync",
            "--performance-schema=OFF",
            *self._options,
        ]

    def _prepare(self) -> None:
        """Nothing: the init file has done it before the port was open."""


class PostgreSQL(Server):
    """A PostgreSQL server."""

    name = "postgresql"
    _dialect = "postgresql"
    _stop_signal = signal.SIGINT  # "fast": does not wait for clients

    def __init__(self, max_connections: int = 100) -> None:
        super().__init__(max_connections)

    def _create(self) -> None:
        # It refuses to run as root.
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        password = self._home / "password"
        password.write_text(self.password)
        if self._account is not None:
            os.chmod(self._home, 0o700)
            for path in (self._home, password):
                os.chown(path, self._account.pw_uid, self._account.pw_gid)
        self._run(
            [
                str(system_packages.find("initdb")),
                f"--pgdata={self._home / 'data'}",
                f"--username={self.user}",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ],
            preexec_fn=self._become,
            cwd=self._home,
        )

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": self.host,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": self.max_connections,
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "shared_buffers": "64MB",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [
            str(system_packages.find("postgres")),
            "-D",
            str(self._home / "data"),
            *options,
        ]

    def _prepare(self) -> None:
        with _connect(self) as connection:
            connection.execute(f"CREATE DATABASE {self.database}")

    def _answers(self) -> bool:
        import psycopg

        try:
            _connect(self).close()
        except psycopg.OperationalError:
            return False
        return True

    def _in_child(self) -> None:
        self._become()
        super()._in_child()

    def _become(self) -> None:
        if self._account is not None:
            os.setgroups([])
            os.setgid(self._account.pw_gid)
            os.setuid(self._account.pw_uid)


class Standby(PostgreSQL):
    """A PostgreSQL server that follows another one, and only reads, until it is promoted.

    Args:
        primary: the other one.
    """

    def __init__(self, primary: PostgreSQL) -> None:
        self._primary = primary
        super().__init__(primary.max_connections)

    def promote(self) -> None:
        """Has it take over. Returns when it takes writes."""
        with _connect(self) as connection:
            connection.execute("SELECT pg_promote()")

    def _create(self) -> None:
        self._account = self._primary._account
        if self._account is not None:
            os.chown(self._home, self._account.pw_uid, self._account.pw_gid)
        self._run(
            [
                str(system_packages.find("pg_basebackup")),
                f"--pgdata={self._home / 'data'}",
                f"--dbname=host={self._primary.host} port={self._primary.port} user={self.user}",
                "--checkpoint=fast",
                "--write-recovery-conf",
                "--no-sync",
            ],
            env={**os.environ, "PGPASSWORD": self.password},
            preexec_fn=self._become,
            cwd=self._home,
        )

    def _prepare(self) -> None:
        """Nothing: it has what its primary has."""


def _connect(server: PostgreSQL) -> Any:
    import psycopg

    return psycopg.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        dbname="postgres",
        autocommit=True,
        connect_timeout=2,
    )


SERVERS: dict[str, type[Server]] = {"mariadb": MariaDB, "postgresql": PostgreSQL}


def _sweep() -> None:
    """Removes the folders of servers whose owners were killed before they could."""
    for home in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = _lock(home) if (home / _LOCK).exists() else None
        if lock is not None:
            shutil.rmtree(home, ignore_errors=True)
            lock.close()


def _lock(home: Path) -> IO[bytes] | None:
    """Locks a server's folder; `None` if somebody else has."""
    try:
        lock = (home / _LOCK).open("ab")
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    """Starts a server until it is interrupted."""
    if len(sys.argv) != 2 or sys.argv[1] not in SERVERS:
        sys.exit(f"usage: python -m tools.servers {'|'.join(SERVERS)}")
    problem = system_packages.install([sys.argv[1]])
    if problem:
        sys.exit(problem)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be inherited ignored
    drivers = {"mariadb": "pymysql", "postgresql": "psycopg"}
    with contextlib.suppress(KeyboardInterrupt), SERVERS[sys.argv[1]]() as server:
        print(server.url(drivers[server.name]), flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
