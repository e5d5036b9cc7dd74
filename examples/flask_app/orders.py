"""What the order desk does, for its pages and its JSON alike.

Each function that writes commits at its end and waits for nothing but the database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased, joinedload, selectinload

from .models import STATUSES, Customer, Order, OrderItem, Product, db

PAGE_SIZE = 20
MAX_ITEMS = 50
MAX_QUANTITY = 1000
MAX_PRICE = 100_000_000
# The largest id that the smallest of the databases' integers holds.
MAX_ID = 2**31 - 1


class InputError(ValueError):
    """What the user sent can't be done; the text says what to change."""


def list_orders(page: int, status: str | None = None) -> list[dict[str, Any]]:
    """One page of orders, newest first, each with its total in cents."""
    total = (
        select(func.coalesce(func.sum(OrderItem.quantity * OrderItem.price), 0))
        .where(OrderItem.order_id == Order.id)
        .scalar_subquery()
    )
    query = (
        select(Order.id, Order.status, Order.created_at, Customer.name, total.label("total"))
        # Every order has a customer. An inner join makes MariaDB begin with the customers and sort
        # all orders; this way it reads the newest ones and stops.
        .outerjoin(Order.customer)
        .order_by(Order.id.desc())
    )
    if status:
        query = query.where(Order.status == _status(status))
    rows = db.session.execute(_page(query, page)).mappings()
    return [{**row, "total": int(row["total"])} for row in rows]  # MySQL's sums are decimals


def get_order(order_id: int) -> Order:
    """An order with its customer, items and products; 404 if there is none."""
    query = (
        select(Order)
        .where(Order.id == order_id)
        .options(joinedload(Order.customer))
        .options(selectinload(Order.items).joinedload(OrderItem.product))
    )
    order: Order = db.one_or_404(query, description=f"There is no order {order_id}.")
    return order


def create_order(customer_id: Any, items: Sequence[Mapping[str, Any]]) -> Order:
    """Take an order: `items` are mappings with `product_id` and `quantity`.

    Raises:
        InputError: no such customer or product, no item, or a number out of range.
    """
    if not isinstance(items, Sequence) or not all(isinstance(item, Mapping) for item in items):
        raise InputError("items must be a list of {product_id, quantity}.")
    if not 1 <= len(items) <= MAX_ITEMS:
        raise InputError(f"An order has 1 to {MAX_ITEMS} items.")
    wanted = [
        (
            _number(item.get("product_id"), "product_id", MAX_ID),
            _number(item.get("quantity"), "quantity", MAX_QUANTITY),
        )
        for item in items
    ]
    customer = db.session.get(Customer, _number(customer_id, "customer_id", MAX_ID))
    if customer is None:
        raise InputError(f"There is no customer {customer_id}.")
    found = db.session.scalars(select(Product).where(Product.id.in_([id for id, _ in wanted])))
    products = {product.id: product for product in found}
    order = Order(customer=customer, status="new")
    for product_id, quantity in wanted:
        if product_id not in products:
            raise InputError(f"There is no product {product_id}.")
        product = products[product_id]
        order.items.append(OrderItem(product=product, quantity=quantity, price=product.price))
    db.session.add(order)
    db.session.commit()
    return order


def set_status(order_id: int, status: Any) -> Order:
    """Move an order to another status.

    Raises:
        InputError: no such status, or the order is cancelled for good.
    """
    order = get_order(order_id)
    if order.status == "cancelled":
        raise InputError(f"Order {order_id} is cancelled and stays so.")
    order.status = _status(status)
    db.session.commit()
    return order


def list_customers(page: int) -> list[dict[str, Any]]:
    """One page of customers with the number of their orders."""
    orders = select(func.count(Order.id)).where(Order.customer_id == Customer.id).scalar_subquery()
    query = select(
        Customer.id, Customer.name, Customer.email, Customer.city, orders.label("orders")
    ).order_by(Customer.id)
    return [dict(row) for row in db.session.execute(_page(query, page)).mappings()]


def get_customer(customer_id: int) -> Customer:
    """A customer; 404 if there is none."""
    description = f"There is no customer {customer_id}."
    customer: Customer = db.get_or_404(Customer, customer_id, description=description)
    return customer


def orders_of(customer_id: int) -> list[Order]:
    """The last orders of a customer, with their items."""
    query = (
        select(Order)
        .where(Order.customer_id == customer_id)
        .options(selectinload(Order.items))
        .order_by(Order.id.desc())
        .limit(PAGE_SIZE)
    )
    return list(db.session.scalars(query))


def save_customer(customer: Customer, form: Mapping[str, Any]) -> Customer:
    """Write a customer's name, email and city; a new customer is added.

    Raises:
        InputError: a field is missing or too long, or the email is another customer's.
    """
    customer.name = _text(form.get("name"), "name", 80)
    customer.city = _text(form.get("city"), "city", 60)
    email = _text(form.get("email"), "email", 120)
    if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", email):
        raise InputError("email must look like name@example.com.")
    customer.email = email
    db.session.add(customer)
    try:
        db.session.commit()
    except IntegrityError as error:
        db.session.rollback()
        raise InputError(f"{email} is another customer's email.") from error
    return customer


def list_products() -> list[Product]:
    """All products by name."""
    return list(db.session.scalars(select(Product).order_by(Product.name)))


def set_price(product_id: int, cents: Any) -> Product:
    """Change the price of a product, in cents; orders keep the price of their day.

    Raises:
        InputError: not a price.
    """
    description = f"There is no product {product_id}."
    product: Product = db.get_or_404(Product, product_id, description=description)
    product.price = _number(cents, "price", MAX_PRICE)
    db.session.commit()
    return product


def bought_together(limit: int = 15) -> list[dict[str, Any]]:
    """Which products are ordered together most: every pair of items of every order.

    The slow query of this application: it reads all order items twice and keeps its connection
    for as long as that takes.
    """
    first, second = aliased(OrderItem), aliased(OrderItem)
    product, other = aliased(Product), aliased(Product)
    times = func.count().label("times")
    query = (
        select(product.name.label("product"), other.name.label("other"), times)
        .select_from(first)
        .join(second, (second.order_id == first.order_id) & (second.product_id > first.product_id))
        .join(product, product.id == first.product_id)
        .join(other, other.id == second.product_id)
        .group_by(product.name, other.name)
        .order_by(times.desc(), product.name, other.name)
        .limit(limit)
    )
    return [dict(row) for row in db.session.execute(query).mappings()]


def _page(query: Any, page: int) -> Any:
    """The rows of one page, counted from 1."""
    return query.limit(PAGE_SIZE).offset((max(1, min(page, MAX_ID // PAGE_SIZE)) - 1) * PAGE_SIZE)


def _status(value: Any) -> str:
    """One of STATUSES."""
    if value not in STATUSES:
        raise InputError(f"status must be one of {', '.join(STATUSES)}.")
    return str(value)


def _number(value: Any, name: str, largest: int) -> int:
    """A whole number from 1 to `largest`, also written as text."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value.strip()):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
        raise InputError(f"{name} must be a whole number from 1 to {largest}.")
    return value


def _text(value: Any, name: str, longest: int) -> str:
    """One line of text that isn't empty."""
    text = value.strip() if isinstance(value, str) else ""
    if not 1 <= len(text) <= longest or not text.isprintable():
        raise InputError(f"{name} must have 1 to {longest} characters, all of them printable.")
    return text
