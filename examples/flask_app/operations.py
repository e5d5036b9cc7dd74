"""What isn't the order desk's business: health, the pool's figures, and how not to do it."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint
from sqlalchemy import Connection, func, select, text
from sqlalchemy.orm import aliased

from . import recorder
from .models import Order, OrderItem, db

blueprint = Blueprint("operations", __name__)

# How long the other service takes to answer, in seconds.
OUTBOUND_SECONDS = 0.25
# How long the blocking example computes, in seconds.
BLOCKING_SECONDS = 0.3

_forgotten: list[Connection] = []


@blueprint.get("/health")
def health() -> dict[str, str]:
    """Whether the database answers."""
    db.session.execute(text("SELECT 1"))
    return {"status": "ok"}


@blueprint.get("/pool.json")
def pool() -> dict[str, Any]:
    """The pool of the worker that happens to answer; each worker has its own."""
    return recorder.figures()


@blueprint.get("/bad/hold")
def bad_hold() -> dict[str, Any]:
    """A BAD EXAMPLE: keeps its connection while it waits for another service.

    The session took a connection for the query and keeps it until the request ends. Under load
    the pool must hold a connection for each greenlet that only waits for somebody else.
    """
    orders = _count_orders()
    return {"orders": orders, "payment": _ask_payment_provider()}


@blueprint.get("/good/hold")
def good_hold() -> dict[str, Any]:
    """The same, done right: the connection goes back before the wait."""
    orders = _count_orders()
    db.session.close()
    return {"orders": orders, "payment": _ask_payment_provider()}


@blueprint.get("/bad/leak")
def bad_leak() -> dict[str, int]:
    """A BAD EXAMPLE: takes a connection and forgets it where something still refers to it."""
    connection = db.engine.connect()
    _forgotten.append(connection)
    return {"forgotten": len(_forgotten)}


@blueprint.get("/bad/query")
def bad_query() -> dict[str, int]:
    """A BAD EXAMPLE: a query for which no index helps; many items are compared with every other."""
    first, second = aliased(OrderItem), aliased(OrderItem)
    pairs = (
        select(func.count())
        .select_from(first)
        .join(second, first.id + second.id > first.quantity)
        .where(first.id <= 1500)
    )
    return {"pairs": db.session.scalar(pairs) or 0}


@blueprint.get("/bad/block")
def bad_block() -> dict[str, float]:
    """A BAD EXAMPLE: computes without giving way, so that no other request of this worker goes on."""
    end = time.monotonic() + BLOCKING_SECONDS
    rounds = 0
    while time.monotonic() < end:
        rounds += 1
    return {"rounds": rounds}


def _count_orders() -> int:
    return db.session.scalar(select(func.count()).select_from(Order)) or 0


def _ask_payment_provider() -> str:
    """Stands for a call over the network: this greenlet waits, others run."""
    time.sleep(OUTBOUND_SECONDS)
    return "confirmed"
