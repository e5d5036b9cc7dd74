from django.apps import AppConfig


class OrdersConfig(AppConfig):
    """The order desk's only application."""

    name = "orders"
