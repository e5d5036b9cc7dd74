"""The private servers that the other tests stand on: they come back, and never outlive their owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tools.servers import SERVERS, Server

ROOT = Path(__file__).resolve().parents[2]
DRIVERS = {"mariadb": "pymysql", "postgresql": "psycopg"}

OWNER = """
import sys, time
from tools.servers import SERVERS
server = SERVERS[sys.argv[1]]()
print(server.port, flush=True)
time.sleep(60)
"""


@pytest.fixture(params=list(SERVERS))
def kind(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue(request.param)  # installs it, or skips
    name: str = request.param
    return name


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where other users may look, as PostgreSQL must not run as root."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def rows(server: Server) -> int:
    engine = create_engine(server.url(DRIVERS[server.name]), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("create table if not exists visits (id int)"))
        connection.execute(text("insert into visits values (1)"))
        return int(connection.execute(text("select count(*) from visits")).scalar_one())


def is_listening(port: int) -> bool:
    state = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(f"0100007F:{port:04X} 00000000:0000 0A" in line for line in state)


def wait_until_silent(port: int) -> None:
    deadline = time.monotonic() + 20
    while is_listening(port):
        assert time.monotonic() < deadline, "it still listens"
        time.sleep(0.05)


def test_a_server_keeps_its_port_and_data_when_it_is_restarted_and_when_it_is_killed(
    kind: str,
) -> None:
    with SERVERS[kind]() as server:
        port = server.port
        assert rows(server) == 1
        server.restart()
        assert rows(server) == 2
        server.kill()
        wait_until_silent(port)
        server.restart()
        # They trade the last second's commits for speed.
        assert server.port == port
        assert rows(server) >= 2
    assert not is_listening(port)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_ends_with_its_owner(kind: str, number: signal.Signals, temporary: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", OWNER, kind]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        port = int(owner.stdout.readline())
        assert is_listening(port)
        owner.send_signal(number)
    wait_until_silent(port)
