"""The currencies that the gateway charges in: their decimals, and the amounts that it takes.

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
#: Without cents since they were abolished, and charged in cents all the same, for those who always have.
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
