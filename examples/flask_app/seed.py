"""Makes the tables and fills them with invented data, the same each time but for the dates."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import click
from flask.cli import with_appcontext
from sqlalchemy import insert, select

from .models import STATUSES, Base, Customer, Order, OrderItem, Product, db, now

CUSTOMERS = 200
ORDERS = 2000


def _words(text: str) -> list[str]:
    return text.split()


FIRST_NAMES = _words("Ada Boris Chiara Dmitri Elena Farid Greta Hugo Ines Jonas Keiko Leo Mara")
LAST_NAMES = _words("Adler Bianchi Costa Dubois Eriksen Fischer Garcia Haas Ivanov Jansen Kowalski")
CITIES = _words("Berlin Bologna Cork Ghent Graz Krakow Lisbon Lyon Malmo Porto Riga Turku")
SIZES = _words("small medium large")
THINGS = _words(
    "anvil apron bell bench blanket bottle brush bucket candle chair clock compass cup desk drum"
    " flask hammer kettle ladder lamp lantern mirror needle paddle pencil rope saddle shelf stool"
    " teapot"
)


@click.command("seed")
@click.option("--orders", default=ORDERS, show_default=True, help="How many orders to invent.")
@with_appcontext
def seed_command(orders: int) -> None:
    """Make the tables; fill them if they are empty.

    Run it before the server starts: two that run at once would both find the tables missing.
    """
    click.echo(seed(orders))


def seed(orders: int = ORDERS) -> str:
    """Make the tables and fill them if they are empty; says what was done."""
    Base.metadata.create_all(db.engine)
    if db.session.scalar(select(Customer.id).limit(1)) is not None:
        return "The order desk has data already; nothing was changed."
    rng = random.Random(20)
    db.session.execute(insert(Customer), _customers(rng))
    db.session.execute(insert(Product), _products(rng))
    customers = list(db.session.scalars(select(Customer.id).order_by(Customer.id)))
    prices = {row.id: row.price for row in db.session.execute(select(Product.id, Product.price))}
    db.session.execute(insert(Order), _orders(rng, customers, orders))
    ids = list(db.session.scalars(select(Order.id).order_by(Order.id)))
    db.session.execute(insert(OrderItem), _items(rng, ids, prices))
    db.session.commit()
    return f"Invented {len(customers)} customers, {len(prices)} products and {len(ids)} orders."


def _customers(rng: random.Random) -> list[dict[str, Any]]:
    rows = []
    for number in range(1, CUSTOMERS + 1):
        name = f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"
        email = f"{name.lower().replace(' ', '.')}.{number}@example.com"
        rows.append({"name": name, "email": email, "city": rng.choice(CITIES)})
    return rows


def _products(rng: random.Random) -> list[dict[str, Any]]:
    names = [f"{thing.capitalize()}, {size}" for thing in THINGS for size in SIZES]
    return [
        {"sku": f"P-{number:04d}", "name": name, "price": rng.randrange(150, 20_000)}
        for number, name in enumerate(names, 1)
    ]


def _orders(rng: random.Random, customers: list[int], count: int) -> list[dict[str, Any]]:
    start = now() - timedelta(minutes=10 * count)
    return [
        {
            "customer_id": rng.choice(customers),
            "status": rng.choice(STATUSES),
            "created_at": start + timedelta(minutes=10 * number),
        }
        for number in range(count)
    ]


def _items(rng: random.Random, orders: list[int], prices: dict[int, int]) -> list[dict[str, Any]]:
    rows = []
    for order_id in orders:
        for product_id in rng.sample(sorted(prices), rng.randint(1, 6)):
            quantity, price = rng.randint(1, 9), prices[product_id]
            rows.append(
                {
                    "order_id": order_id,
                    "product_id": product_id,
                    "quantity": quantity,
                    "price": price,
                }
            )
    return rows
