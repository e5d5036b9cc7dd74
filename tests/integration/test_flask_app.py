"""The example application: every page and every JSON answer, on each database."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

from flask_app import create_app  # noqa: E402
from flask_app.models import Base, db  # noqa: E402
from flask_app.seed import seed  # noqa: E402

from geventpool.sqlalchemy import GeventPool  # noqa: E402

ORDERS = 60


@pytest.fixture(scope="module", params=["sqlite", "mariadb", "postgresql"])
def app(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flask]:
    """The application with a few orders."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('flask_app') / 'desk.sqlite3'}"
    else:
        driver = {"mariadb": "pymysql", "postgresql": "psycopg"}[request.param]
        url = request.getfixturevalue(request.param).url(driver)
    app = create_app({"SQLALCHEMY_DATABASE_URI": url})
    with app.app_context():
        Base.metadata.drop_all(db.engine)
        assert f"{ORDERS} orders" in seed(ORDERS)
    yield app
    with app.app_context():
        db.session.remove()
        Base.metadata.drop_all(db.engine)
        db.engine.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client of it."""
    return app.test_client()


def one_order(client: FlaskClient) -> dict[str, Any]:
    """A new order, as JSON."""
    customer = client.get("/api/customers").json["customers"][0]["id"]
    product = client.get("/api/products").json["products"][0]["id"]
    items = [{"product_id": product, "quantity": 3}]
    answer = client.post("/api/orders", json={"customer_id": customer, "items": items})
    assert answer.status_code == 201
    order: dict[str, Any] = answer.json
    return order


def test_the_engine_is_on_a_geventpool(app: Flask) -> None:
    with app.app_context():
        assert type(db.engine.pool) is GeventPool


@pytest.mark.parametrize(
    "path",
    [
        "/orders",
        "/orders?status=paid&page=1",
        "/orders?page=99999999999",
        "/orders/new",
        "/customers",
        "/customers/new",
        "/products",
        "/reports/bought-together",
        "/bad/hold",
        "/good/hold",
        "/health",
        "/pool.json",
        "/api/orders",
        "/api/customers",
        "/api/products",
        "/api/reports/bought-together",
    ],
)
def test_a_page_answers(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 200


def test_the_start_leads_to_the_orders(client: FlaskClient) -> None:
    assert client.get("/").location == "/orders"


def test_an_order_is_taken_shown_and_moved_on(client: FlaskClient) -> None:
    order = one_order(client)
    assert order["status"] == "new"
    assert order["total"] == 3 * order["items"][0]["price"]
    path = f"/api/orders/{order['id']}"
    assert client.get(path).json == order
    assert client.patch(path, json={"status": "paid"}).json["status"] == "paid"
    assert client.get(path).json["status"] == "paid"
    first = client.get("/api/orders").json["orders"][0]
    assert (first["id"], first["total"]) == (order["id"], order["total"])
    page = client.get(f"/orders/{order['id']}").text
    assert order["customer"] in page
    assert order["items"][0]["product"] in page


def test_an_order_is_taken_and_moved_on_in_the_forms(client: FlaskClient) -> None:
    order = one_order(client)
    form = {"customer_id": "1", "product_id": ["1", "", "2"], "quantity": ["2", "1", "5"]}
    answer = client.post("/orders/new", data=form)
    assert answer.status_code == 302
    assert f"/orders/{order['id'] + 1}" in answer.location
    assert len(client.get(f"/api{answer.location}").json["items"]) == 2
    assert client.post(answer.location, data={"status": "shipped"}).status_code == 302
    assert client.get(f"/api{answer.location}").json["status"] == "shipped"


def test_a_cancelled_order_stays_so(client: FlaskClient) -> None:
    path = f"/api/orders/{one_order(client)['id']}"
    client.patch(path, json={"status": "cancelled"})
    answer = client.patch(path, json={"status": "paid"})
    assert (answer.status_code, "stays so" in answer.json["error"]) == (400, True)


def test_a_customer_is_added_and_changed(client: FlaskClient) -> None:
    form = {"name": "Zoë Müller", "email": "zoe@example.com", "city": "Łódź"}
    customer = client.post("/api/customers", json=form).json
    assert customer == {"id": customer["id"], **form}
    path = f"/customers/{customer['id']}"
    assert client.post(path, data={**form, "city": "Køge"}).status_code == 302
    assert client.get(f"/api{path}").json["city"] == "Køge"
    assert "Zoë Müller" in client.get(path).text


def test_an_email_belongs_to_one_customer(client: FlaskClient) -> None:
    taken = client.get("/api/customers/1").json["email"]
    form = {"name": "Somebody", "email": taken, "city": "Else"}
    answer = client.post("/api/customers", json=form)
    assert (answer.status_code, taken in answer.json["error"]) == (400, True)
    assert client.get("/api/customers/1").status_code == 200


def test_a_price_is_changed_and_old_orders_keep_theirs(client: FlaskClient) -> None:
    order = one_order(client)
    product = client.get("/api/products").json["products"][0]["id"]
    assert client.post(f"/products/{product}", data={"price": "123.45"}).status_code == 302
    assert client.get("/api/products").json["products"][0]["price"] == 12345
    assert client.get(f"/api/orders/{order['id']}").json["total"] == order["total"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/orders", {}),
        ("/api/orders", {"customer_id": 1, "items": []}),
        ("/api/orders", {"customer_id": 1, "items": 7}),
        ("/api/orders", {"customer_id": 1, "items": [7]}),
        ("/api/orders", {"customer_id": 1, "items": [{"product_id": 1, "quantity": 0}]}),
        ("/api/orders", {"customer_id": 1, "items": [{"product_id": 10**6, "quantity": 1}]}),
        ("/api/orders", {"customer_id": 10**6, "items": [{"product_id": 1, "quantity": 1}]}),
        ("/api/orders", {"customer_id": 10**30, "items": [{"product_id": 1, "quantity": 1}]}),
        ("/api/orders", {"customer_id": True, "items": [{"product_id": 1, "quantity": 1}]}),
        ("/api/orders", [1, 2]),
        ("/api/customers", {"name": "", "email": "a@b.c", "city": "x"}),
        ("/api/customers", {"name": "x" * 81, "email": "a@b.c", "city": "x"}),
        ("/api/customers", {"name": "x\0", "email": "a@b.c", "city": "x"}),
        ("/api/customers", {"name": "x", "email": "nobody", "city": "x"}),
    ],
)
def test_wrong_input_is_told_not_written(client: FlaskClient, path: str, body: Any) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 400
    assert answer.json["error"]


@pytest.mark.parametrize("price", ["", "free", "-1", "1.234", "1e99", "nan", "inf"])
def test_a_wrong_price_is_refused(client: FlaskClient, price: str) -> None:
    answer = client.post("/products/1", data={"price": price})
    assert (answer.status_code, "price" in answer.text) == (400, True)


@pytest.mark.parametrize("path", ["/orders/999999", "/orders/99999999999999999999", "/nowhere"])
def test_what_does_not_exist_is_a_404_page(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, "Order desk" in answer.text) == (404, True)
    assert client.get(f"/api{path}").json["error"]


def test_seeding_twice_changes_nothing(app: Flask) -> None:
    assert "nothing was changed" in app.test_cli_runner().invoke(args=["seed"]).output


def test_the_pool_tells_its_figures(client: FlaskClient) -> None:
    client.get("/health")
    pools = client.get("/pool.json").json["pools"]
    assert max(pool["checkouts"] for pool in pools) > 0
