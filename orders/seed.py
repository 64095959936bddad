"""Customers and goods to try the system with."""

from django.core.management.color import no_style
from django.db import connection, transaction

from orders.models import Customer, Price, Product

CUSTOMERS = 20
STOCK = 1_000_000
#: SKU -> name and prices in minor units.
PRODUCTS: dict[str, tuple[str, dict[str, int]]] = {
    "WIDGET": ("Widget", {"usd": 1999, "eur": 1899}),
    "GADGET": ("Gadget", {"usd": 4950, "eur": 4600}),
    "GIZMO": ("Gizmo", {"usd": 999, "eur": 949}),
}


@transaction.atomic
def seed_demo() -> None:
    """Have customers 1 to 20 and the demo SKUs in stock; what exists already is left as it is."""
    Customer.objects.bulk_create(
        (
            Customer(id=number, name=f"Customer {number}", email=f"customer{number}@example.com")
            for number in range(1, CUSTOMERS + 1)
        ),
        ignore_conflicts=True,
    )
    # Rows with explicit ids do not move the sequence: the next customer would collide with number 1.
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), [Customer]):
            cursor.execute(statement)
    for sku, (name, prices) in PRODUCTS.items():
        product, _ = Product.objects.get_or_create(sku=sku, defaults={"name": name, "stock": STOCK})
        for currency, amount_cents in prices.items():
            Price.objects.get_or_create(
                product=product, currency=currency, defaults={"amount_cents": amount_cents}
            )
