"""The currencies that the gateway charges in: how an amount is written, and which amounts it takes.

Amounts are in minor units. A currency has none, two or three decimals: 1000 are 10.00 dollars, 1,000 yen or 1.000 dinars.
Source: https://docs.stripe.com/currencies (presentment currencies, zero-decimal and three-decimal currencies, special
cases, minimum and maximum charge amounts).
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Currency:
    """`decimals` of an amount in minor units; what is charged is a multiple of `step_cents`, within the two bounds.

    Without a published minimum `minimum_cents` is 1. The gateway's own may be higher, since it applies to the currency
    of the account that is paid out to: what it then refuses ends the order as failed.
    """

    decimals: int = 2
    step_cents: int = 1
    minimum_cents: int = 1
    maximum_cents: int = 99_999_999


_TWO_DECIMALS = """
    aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bmd bnd bob brl bsd bwp byn bzd cad cdf chf
    cny cop crc cve czk dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gtq gyd hkd hnl htg huf ils inr
    jmd kes kgs khr kyd kzt lak lbp lkr lrd lsl mad mdl mkd mmk mnt mop mur mvr mwk mxn myr mzn nad ngn
    nio nok npr nzd pab pen pgk php pkr pln qar ron rsd rub sar sbd scr sek sgd shp sle sos srd std szl
    thb tjs top try ttd twd tzs uah usd uyu uzs wst xcd yer zar zmw
"""
_NO_DECIMALS = "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf"
#: The last digit is 0: the card networks have two decimals.
_THREE_DECIMALS = "bhd jod kwd omr tnd"
#: Their cents were abolished; the gateway still counts in cents, so that older clients go on working.
_WHOLE_HUNDREDS = "isk ugx"
_MINIMUM_CENTS = {
    "aed": 200, "aud": 50, "bgn": 100, "brl": 50, "cad": 50, "chf": 50, "czk": 1500, "dkk": 250, "eur": 50, "gbp": 30,
    "hkd": 400, "huf": 17500, "inr": 50, "jpy": 50, "mxn": 1000, "myr": 200, "nok": 300, "nzd": 50, "pln": 200,
    "ron": 200, "sek": 300, "sgd": 50, "thb": 1000, "usd": 50,
}  # fmt: skip

#: By ISO 4217 code in lower case, as in an order's `currency`.
CURRENCIES: dict[str, Currency] = {
    **dict.fromkeys(_TWO_DECIMALS.split(), Currency()),
    **dict.fromkeys(_NO_DECIMALS.split(), Currency(decimals=0)),
    **dict.fromkeys(_THREE_DECIMALS.split(), Currency(decimals=3, step_cents=10)),
    **dict.fromkeys(_WHOLE_HUNDREDS.split(), Currency(step_cents=100)),
    "idr": Currency(maximum_cents=999_999_999_999),
}
for _code, _minimum in _MINIMUM_CENTS.items():
    CURRENCIES[_code] = replace(CURRENCIES[_code], minimum_cents=_minimum)


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
