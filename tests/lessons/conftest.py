"""The shop of the tests of orders: its customers and products, and a gateway that charges."""

from tests.orders.conftest import busy_shop, charge, completed, shop

__all__ = ["busy_shop", "charge", "completed", "shop"]
