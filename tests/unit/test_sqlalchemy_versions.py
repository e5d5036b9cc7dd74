"""Without SQLAlchemy, with one that is too old, and where its releases differ for a pool."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gevent
import pytest
from sqlalchemy import event

from geventpool.sqlalchemy import GeventPool, compat
from geventpool.testing import FakeDriver, settle

WITHOUT = """
import sys
sys.modules["sqlalchemy"] = None  # whoever imports it gets an ImportError
sys.modules["flask_sqlalchemy"] = None
"""


def run(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    program = path / "program.py"
    program.write_text(code)
    return subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)


def test_the_raw_pool_and_all_that_observes_it_work_without_sqlalchemy(tmp_path: Path) -> None:
    done = run(
        f"""{WITHOUT}
import geventpool, geventpool.cli, geventpool.gunicorn, geventpool.observe, geventpool.plans
import geventpool.observe.prometheus, geventpool.recorder, geventpool.simulator.command
from geventpool.testing import FakeDriver

pool = geventpool.ConnectionPool(FakeDriver().connect)
geventpool.observe.attach(pool)
recorder = geventpool.recorder.record(pool, {str(tmp_path)!r})
with pool.connection() as connection:
    connection.cursor().execute("select 1")
recorder.stop()
assert pool.stats().checkouts == 1
assert "shop" not in geventpool.observe.report()
pool.close()
""",
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_the_django_backends_work_without_sqlalchemy(engine: str, tmp_path: Path) -> None:
    done = run(
        f"""{WITHOUT}
from gevent import monkey
monkey.patch_all()
import django, pymysql
from django.conf import settings

pymysql.install_as_MySQLdb()
settings.configure(
    INSTALLED_APPS=["geventpool.django"],
    DATABASES={{"default": {{
        "ENGINE": "geventpool.django.{engine}", "NAME": "shop", "HOST": "127.0.0.1", "PORT": "1",
    }}}},
)
django.setup()
from django.db import OperationalError, connection
try:
    connection.cursor()
except OperationalError as error:
    print("refused")
""",
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\n", "")


@pytest.mark.parametrize("door", ["geventpool.sqlalchemy", "geventpool.flask"])
def test_what_needs_sqlalchemy_says_so_and_the_cure(door: str, tmp_path: Path) -> None:
    done = run(f"{WITHOUT}\nimport {door}", tmp_path)
    last = done.stderr.splitlines()[-1]
    cure = "pip install 'geventpool[sqlalchemy]'"
    assert last == f"ImportError: this part of geventpool needs SQLAlchemy: {cure}"


def test_one_that_is_too_old_is_refused_in_a_sentence(tmp_path: Path) -> None:
    old = tmp_path / "sqlalchemy"
    old.mkdir()
    (old / "__init__.py").write_text('__version__ = "1.3.24"')
    (old / "pool.py").touch()
    done = run("import geventpool.sqlalchemy", tmp_path)
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: geventpool needs SQLAlchemy {compat.OLDEST} or newer, this is 1.3.24: "
        "pip install 'geventpool[sqlalchemy]'"
    )


@pytest.mark.parametrize(
    ("version", "is_refused"),
    [
        *((one, True) for one in ("0.9", "1.3.24", "1.4.0b1", "1.4.9", "1.4.42")),
        *((one, False) for one in (compat.OLDEST, "1.4.54", "2.0.0b3", "2.1.9", "3.0", "10")),
    ],
)
def test_versions_are_compared_as_numbers(version: str, is_refused: bool) -> None:
    assert (compat.refusal(version) is not None) is is_refused


class Killed(BaseException):
    pass


@pytest.mark.parametrize("error", [Killed, gevent.GreenletExit, ValueError])
def test_a_return_that_is_killed_in_a_listener_gives_the_place_back(error: Any) -> None:
    """Also while somebody still has the error, and by it the proxied connection."""
    driver = FakeDriver()
    pool = GeventPool(driver.connect, max_size=1)

    def kill(*_: object) -> None:
        raise error

    event.listen(pool, "reset", kill)
    fairy = pool.connect()
    held = None
    try:
        fairy.close()
    except BaseException as kept:
        held = kept
    event.remove(pool, "reset", kill)
    settle()
    assert (held is None) == issubclass(error, Exception)
    assert pool.stats().in_use == 0
    assert not driver.connections[0].is_open, "nobody knows what became of its reset"
    pool.connect().close()


@pytest.mark.parametrize("is_first", [True, False])
def test_a_connection_that_a_listener_could_not_configure_is_closed_and_not_lent(
    is_first: bool,
) -> None:
    driver = FakeDriver()
    pool = GeventPool(driver.connect, max_size=1)
    if not is_first:
        pool.connect().invalidate()  # which leaves a record without a connection
        settle()

    @event.listens_for(pool, "connect")
    def refuse(*_: object) -> None:
        raise ValueError("SET of what is not known")

    for _ in range(2):
        with pytest.raises(ValueError, match="SET of"):
            pool.connect()
    settle()
    event.remove(pool, "connect", refuse)
    assert driver.open_connections == []
    assert pool.stats().size == 0
    fairy = pool.connect()
    assert fairy.dbapi_connection is driver.connections[-1]
    fairy.close()
