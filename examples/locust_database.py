"""locust: a load on a database itself, without a server in between. locust has patched everything by now.

locust -f examples/locust_database.py --headless --users 100 --spawn-rate 100 --run-time 10s --only-summary

100 users share 10 connections, as requests of one gunicorn worker would.
"""

import os
import time

from locust import User, between, events, task
from sqlalchemy import create_engine, text

from geventpool.sqlalchemy import GeventPool

engine = create_engine(
    os.environ.get("DATABASE_URL", "sqlite:///example.sqlite3"), poolclass=GeventPool, max_size=10
)


class Shopper(User):
    """A transaction now and then."""

    wait_time = between(0.05, 0.15)

    @task
    def look(self):
        """What is told to locust is the time with the wait for a connection."""
        began, problem = time.perf_counter(), None
        try:
            with engine.begin() as connection:
                connection.execute(text("SELECT 1"))
        except Exception as error:
            problem = error
        events.request.fire(
            request_type="sql",
            name="look",
            response_time=(time.perf_counter() - began) * 1000,
            response_length=0,
            exception=problem,
        )


@events.quitting.add_listener
def say(**_):
    """The pool's own figures, after locust's."""
    print(engine.pool.status(), flush=True)
