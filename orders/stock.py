"""Units of stock move between shelf, reservation and shipment: those of a whole order in one statement, which locks its
products in the order of their ids.

The fixed order is what makes two orders of the same products wait for each other instead of deadlocking. Not
the order of SKUs: Python and a database with a linguistic collation sort those differently. One statement, because every
other order of a product waits for that lock, and would wait for our round trips, too.
"""

from django.db import connection

from orders.models import Order

# FOR NO KEY UPDATE, which is what an UPDATE takes: two orders whose lines were just inserted each hold the foreign key's
# lock on the products that they share, and with FOR UPDATE would wait for each other.
# The condition is in the UPDATE itself: a check before it would be stale when two orders want the last unit.
_MOVE = """
    WITH line AS MATERIALIZED (
        SELECT product.id, product.sku, item.quantity
        FROM orders_orderitem item JOIN orders_product product ON product.id = item.product_id
        WHERE item.order_id = %(order_id)s
        ORDER BY product.id
        FOR NO KEY UPDATE OF product
    ), moved AS (
        UPDATE orders_product product
        SET {origin} = {origin} - line.quantity, {goal} = {goal} + line.quantity
        FROM line
        WHERE product.id = line.id AND {origin} >= line.quantity
        RETURNING product.id
    )
    SELECT sku, quantity FROM line WHERE id NOT IN (SELECT id FROM moved) ORDER BY id
"""


class NotEnoughUnits(Exception):
    """Fewer units are there than shall be moved; the caller's transaction must be rolled back."""

    def __init__(self, sku: str, quantity: int, origin: str) -> None:
        super().__init__(f"{quantity} of {sku} wanted, fewer are in {origin!r}")
        self.sku = sku


def reserve(order_id: int) -> None:
    """Take an order's units from the shelf, in the transaction that places it; raises NotEnoughUnits."""
    _move(order_id, origin="stock", goal="reserved")


def release(order: Order) -> None:
    """Put an order's reserved units back on the shelf, in the transaction that ends the order."""
    _move(order.pk, origin="reserved", goal="stock")


def ship(order_id: int) -> None:
    """Move an order's reserved units to shipped, in the transaction that marks the order as shipped."""
    _move(order_id, origin="reserved", goal="shipped")


def _move(order_id: int, *, origin: str, goal: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_MOVE.format(origin=origin, goal=goal), {"order_id": order_id})
        for sku, quantity in cursor:
            raise NotEnoughUnits(sku, quantity, origin)
