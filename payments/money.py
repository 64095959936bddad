"""How an amount in minor units is written, wherever a person reads it: on invoices, in mails, in the admin.

A currency has none, two or three decimals: 1000 are 10.00 dollars, 1,000 yen or 1.000 dinars.
"""

# ISO 4217 minor units other than two, as the gateway counts them: https://docs.stripe.com/currencies
_NO_DECIMALS = frozenset({
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga",
    "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof", "xpf",
})  # fmt: skip
_THREE_DECIMALS = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})


def money(cents: int, currency: str) -> str:
    """`1234567`, `usd` → `12,345.67 USD`; with the currency's own decimals, in integers throughout."""
    decimals = 0 if currency in _NO_DECIMALS else 3 if currency in _THREE_DECIMALS else 2
    sign = "-" if cents < 0 else ""
    whole, rest = divmod(abs(cents), 10**decimals)
    fraction = f".{rest:0{decimals}d}" if decimals else ""
    return f"{sign}{whole:,}{fraction} {currency.upper()}"
