"""The currencies that the gateway charges in, and the amounts that it takes. Source: https://docs.stripe.com/currencies

Written down apart from the app's own table: a proof that reads the table of what it proves would not see a wrong line.
"""

from lab.sandbox.stripe_errors import invalid

_CODES = """
aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd cad
cdf chf clp cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd
hnl htg huf idr ils inr isk jmd jod jpy kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad mdl
mga mkd mmk mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln pyg
qar ron rsd rub rwf sar sbd scr sek sgd shp sle sos srd std szl thb tjs tnd top try ttd twd tzs uah
ugx usd uyu uzs vnd vuv wst xaf xcd xof xpf yer zar zmw
"""
CURRENCIES = frozenset(_CODES.split())

#: Without decimals; isk and ugx are, too, but are charged in hundredths.
_NO_DECIMALS = frozenset({
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf",
})  # fmt: skip
_THREE_DECIMALS = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})
_WHOLE_HUNDREDS = frozenset({"isk", "ugx"})
#: In each currency's own unit. Of a charge in another currency Stripe converts: here it is at least 1.
_MINIMUM = {
    "usd": 0.5, "aed": 2, "aud": 0.5, "bgn": 1, "brl": 0.5, "cad": 0.5, "chf": 0.5, "czk": 15, "dkk": 2.5, "eur": 0.5,
    "gbp": 0.3, "hkd": 4, "huf": 175, "inr": 0.5, "jpy": 50, "mxn": 10, "myr": 2, "nok": 3, "nzd": 0.5, "pln": 2,
    "ron": 2, "sek": 3, "sgd": 0.5, "thb": 10,
}  # fmt: skip


def check_amount(amount: int, currency: str) -> None:
    """Raises `Refused` (400) for an amount that Stripe does not charge in this currency."""
    digits = 12 if currency == "idr" else 8
    if amount > 10**digits - 1:
        raise invalid(
            f"Amount must be no more than {10**digits - 1}.", code="amount_too_large", param="amount"
        )
    minimum = _MINIMUM.get(currency, 0)
    if amount < minimum * (1 if currency in _NO_DECIMALS else 100):
        message = f"Amount must be at least {minimum:g} {currency}."
        raise invalid(message, code="amount_too_small", param="amount")
    step = 10 if currency in _THREE_DECIMALS else 100 if currency in _WHOLE_HUNDREDS else 1
    if amount % step:
        message = f"Invalid amount: {amount} {currency} must be evenly divisible by {step}."
        raise invalid(message, code="invalid_charge_amount", param="amount")
