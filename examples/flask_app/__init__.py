"""An order desk: a small Flask-SQLAlchemy application on a geventpool.

Everything that it says about the pool is one line: `"poolclass": GeventPool`. README.md tells how
to run it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from typing import Any

from flask import Flask
from sqlalchemy import event
from werkzeug.exceptions import HTTPException
from werkzeug.routing import IntegerConverter, Map

from geventpool.flask import metrics
from geventpool.sqlalchemy import GeventPool

from . import api, operations, pages
from .models import db
from .orders import MAX_ID, InputError
from .seed import seed_command

DEFAULT_DATABASE_URL = "sqlite:///order_desk.sqlite3"


def create_app(config: dict[str, Any] | None = None) -> Flask:
    """The application; `DATABASE_URL` of the environment names the database.

    Args:
        config: overrides, for tests.
    """
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("DATABASE_URL", DEFAULT_DATABASE_URL)
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"poolclass": GeventPool}
    app.config.update(config or {})
    app.url_map.converters["id"] = RowId
    db.init_app(app)
    with app.app_context():
        if db.engine.dialect.name == "sqlite":
            event.listen(db.engine, "connect", _prepare_sqlite)
            app.before_request(_let_others_run)
    app.register_blueprint(pages.blueprint)
    app.register_blueprint(api.blueprint)
    app.register_blueprint(operations.blueprint)
    app.add_url_rule("/metrics", view_func=metrics)
    app.cli.add_command(seed_command)
    app.register_error_handler(InputError, pages.show_invalid)
    app.register_error_handler(HTTPException, pages.show_http_error)
    app.add_template_filter(pages.money)
    return app


def _let_others_run() -> None:
    """Give way to the other greenlets, which a query of SQLite never does.

    Without it, a client that sends its next request at once keeps its worker to itself. It has to
    be a moment, not 0: only a wait for the clock has the hub look at all sockets first.
    """
    time.sleep(0.001)


class RowId(IntegerConverter):
    """A row's id in a URL: a number too large for the database is no page, not an error."""

    def __init__(self, url_map: Map) -> None:
        super().__init__(url_map, min=1, max=MAX_ID)


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Let several processes write to one SQLite file.

    A SQLite that waits for a lock blocks its whole process, not one greenlet. That is short here
    as no request waits for anything else between its first write and its commit. Keep it so: a
    greenlet parked in the middle of a write would have the others of its process wait in vain.
    """
    connection.execute("PRAGMA busy_timeout = 10000")
    connection.execute("PRAGMA foreign_keys = ON")
    # Written once into the file, when it is made; after that it is only read.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
