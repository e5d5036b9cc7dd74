"""A DBAPI without SQLAlchemy: `DATABASE_URL=mysql+pymysql://… python examples/raw_dbapi.py`."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import sqlite3  # noqa: E402

import gevent  # noqa: E402
from sqlalchemy import make_url  # noqa: E402 # only to take the URL apart

from geventpool import ConnectionPool  # noqa: E402

url = make_url(os.environ.get("DATABASE_URL", "sqlite:///example.sqlite3"))


def connect():
    """What you would call without a pool."""
    if url.drivername == "mysql+pymysql":
        import pymysql

        return pymysql.connect(
            host=url.host,
            port=url.port or 3306,
            user=url.username,
            password=url.password or "",
            database=url.database,
        )
    if url.drivername == "postgresql+psycopg":
        import psycopg

        return psycopg.connect(
            host=url.host,
            port=url.port or 5432,
            user=url.username,
            password=url.password,
            dbname=url.database,
        )
    return sqlite3.connect(url.database)


pool = ConnectionPool(connect, max_size=5)


def double(number):
    """Borrow a connection, use it, give it back. What is not committed is rolled back."""
    with pool.connection() as connection:
        cursor = connection.cursor()
        cursor.execute(f"SELECT {number} * 2")
        (answer,) = cursor.fetchone()
        connection.commit()
    return answer


if __name__ == "__main__":
    answers = [greenlet.get() for greenlet in [gevent.spawn(double, n) for n in range(100)]]
    print(f"{len(answers)} greenlets, sum {sum(answers)}: {pool.status()}")
    pool.close()
