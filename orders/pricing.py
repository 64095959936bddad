"""Amounts: integers in minor units, derived once when an order is placed."""

#: Tax in basis points (1/100 %) by currency. A real shop derives it from the address; what matters here is
#: that it is computed once and stored, not added again by a task that runs twice.
TAX_BASIS_POINTS = {"usd": 825, "eur": 1900}

#: No customer orders more of one SKU through the API; beyond it a typing error is more likely than an order.
MAX_QUANTITY = 10_000


def tax_cents(subtotal_cents: int, currency: str) -> int:
    """The tax on `subtotal_cents`, rounded half up; no rate for the currency means no tax."""
    return (subtotal_cents * TAX_BASIS_POINTS.get(currency, 0) + 5_000) // 10_000
