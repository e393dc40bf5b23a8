"""What Stripe takes: currencies, their smallest units, their smallest charges."""

from __future__ import annotations

from sandbox.stripe.wire import ApiError

_CODES = """
usd aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd
cad cdf chf clp cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd
hkd hnl htg huf idr ils inr isk jmd jod jpy kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad
mdl mga mkd mmk mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln
pyg qar ron rsd rub rwf sar sbd scr sek sgd shp sle sos srd std szl thb tjs tnd top try ttd twd tzs
uah ugx uyu uzs vnd vuv wst xaf xcd xof xpf yer zar zmw
"""
_SUPPORTED = frozenset(_CODES.split())
_ZERO_DECIMAL = frozenset(
    ("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf")
)
_THREE_DECIMAL = frozenset(("bhd", "jod", "kwd", "omr", "tnd"))
# Sent with two decimals that must be 00.
_WHOLE_UNITS = frozenset(("isk", "ugx"))
# The smallest charges, in minor units.
_LEAST_MINOR = {
    "aed": 200,
    "bgn": 100,
    "czk": 1500,
    "dkk": 250,
    "gbp": 30,
    "hkd": 400,
    "huf": 17500,
    "jpy": 50,
    "mxn": 1000,
    "myr": 200,
    "nok": 300,
    "pln": 200,
    "ron": 200,
    "sek": 300,
    "thb": 1000,
}
_LEAST_ELSEWHERE = 50
_MOST = 99_999_999


def check_currency(currency: str, param: str) -> str:
    """The currency in lower case. Raises ApiError for one Stripe does not take."""
    lower = currency.lower()
    if lower not in _SUPPORTED:
        raise ApiError(
            f"Invalid currency: {currency}. Stripe currently supports these currencies: "
            + ", ".join(sorted(_SUPPORTED)),
            param=param,
        )
    return lower


def check_total(amount_minor: int, currency: str, param: str, what: str = "Amount") -> None:
    """Refuse a total that is too small, too large, or finer than the currency's coins."""
    grain = 10 if currency in _THREE_DECIMAL else 100 if currency in _WHOLE_UNITS else 1
    if amount_minor % grain:
        raise ApiError(
            f"Invalid amount: amounts in {currency} must be divisible by {grain}.",
            code="invalid_charge_amount",
            param=param,
        )
    least = _LEAST_MINOR.get(currency, _LEAST_ELSEWHERE)
    if amount_minor < least:
        raise ApiError(
            f"{what} must be at least {show(least, currency)}", code="amount_too_small", param=param
        )
    if amount_minor > _MOST:
        raise ApiError(
            f"{what} must be no more than {show(_MOST, currency)}", code="amount_too_large", param=param
        )


def show(amount_minor: int, currency: str) -> str:
    """An amount for a person: `12.50 EUR`."""
    digits = 0 if currency in _ZERO_DECIMAL else 3 if currency in _THREE_DECIMAL else 2
    whole, rest = divmod(abs(amount_minor), 10**digits)
    sign = "-" if amount_minor < 0 else ""
    return f"{sign}{whole:,}{f'.{rest:0{digits}}' if digits else ''} {currency.upper()}"
