"""The clients of the demo, a process of its own: `python load.py URL SECONDS`.

Each client is a greenlet that sends a request, waits for the answer, and pauses. Each request opens
its own HTTP connection, so that both workers get their share. Prints a line of JSON four times a
second, and a last one with the result.
"""

from __future__ import annotations

# Before anything that opens a socket is imported.
from gevent import monkey

monkey.patch_all()

import http.client  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402
from urllib.parse import urlencode, urlsplit  # noqa: E402

import gevent  # noqa: E402
from gevent.pool import Pool  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from demo_support.phases import phase_at, phases  # noqa: E402

REQUEST_TIMEOUT = 20.0
REPORT_INTERVAL = 0.25
KEPT_FAILURES = 5

FORM = "application/x-www-form-urlencoded"


class Desk:
    """Sends requests to the order desk and keeps the score."""

    def __init__(self, url: str, rng: random.Random) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port
        self.rng = rng
        self.seconds: list[float] = []  # of the requests that don't wait on purpose
        self.kinds: Counter[str] = Counter()
        self.errors = 0
        self.failures: list[str] = []
        self.taken: list[int] = []  # orders that these clients made
        self.orders = [row["id"] for row in self._rows("orders", 10)]
        self.customers = [row["id"] for row in self._rows("customers", 5)]
        self.products = [row["id"] for row in self._rows("products", 1)]

    def send(
        self, method: str, path: str, body: str | None = None, content_type: str | None = None
    ) -> tuple[int, bytes]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=REQUEST_TIMEOUT)
        try:
            headers = {"Connection": "close"}
            if content_type:
                headers["Content-Type"] = content_type
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def one_request(self) -> None:
        """Pick a request, send it, and note how it went."""
        action = self.rng.choices(ACTIONS, WEIGHTS)[0]
        kind = action.__name__
        start = time.perf_counter()
        try:
            status, body = action(self)
            problem = None if status < 400 else f"{status} {body[:200]!r}"
        except (OSError, http.client.HTTPException) as error:
            problem = repr(error)
        self.kinds[kind] += 1
        if action is not bad_hold:
            self.seconds.append(time.perf_counter() - start)
        if problem is not None:
            self.errors += 1
            if len(self.failures) < KEPT_FAILURES:
                self.failures.append(f"{kind}: {problem}")

    def result(self) -> dict[str, Any]:
        """The score."""
        return {
            "requests": self.kinds.total(),
            "errors": self.errors,
            "failures": self.failures,
            "p50": _quantile(self.seconds, 0.50),
            "p99": _quantile(self.seconds, 0.99),
        }

    def _rows(self, table: str, pages: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for page in range(1, pages + 1):
            status, body = self.send("GET", f"/api/{table}?page={page}")
            if status != 200:
                raise SystemExit(f"/api/{table} answered {status}: {body[:200]!r}")
            rows += json.loads(body)[table]
        return rows


Answer = tuple[int, bytes]


def list_orders(desk: Desk) -> Answer:
    return desk.send("GET", f"/orders?page={desk.rng.randint(1, 20)}")


def show_order(desk: Desk) -> Answer:
    return desk.send("GET", f"/orders/{desk.rng.choice(desk.orders)}")


def show_customer(desk: Desk) -> Answer:
    return desk.send("GET", f"/customers/{desk.rng.choice(desk.customers)}")


def list_as_json(desk: Desk) -> Answer:
    return desk.send("GET", "/api/orders?status=paid")


def create_order(desk: Desk) -> Answer:
    picked = desk.rng.sample(desk.products, 3)
    items = [{"product_id": id, "quantity": desk.rng.randint(1, 5)} for id in picked]
    body = json.dumps({"customer_id": desk.rng.choice(desk.customers), "items": items})
    status, answer = desk.send("POST", "/api/orders", body, "application/json")
    if status == 201:
        desk.taken.append(json.loads(answer)["id"])
    return status, answer


def update_order(desk: Desk) -> Answer:
    if not desk.taken:
        return create_order(desk)
    body = urlencode({"status": desk.rng.choice(["paid", "shipped"])})
    return desk.send("POST", f"/orders/{desk.rng.choice(desk.taken)}", body, FORM)


def update_price(desk: Desk) -> Answer:
    body = json.dumps({"price": desk.rng.randint(150, 20_000)})
    product = desk.rng.choice(desk.products)
    return desk.send("PATCH", f"/api/products/{product}", body, "application/json")


def slow_report(desk: Desk) -> Answer:
    return desk.send("GET", "/reports/bought-together")


def bad_hold(desk: Desk) -> Answer:
    return desk.send("GET", "/bad/hold")


MIX: dict[Callable[[Desk], Answer], int] = {
    list_orders: 18,
    show_order: 22,
    show_customer: 10,
    list_as_json: 10,
    create_order: 10,
    update_order: 10,
    update_price: 4,
    slow_report: 4,
    bad_hold: 12,
}
ACTIONS, WEIGHTS = list(MIX), list(MIX.values())


def main(url: str, seconds: float) -> None:
    """Drive the load and print how it goes."""
    rng = random.Random(7)
    desk = Desk(url, rng)
    shape = phases(seconds)
    most = max(max(phase.first, phase.last) for phase in shape)
    clients = Pool(most)
    begin = time.monotonic()

    def client(number: int) -> None:
        while (at := time.monotonic() - begin) < seconds:
            phase = phase_at(shape, at)
            if number < phase.clients(at):
                desk.one_request()
            gevent.sleep(min(rng.expovariate(1 / phase.think), 4 * phase.think))

    for number in range(most):
        clients.spawn(client, number)
    while (at := time.monotonic() - begin) < seconds:
        phase = phase_at(shape, at)
        _say(
            at=at,
            phase=phase.name,
            clients=phase.clients(at),
            requests=desk.kinds.total(),
            errors=desk.errors,
        )
        gevent.sleep(REPORT_INTERVAL)
    if not clients.join(REQUEST_TIMEOUT):
        desk.errors += len(clients)
        desk.failures.append(f"{len(clients)} requests had no answer at the end")
        clients.kill()
    _say(at=seconds, phase="done", clients=0, **desk.result())


def _say(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


def _quantile(values: list[float], share: float) -> float:
    """The nearest-rank quantile; 0 for no values."""
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else 0.0


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
