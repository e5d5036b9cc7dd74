"""The four tables of the order desk."""

from __future__ import annotations

from datetime import datetime, timezone

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """The declarative base of the application."""

    # Whatever the server's own default is, names are in any script.
    __table_args__ = {"mysql_charset": "utf8mb4"}  # noqa: RUF012


# What was written may still be shown after the commit, without reading it again.
db = SQLAlchemy(model_class=Base, session_options={"expire_on_commit": False})

STATUSES = ("new", "paid", "shipped", "cancelled")


def now() -> datetime:
    """The time in UTC, without a zone, as MySQL keeps it."""
    return datetime.now(timezone.utc).replace(tzinfo=None, microsecond=0)


class Customer(db.Model):  # type: ignore[name-defined, misc]
    """Somebody who orders."""

    __tablename__ = "customers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    email: Mapped[str] = mapped_column(String(120), unique=True)
    city: Mapped[str] = mapped_column(String(60))
    orders: Mapped[list[Order]] = relationship(back_populates="customer")


class Product(db.Model):  # type: ignore[name-defined, misc]
    """Something to order."""

    __tablename__ = "products"

    id: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(String(20), unique=True)
    name: Mapped[str] = mapped_column(String(80))
    price: Mapped[int]  # in cents


class Order(db.Model):  # type: ignore[name-defined, misc]
    """An order with its items."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"), index=True)
    status: Mapped[str] = mapped_column(String(12), default="new", index=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    customer: Mapped[Customer] = relationship(back_populates="orders")
    items: Mapped[list[OrderItem]] = relationship(
        back_populates="order", cascade="all, delete-orphan", order_by="OrderItem.id"
    )

    @property
    def total(self) -> int:
        """The sum of the items, in cents."""
        return sum(item.quantity * item.price for item in self.items)


class OrderItem(db.Model):  # type: ignore[name-defined, misc]
    """One line of an order, at the price of its day."""

    __tablename__ = "order_items"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"), index=True)
    quantity: Mapped[int]
    price: Mapped[int]  # in cents, of one piece
    order: Mapped[Order] = relationship(back_populates="items")
    product: Mapped[Product] = relationship()
