"""The work of `shop.py`: its table, and how long its transactions take."""

from __future__ import annotations

from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool

TABLE = "geventpool_loadtest"
ROWS = 1000

# What the queries themselves take, in seconds: asked for by the database's own sleep function, so that
# it does not depend on what else the machine has to do; and always the same, so that whatever varies is
# the pool's doing, or the machine's.
READ, WRITE, REPORT = 0.015, 0.025, 0.25
SHARES = {"read": 60, "write": 25, "report": 15}
MEAN_HOLD = (60 * READ + 25 * WRITE + 15 * REPORT) / 100
"""Seconds for which a transaction needs its connection, on average."""


def make_table(url: str) -> None:
    """Make the table, if it is not there."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        if inspect(connection).has_table(TABLE):
            return
        connection.execute(
            text(f"CREATE TABLE {TABLE} (id INTEGER PRIMARY KEY, body VARCHAR(80), hits INTEGER)")
        )
        rows = [{"id": number, "body": f"row {number} " * 5} for number in range(ROWS)]
        connection.execute(text(f"INSERT INTO {TABLE} VALUES (:id, :body, 0)"), rows)


def drop_table(url: str) -> None:
    """Leave the database as it was."""
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text(f"DROP TABLE IF EXISTS {TABLE}"))
