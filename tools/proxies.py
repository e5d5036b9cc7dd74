"""What stands between a program and its database: PgBouncer, HAProxy, stunnel, each a private process.

with PostgreSQL() as server, PgBouncer(server, pool_mode="transaction") as bouncer:
    create_engine(bouncer.url("psycopg"))
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
from pathlib import Path
from typing import Any

from . import system_packages
from .servers import Server, _free_port


class PgBouncer(Server):
    """PgBouncer in front of a PostgreSQL server, with the same user and databases.

    Args:
        server: the server behind it.
        settings: more of its `[pgbouncer]` section, such as `pool_mode="transaction"`.
    """

    name = "pgbouncer"
    _dialect = "postgresql"
    _stop_signal = signal.SIGTERM  # at once: clients are not waited for

    def __init__(self, server: Any, **settings: object) -> None:
        self.server = server
        self.user, self.password = server.user, server.password
        self.database = server.database
        self._settings = settings
        super().__init__()

    def tell(self, command: str) -> list[Any]:
        """Runs a command of its console, such as `SHOW POOLS`: rows by column name."""
        import psycopg
        from psycopg.rows import dict_row

        with contextlib.closing(
            psycopg.connect(
                host=self.host,
                port=self.port,
                user=self.user,
                password=self.password,
                dbname="pgbouncer",
                autocommit=True,
                row_factory=dict_row,
            )
        ) as console:
            cursor = console.execute(command)
            return cursor.fetchall() if cursor.description else []

    def _create(self) -> None:
        # It refuses to run as root.
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        settings = {
            "listen_addr": self.host,
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": self._home / "users",
            "admin_users": self.user,
            "max_client_conn": 200,
            "default_pool_size": 20,
            "ignore_startup_parameters": "extra_float_digits,options",
            **self._settings,
        }
        told = "\n".join(f"{name} = {value}" for name, value in settings.items())
        (self._home / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={self.server.host} port={self.server.port}\n[pgbouncer]\n{told}\n"
        )
        (self._home / "users").write_text(f'"{self.user}" "{self.password}"\n')
        if self._account is not None:
            for path in (self._home, *self._home.iterdir()):
                os.chown(path, self._account.pw_uid, self._account.pw_gid)

    def _command(self) -> list[str]:
        return [str(system_packages.find("pgbouncer")), str(self._home / "pgbouncer.ini")]

    def _prepare(self) -> None:
        """Nothing: its users are the server's."""

    def _in_child(self) -> None:
        if self._account is not None:
            os.setgroups([])
            os.setgid(self._account.pw_gid)
            os.setuid(self._account.pw_uid)
        super()._in_child()


class _Forwarder(Server):
    """Passes bytes on to a server, whose users and databases it has.

    Args:
        server: the server.
        idle_timeout: seconds of silence on either side after which it cuts a connection.
    """

    def __init__(self, server: Any, idle_timeout: float) -> None:
        self._idle_timeout = idle_timeout
        self._dialect = "mysql" if server.name == "mariadb" else server._dialect
        self.user, self.password, self.database = server.user, server.password, server.database
        super().__init__()

    def _prepare(self) -> None:
        """Nothing: it knows no users."""


class HAProxy(_Forwarder):
    """HAProxy, which forwards TCP to the first of several servers that is up.

    Args:
        *servers: of one kind, with the same user and database.
        idle_timeout: seconds of silence on either side after which it cuts a connection.
    """

    name = "haproxy"

    def __init__(self, *servers: Any, idle_timeout: float = 60.0) -> None:
        self._servers = servers
        super().__init__(servers[0], idle_timeout)

    def _create(self) -> None:
        idle = f"{self._idle_timeout * 1000:.0f}ms"
        lines = [
            "global",
            "  maxconn 500",
            "defaults",
            "  mode tcp",
            "  timeout connect 2s",
            f"  timeout client {idle}",
            f"  timeout server {idle}",
            "listen database",
            f"  bind {self.host}:{self.port}",
            "  option redispatch",
        ]
        for number, server in enumerate(self._servers):
            more = " backup" if number else ""
            check = "check inter 200ms fall 1 rise 1 on-marked-down shutdown-sessions"
            lines.append(f"  server s{number} {server.host}:{server.port} {check}{more}")
        (self._home / "haproxy.cfg").write_text("\n".join(lines) + "\n")

    def _command(self) -> list[str]:
        return [str(system_packages.find("haproxy")), "-db", "-f", str(self._home / "haproxy.cfg")]


class Stunnel(_Forwarder):
    """stunnel: a TLS tunnel, both ends of it in one process; a program speaks to the near one.

    Args:
        server: behind the far end.
        certificate: the far end's, a file; its key is beside it, as `.key`.
        idle_timeout: seconds of silence after which it cuts a connection.
    """

    name = "stunnel"

    def __init__(self, server: Any, certificate: Path, idle_timeout: float = 60.0) -> None:
        self._server = server
        self._certificate = certificate
        super().__init__(server, idle_timeout)

    def _create(self) -> None:
        far = f"{self.host}:{_free_port()}"
        lines = [
            "foreground = yes",
            "pid =",
            f"TIMEOUTidle = {self._idle_timeout:.0f}",
            "[near]",
            "client = yes",
            f"accept = {self.host}:{self.port}",
            f"connect = {far}",
            "verifyPeer = yes",
            f"CAfile = {self._certificate}",
            "[far]",
            f"accept = {far}",
            f"connect = {self._server.host}:{self._server.port}",
            f"cert = {self._certificate}",
            f"key = {self._certificate.with_suffix('.key')}",
        ]
        (self._home / "stunnel.conf").write_text("\n".join(lines) + "\n")

    def _command(self) -> list[str]:
        return [str(system_packages.find("stunnel")), str(self._home / "stunnel.conf")]
