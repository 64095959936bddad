"""The shop of the tests of orders: its customers and products, and a gateway that charges; and the payments of the sandbox."""

from tests.orders.conftest import busy_shop, charge, completed, shop
from tests.payments.conftest import gateway, make_order

__all__ = ["busy_shop", "charge", "completed", "gateway", "make_order", "shop"]
