"""The Flask extension: which engines it wraps, when, and what it refuses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, has_app_context
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text
from sqlalchemy.pool import QueuePool, StaticPool

from geventpool import sqlalchemy as door
from geventpool.errors import ConfigError
from geventpool.flask import GeventPool


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    """An application with a default database and a second bind, both files."""
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'main.sqlite3'}"
    app.config["SQLALCHEMY_BINDS"] = {"reports": f"sqlite:///{tmp_path / 'reports.sqlite3'}"}
    yield app
    # Not through an application context: one with a wrong setting refuses it.
    db = app.extensions.get("sqlalchemy")
    for engine in db._app_engines[app].values() if db else ():
        engine.dispose()


def pool_types(app: Flask) -> dict[str | None, type]:
    """The class of each bind's pool."""
    with app.app_context():
        return {
            key: type(engine.pool) for key, engine in app.extensions["sqlalchemy"].engines.items()
        }


def test_every_bind_is_wrapped_when_flask_sqlalchemy_comes_first(app: Flask) -> None:
    db = SQLAlchemy(app)
    GeventPool(app, db)
    assert pool_types(app) == {None: door.GeventPool, "reports": door.GeventPool}


def test_every_bind_is_wrapped_when_the_extension_comes_first(app: Flask) -> None:
    db = SQLAlchemy()
    GeventPool(app, db)
    db.init_app(app)
    assert pool_types(app) == {None: door.GeventPool, "reports": door.GeventPool}


def test_the_extension_finds_flask_sqlalchemy_by_itself(app: Flask) -> None:
    GeventPool(app)
    SQLAlchemy(app)
    assert pool_types(app) == {None: door.GeventPool, "reports": door.GeventPool}


def test_a_wrapped_engine_runs_queries(app: Flask) -> None:
    db = SQLAlchemy(app)
    GeventPool(app, db)
    with app.app_context():
        assert db.session.scalar(text("SELECT 1")) == 1
        with db.engines["reports"].connect() as connection:
            assert connection.scalar(text("SELECT 2")) == 2


def test_the_extension_is_registered_and_tells_the_pools(app: Flask) -> None:
    db = SQLAlchemy(app)
    extension = GeventPool(app, db)
    assert app.extensions["geventpool"] is extension
    with app.app_context():
        assert extension.pools == {key: engine.pool for key, engine in db.engines.items()}


def test_one_extension_serves_several_applications(app: Flask) -> None:
    db, other = SQLAlchemy(), Flask("other")
    other.config["SQLALCHEMY_DATABASE_URI"] = app.config["SQLALCHEMY_DATABASE_URI"]
    extension = GeventPool(db=db)
    for each in (app, other):
        extension.init_app(each)
        db.init_app(each)
    assert set(pool_types(app).values()) | set(pool_types(other).values()) == {door.GeventPool}


def test_settings_come_from_the_arguments_and_the_configuration_overrides_them(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(door, "wrap", lambda engine, **settings: seen.append(settings))
    app.config["GEVENTPOOL_POOL_SIZE"] = 7
    app.config["GEVENTPOOL_DRAIN_TIMEOUT"] = 3  # geventpool.gunicorn's, not the pool's
    GeventPool(app, SQLAlchemy(app), pool_size=2, max_overflow=1)
    assert seen == [{"pool_size": 7, "max_overflow": 1}] * 2


def test_settings_reach_the_pool(app: Flask) -> None:
    db = SQLAlchemy(app)
    GeventPool(app, db, pool_size=3, max_overflow=2)
    with app.app_context():
        pool = db.engine.pool
        assert isinstance(pool, door.GeventPool)
        assert pool.size() == 3


def test_an_unknown_setting_is_refused_by_name(app: Flask) -> None:
    app.config["GEVENTPOOL_POOL_SIZES"] = 7
    with pytest.raises(ConfigError, match=r"pool_sizes=7: .* did you mean pool_size"):
        GeventPool(app, SQLAlchemy(app))


@pytest.mark.parametrize("is_first", [True, False])
def test_a_wrong_setting_is_refused_in_init_app(app: Flask, is_first: bool) -> None:
    if not is_first:
        SQLAlchemy(app)
    with pytest.raises(ConfigError, match="pool_size=-15"):
        GeventPool(app, pool_size=-15)


def test_what_only_the_engine_shows_to_be_wrong_is_refused_at_each_context(app: Flask) -> None:
    options = {"poolclass": QueuePool, "pool_size": 2, "max_overflow": 0}
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = options
    GeventPool(app, min_idle=5)
    SQLAlchemy(app)
    for _ in range(2):
        with pytest.raises(ConfigError, match="min_idle=5"), app.app_context():
            pass  # pragma: no cover
        assert not has_app_context()


def test_an_engine_with_a_geventpool_of_its_own_keeps_it(app: Flask) -> None:
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"poolclass": door.GeventPool}
    db = SQLAlchemy(app)
    with app.app_context():
        before = db.engine.pool
    GeventPool(app, db)
    with app.app_context():
        assert db.engine.pool is before


def test_a_database_in_memory_keeps_its_one_connection(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    with caplog.at_level(logging.INFO, logger="geventpool.flask"):
        GeventPool(app, SQLAlchemy(app))
    assert pool_types(app) == {None: StaticPool, "reports": door.GeventPool}
    assert "lives in its one connection" in caplog.text


def test_swapped_arguments_are_refused_with_the_right_order(app: Flask) -> None:
    with pytest.raises(ConfigError, match=r"app=.*GeventPool\(app, db\)"):
        GeventPool(SQLAlchemy(app))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"db=.*GeventPool\(app, db\)"):
        GeventPool(app, app)  # type: ignore[arg-type]


def test_an_application_is_set_up_once(app: Flask) -> None:
    extension = GeventPool(app, SQLAlchemy(app))
    with pytest.raises(ConfigError, match="once"):
        extension.init_app(app)


def test_another_flask_sqlalchemy_than_the_applications_is_refused(app: Flask) -> None:
    SQLAlchemy(app)
    with pytest.raises(ConfigError, match="init_app"):
        GeventPool(app, SQLAlchemy())


def test_a_forgotten_flask_sqlalchemy_is_told_at_the_first_request(app: Flask) -> None:
    GeventPool(app)
    app.testing = True
    with app.app_context():
        pass  # set-up may still go on here
    with pytest.raises(ConfigError, match=r"db\.init_app\(app\)"):
        app.test_client().get("/")


def test_the_extension_does_nothing_to_other_applications(app: Flask, tmp_path: Path) -> None:
    GeventPool(app)
    other = Flask("other")
    other.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'other.sqlite3'}"
    other.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"poolclass": QueuePool}
    SQLAlchemy(other)
    assert pool_types(other) == {None: QueuePool}
