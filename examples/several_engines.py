"""Several engines, each with a pool of its own, and one session over them.

DATABASE_URL=mysql+pymysql://… python examples/several_engines.py
"""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import sys  # noqa: E402

import gevent  # noqa: E402
from sqlalchemy import String, create_engine, func, select  # noqa: E402
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column  # noqa: E402

import geventpool  # noqa: E402
from geventpool.sqlalchemy import GeventPool, wrap  # noqa: E402

URL = os.environ.get("DATABASE_URL", "")
if not URL.startswith(("mysql", "postgresql")):
    sys.exit("This one wants a server: in SQLite only one transaction at a time may write.")

shop = create_engine(URL, poolclass=GeventPool, logging_name="shop")
# One that somebody else makes, with QueuePool's settings; wrap() keeps its cap of 3.
audit = wrap(create_engine(URL, pool_size=2, max_overflow=1, pool_logging_name="audit"))


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "example_orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str] = mapped_column(String(40))


class Entry(Base):
    __tablename__ = "example_audit"

    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str] = mapped_column(String(40))


BINDS = {Order: shop, Entry: audit}


def order(number):
    """One session, a connection of each engine.

    All greenlets take them in the same order, shop before audit. If some held one of audit's and
    waited for shop's, they could wait for each other for ever (geventpool would tell: PoolDeadlock).
    """
    with Session(binds=BINDS) as session, session.begin():
        session.add(Order(item=f"item {number}"))
        session.flush()
        session.add(Entry(what=f"ordered {number}"))


def main():
    """100 greenlets at once."""
    Base.metadata.create_all(shop)
    gevent.joinall([gevent.spawn(order, number) for number in range(100)], raise_error=True)
    with Session(binds=BINDS) as session:
        counts = [session.scalar(select(func.count(kind.id))) for kind in (Order, Entry)]
    print(f"{counts[0]} orders, {counts[1]} entries")
    for pool in geventpool.pools():
        print(pool.status())
    Base.metadata.drop_all(shop)
    shop.dispose()
    audit.dispose()


if __name__ == "__main__":
    main()
