"""`manage.py seed`: some orders, if there are none."""

from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from ...models import Line, Order

CUSTOMERS = ["Ada", "Blaise", "Carl", "Dorothy", "Emmy"]
THINGS = ["chair", "lamp", "shelf", "table"]


class Command(BaseCommand):
    """Fills the tables with invented data."""

    help = "makes some orders, if there are none"

    def handle(self, *args: Any, **options: Any) -> None:
        """Runs it."""
        if Order.objects.exists():
            return
        with transaction.atomic():
            for number in range(100):
                order = Order.objects.create(customer=CUSTOMERS[number % len(CUSTOMERS)])
                Line.objects.bulk_create(
                    Line(order=order, thing=thing, quantity=1 + number % 3)
                    for thing in THINGS[: 1 + number % len(THINGS)]
                )
        self.stdout.write(f"{Order.objects.count()} orders")
