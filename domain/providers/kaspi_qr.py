"""Kaspi's QR API in its three forms: r1 by a key, r2 by a certificate, r3 by a certificate and a BIN.

The API counts in tenge, our books in tiyn: `_tenge` and `_tiyn` are the only places where one becomes the
other. Facts and how sure they are stand in docs/kaspi.md. Nothing can be closed or searched there, and no key
of ours is kept: so a create is made once, and its lost answer is an error that is not `undone`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from config import Settings
from domain import clock
from domain.providers.contract import (
    Abilities,
    Anothers,
    BadSignature,
    Happening,
    Missing,
    Presentation,
    ProviderError,
    Purchase,
    RefundReport,
    Report,
    Ring,
    Told,
    before_asking,
    told_name,
)
from domain.providers.failure_reasons import Reason
from domain.providers.kaspi_line import Line, answered

CURRENCY = "KZT"
# A tenge in tiyn.
_TENGE = 100
# Almaty's time since March 2024: the API's times name it, or no zone at all.
_ALMATY = timezone(timedelta(hours=5))
# Who has scanned the code has so long to confirm, by the samples that are known.
_CONFIRMATION = timedelta(seconds=65)
_ID = re.compile(r"[1-9][0-9]{0,19}")
# The words that several programs agree on.
_STATES = {
    "QrTokenCreated": "open",
    "RemotePaymentCreated": "open",
    "Wait": "processing",
    "Processed": "paid",
    "Error": "failed",
}
# Words of Kaspi's own app, and of single programs. They sound like an end, or like a beginning, and nobody
# can say that the QR API means the same by them: the code's end and a last reading decide.
_UNSURE = frozenset(
    {"Creating", "QrTokenScanned", "CancelledByUser", "Rejected", "InsufficientFunds"}
    | {"Expired", "Timeout", "QrTokenDiscarded"}
)
# No time of a payment is in another: a database keeps some of those, and cannot give them back.
_YEARS = range(2000, 9000)
_NOT_MADE = "Kaspi did not make the payment."
# The fields by which a callback may name a payment; no contract of it is public.
_RUNG_BY = ("QrPaymentId", "PaymentId", "qrPaymentId", "paymentId")
_RUNG_BY_OURS = ("ExternalId", "externalId")


class KaspiQr:
    """See `domain.providers.Provider`; the account is the BIN, or the trade point, of the settings."""

    name = "kaspi"
    label = "Kaspi QR"
    methods: tuple[str, ...] = ("kaspi_qr",)
    immediate = False
    connects = False
    pending_alert = False
    keeps_refund_keys = False

    def __init__(self, settings: Settings) -> None:
        self.account = settings.kaspi_account
        self.livemode = settings.kaspi_livemode
        self.open_minutes = settings.kaspi_session_minutes
        self.ready = self.rings = settings.kaspi_connects
        self.can = Abilities(
            close=False,
            # r2's refunds begin with a code that the customer scans: that is for a person, not for a call.
            refund=settings.kaspi_mode == "r3",
            search=False,
            lingers=_CONFIRMATION + timedelta(minutes=settings.kaspi_grace_minutes),
        )
        self._tells_returns = settings.kaspi_mode in ("r2", "r3")
        self._mode = settings.kaspi_mode
        self._via = settings.kaspi_create
        self._bin = settings.kaspi_bin
        self._trade_point, self._device_id = settings.kaspi_trade_point, settings.kaspi_device_id
        self._device_token = settings.kaspi_device_token
        self._lives = timedelta(minutes=settings.kaspi_qr_minutes)
        self._tiyn_too = settings.kaspi_allow_tiyn
        self._states = _STATES | dict(settings.kaspi_status_map)
        self._line = Line(settings, self.account)

    def presents(self, method: str) -> Presentation:
        return Presentation.QR

    def supports(self, currency: str) -> bool:
        return currency == CURRENCY

    def minimum_minor(self, currency: str) -> int:
        """One tenge: Kaspi's own least amount is not known, and it refuses what is below."""
        return _TENGE

    def step_minor(self, currency: str) -> int:
        """Whole tenge, unless the operator knows that their contract takes tiyn."""
        return 1 if self._tiyn_too else _TENGE

    def params(self, purchase: Purchase) -> dict[str, Any]:
        """The device's token is not among them: a call made later goes by the one that is right then."""
        if purchase.currency != CURRENCY:
            raise ValueError(f"Kaspi takes {CURRENCY}, and this is {purchase.currency}.")
        return {
            "via": self._via,
            "Amount": self._tenge(purchase.amount_minor),
            "ExternalId": purchase.reference,
        }

    def create(self, params: dict[str, Any], key: str, *, patient: bool = False) -> Report:
        """One call, however long the caller could wait: nothing tells a second one from another payment."""
        wanted = {"Amount": params["Amount"], "ExternalId": params["ExternalId"]}
        path = "qr/create-link" if params["via"] == "link" else "qr/create"
        data = self._line.write(f"v01/{path}", self._ours(wanted), patient=patient)
        with answered():
            url = data.get("PaymentLink") or data["QrToken"]
            return Report(
                provider=self.name,
                provider_id=_known(data.get("QrPaymentId") or data["PaymentId"]),
                state="open",
                # What was asked for, by the parameters of the call that this is the answer to.
                amount_minor=_tiyn(params["Amount"]),
                currency=CURRENCY,
                reference=str(params["ExternalId"]),
                account=self.account,
                livemode=self.livemode,
                expires_at=self._end(data.get("ExpireDate")),
                url=_drawable(url),
                raw={"status": "QrTokenCreated", "expires": str(data.get("ExpireDate") or "")},
            )

    def find(self, reference: str, since: datetime, *, patient: bool = True) -> Report | None:
        raise ProviderError(
            "Kaspi cannot be asked whether a payment was made.", permanent=False, code="cannot_search"
        )

    def fetch(self, provider_id: str, *, patient: bool = False, thorough: bool = False) -> Report:
        """One call, and where it is paid a second one for what went back, if this form of the API has it."""
        checked = _checked(provider_id)
        data = self._line.read(f"v02/payment/status/{checked}", patient=patient)
        with answered():
            _about(data, checked)
            report = self._report(checked, data)
        if report.state != "paid" or not self._tells_returns:
            return report
        try:
            return self._with_returns(report, patient)
        except ProviderError as error:
            if thorough or isinstance(error, Anothers) or "amount" in report.untold:
                raise
            # That it was paid is told already; somebody's tickets do not wait for what nobody asked.
            return replace(report, incomplete=True)

    def pages(self, since: datetime, until: datetime) -> Iterator[list[Report]] | None:
        return None

    def happened(self, since: datetime, until: datetime) -> Iterator[Told] | None:
        """The QR API has no list of what happened."""
        return None

    def behind(self, happening: Happening) -> Report | None:
        return None

    def close(self, provider_id: str, key: str, *, patient: bool = False) -> Report:
        """Nothing can be closed there. It is read, and what that says is all that there is to say."""
        return self.fetch(provider_id, patient=patient)

    def refund(self, provider_id: str, amount_minor: int, key: str, *, patient: bool = False) -> RefundReport:
        with before_asking():
            if not self.can.refund:
                words = "Kaspi gives money back in its app only, in the form of its API that is used here."
                raise ProviderError(words, permanent=True, code="not_by_call")
            # Whose money it is, and that it is paid, is read first: a return's answer names no payment.
            self._details(provider_id, patient=patient)
            amount = self._whole(amount_minor)
        wanted = {"QrPaymentId": int(_checked(provider_id)), "Amount": amount}
        data = self._line.write("v01/payment/return", self._ours(wanted), patient=patient)
        with answered():
            name = f"{provider_id}-{_named(data['ReturnOperationId'])}"
        return RefundReport(name, amount_minor, CURRENCY, "succeeded")

    def find_refund(self, provider_id: str, key: str) -> RefundReport | None:
        raise ProviderError("Kaspi keeps no keys of ours.", permanent=True, code="no_keys")

    def refunded_minor(self, provider_id: str, *, patient: bool = False) -> int:
        if not self._tells_returns:
            words = "Kaspi does not tell what went back in the form of its API that is used here."
            raise ProviderError(words, permanent=True, code="not_told")
        total, left, _ = self._details(provider_id, patient=patient)
        return total - left

    def health(self) -> Mapping[str, Any]:
        """The account's trade points, and until when the certificate is good."""
        points = self.trade_points()
        facts: dict[str, Any] = {
            "account": self.account,
            "mode": "live" if self.livemode else "test",
            "form": self._mode,
            "trade_points": len(points),
            # Its callbacks, should there be any, are not signed.
            "webhook_secret": False,
        }
        if self._trade_point:
            facts["trade_point_known"] = self._trade_point in points
        ends_at = self._line.identity().ends_at
        if ends_at is not None:
            facts["certificate_ends"] = ends_at.date().isoformat()
        return facts

    def trade_points(self) -> Mapping[str, str]:
        """See `domain.providers.contract.Devices`."""
        suffix = f"/{self._bin}" if self._mode == "r3" else ""
        data = self._line.read(f"v01/partner/tradepoints{suffix}", patient=False)
        with answered():
            return {str(point["TradePointId"]): str(point.get("TradePointName") or "") for point in data}

    def register_device(self) -> str:
        """See `domain.providers.contract.Devices`."""
        if not self._trade_point or not self._device_id:
            words = "Set KASPI_TRADE_POINT and KASPI_DEVICE_ID first: a device is registered under both."
            raise ProviderError(words, permanent=True, code="not_configured", undone=True)
        wanted: dict[str, Any] = {"DeviceId": self._device_id, "TradePointId": _number(self._trade_point)}
        if self._mode == "r3":
            wanted["OrganizationBin"] = self._bin
        data = self._line.write("v01/device/register", wanted, patient=False)
        with answered():
            return _named(data["DeviceToken"])

    def ring(self, body: bytes, headers: Mapping[str, str]) -> Ring:
        """A callback, should there be one: not signed, so that it is believed nothing and makes us ask."""
        try:
            event = json.loads(body)
            known = next((event[name] for name in _RUNG_BY if event.get(name)), None)
            ours = next((event[name] for name in _RUNG_BY_OURS if event.get(name)), None)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise BadSignature(type(error).__name__) from error
        if known is not None:
            name = told_name(str(known) if isinstance(known, int) else known, 20)
            return Ring("", "payment", name, provider_id=name)
        name = told_name(ours)
        return Ring("", "payment", name, reference=name)

    def _end(self, told: Any) -> datetime:
        """Until when a new code can be scanned. An end that is over already is one by another clock."""
        moment, now = _moment(told), clock.now()
        return moment if moment is not None and moment > now else now + self._lives

    def _ours(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """The body of a call, with what says for whom it is."""
        body = {"DeviceToken": self._device_token, **wanted}
        return body | {"OrganizationBin": self._bin} if self._mode == "r3" else body

    def _report(self, provider_id: str, data: Mapping[str, Any]) -> Report:
        """What a status says, in our words. Raises ValueError where it says none."""
        status = data["Status"]
        if not isinstance(status, str) or not status:
            raise ValueError("it has no status")
        state = self._states.get(status, "open" if status in _UNSURE else "processing")
        # Before it is paid, what the answer has for an amount may be anything, or nothing.
        amount = _tiyn(data["Amount"]) if state == "paid" and data.get("Amount") else 0
        untold = {"reference"} if amount else {"reference", "amount"}
        return Report(
            provider=self.name,
            provider_id=provider_id,
            state=state,
            amount_minor=amount,
            currency=CURRENCY,
            reference="",
            account=self.account,
            livemode=self.livemode,
            charge_id=provider_id if state == "paid" else None,
            reason=_NOT_MADE if state == "failed" else "",
            reason_code=Reason.BANK_REFUSED if state == "failed" else "",
            untold=frozenset(untold),
            raw=_evidence(data),
        )

    def _with_returns(self, report: Report, patient: bool) -> Report:
        """The report with what went back, and with the amount where the status has none."""
        total, left, paid_at = self._details(report.provider_id, patient=patient)
        told = replace(
            report,
            amount_minor=total,
            untold=report.untold - {"amount"},
            paid_at=paid_at,
            refunded_minor=total - left,
            raw={**report.raw, "total_minor": total, "left_minor": left},
        )
        if "amount" in report.untold or report.amount_minor == total:
            return told
        # Two answers about one payment say different things: no payment of ours is called so.
        odd = f"({report.amount_minor} tiyn by its status, {total} by its details)"
        return replace(told, reference=odd, untold=frozenset())

    def _details(self, provider_id: str, *, patient: bool) -> tuple[int, int, datetime | None]:
        """A paid payment's total, what of it could still go back, in tiyn, and when it was paid."""
        checked = _checked(provider_id)
        query = {"QrPaymentId": checked, "DeviceToken": self._device_token}
        data = self._line.read("v01/payment/details", patient=patient, query=query)
        with answered():
            _about(data, checked)
            total, left = _tiyn(data["TotalAmount"]), _tiyn(data["AvailableReturnAmount"])
            if not 0 <= left <= total:
                raise ValueError("more could go back than was paid")
            return total, left, _moment(data.get("TransactionDate"))

    def _tenge(self, minor: int) -> int | float:
        """An amount as the API takes it. ValueError where it has tiyn, and may not."""
        whole, tiyn = divmod(minor, _TENGE)
        if not tiyn:
            return whole
        if not self._tiyn_too:
            raise ValueError("Kaspi takes whole tenge.")
        return float(Decimal(minor) / _TENGE)

    def _whole(self, minor: int) -> int | float:
        try:
            return self._tenge(minor)
        except ValueError as error:
            raise ProviderError(str(error), permanent=True, code="not_in_steps") from error


def _tiyn(tenge: Any) -> int:
    """An amount of the API in our minor units. Raises ValueError for what is no amount of tenge."""
    if isinstance(tenge, bool) or not isinstance(tenge, int | float | Decimal):
        raise ValueError("an amount is not a number")
    exact = Decimal(str(tenge)) * _TENGE
    if not exact.is_finite() or exact != exact.to_integral_value() or exact < 0:
        raise ValueError("an amount is not one of tenge")
    return int(exact)


def _checked(provider_id: str) -> str:
    """The id, which is safe to be put into an address."""
    if not _ID.fullmatch(provider_id):
        raise Missing("That is not the id of a payment at Kaspi.")
    return provider_id


def _known(value: Any) -> str:
    """The id of a new payment, by which alone it can be asked about. Raises ValueError where it is none."""
    name = str(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or not _ID.fullmatch(name):
        raise ValueError("it has no id")
    return name


def _about(data: Any, provider_id: str) -> None:
    """Raise Anothers where an answer says that it is about another payment; a status does not say."""
    told = data.get("QrPaymentId") or data.get("PaymentId")
    if told is not None and str(told) != provider_id:
        raise Anothers(f"its id is {str(told)[:40]}, not {provider_id}")


def _drawable(url: Any) -> str:
    """What the code says. Raises ValueError for what no code can say."""
    if not isinstance(url, str) or not 0 < len(url) <= 1000 or not url.isprintable():
        raise ValueError("it has nothing to be drawn as a code")
    return url


def _named(value: Any) -> str:
    """A number or a token that Kaspi gives. Raises ValueError where it is neither."""
    text = str(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or not 0 < len(text) <= 80:
        raise ValueError("it has no name")
    return text


def _number(text: str) -> int | str:
    """A trade point's number as the API has it; some accounts' are no numbers."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else text


def _moment(value: Any) -> datetime | None:
    """A time of Kaspi's, which is Almaty's where it names no zone; None where it is none that can be read."""
    if not isinstance(value, str) or not value:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    if moment.year not in _YEARS:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=_ALMATY)


def _evidence(data: Mapping[str, Any]) -> dict[str, Any]:
    """What an admin sees of a status: no code, and nobody's name."""
    names = {"Status": "status", "TransactionId": "transaction", "ProductType": "product", "Amount": "tenge"}
    kept = {ours: data.get(theirs) for theirs, ours in names.items() if data.get(theirs) is not None}
    return {ours: str(value)[:100] for ours, value in kept.items()}
