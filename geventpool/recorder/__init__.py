"""Writes down the load of a live pool, so that `geventpool simulate` can replay it.

    from geventpool.recorder import record

    recorder = record(engine, "traces/")     # or a ConnectionPool, or any other pool of SQLAlchemy

Each process writes files of its own, `NAME-PID-NUMBER.csv` with the columns `t,hold`: when a connection
was asked for, in seconds since 1970, and for how long it was held. The rows come in the order of the
returns.
"""

from __future__ import annotations

from .recorder import Recorder, record

__all__ = ["Recorder", "record"]
