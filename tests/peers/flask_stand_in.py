"""A pytest plugin for Flask-SQLAlchemy's own tests: every engine has a GeventPool.

Flask-SQLAlchemy gives a database in memory a StaticPool, because each connection would see a database of
its own. Here its connections share one by SQLite's shared cache, so that these engines are pooled too.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import itertools
import sqlite3

import flask_sqlalchemy
import sqlalchemy as sa

from geventpool.sqlalchemy import GeventPool

_numbers = itertools.count()
_make_engine = flask_sqlalchemy.SQLAlchemy._make_engine


def _make_pooled_engine(self, bind_key, options, app):
    if options.get("poolclass") is sa.pool.StaticPool:
        name = f"file:memory-{next(_numbers)}?mode=memory&cache=shared"
        options["creator"] = lambda: sqlite3.connect(name, uri=True, check_same_thread=False)
    options["poolclass"] = GeventPool
    engine = _make_engine(self, bind_key, options, app)
    assert isinstance(engine.pool, GeventPool)
    return engine


flask_sqlalchemy.SQLAlchemy._make_engine = _make_pooled_engine
