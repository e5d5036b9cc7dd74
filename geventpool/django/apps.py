"""The Django application: `INSTALLED_APPS = [..., "geventpool.django"]`."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks


class GeventpoolConfig(AppConfig):
    """Registers the system checks; `manage.py geventpool` comes along."""

    name = "geventpool.django"
    label = "geventpool"
    verbose_name = "geventpool"

    def ready(self) -> None:
        """Called by Django when all settings and models are there."""
        from .checks import check_server, check_settings

        checks.register(check_settings)
        checks.register(check_server, checks.Tags.database)
