"""The order desk in JSON, under /api."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, request

from . import orders
from .models import Customer, Order, Product
from .orders import InputError

blueprint = Blueprint("api", __name__, url_prefix="/api")


@blueprint.get("/orders")
def list_orders() -> dict[str, Any]:
    """A page of orders: `?page=2&status=paid`."""
    rows = orders.list_orders(request.args.get("page", 1, int), request.args.get("status"))
    return {"orders": [{**row, "created_at": row["created_at"].isoformat()} for row in rows]}


@blueprint.get("/orders/<id:order_id>")
def get_order(order_id: int) -> dict[str, Any]:
    """One order with its items."""
    return _order(orders.get_order(order_id))


@blueprint.post("/orders")
def create_order() -> tuple[dict[str, Any], int]:
    """Take an order: `{"customer_id": 1, "items": [{"product_id": 2, "quantity": 3}]}`."""
    body = _body()
    order = orders.create_order(body.get("customer_id"), body.get("items", []))
    return _order(order), 201


@blueprint.patch("/orders/<id:order_id>")
def update_order(order_id: int) -> dict[str, Any]:
    """Move an order on: `{"status": "paid"}`."""
    return _order(orders.set_status(order_id, _body().get("status")))


@blueprint.get("/customers")
def list_customers() -> dict[str, Any]:
    """A page of customers."""
    return {"customers": orders.list_customers(request.args.get("page", 1, int))}


@blueprint.get("/customers/<id:customer_id>")
def get_customer(customer_id: int) -> dict[str, Any]:
    """One customer."""
    return _customer(orders.get_customer(customer_id))


@blueprint.post("/customers")
def create_customer() -> tuple[dict[str, Any], int]:
    """Add a customer: `{"name": ..., "email": ..., "city": ...}`."""
    return _customer(orders.save_customer(Customer(), _body())), 201


@blueprint.put("/customers/<id:customer_id>")
def update_customer(customer_id: int) -> dict[str, Any]:
    """Change a customer."""
    return _customer(orders.save_customer(orders.get_customer(customer_id), _body()))


@blueprint.get("/products")
def list_products() -> dict[str, Any]:
    """All products."""
    return {"products": [_product(product) for product in orders.list_products()]}


@blueprint.patch("/products/<id:product_id>")
def update_product(product_id: int) -> dict[str, Any]:
    """Change a price: `{"price": 1999}`, in cents."""
    return _product(orders.set_price(product_id, _body().get("price")))


@blueprint.get("/reports/bought-together")
def bought_together() -> dict[str, Any]:
    """The slow report."""
    return {"pairs": orders.bought_together()}


def _body() -> dict[str, Any]:
    """The request's JSON object."""
    body = request.get_json()
    if not isinstance(body, dict):
        raise InputError("The body must be a JSON object.")
    return body


def _order(order: Order) -> dict[str, Any]:
    items = [
        {"product": item.product.name, "quantity": item.quantity, "price": item.price}
        for item in order.items
    ]
    return {
        "id": order.id,
        "customer": order.customer.name,
        "status": order.status,
        "created_at": order.created_at.isoformat(),
        "items": items,
        "total": order.total,
    }


def _customer(customer: Customer) -> dict[str, Any]:
    return {
        "id": customer.id,
        "name": customer.name,
        "email": customer.email,
        "city": customer.city,
    }


def _product(product: Product) -> dict[str, Any]:
    return {"id": product.id, "sku": product.sku, "name": product.name, "price": product.price}
