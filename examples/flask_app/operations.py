"""What isn't the order desk's business: health, the pool's figures, and holding a connection."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint
from sqlalchemy import func, select, text

from . import recorder
from .models import Order, db

blueprint = Blueprint("operations", __name__)

# How long the other service takes to answer, in seconds.
OUTBOUND_SECONDS = 0.25


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


def _count_orders() -> int:
    return db.session.scalar(select(func.count()).select_from(Order)) or 0


def _ask_payment_provider() -> str:
    """Stands for a call over the network: this greenlet waits, others run."""
    time.sleep(OUTBOUND_SECONDS)
    return "confirmed"
