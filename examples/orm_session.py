"""ORM sessions: `DATABASE_URL=mysql+pymysql://… python examples/orm_session.py`."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402
from sqlalchemy import String, create_engine, func, select  # noqa: E402
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column  # noqa: E402

from geventpool.sqlalchemy import GeventPool  # noqa: E402

engine = create_engine(
    os.environ.get("DATABASE_URL", "sqlite:///example.sqlite3"), poolclass=GeventPool
)


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "example_customers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))


def ask_somebody_else():
    """A call over the network, in which other greenlets run."""
    time.sleep(0.05)


def register(number):
    """A session takes a connection with its first query and keeps it until it ends: so it ends first.

    With the call inside of the block, each greenlet would hold a connection while it only waits.
    """
    with Session(engine) as session, session.begin():
        session.add(Customer(name=f"customer {number}"))
    ask_somebody_else()


def main():
    """100 greenlets at once; far fewer connections."""
    Base.metadata.create_all(engine)
    gevent.joinall([gevent.spawn(register, number) for number in range(100)], raise_error=True)
    with Session(engine) as session:
        count = session.scalar(select(func.count(Customer.id)))
    print(f"{count} customers: {engine.pool.status()}")
    Base.metadata.drop_all(engine)
    engine.dispose()


if __name__ == "__main__":
    main()
