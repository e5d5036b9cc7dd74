"""The views. Each request borrows one connection at its first query, and gives it back at its end."""

import json
import time
from dataclasses import asdict

from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse

import geventpool.django

from .models import Line, Order


def orders(request: HttpRequest) -> HttpResponse:
    """The newest orders; with POST a new one."""
    if request.method == "POST":
        wanted = json.loads(request.body)
        with transaction.atomic():
            order = Order.objects.create(customer=wanted["customer"])
            Line.objects.bulk_create(
                Line(order=order, thing=thing, quantity=quantity)
                for thing, quantity in wanted["things"].items()
            )
        return JsonResponse({"number": order.pk}, status=201)
    newest = Order.objects.order_by("-pk").values("pk", "customer", "is_paid")[:20]
    return JsonResponse({"orders": list(newest)})


def order(request: HttpRequest, number: int) -> HttpResponse:
    """One order with its lines."""
    found = Order.objects.filter(pk=number).prefetch_related("lines").first()
    if found is None:
        return JsonResponse({"error": "there is no such order"}, status=404)
    lines = {line.thing: line.quantity for line in found.lines.all()}
    return JsonResponse({"customer": found.customer, "is_paid": found.is_paid, "things": lines})


def pay(request: HttpRequest, number: int) -> HttpResponse:
    """An order is paid once, whoever else pays at the same moment."""
    with transaction.atomic():
        found = Order.objects.select_for_update().filter(pk=number).first()
        is_new = found is not None and not found.is_paid
        if found is not None and is_new:
            found.is_paid = True
            found.save(update_fields=["is_paid"])
    return JsonResponse({"paid_now": is_new})


def export(request: HttpRequest) -> StreamingHttpResponse:
    """All lines, streamed: the connection is in use until the last one is sent."""
    rows = Line.objects.order_by("pk").values_list("order_id", "thing", "quantity")
    return StreamingHttpResponse(
        (f"{number},{thing},{quantity}\n" for number, thing, quantity in rows.iterator(100)),
        content_type="text/csv",
    )


def hold(request: HttpRequest) -> HttpResponse:
    """How to wait for somebody else: the connection goes back before, and another comes after."""
    before = Order.objects.count()
    connection.close()
    time.sleep(0.1)
    return JsonResponse({"before": before, "after": Order.objects.count()})


def health(request: HttpRequest) -> HttpResponse:
    """Does the database answer?"""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return JsonResponse({"ok": True})


def pool(request: HttpRequest) -> HttpResponse:
    """The figures of this worker's pool."""
    return JsonResponse(asdict(geventpool.django.pool().stats()))
