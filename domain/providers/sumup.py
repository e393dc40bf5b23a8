"""SumUp's hosted checkout, through the official SDK, for the platform's account or an organiser's.

Facts about the API behind each choice are in docs/payments.md. Everything that leaves this module is a
`Report` or a `ProviderError`: no object of SumUp's, and no exception of the SDK.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from typing import Any

from sumup.errors import APIError
from sumup.events import SIGNATURE_HEADER, EventPayloadError, EventSignatureError, verify_event_signature
from sumup.types import CheckoutSuccess as Checkout
from sumup.types import CheckoutSuccessTransaction as Attempt
from sumup.types import TransactionFull, TransactionHistory

from config import Settings
from domain import epochs, money
from domain.providers import sumup_history
from domain.providers.contract import (
    Abilities,
    Anothers,
    BadSignature,
    Credentials,
    Decline,
    DisputeReport,
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
from domain.providers.sumup_line import ApiKey, Conflict, Line, answered

CURRENCIES = frozenset(
    ["BRL", "CHF", "CLP", "COP", "CZK", "DKK", "EUR", "GBP", "HUF", "NOK", "PLN", "RON", "SEK", "USD"]
)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# How the description begins that `params` gives a checkout: SumUp keeps it with the transaction.
_ORDER_CODE = re.compile(r"ORD-[A-Z0-9]{8}(?=:)")
# An order that was paid again and again has more attempts than anybody makes.
_ATTEMPTS_LOOKED_FOR = 5
_DUPLICATED = "DUPLICATED_CHECKOUT"
# An attempt that took money; what became of the money later is told by the transaction's events.
_TAKEN = ("SUCCESSFUL", "REFUNDED", "CHARGE_BACK")
_REFUSED = ("FAILED", "CANCELLED")
_CARD_REFUSED = "The card was refused."
_REFUND_STATES = {
    "PENDING": "pending",
    "SCHEDULED": "pending",
    "RECONCILED": "pending",
    "REFUNDED": "succeeded",
    "SUCCESSFUL": "succeeded",
    "PAID_OUT": "succeeded",
    "FAILED": "failed",
}
_DISPUTE_STATES = {"PENDING": "open", "SCHEDULED": "open", "FAILED": "won"}
# These tell nothing new of a payment that is known to be paid.
_ONLY_OF_PAYING = frozenset({"checkouts.created", "checkouts.paid"})
_UNSIGNED_TYPE = "CHECKOUT_STATUS_CHANGED"


def build(settings: Settings, account: str = "", credentials: Credentials | None = None) -> SumUpProvider:
    """The adapter of the platform's own account, or of an organiser's, for which `credentials` speak."""
    return SumUpProvider(settings, account, credentials)


class SumUpProvider:
    """See `domain.providers.Provider`; the account is a merchant code."""

    name = "sumup"
    label = "SumUp"
    methods: tuple[str, ...] = ("sumup",)
    can = Abilities()
    immediate = False
    connects = True
    pending_alert = True
    keeps_refund_keys = False

    def __init__(self, settings: Settings, account: str, credentials: Credentials | None) -> None:
        self.account = account or settings.sumup_merchant_code
        self.livemode = settings.livemode
        self._site = settings.public_url
        self.open_minutes = settings.max_poll_duration_minutes
        self.ready = settings.sumup_ready if credentials is None else settings.sumup_connects
        # Unsigned rings need nothing but an address, so it rings wherever anybody can be paid.
        self.rings = settings.sumup_ready or settings.sumup_connects
        self._webhook_secret = settings.sumup_webhook_secret
        credentials = credentials or ApiKey(settings.sumup_api_key)
        self._line = Line(settings.sumup_api_base, self.account, credentials, settings.sumup_rate_per_second)

    def presents(self, method: str) -> Presentation:
        return Presentation.PAGE

    def supports(self, currency: str) -> bool:
        return currency in CURRENCIES

    def minimum_minor(self, currency: str) -> int:
        """One whole unit: SumUp publishes no least amount, and refuses by itself where its own is higher."""
        least: int = 10 ** money.decimals(currency)
        return least

    def params(self, purchase: Purchase) -> dict[str, Any]:
        if len(purchase.reference) > 64:
            raise ValueError("SumUp keeps references of at most 64 characters.")
        items = ", ".join(f"{line.quantity} × {line.name}" for line in purchase.lines)
        return {
            "checkout_reference": purchase.reference,
            # JSON has no other number. Its noise, if any, is rounded away again where it is read.
            "amount": float(money.to_major(purchase.amount_minor, purchase.currency)),
            "currency": purchase.currency,
            "merchant_code": self.account,
            "description": f"{purchase.order_code}: {items}"[:150],
            "hosted_checkout": {"enabled": True},
            "redirect_url": purchase.return_url,
            "return_url": purchase.doorbell_url,
            "valid_until": purchase.closes_at.astimezone(UTC).isoformat(timespec="seconds"),
        }

    def create(self, params: dict[str, Any], key: str, *, patient: bool = False) -> Report:
        """There are no keys; the reference is unique, and what was made under it before is adopted."""
        reference = str(params["checkout_reference"])
        # The worker makes this call only after one whose answer was lost: it looks before it asks again.
        made = self._made(reference, patient=True) if patient else None
        if made is not None:
            return made
        try:
            opened = self._line.write(
                lambda sdk, headers: sdk.checkouts.create(**params, headers=headers), patient=patient
            )
        except ProviderError as error:
            known = error.code == _DUPLICATED
            made = (
                self._made(reference, patient=patient) if known or patient and not error.permanent else None
            )
            if made is not None:
                return made
            if known:
                # It is there and cannot be seen yet: asked again, it will be.
                raise ProviderError(str(error), permanent=False, code=_DUPLICATED) from error
            raise
        with answered():
            return self._report(Checkout.model_validate(opened.model_dump()))

    def find(self, reference: str, since: datetime, *, patient: bool = True) -> Report | None:
        return self._made(reference, patient=patient)

    def fetch(self, provider_id: str, *, patient: bool = False, thorough: bool = False) -> Report:
        """One call, and where it is paid a second one: a checkout never shows what was given back."""
        checkout = self._read(provider_id, patient)
        with answered():
            report = self._report(checkout)
        if report.charge_id is None:
            return report
        try:
            full = self._transaction(report.charge_id, patient)
            with answered():
                refunds, disputes = _refunds(full, report.currency), _disputes(full, report.currency)
        except ProviderError as error:
            if thorough or isinstance(error, Anothers):
                raise
            # That it was paid is told already; somebody's tickets do not wait for what nobody asked.
            return replace(report, incomplete=True)
        named = _ORDER_CODE.match(full.product_summary or "")
        card = (full.card.last_4_digits if full.card is not None else "") or ""
        told = replace(report, refunds=refunds, disputes=disputes, last_four=card[-4:])
        return replace(told, charge_for=named[0] if named else "")

    def pages(self, since: datetime, until: datetime) -> Iterator[list[Report]] | None:
        """SumUp lists an account's transactions, which know no reference, and no checkouts by time."""
        return None

    def happened(self, since: datetime, until: datetime) -> Iterator[Told]:
        def ask(query: dict[str, Any]) -> Any:
            return self._line.read(
                lambda sdk, headers: sdk.transactions.list(self.account, **query, headers=headers),
                patient=True,
            )

        def read(item: TransactionHistory, since: datetime) -> Happening | None:
            named = _ORDER_CODE.match(item.product_summary or "")
            if named is None or item.payment_type not in (None, "ECOM"):
                return None
            with answered():
                return sumup_history.read(item, since, named[0], _minor)

        return sumup_history.happened(ask, read, since, until)

    def behind(self, happening: Happening) -> Report | None:
        """The checkout that took the money, looked for by the references that an order's attempts have.

        Another Kassa may use the account: where its address stands in the checkout, the money is not ours.
        """
        attempts = range(1, _ATTEMPTS_LOOKED_FOR + 1)
        for attempt, mark in product(attempts, epochs.marks()):
            reference = f"{happening.name}-{attempt}{mark}"
            for checkout in self._listed(reference, patient=True):
                if any(each.id in happening.charges for each in checkout.transactions or []):
                    if checkout.return_url and not checkout.return_url.startswith(f"{self._site}/"):
                        return None
                    return self.fetch(str(checkout.id), patient=True, thorough=True)
        return self._of_transaction(happening)

    def _of_transaction(self, happening: Happening) -> Report | None:
        """A report from the transaction alone, where its checkout is not to be found."""
        full = self._transaction(happening.handle, patient=True)
        with answered():
            if full.status not in _TAKEN:
                return None
            currency = str(_said(full.currency, "currency"))
            return Report(
                provider=self.name,
                provider_id=happening.handle,
                state="paid",
                amount_minor=_minor(_said(full.amount, "amount"), currency),
                currency=currency,
                reference=happening.name,
                account=self.account,
                livemode=self.livemode,
                created_at=_aware(full.timestamp),
                charge_id=happening.handle,
                refunds=_refunds(full, currency),
                disputes=_disputes(full, currency),
                raw={"transaction": full.id, "status": full.status, "summary": full.product_summary},
            )

    def close(self, provider_id: str, key: str, *, patient: bool = False) -> Report:
        checked = _checked(provider_id)
        # 409: somebody is paying, or it is final already, as the next reading shows.
        with suppress(Conflict):
            self._line.read(
                lambda sdk, headers: sdk.checkouts.deactivate(checked, headers=headers), patient=patient
            )
        checkout = self._read(provider_id, patient)
        with answered():
            return self._report(checkout, closed=True)

    def refund(self, provider_id: str, amount_minor: int, key: str, *, patient: bool = False) -> RefundReport:
        with before_asking():
            charge, currency = self._charge(provider_id, patient)
        if charge is None:
            raise ProviderError("The checkout was not paid.", permanent=True, code="not_paid")
        amount = float(money.to_major(amount_minor, currency))

        def ask(sdk: Any, headers: Mapping[str, str]) -> None:
            try:
                sdk.transactions.refund(self.account, charge, amount=amount, headers=headers)
            except APIError as error:
                # 204 is the older form of success, which the SDK takes for a failure.
                if error.status != 204:
                    raise

        self._line.write(ask, patient=patient)
        return RefundReport("", amount_minor, currency, "succeeded")

    def find_refund(self, provider_id: str, key: str) -> RefundReport | None:
        raise ProviderError("SumUp keeps no keys of ours.", permanent=True, code="no_keys")

    def refunded_minor(self, provider_id: str, *, patient: bool = False) -> int:
        charge, currency = self._charge(provider_id, patient)
        if charge is None:
            return 0
        full = self._transaction(charge, patient)
        with answered():
            made = _refunds(full, currency)
            return sum(refund.amount_minor for refund in made if refund.state != "failed")

    def health(self) -> Mapping[str, Any]:
        merchant = self._line.read(
            lambda sdk, headers: sdk.merchants.get(self.account, headers=headers), patient=False
        )
        return {
            "account": merchant.merchant_code,
            "mode": "live" if self.livemode else "test",
            # Whether SumUp says that this is an account for tests; None where it says nothing.
            "test_account": merchant.sandbox,
            "country": merchant.country,
            "currency": merchant.default_currency,
            "webhook_secret": bool(self._webhook_secret),
        }

    def ring(self, body: bytes, headers: Mapping[str, str]) -> Ring:
        """SumUp's calls to a return_url are unsigned; its signed events have a secret and an envelope."""
        signature = headers.get(SIGNATURE_HEADER.lower())
        signed = signature is not None and bool(self._webhook_secret)
        try:
            if signed:
                verify_event_signature(self._webhook_secret, body, signature)
            event = json.loads(body)
            return _signed_ring(event) if signed else _unsigned_ring(event)
        except (
            EventSignatureError,
            EventPayloadError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            raise BadSignature(type(error).__name__) from error

    def _made(self, reference: str, *, patient: bool) -> Report | None:
        """What was opened under our reference at this account."""
        ours = self._listed(reference, patient=patient)
        if not ours:
            return None
        # A reference is unique for an account. Were it not, the one that was paid would be ours.
        chosen = next((checkout for checkout in ours if checkout.status == "PAID"), ours[-1])
        return self.fetch(str(chosen.id), patient=patient)

    def _listed(self, reference: str, *, patient: bool) -> list[Checkout]:
        listed = self._line.read(
            lambda sdk, headers: sdk.checkouts.list(checkout_reference=reference, headers=headers),
            patient=patient,
        )
        return [checkout for checkout in listed if checkout.checkout_reference == reference]

    def _read(self, provider_id: str, patient: bool) -> Checkout:
        checked = _checked(provider_id)
        read = self._line.read(
            lambda sdk, headers: sdk.checkouts.get(checked, headers=headers), patient=patient
        )
        if read.id != checked:
            raise Anothers(f"its id is {read.id}, not {checked}")
        return read

    def _charge(self, provider_id: str, patient: bool) -> tuple[str | None, str]:
        """The transaction that paid a checkout, if one did, and the currency."""
        checkout = self._read(provider_id, patient)
        with answered():
            report = self._report(checkout)
        return report.charge_id, report.currency

    def _transaction(self, charge: str, patient: bool) -> TransactionFull:
        try:
            full = self._line.read(
                lambda sdk, headers: sdk.transactions.get(self.account, id=charge, headers=headers),
                patient=patient,
            )
        except Missing as error:
            # The checkout names it, so it is only not to be seen yet.
            raise ProviderError(str(error), permanent=False, code="transaction_missing") from error
        if full.id != charge:
            raise Anothers(f"its transaction is {full.id}, not {charge}")
        return full

    def _report(self, checkout: Checkout, *, closed: bool = False) -> Report:
        """What a checkout says, in our words. Raises ValueError where it does not say what is needed."""
        currency = str(_said(checkout.currency, "currency"))
        asked = _minor(_said(checkout.amount, "amount"), currency)
        attempts = checkout.transactions or []
        taken = [attempt for attempt in attempts if attempt.status in _TAKEN]
        state, reason = _state(checkout, attempts, taken, closed=closed)
        reference = str(_said(checkout.checkout_reference, "reference"))
        account = str(_said(checkout.merchant_code, "merchant code"))
        amount = asked
        if state == "paid":
            # What was taken counts: nothing without proof, and all of it where it was taken twice.
            amount = sum(_minor(_said(attempt.amount, "amount"), currency) for attempt in taken)
            currency = _other(currency, (attempt.currency for attempt in taken))
            account = _other(account, (attempt.merchant_code for attempt in taken))
            odd = _contradiction(checkout, taken, asked, amount)
            reference = f"{reference} ({odd})" if odd else reference
        return Report(
            provider=self.name,
            provider_id=str(_said(checkout.id, "id")),
            state=state,
            amount_minor=amount,
            currency=currency,
            reference=reference,
            account=account,
            livemode=self.livemode,
            created_at=_aware(checkout.date),
            expires_at=_aware(checkout.valid_until),
            url=checkout.hosted_checkout_url if state == "open" else None,
            charge_id=taken[0].id if state == "paid" and len(taken) == 1 else None,
            paid_at=_aware(taken[0].timestamp) if state == "paid" and taken else None,
            reason=reason,
            reason_code=Reason.CARD_REFUSED if reason else "",
            declines=_declines(attempts) if state != "paid" else (),
            raw=_evidence(checkout, attempts),
        )


def _state(
    checkout: Checkout, attempts: Sequence[Attempt], taken: Sequence[Attempt], *, closed: bool
) -> tuple[str, str]:
    """Our word for the status of a checkout and its attempts, and the reason where an attempt failed."""
    status = checkout.status
    if status == "PAID" or status == "EXPIRED" and taken:
        return "paid", ""
    failed = [attempt for attempt in attempts if attempt.status in _REFUSED]
    reason = _CARD_REFUSED if failed or status == "FAILED" else ""
    if status == "EXPIRED":
        return ("failed", reason) if failed else ("expired", "")
    if status not in ("PENDING", "FAILED"):
        raise ValueError(f"unknown status {str(status)[:40]!r}")
    if taken:
        # The money is there, and the checkout does not say so yet.
        return "processing", ""
    # FAILED is the word for the latest attempt; another may be made until the checkout is closed.
    return "failed" if status == "FAILED" and closed else "open", reason


def _declines(attempts: Sequence[Attempt]) -> tuple[Decline, ...]:
    """Each refused attempt, by its transaction's id; SumUp does not say why."""
    refused = [attempt for attempt in attempts if attempt.status in _REFUSED]
    return tuple(Decline(str(attempt.id or ""), Reason.CARD_REFUSED, _CARD_REFUSED) for attempt in refused)


def _contradiction(checkout: Checkout, taken: Sequence[Attempt], asked: int, amount: int) -> str:
    """In which way a paid checkout and its transactions say different things; "" where they agree.

    It is added to the reference, so that no such report matches a payment, whichever side is right.
    """
    if checkout.status != "PAID":
        return f"status {checkout.status}, with a successful transaction"
    if len(taken) == 1 and checkout.transaction_id not in (None, taken[0].id):
        return "another transaction is named as the successful one"
    if len(taken) == 1 and asked != amount:
        return "another amount was asked for than was taken"
    return ""


def _other(ours: Any, theirs: Iterable[Any]) -> Any:
    """The first of `theirs` that says something else than `ours`; `ours` where none does."""
    return next((value for value in theirs if value not in (None, ours)), ours)


def _refunds(full: TransactionFull, currency: str) -> tuple[RefundReport, ...]:
    """Raises ValueError where money went back, and it does not say how much."""
    made = tuple(
        RefundReport(
            provider_id=name,
            amount_minor=abs(_minor(amount, currency)),
            currency=currency,
            state=_REFUND_STATES[status],
            reason="SumUp could not make the refund." if status == "FAILED" else "",
        )
        for name, amount, status in _events(full, "REFUND")
    )
    if not made and "REFUNDED" in (full.status, full.simple_status):
        raise ValueError("money went back, and it does not say how much")
    return made


def _disputes(full: TransactionFull, currency: str) -> tuple[DisputeReport, ...]:
    """A chargeback is told as what it did: the money is gone, unless its event is pending or failed."""
    return tuple(
        DisputeReport(
            provider_id=name,
            amount_minor=abs(_minor(amount, currency)),
            currency=currency,
            state=_DISPUTE_STATES.get(status, "lost"),
            status=status,
        )
        for name, amount, status in _events(full, "CHARGE_BACK")
    )


def _events(full: TransactionFull, kind: str) -> list[tuple[str, float, str]]:
    """Name, amount and status of a transaction's events of one kind, from whichever list has them."""
    detailed = [event for event in full.transaction_events or [] if event.event_type == kind]
    compact = [event for event in full.events or [] if event.type == kind]
    told = detailed if len(detailed) >= len(compact) else compact
    return [
        (
            f"{full.id}:{number if event.id is None else event.id}",
            float(_said(event.amount, "amount of an event")),
            str(_said(event.status, "status of an event")),
        )
        for number, event in enumerate(told, 1)
    ]


def _signed_ring(event: Mapping[str, Any]) -> Ring:
    kind, thing = told_name(event["type"], 100), told_name(event["object"]["id"])
    return Ring(
        event_id=told_name(event["id"]),
        type=kind,
        object_id=thing,
        provider_id=thing if kind.startswith("checkouts.") else None,
        only_of_paying=kind in _ONLY_OF_PAYING,
    )


def _unsigned_ring(event: Mapping[str, Any]) -> Ring:
    """A call to the return_url; or a signed event where we have no secret, which is worth no more."""
    if "object" in event:
        return replace(_signed_ring(event), event_id="", only_of_paying=False)
    kind, thing = told_name(event["event_type"], 100), told_name(event["id"])
    return Ring("", kind, thing, provider_id=thing if kind == _UNSIGNED_TYPE else None)


def _checked(provider_id: str) -> str:
    """The id, which is safe to be put into an address."""
    if not _ID.fullmatch(provider_id):
        raise Missing("That is not the id of a checkout.")
    return provider_id


def _said(value: Any, name: str) -> Any:
    """A field that everything hangs on: in the SDK all of them are optional."""
    if value is None or value == "":
        raise ValueError(f"it has no {name}")
    return value


def _minor(amount: float, currency: str) -> int:
    """Minor units of what came as a JSON float: 0.30000000000000004 is 0.30, and 0.304 is no amount."""
    exact = Decimal(str(amount))
    if not exact.is_finite():
        raise ValueError("an amount is not a number")
    rounded = exact.quantize(Decimal(1).scaleb(-money.decimals(currency)))
    if abs(exact - rounded) > Decimal("0.000001"):
        raise ValueError(f"{exact} is not an amount of {currency}")
    return int(rounded.scaleb(money.decimals(currency)))


def _aware(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _evidence(checkout: Checkout, attempts: Sequence[Attempt]) -> dict[str, Any]:
    names = ("id", "status", "amount", "currency", "checkout_reference", "merchant_code", "transaction_id")
    return {name: getattr(checkout, name) for name in names} | {
        "transactions": [
            {name: getattr(attempt, name) for name in ("id", "status", "amount", "currency")}
            for attempt in attempts
        ]
    }
