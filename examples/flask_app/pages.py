"""The order desk as web pages."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from . import orders
from .models import STATUSES, Customer
from .orders import InputError

blueprint = Blueprint("pages", __name__)

FORM_ROWS = 4


def money(cents: int) -> str:
    """A template filter: 123456 → 1,234.56."""
    return f"{cents / 100:,.2f}"


@blueprint.get("/")
def index() -> Response:
    """The start is the list of orders."""
    return redirect(url_for("pages.list_orders"))


@blueprint.get("/orders")
def list_orders() -> str:
    """A page of orders, all or of one status."""
    page, status = request.args.get("page", 1, int), request.args.get("status")
    rows = orders.list_orders(page, status)
    more = len(rows) == orders.PAGE_SIZE
    return render_template(
        "orders.html", orders=rows, page=page, more=more, status=status, statuses=STATUSES
    )


@blueprint.get("/orders/<id:order_id>")
def show_order(order_id: int) -> str:
    """One order with its items."""
    return render_template("order.html", order=orders.get_order(order_id), statuses=STATUSES)


@blueprint.get("/orders/new")
def new_order() -> str:
    """The form of a new order."""
    return render_template(
        "order_form.html",
        customer_id=request.args.get("customer_id", "", str),
        products=orders.list_products(),
        rows=FORM_ROWS,
    )


@blueprint.post("/orders/new")
def create_order() -> Response:
    """Take an order from the form; rows without a product are left out."""
    form = request.form
    pairs = zip(form.getlist("product_id"), form.getlist("quantity"), strict=False)
    items = [{"product_id": id, "quantity": quantity} for id, quantity in pairs if id]
    order = orders.create_order(form.get("customer_id"), items)
    return redirect(url_for("pages.show_order", order_id=order.id))


@blueprint.post("/orders/<id:order_id>")
def update_order(order_id: int) -> Response:
    """Move an order to another status."""
    orders.set_status(order_id, request.form.get("status"))
    return redirect(url_for("pages.show_order", order_id=order_id))


@blueprint.get("/customers")
def list_customers() -> str:
    """A page of customers."""
    page = request.args.get("page", 1, int)
    rows = orders.list_customers(page)
    more = len(rows) == orders.PAGE_SIZE
    return render_template("customers.html", customers=rows, page=page, more=more)


@blueprint.get("/customers/new")
def new_customer() -> str:
    """The form of a new customer."""
    return render_template("customer_form.html", customer=None)


@blueprint.post("/customers/new")
def create_customer() -> Response:
    """Add a customer."""
    customer = orders.save_customer(Customer(), request.form)
    return redirect(url_for("pages.show_customer", customer_id=customer.id))


@blueprint.get("/customers/<id:customer_id>")
def show_customer(customer_id: int) -> str:
    """One customer with the last orders and a form to change the address."""
    customer = orders.get_customer(customer_id)
    found = orders.orders_of(customer_id)
    return render_template("customer.html", customer=customer, orders=found)


@blueprint.post("/customers/<id:customer_id>")
def update_customer(customer_id: int) -> Response:
    """Change a customer."""
    orders.save_customer(orders.get_customer(customer_id), request.form)
    return redirect(url_for("pages.show_customer", customer_id=customer_id))


@blueprint.get("/products")
def list_products() -> str:
    """All products with their prices."""
    return render_template("products.html", products=orders.list_products())


@blueprint.post("/products/<id:product_id>")
def update_product(product_id: int) -> Response:
    """Change a price, sent in whole units with two decimals."""
    orders.set_price(product_id, _cents(request.form.get("price", "")))
    return redirect(url_for("pages.list_products"))


@blueprint.get("/reports/bought-together")
def bought_together() -> str:
    """The slow report."""
    return render_template("report.html", pairs=orders.bought_together())


def show_invalid(error: InputError) -> tuple[Any, int]:
    """What the user sent can't be done."""
    return _error_page(400, str(error))


def show_http_error(error: HTTPException) -> Any:
    """404 and its like, as JSON or as a page."""
    if error.code is None or error.response is not None or error.code < 400:
        return error
    return _error_page(error.code, error.description or error.name)


def _error_page(code: int, message: str) -> tuple[Any, int]:
    if request.path.startswith("/api/"):
        return {"error": message}, code
    return render_template("error.html", code=code, message=message), code


def _cents(text: str) -> int:
    """19.99 → 1999."""
    try:
        cents = Decimal(text.strip()) * 100
        if cents == int(cents):
            return int(cents)
    except (InvalidOperation, OverflowError, ValueError):
        pass
    raise InputError("price must be a number with at most two decimals.")
