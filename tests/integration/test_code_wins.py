"""`?plugin=geventpool` in a URL that programs share which choose their pool themselves."""

from __future__ import annotations

import configparser
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.backends.database import DatabaseBackend
from sqlalchemy import create_engine, engine_from_config, inspect, text
from sqlalchemy.pool import AssertionPool, NullPool, Pool, QueuePool, StaticPool

from geventpool import ConfigError
from geventpool.sqlalchemy import GeventPool, wrap

PLUGIN = "plugin=geventpool&geventpool_max_size=3&geventpool_min_idle=2"
MIGRATION = """
from alembic import op
import sqlalchemy as sa

revision, down_revision, branch_labels, depends_on = "0001", None, None, None


def upgrade():
    op.create_table("migrated", sa.Column("id", sa.Integer, primary_key=True))


def downgrade():
    op.drop_table("migrated")
"""


class OwnPool(GeventPool):
    """A user's."""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/shop.db?{PLUGIN}"


def alembic(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=folder,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def migrate(folder: Path, url: str, **options: str) -> str:
    """A project as `alembic init` makes it, with this URL in its .ini, brought up to date."""
    alembic(folder, "init", "migrations")
    ini = folder / "alembic.ini"
    settings = configparser.RawConfigParser()
    settings.read(ini)
    settings.set("alembic", "sqlalchemy.url", url.replace("%", "%%"))
    for name, value in options.items():
        settings.set("alembic", f"sqlalchemy.{name}", value)
    settings.set("logger_root", "level", "INFO")
    with ini.open("w") as file:
        settings.write(file)
    (folder / "migrations/versions/0001_first.py").write_text(MIGRATION)
    return alembic(folder, "upgrade", "head")


@pytest.mark.parametrize("server", ["sqlite", "mariadb", "postgresql"])
def test_alembics_own_env_py_migrates_by_the_url_of_the_application(
    server: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    plain = f"sqlite:///{tmp_path}/shop.db"
    if server != "sqlite":
        driver = {"mariadb": "pymysql", "postgresql": "psycopg"}[server]
        plain = request.getfixturevalue(server).url(driver)
    told = migrate(tmp_path, f"{plain}?{PLUGIN}")
    assert told.count("gives way to poolclass=NullPool") == 1
    engine = create_engine(f"{plain}?{PLUGIN}")
    try:
        assert isinstance(engine.pool, GeventPool)
        assert inspect(engine).has_table("migrated")
        with engine.begin() as connection:
            connection.execute(text("drop table migrated"))
            connection.execute(text("drop table alembic_version"))
    finally:
        engine.dispose()


def test_what_an_ini_says_of_our_pool_does_not_reach_another(tmp_path: Path) -> None:
    told = migrate(tmp_path, f"sqlite:///{tmp_path}/shop.db?{PLUGIN}", min_idle="2", breakeven="9")
    assert "gives way to poolclass=NullPool" in told


@pytest.mark.parametrize("was_forked", [False, True])
def test_celerys_database_backend_keeps_results_by_that_url(url: str, was_forked: bool) -> None:
    app = Celery(set_as_current=False)
    app.conf.database_engine_options = {"min_idle": 1}
    engines: list[Any] = []
    backend = DatabaseBackend(url, app=app, engine_callback=engines.append)
    engines.clear()
    backend.session_manager.forked = was_forked  # Celery chooses another pool in its children
    backend.store_result("a-task", 42, "SUCCESS")
    assert backend.get_result("a-task") == 42
    assert {type(engine.pool) for engine in engines} == {GeventPool if was_forked else NullPool}
    for engine in engines:
        engine.dispose()


@pytest.mark.parametrize("poolclass", [NullPool, QueuePool, StaticPool, AssertionPool, OwnPool])
def test_the_class_that_code_says_wins_over_the_plugin(
    url: str, poolclass: type[Pool], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "geventpool")
    engine = create_engine(url, poolclass=poolclass)
    assert type(engine.pool) is poolclass
    assert not any(key.startswith("geventpool") for key in engine.url.query)
    with engine.execution_options(stream_results=True).connect() as connection:
        assert connection.execute(text("select 1")).scalar_one() == 1
    engine.dispose()
    told = [record for record in caplog.records if "gives way" in record.message]
    assert len(told) == (poolclass is not OwnPool)
    if poolclass is OwnPool:
        assert (engine.pool.config.max_size, engine.pool.config.min_idle) == (3, 2)


def test_the_pool_that_code_gives_wins_over_the_plugin(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "geventpool")
    given = create_engine(url.partition("?")[0]).pool
    engine = create_engine(url, pool=given)
    assert engine.pool is given
    assert "gives way to pool=" in caplog.text
    engine.dispose()


def test_what_queue_pool_takes_reaches_a_queue_pool_and_what_only_ours_takes_does_not(
    url: str,
) -> None:
    engine = create_engine(url, poolclass=QueuePool, pool_size=7, min_idle=1, sizing="fixed")
    assert engine.pool.size() == 7
    engine.dispose()
    # As without the plugin: NullPool takes no size, which is for SQLAlchemy to say.
    with pytest.raises(TypeError, match="pool_size"):
        create_engine(url, poolclass=NullPool, pool_size=7)


def test_no_class_is_said_by_none(url: str) -> None:
    for said in ({"poolclass": None}, {"pool": None}):
        engine = create_engine(url, **said)
        assert isinstance(engine.pool, GeventPool)
        engine.dispose()


@pytest.mark.parametrize(
    ("query", "told"),
    [("geventpool_recycle=soon", "recycle"), ("geventpool_core_size=-1", "core_size")],
)
def test_the_settings_in_the_url_are_looked_at_whoever_wins(
    url: str, query: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        create_engine(f"{url}&{query}", poolclass=NullPool)


def test_a_class_given_beside_a_configuration_file_wins(tmp_path: Path) -> None:
    said = {"sqlalchemy.url": f"sqlite:///{tmp_path}/shop.db?{PLUGIN}", "sqlalchemy.echo": "false"}
    engine = engine_from_config(said, poolclass=NullPool)
    assert type(engine.pool) is NullPool
    wrapped = wrap(engine.execution_options(logging_token="migrations"))
    assert isinstance(wrapped.pool, GeventPool), "who wraps says so in code"
    assert wrapped.pool is engine.pool
    engine.dispose()
