"""Stock moves in one order of products, whatever the path and whatever collation the database has."""

import re

from django.db import connection
from django.test.utils import CaptureQueriesContext

from orders import stock
from orders.models import Price, Product
from orders.services import place_order

#: In the order in which they are created. By code point it is B, a, c; in a dictionary it is a, B, c.
SKUS = ("c", "a", "B")


def test_every_path_locks_products_in_the_order_of_their_ids_and_not_of_their_skus(shop: None) -> None:
    ids = [Product.objects.create(sku=sku, name=sku, stock=10).pk for sku in SKUS]
    Price.objects.bulk_create(Price(product_id=pk, currency="usd", amount_cents=100) for pk in ids)
    for lines in (SKUS, tuple(reversed(SKUS)), ("B", "a", "c")):
        with CaptureQueriesContext(connection) as placing:
            order = place_order(
                customer_id=1,
                currency="usd",
                payment_method="pm_card_visa",
                lines=[(sku, 1) for sku in lines],
            )
        assert locked(placing) == ids
        with CaptureQueriesContext(connection) as cancelling:
            stock.release(order)
        assert locked(cancelling) == ids
    Product.objects.update(reserved=1)
    with CaptureQueriesContext(connection) as shipping:
        stock.ship(order.pk)
    assert locked(shipping) == ids


def locked(queries: CaptureQueriesContext) -> list[int]:
    """The ids of the products that were updated, in the order of the statements."""
    updates = [each["sql"] for each in queries if each["sql"].startswith('UPDATE "orders_product"')]
    return [int(found) for sql in updates for found in re.findall(r'"orders_product"\."id" = (\d+)', sql)]
