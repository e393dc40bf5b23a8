"""What Stripe takes: currencies, their smallest units, their smallest charges."""

from __future__ import annotations

import math

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
# Elsewhere about half a US dollar, in whole and decimal units by rates of November 2026.
_ABOUT = """
afn 35 all 46 amd 200 ang 0.9 aoa 460 ars 700 awg 0.9 azn 0.9 bam 0.9 bbd 1 bdt 60 bif 1500 bnd 0.7 bob
3.5 bwp 7 byn 1.7 bzd 1 cdf 1400 clp 480 cny 3.6 cop 2100 crc 260 cve 48 djf 89 dop 31 dzd 66 egp 24 etb
70 fjd 1.2 gel 1.4 gmd 36 gnf 4400 gtq 3.9 gyd 110 hnl 13 htg 66 idr 8300 ils 1.7 isk 63 jmd 80 kes 65
kgs 44 khr 2100 kmf 220 krw 700 kzt 260 lak 11000 lbp 45000 lkr 160 lrd 95 lsl 9 mad 4.6 mdl 9 mga 2300
mkd 27 mmk 1100 mnt 1800 mop 4 mur 23 mvr 8 mwk 870 mzn 32 nad 9 ngn 740 nio 19 npr 71 pen 1.8 pgk 2.1
php 29 pkr 150 pyg 3600 qar 1.9 rsd 51 rub 40 rwf 730 sar 1.9 sbd 4.1 scr 7 sle 12 sos 290 srd 19 szl 9
tjs 4.8 top 1.2 try 21 ttd 3.4 twd 16 tzs 1300 uah 21 uyu 20 uzs 6000 vnd 14000 vuv 61 wst 1.4 xaf 280
xcd 1.4 xof 280 xpf 51 yer 120 zar 9 zmw 12 bhd 0.19 jod 0.36 kwd 0.16 omr 0.2 tnd 1.5
"""
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
    least = _least(currency)
    if amount_minor < least:
        raise ApiError(
            f"{what} must be at least {show(least, currency)}", code="amount_too_small", param=param
        )
    if amount_minor > _MOST:
        raise ApiError(
            f"{what} must be no more than {show(_MOST, currency)}", code="amount_too_large", param=param
        )


def _least(currency: str) -> int:
    """The smallest charge, in minor units."""
    about = dict(zip(_ABOUT.split()[::2], _ABOUT.split()[1::2], strict=True))
    if currency in _LEAST_MINOR or currency not in about:
        return _LEAST_MINOR.get(currency, _LEAST_ELSEWHERE)
    return int(math.ceil(float(about[currency]) * float(10 ** _decimals(currency)) - 1e-9))


def _decimals(currency: str) -> int:
    return 0 if currency in _ZERO_DECIMAL else 3 if currency in _THREE_DECIMAL else 2


def show(amount_minor: int, currency: str) -> str:
    """An amount for a person: `12.50 EUR`."""
    digits = _decimals(currency)
    whole, rest = divmod(abs(amount_minor), 10**digits)
    sign = "-" if amount_minor < 0 else ""
    return f"{sign}{whole:,}{f'.{rest:0{digits}}' if digits else ''} {currency.upper()}"
