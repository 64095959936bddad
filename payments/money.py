"""Amounts in minor units: how they are written for people, and which of them the gateway charges.

A currency has none, two or three decimals: 1000 are 10.00 dollars, 1,000 yen or 1.000 dinars.
"""

from __future__ import annotations

from payments.gateway.currencies import CURRENCIES, Currency


class NotChargeable(ValueError):
    """The gateway is certain to refuse this amount. `code` is for machines; the text names the limit."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def money(cents: int, currency: str) -> str:
    """`1234567`, `usd` → `12,345.67 USD`; with the currency's own decimals, in integers throughout."""
    decimals = CURRENCIES.get(currency, Currency()).decimals
    sign = "-" if cents < 0 else ""
    whole, rest = divmod(abs(cents), 10**decimals)
    fraction = f".{rest:0{decimals}d}" if decimals else ""
    return f"{sign}{whole:,}{fraction} {currency.upper()}"


def check_chargeable(cents: int, currency: str) -> None:
    """Raises NotChargeable (unknown_currency, total_too_small, total_too_large, total_not_chargeable) for a total that
    the gateway is certain to refuse.
    """
    rules = CURRENCIES.get(currency)
    if rules is None:
        raise NotChargeable("unknown_currency", f"Payments in {currency.upper()} are not possible.")
    total = f"The total is {money(cents, currency)}"
    if cents < rules.minimum_cents:
        limit = money(rules.minimum_cents, currency)
        raise NotChargeable("total_too_small", f"{total}; it must be at least {limit}.")
    if cents > rules.maximum_cents:
        limit = money(rules.maximum_cents, currency)
        raise NotChargeable("total_too_large", f"{total}; it may be at most {limit}.")
    if cents % rules.step_cents:
        step = money(rules.step_cents, currency)
        raise NotChargeable("total_not_chargeable", f"{total}; it must be a multiple of {step}.")
