"""payments/gateway/currencies.py: an amount is written as people write that currency."""

import pytest

from payments.gateway import money


@pytest.mark.parametrize(
    ("cents", "currency", "text"),
    [
        (1234567, "usd", "12,345.67 USD"),
        (5, "eur", "0.05 EUR"),
        (500, "jpy", "500 JPY"),
        (500, "ugx", "5.00 UGX"),
        (500, "isk", "5.00 ISK"),
        (500, "xyz", "5.00 XYZ"),
        (1500, "kwd", "1.500 KWD"),
        (-250, "usd", "-2.50 USD"),
        (10**15 + 1, "usd", "10,000,000,000,000.01 USD"),
    ],
)
def test_money_is_written_with_the_currencys_own_decimals(cents: int, currency: str, text: str) -> None:
    assert money(cents, currency) == text
