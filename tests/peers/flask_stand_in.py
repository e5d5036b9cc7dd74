"""A pytest plugin for Flask-SQLAlchemy's own tests: every engine has a GeventPool.

Flask-SQLAlchemy gives a database in memory a StaticPool, because each connection would see a database of
its own. Here its connections share one by SQLite's shared cache, so that these engines are pooled too.
"""

from tests.peers import only_patched  # noqa: F401, I001 # first

import itertools
import sqlite3
from unittest.mock import Mock

import flask_sqlalchemy
import sqlalchemy as sa

from geventpool.sqlalchemy import GeventPool

_numbers = itertools.count()


def _put_on_ours(options):
    if options.get("poolclass") is sa.pool.StaticPool:
        name = f"file:memory-{next(_numbers)}?mode=memory&cache=shared"
        options["creator"] = lambda: sqlite3.connect(name, uri=True, check_same_thread=False)
    options["poolclass"] = GeventPool


def _pooled(make):
    def make_pooled(self, first, options, *more):
        _put_on_ours(options)
        engine = make(self, first, options, *more)
        assert isinstance(engine.pool, (GeventPool, Mock))  # it is what some tests replace
        return engine

    return make_pooled


_made_by = (
    "_make_engine" if hasattr(flask_sqlalchemy.SQLAlchemy, "_make_engine") else "create_engine"
)
_make = getattr(flask_sqlalchemy.SQLAlchemy, _made_by)  # the latter is that of 2.5
setattr(flask_sqlalchemy.SQLAlchemy, _made_by, _pooled(_make))
