"""Orders and their lines."""

from django.db import models


class Order(models.Model):
    """Somebody wants something."""

    customer = models.CharField(max_length=100)
    is_paid = models.BooleanField(default=False)
    made_at = models.DateTimeField(auto_now_add=True)


class Line(models.Model):
    """So many of a thing."""

    order = models.ForeignKey(Order, models.CASCADE, related_name="lines")
    thing = models.CharField(max_length=100)
    quantity = models.PositiveIntegerField(default=1)
