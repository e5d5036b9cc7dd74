"""A locustfile: a shop's transactions, on an engine in locust's own process.

python -m locust -f loadtests/shop.py --url mysql+pymysql://user:password@127.0.0.1/test --pool queuepool
"""

from __future__ import annotations

from locust import task
from sqlalchemy import text

from loadtests.load import Load
from loadtests.users import SQLAlchemyUser
from loadtests.work import READ, REPORT, ROWS, SHARES, TABLE, WRITE

__all__ = ["Load", "Shop"]


class Shop(SQLAlchemyUser):
    """Reads by key, writes, and now and then a report."""

    @task(SHARES["read"])
    def read(self) -> None:
        """A row by its key."""
        with self.transaction("read", READ) as connection:
            connection.execute(text(f"SELECT body FROM {TABLE} WHERE id = :id"), self._row())
            self.take_time(connection, READ)

    @task(SHARES["write"])
    def write(self) -> None:
        """A change of one row; last, so that nobody waits for its lock."""
        with self.transaction("write", WRITE) as connection:
            self.take_time(connection, WRITE)
            connection.execute(
                text(f"UPDATE {TABLE} SET hits = hits + 1 WHERE id = :id"), self._row()
            )

    @task(SHARES["report"])
    def report(self) -> None:
        """A slow query."""
        with self.transaction("report", REPORT) as connection:
            self.take_time(connection, REPORT)

    def _row(self) -> dict[str, int]:
        return {"id": self.random.randrange(ROWS)}
