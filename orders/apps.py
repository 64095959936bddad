from django.apps import AppConfig


class OrdersConfig(AppConfig):
    """Orders, stock, the HTTP API and the tasks that an order sets off."""

    name = "orders"

    def ready(self) -> None:
        from orders.api import idempotency  # noqa: F401  (an answer goes with its order)
        from resilience import circuits

        circuits.share()
