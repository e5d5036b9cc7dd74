"""A script without a server, without monkey-patching, with threads: a cron job, a migration, a notebook.

DATABASE_URL=mysql+pymysql://… python examples/plain_script.py
"""

import os
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import create_engine, text

from geventpool.sqlalchemy import GeventPool

engine = create_engine(
    os.environ.get("DATABASE_URL", "sqlite:///example.sqlite3"),
    poolclass=GeventPool,
    profile="background_jobs",
)


def square(number):
    """Each thread borrows from the same pool."""
    with engine.connect() as connection:
        return connection.scalar(text(f"SELECT {number} * {number}"))


def main():
    """One after the other needs one connection, however many queries; eight threads, at most eight."""
    print(sum(square(number) for number in range(20)), engine.pool.status())
    with ThreadPoolExecutor(8) as threads:
        print(sum(threads.map(square, range(100))), engine.pool.status())
    engine.dispose()  # without it the script ends just as well


if __name__ == "__main__":
    main()
