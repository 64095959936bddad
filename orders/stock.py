"""Units of stock move between shelf, reservation and shipment, always by guarded updates in the order of
the products' ids.

The fixed order is what makes two orders of the same products wait for each other instead of deadlocking. Not
the order of SKUs: Python and a database with a linguistic collation sort those differently.
"""

from collections.abc import Iterable

from django.db.models import F

from orders.models import Order, OrderItem, Product


class OutOfStock(Exception):
    """Fewer units are left than were asked for; the caller's transaction must be rolled back."""

    def __init__(self, sku: str, wanted: int) -> None:
        super().__init__(f"{wanted} of {sku} asked for, fewer are in stock")
        self.sku = sku


def reserve(lines: Iterable[tuple[Product, int]]) -> None:
    """Take units from the shelf, in the caller's transaction; raises OutOfStock for one that is missing."""
    for product, quantity in sorted(lines, key=lambda line: line[0].pk):
        # The condition is in the UPDATE itself: a check before it would be stale when two orders race for the
        # last unit.
        taken = Product.objects.filter(pk=product.pk, stock__gte=quantity).update(
            stock=F("stock") - quantity, reserved=F("reserved") + quantity
        )
        if not taken:
            raise OutOfStock(product.sku, quantity)


def release(order: Order) -> None:
    """Put an order's reserved units back on the shelf, in the transaction that ends the order."""
    for item in _lines(order.pk):
        Product.objects.filter(pk=item.product_id).update(
            stock=F("stock") + item.quantity, reserved=F("reserved") - item.quantity
        )


def ship(order_id: int) -> None:
    """Move an order's reserved units out of the house, in the transaction that marks the order as shipped."""
    for item in _lines(order_id):
        Product.objects.filter(pk=item.product_id).update(
            reserved=F("reserved") - item.quantity, shipped=F("shipped") + item.quantity
        )


def _lines(order_id: int) -> Iterable[OrderItem]:
    return OrderItem.objects.filter(order_id=order_id).order_by("product_id")
