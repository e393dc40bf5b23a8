"""The smallest amounts that Stripe takes, by currency, so that no price is set which nobody could pay.

Stripe publishes some (docs.stripe.com/currencies, minimum charge amounts); elsewhere it is about half a US
dollar in that currency, judged by the rate of the day. Those are kept here by rates of November 2026, rounded
up: a price close to them is nobody's living, and where a rate has moved far, Stripe refuses by itself.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cache

from domain import money

_PUBLISHED = """
USD 0.50 EUR 0.50 CHF 0.50 CAD 0.50 AUD 0.50 NZD 0.50 SGD 0.50 BRL 0.50 INR 0.50 GBP 0.30 AED 2.00 BGN 1.00
CZK 15.00 DKK 2.50 HKD 4.00 HUF 175.00 JPY 50 MXN 10 MYR 2.00 NOK 3.00 SEK 3.00 PLN 2.00 RON 2.00 THB 10
"""
_ABOUT = """
AFN 35 ALL 46 AMD 200 ANG 0.9 AOA 460 ARS 700 AWG 0.9 AZN 0.9 BAM 0.9 BBD 1 BDT 60 BIF 1500 BND 0.7 BOB
3.5 BWP 7 BYN 1.7 BZD 1 CDF 1400 CLP 480 CNY 3.6 COP 2100 CRC 260 CVE 48 DJF 89 DOP 31 DZD 66 EGP 24 ETB
70 FJD 1.2 GEL 1.4 GMD 36 GNF 4400 GTQ 3.9 GYD 110 HNL 13 HTG 66 IDR 8300 ILS 1.7 ISK 63 JMD 80 KES 65
KGS 44 KHR 2100 KMF 220 KRW 700 KZT 260 LAK 11000 LBP 45000 LKR 160 LRD 95 LSL 9 MAD 4.6 MDL 9 MGA 2300
MKD 27 MMK 1100 MNT 1800 MOP 4 MUR 23 MVR 8 MWK 870 MZN 32 NAD 9 NGN 740 NIO 19 NPR 71 PEN 1.8 PGK 2.1
PHP 29 PKR 150 PYG 3600 QAR 1.9 RSD 51 RUB 40 RWF 730 SAR 1.9 SBD 4.1 SCR 7 SLE 12 SOS 290 SRD 19 SZL 9
TJS 4.8 TOP 1.2 TRY 21 TTD 3.4 TWD 16 TZS 1300 UAH 21 UYU 20 UZS 6000 VND 14000 VUV 61 WST 1.4 XAF 280
XCD 1.4 XOF 280 XPF 51 YER 120 ZAR 9 ZMW 12 BHD 0.19 JOD 0.36 KWD 0.16 OMR 0.2 TND 1.5
"""
_ELSEWHERE = Decimal("0.50")


@cache
def _least() -> dict[str, Decimal]:
    words = (_ABOUT + _PUBLISHED).split()
    return {currency: Decimal(amount) for currency, amount in zip(words[::2], words[1::2], strict=True)}


def least_minor(currency: str) -> int:
    """The smallest amount in minor units: published, or about half a US dollar, and never less than one."""
    exact = _least().get(currency, _ELSEWHERE).scaleb(money.decimals(currency))
    return max(1, int(exact.to_integral_value(rounding="ROUND_CEILING")))
