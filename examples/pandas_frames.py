"""pandas: `to_sql` and `read_sql` take an engine, and so its pool.

DATABASE_URL=mysql+pymysql://… python examples/pandas_frames.py
"""

import os
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
from sqlalchemy import create_engine, text

from geventpool.sqlalchemy import GeventPool

engine = create_engine(
    os.environ.get("DATABASE_URL", "sqlite:///example.sqlite3"), poolclass=GeventPool
)


def read(remainder):
    """Each thread borrows a connection for as long as its query takes."""
    query = text("SELECT number FROM frames WHERE number % 4 = :remainder")
    return pd.read_sql(query, engine, params={"remainder": remainder})["number"].sum()


def main():
    """Writes 1000 rows in chunks, reads them in four threads."""
    pd.DataFrame({"number": range(1000)}).to_sql(
        "frames", engine, index=False, if_exists="replace", chunksize=100, method="multi"
    )
    with ThreadPoolExecutor(4) as threads:
        print(f"1000 rows, sum {sum(threads.map(read, range(4)))}")
    print(engine.pool.status())
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE frames"))
    engine.dispose()


if __name__ == "__main__":
    main()
