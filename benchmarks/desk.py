"""The example's order desk, with the pool that the environment names, for `benchmarks.end_to_end`."""

from __future__ import annotations

import json
import os
from typing import Any

from flask import Flask
from sqlalchemy import event
from sqlalchemy.pool import NullPool, QueuePool

from examples import flask_app
from examples.flask_app.models import Customer, db
from geventpool.sqlalchemy import GeventPool

POOLS = {kind.__name__: kind for kind in (GeventPool, NullPool, QueuePool)}
OPTIONS = "BENCH_ENGINE_OPTIONS"
OPENED = "BENCH_OPENED"


def create_app() -> Flask:
    """The order desk with one more page: one row by its key, in a transaction that is committed."""
    options = json.loads(os.environ[OPTIONS])
    options["poolclass"] = POOLS[options["poolclass"]]
    app = flask_app.create_app({"SQLALCHEMY_ENGINE_OPTIONS": options})

    @app.get("/bench/<int:number>")
    def one(number: int) -> dict[str, Any]:
        customer = db.session.get_one(Customer, number)
        db.session.commit()
        return {"id": customer.id, "name": customer.name}

    with app.app_context():
        event.listen(db.engine, "connect", _count_connect)
    return app


def _count_connect(_connection: object, _record: object) -> None:
    """A byte for each connection that is opened, in a file that all workers append to."""
    fd = os.open(os.environ[OPENED], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, b".")
    os.close(fd)
