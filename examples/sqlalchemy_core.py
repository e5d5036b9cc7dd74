"""SQLAlchemy Core: `DATABASE_URL=mysql+pymysql://… python examples/sqlalchemy_core.py`."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402

import gevent  # noqa: E402
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, func, select  # noqa: E402

from geventpool.sqlalchemy import GeventPool  # noqa: E402

# This is all. In a program whose code you cannot change the URL does it: "…/shop?plugin=geventpool".
engine = create_engine(
    os.environ.get("DATABASE_URL", "sqlite:///example.sqlite3"), poolclass=GeventPool
)

metadata = MetaData()
visits = Table(
    "example_visits",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("page", String(40), nullable=False),
)


def visit(number):
    """A transaction: committed at the end of the block, rolled back at an error."""
    with engine.begin() as connection:
        connection.execute(visits.insert().values(page=f"/{number % 7}"))


def main():
    """100 greenlets at once."""
    metadata.create_all(engine)
    gevent.joinall([gevent.spawn(visit, number) for number in range(100)], raise_error=True)
    with engine.connect() as connection:
        count = connection.scalar(select(func.count()).select_from(visits))
    print(f"{count} visits: {engine.pool.status()}")
    metadata.drop_all(engine)
    engine.dispose()


if __name__ == "__main__":
    main()
