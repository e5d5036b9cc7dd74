"""The order desk's own tests: `python manage.py test`, with `--parallel` and `--keepdb` if you like."""

import json

from django.db import connection
from django.test import Client, LiveServerTestCase, TestCase, TransactionTestCase
from django.test.utils import CaptureQueriesContext

from .models import Line, Order


class OrdersTest(TestCase):
    """Each test in a transaction that is rolled back."""

    @classmethod
    def setUpTestData(cls) -> None:
        cls.order = Order.objects.create(customer="Ada")
        Line.objects.create(order=cls.order, thing="lamp", quantity=2)

    def test_an_order_is_shown_with_its_lines(self) -> None:
        answer = self.client.get(f"/orders/{self.order.pk}")
        self.assertEqual(answer.json()["things"], {"lamp": 2})

    def test_the_list_is_one_query(self) -> None:
        with self.assertNumQueries(1):
            self.client.get("/orders")

    def test_there_is_no_other_order(self) -> None:
        self.assertEqual(self.client.get(f"/orders/{self.order.pk + 1}").status_code, 404)

    def test_all_lines_are_streamed(self) -> None:
        streamed = b"".join(self.client.get("/export").streaming_content)
        self.assertEqual(streamed, f"{self.order.pk},lamp,2\n".encode())


class PaymentTest(TransactionTestCase):
    """Each test commits, and the tables are flushed behind it; what migrations made is put back."""

    serialized_rollback = True

    def test_an_order_is_paid_once(self) -> None:
        order = Order.objects.create(customer="Blaise")
        answers = [self.client.post(f"/orders/{order.pk}/pay").json() for _ in range(2)]
        self.assertEqual([answer["paid_now"] for answer in answers], [True, False])

    def test_an_order_with_a_wrong_line_is_not_made_at_all(self) -> None:
        wanted = {"customer": "Carl", "things": {"lamp": None}}
        client = Client(raise_request_exception=False)
        answer = client.post("/orders", json.dumps(wanted), content_type="application/json")
        self.assertEqual(answer.status_code, 500)
        self.assertFalse(Order.objects.exists())

    def test_a_request_gives_its_connection_back(self) -> None:
        with CaptureQueriesContext(connection):
            self.client.get("/hold")
        self.assertFalse(connection.in_atomic_block)


class ServerTest(LiveServerTestCase):
    """A server in a thread (under gevent: a greenlet) of its own, with connections of its own."""

    def test_the_server_sees_what_the_test_has_committed(self) -> None:
        from urllib.request import urlopen

        order = Order.objects.create(customer="Emmy")
        with urlopen(f"{self.live_server_url}/orders/{order.pk}", timeout=10) as answer:
            self.assertEqual(json.load(answer)["customer"], "Emmy")
