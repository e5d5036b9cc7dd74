"""Has a worker show what its pool does, for `geventpool top`, if `GEVENTPOOL_SNAPSHOTS` is set."""

from __future__ import annotations

import logging
import os

from flask import Flask

import geventpool.observe

from .models import db


def start(app: Flask) -> None:
    """Observe from now on, if the environment names a directory for the snapshots."""
    if not os.environ.get("GEVENTPOOL_SNAPSHOTS"):
        return
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    with app.app_context():
        geventpool.observe.attach(
            db.engine,
            # Short, because the bad examples are: a server would say seconds.
            idle_in_transaction_after=0.1,
            held_after=2.0,
            slow_query_after=0.2,
        )
    geventpool.observe.watch_hub(blocked_after=0.1)
    geventpool.observe.publish(interval=0.2)
