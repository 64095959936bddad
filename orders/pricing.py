"""Amounts: integers in minor units, derived once when an order is placed."""

#: Tax in basis points (1/100 %) by currency. A real shop derives it from the address; what matters here is
#: that it is computed once and stored, not added again by a task that runs twice.
TAX_BASIS_POINTS = {"usd": 825, "eur": 1900}

#: The gateway takes at most eight digits in any currency: more would be accepted here and dead-lettered
#: later.
MAX_TOTAL_CENTS = 99_999_999

#: No customer orders more of one SKU through the API; beyond it a typing error is likelier than a wish.
MAX_QUANTITY = 10_000


def tax_cents(subtotal_cents: int, currency: str) -> int:
    """The tax on `subtotal_cents`, rounded half up; no rate for the currency means no tax."""
    return (subtotal_cents * TAX_BASIS_POINTS.get(currency, 0) + 5_000) // 10_000
