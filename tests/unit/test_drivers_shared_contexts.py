"""When a TLS context that was made for one connection must not serve another."""

from __future__ import annotations

import inspect
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pymysql.connections import Connection

from geventpool.drivers import tune

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Any:
    """One that has not connected, of a PyMySQL that was tuned just now."""
    monkeypatch.setattr(Connection, "_create_ssl_ctx", inspect.unwrap(Connection._create_ssl_ctx))
    tune("pymysql")
    return Connection(defer_connect=True, ssl_disabled=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("verify_mode", ssl.CERT_REQUIRED),
        ("minimum_version", ssl.TLSVersion.TLSv1_3),
        ("maximum_version", ssl.TLSVersion.TLSv1_2),
        ("verify_flags", ssl.VERIFY_CRL_CHECK_LEAF),
        ("options", ssl.OP_NO_TICKET),
    ],
)
def test_a_context_that_somebody_has_changed_serves_nobody_else(
    connection: Any, name: str, value: Any
) -> None:
    shared = connection._create_ssl_ctx({})
    assert connection._create_ssl_ctx({}) is shared
    before = getattr(shared, name)
    setattr(shared, name, value)
    assert getattr(shared, name) != before
    other = connection._create_ssl_ctx({})
    assert other is not shared
    assert getattr(other, name) == before
    assert connection._create_ssl_ctx({}) is other


def test_a_directory_of_certificates_is_read_by_each_connect(
    connection: Any, tmp_path: Path
) -> None:
    first = connection._create_ssl_ctx({"capath": str(tmp_path)})
    assert connection._create_ssl_ctx({"capath": str(tmp_path)}) is not first


def test_another_file_of_certificates_in_the_environment_makes_another_context(
    connection: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = connection._create_ssl_ctx({"verify_mode": True})
    empty = tmp_path / "ca.pem"
    empty.touch()
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(empty))
    monkeypatch.setenv("SSL_CERT_DIR", os.fspath(tmp_path / "none"))
    second = connection._create_ssl_ctx({"verify_mode": True})
    assert second is not first
    assert second.cert_store_stats()["x509_ca"] == 0


_PROGRAM = """
import pymysql, ssl
from geventpool.drivers import tune
tune("pymysql")
connection = pymysql.Connection(defer_connect=True)
before = connection._create_ssl_ctx({})
from gevent import monkey
monkey.patch_all()
after = connection._create_ssl_ctx({})
print(type(before).__module__, type(after).__module__)
"""


def test_a_context_from_before_the_patching_does_not_serve_after_it() -> None:
    """Its sockets would block the hub."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.split()
    assert before == "ssl"
    assert after.startswith("gevent.")
