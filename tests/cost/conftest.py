"""The shop of orders/, for the endpoints."""

from tests.orders.conftest import api, shop

__all__ = ["api", "shop"]
