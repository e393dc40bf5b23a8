"""Stripe Checkout Sessions, through the official SDK.

Facts about the API behind each choice are in docs/payments.md. Everything that leaves this module is a
`Report` or a `ProviderError`: no Stripe object, and no exception of the SDK.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import stripe
from stripe import StripeClient

from config import STRIPE_OUTLIVES_MINUTES, Settings
from domain import clock
from domain.providers import bulkhead, stripe_amounts, stripe_history
from domain.providers.contract import (
    Abilities,
    Anothers,
    BadSignature,
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
    told_name,
)
from domain.providers.stripe_reasons import why
from domain.providers.throttle import Throttle, calls

stripe.enable_telemetry = False
_SESSION_ID = re.compile(r"cs_(test|live)_[A-Za-z0-9]{1,250}")
_EXPAND = ["payment_intent.latest_charge"]
_SIGNATURE_AGE = 300
# Stripe wants a session to live for 30 minutes from when it is made, by its own clock. It is asked to live so
# much longer than its order is kept: then a create whose answer was lost can be repeated unchanged until the
# hold ends, and a clock of ours that is slow does no harm. Kassa closes the session when the hold ends.
_OUTLIVES = timedelta(minutes=STRIPE_OUTLIVES_MINUTES)
# It refuses what is to live for more than a day. A hold may: one that a person has extended.
_LONGEST = timedelta(hours=24) - timedelta(minutes=1)
# Sessions are asked for by the SDK's raw request: an object for each part of an answer, which is then turned
# into plain data, cost more than all the rest of the call.
_SESSIONS = "/v1/checkout/sessions"
# The most that a page of a list holds, and in how many of them a lost create is looked for; in one alone
# while a person waits.
_PAGE = 100
_FIND_PAGES = 50
# A purchase rings up to six times. These tell nothing new of a payment that is known to be paid.
_ONLY_OF_PAYING = frozenset(
    {
        "checkout.session.completed",
        "checkout.session.async_payment_succeeded",
        "payment_intent.created",
        "payment_intent.processing",
        "payment_intent.succeeded",
        "charge.succeeded",
    }
)
_REFUND_STATES = {
    "pending": "pending",
    "requires_action": "pending",
    "succeeded": "succeeded",
    "failed": "failed",
    "canceled": "cancelled",
}
_DISPUTE_STATES = {"won": "won", "lost": "lost", "prevented": "won", "warning_closed": "won"}


def build(settings: Settings) -> StripeProvider:
    """The adapter for the keys in `settings`."""
    return StripeProvider(settings)


class StripeProvider:
    """See `domain.providers.Provider`; the account is always our own."""

    name = "stripe"
    label = "Card"
    methods: tuple[str, ...] = ("card",)
    can = Abilities()
    immediate = False
    connects = False
    pending_alert = False
    keeps_refund_keys = True
    account = "platform"

    def __init__(self, settings: Settings) -> None:
        self.livemode = settings.livemode
        self.open_minutes = settings.stripe_session_minutes
        self.ready = settings.stripe_ready
        self._webhook_secrets = settings.stripe_webhook_secrets
        self.rings = bool(self._webhook_secrets)
        self._site = settings.public_url
        rate = settings.stripe_rate_per_second
        # Stripe bears a quarter of the account's limit, and 25 at least, at one of its endpoints.
        self._throttle = Throttle(rate, f"{self.name}:{self.account}", kinds=max(25, rate // 4))
        base = {"api": settings.stripe_api_base} if settings.stripe_api_base else None

        def client(timeout: tuple[int, int], retries: int) -> StripeClient:
            return StripeClient(
                settings.stripe_secret_key or "sk_test_unset",
                base_addresses=cast(Any, base),
                max_network_retries=retries,
                http_client=stripe.RequestsClient(timeout=timeout),
            )

        # A person waits for the first: one attempt of 5 seconds. The second works in the background.
        self._quick = client((2, 5), 0)
        self._patient = client((3, 10), 1)

    def presents(self, method: str) -> Presentation:
        return Presentation.PAGE

    def supports(self, currency: str) -> bool:
        return len(currency) == 3

    def minimum_minor(self, currency: str) -> int:
        """Stripe's smallest charge; it refuses by itself where the account's own currency wants more."""
        return stripe_amounts.least_minor(currency)

    def params(self, purchase: Purchase) -> dict[str, Any]:
        metadata = {"order": purchase.order_code, "reference": purchase.reference, "site": self._site}
        currency = purchase.currency.lower()
        return {
            "mode": "payment",
            "line_items": [
                {
                    "quantity": line.quantity,
                    "price_data": {
                        "currency": currency,
                        "unit_amount": line.unit_minor,
                        "product_data": {"name": line.name[:250]},
                    },
                }
                for line in purchase.lines
            ],
            "client_reference_id": purchase.reference,
            "customer_email": purchase.email,
            "metadata": metadata,
            "payment_intent_data": {"metadata": metadata},
            "adaptive_pricing": {"enabled": False},
            "expires_at": int(min(purchase.closes_at + _OUTLIVES, clock.now() + _LONGEST).timestamp()),
            "success_url": purchase.success_url,
            "cancel_url": purchase.cancel_url,
        }

    def create(self, params: dict[str, Any], key: str, *, patient: bool = False) -> Report:
        with self._calling(patient) as client:
            made = client.raw_request("post", _SESSIONS, idempotency_key=key, **params)
            return self._report(made.data)

    def find(self, reference: str, since: datetime, *, patient: bool = True) -> Report | None:
        # Stripe's clock may be behind ours.
        first, last = since - timedelta(minutes=10), since + timedelta(hours=25)
        most = _FIND_PAGES if patient else 1
        for number, page in enumerate(self._pages(first, last, patient=patient), start=1):
            for report in page:
                if report.reference == reference:
                    return self.fetch(report.provider_id, patient=patient)
            # A page that is not full is the last one, and then the payment is certainly absent.
            if number >= most and len(page) == _PAGE:
                raise ProviderError("Too many sessions to look through.", permanent=False, code="too_many")
        return None

    def fetch(self, provider_id: str, *, patient: bool = False, thorough: bool = False) -> Report:
        if not _SESSION_ID.fullmatch(provider_id):
            raise Missing("That is not a Checkout Session id.")
        with self._calling(patient) as client:
            session = client.raw_request("get", f"{_SESSIONS}/{provider_id}", expand=_EXPAND).data
            report = self._report(session)
        _check_id(session, provider_id)
        intent = _object(session.get("payment_intent"))
        charge = _object(intent.get("latest_charge"))
        if thorough and intent or charge.get("refunded") or charge.get("amount_refunded"):
            report = replace(report, refunds=self._refunds(str(intent["id"]), patient))
        if thorough and intent or charge.get("disputed"):
            report = replace(report, disputes=self._disputes(str(intent["id"]), patient))
        return replace(report, incomplete=False)

    def declines(self, report: Report, *, patient: bool = False) -> tuple[Decline, ...]:
        """A session tells of the last one only; each attempt with a card left a charge of its intent."""
        intent = report.raw.get("payment_intent")
        if not intent:
            return report.declines
        with self._calling(patient) as client:
            page = client.v1.charges.list({"payment_intent": str(intent), "limit": _PAGE}).to_dict()
            failed = [charge for charge in reversed(page["data"]) if charge["status"] == "failed"]
            told = [Decline(str(charge["id"]), *why(charge)) for charge in failed]
        named = {decline.name for decline in told}
        return (*told, *(decline for decline in report.declines if decline.name not in named))

    def pages(self, since: datetime, until: datetime) -> Iterator[list[Report]]:
        """Newest first, a hundred a call. No status filter: a session that was just paid must be seen too."""
        return self._pages(since, until, patient=True)

    def _pages(self, since: datetime, until: datetime, *, patient: bool) -> Iterator[list[Report]]:
        params: dict[str, Any] = {
            "created": {"gte": int(since.timestamp()), "lte": int(until.timestamp()) + 1},
            "limit": _PAGE,
            "expand": ["data.payment_intent.latest_charge"],
        }
        while True:
            with self._calling(patient) as client:
                page = client.raw_request("get", _SESSIONS, **params).data
                reports = [self._report(session) for session in page["data"]]
            yield reports
            if not page["has_more"] or not reports:
                return
            params["starting_after"] = reports[-1].provider_id

    def happened(self, since: datetime, until: datetime) -> Iterator[Told]:
        def ask(path: str, params: dict[str, Any]) -> Mapping[str, Any]:
            with self._calling(True, path.rpartition("/")[2]) as client:
                page: Mapping[str, Any] = client.raw_request("get", path, **params).data
                return page

        def read(thing: Mapping[str, Any]) -> Happening | None:
            with _readable():
                return stripe_history.read(thing, self._site, _refund_report, _dispute_report)

        return stripe_history.happened(ask, read, since, until)

    def behind(self, happening: Happening) -> Report | None:
        with self._calling(patient=True) as client:
            page = client.raw_request("get", _SESSIONS, payment_intent=happening.handle, limit=1).data
            sessions = [str(session["id"]) for session in page["data"]]
        return self.fetch(sessions[0], patient=True, thorough=True) if sessions else None

    def close(self, provider_id: str, key: str, *, patient: bool = False) -> Report:
        try:
            with self._calling(patient) as client:
                client.v1.checkout.sessions.expire(provider_id, options={"idempotency_key": key})
        except ProviderError as error:
            # Only an open session can be expired. Another is final already, as the next reading shows.
            if not error.permanent or isinstance(error, Missing):
                raise
        return self.fetch(provider_id, patient=patient)

    def refund(self, provider_id: str, amount_minor: int, key: str, *, patient: bool = False) -> RefundReport:
        intent = self._intent(provider_id, patient)
        params = {"payment_intent": intent, "amount": amount_minor, "metadata": {"refund": key}}
        with self._calling(patient, "refunds") as client:
            made = client.v1.refunds.create(cast(Any, params), {"idempotency_key": key}).to_dict()
            _check_of([made], intent)
            refund = _refund_report(made)
        if refund.our_key != key:
            raise Anothers(f"the refund's key is {refund.our_key}, not {key}")
        return refund

    def find_refund(self, provider_id: str, key: str) -> RefundReport | None:
        made = self._refunds(self._intent(provider_id, patient=True), patient=True)
        return next((refund for refund in made if refund.our_key == key), None)

    def refunded_minor(self, provider_id: str, *, patient: bool = False) -> int:
        made = self._refunds(self._intent(provider_id, patient), patient)
        return sum(refund.amount_minor for refund in made if refund.state in ("pending", "succeeded"))

    def health(self) -> Mapping[str, Any]:
        with self._calling(False, "account") as client:
            account = client.v1.accounts.retrieve_current().to_dict()
        return {
            "account": account["id"],
            "mode": "live" if self.livemode else "test",
            "api_version": stripe.api_version,
            "country": account.get("country"),
            "charges_enabled": account.get("charges_enabled"),
            "webhook_secret": self.rings,
        }

    def ring(self, body: bytes, headers: Mapping[str, str]) -> Ring:
        signature = headers.get("stripe-signature", "")
        try:
            self._check_signature(body, signature)
            event = json.loads(body)
            thing = event["data"]["object"]
            kind = told_name(event["type"], 100)
            # Some objects, such as a balance, have no id.
            known = "" if thing.get("id") is None else told_name(thing["id"])
            return Ring(
                told_name(event["id"]),
                kind,
                known,
                only_of_paying=kind in _ONLY_OF_PAYING,
                of_a_decline=kind == "payment_intent.payment_failed" and _is_nameless(thing),
                **_names_of(thing),
            )
        except (
            stripe.SignatureVerificationError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            raise BadSignature(type(error).__name__) from error

    def _check_signature(self, body: bytes, signature: str) -> None:
        """By any of the secrets: each address that Stripe rings at has its own."""
        *others, last = self._webhook_secrets
        for secret in others:
            with suppress(stripe.SignatureVerificationError):
                stripe.WebhookSignature.verify_header(body, signature, secret, _SIGNATURE_AGE)
                return
        stripe.WebhookSignature.verify_header(body, signature, last, _SIGNATURE_AGE)

    def _intent(self, provider_id: str, patient: bool) -> str:
        with self._calling(patient) as client:
            session = client.v1.checkout.sessions.retrieve(provider_id).to_dict()
            _check_id(session, provider_id)
        if not session.get("payment_intent"):
            raise ProviderError(
                "The session has no payment to refund.", permanent=True, code="no_payment_intent"
            )
        return str(session["payment_intent"])

    def _refunds(self, intent: str, patient: bool) -> tuple[RefundReport, ...]:
        with self._calling(patient, "refunds") as client:
            page = client.v1.refunds.list({"payment_intent": intent, "limit": 100}).to_dict()
            _check_of(page["data"], intent)
            return tuple(_refund_report(refund) for refund in page["data"])

    def _disputes(self, intent: str, patient: bool) -> tuple[DisputeReport, ...]:
        with self._calling(patient, "disputes") as client:
            page = client.v1.disputes.list({"payment_intent": intent, "limit": 100}).to_dict()
            _check_of(page["data"], intent)
            return tuple(_dispute_report(dispute) for dispute in page["data"])

    @contextmanager
    def _calling(self, patient: bool, kind: str = "sessions") -> Iterator[StripeClient]:
        """Take a place under the limit, count the call, and turn what the SDK raises into a ProviderError."""
        if not self.ready:
            raise ProviderError("Stripe has no secret key.", permanent=False, code="not_configured")
        with bulkhead.place(self.name, self.account):
            self._throttle.wait(60 if patient else 3, kind)
            calls.add()
            try:
                with _readable():
                    yield self._patient if patient else self._quick
            except stripe.StripeError as error:
                raise _provider_error(error) from error

    def _report(self, session: Mapping[str, Any]) -> Report:
        intent = _object(session.get("payment_intent"))
        charge = _object(intent.get("latest_charge"))
        state, failure = _state(session, intent)
        code, reason = why(failure) if failure or state == "failed" else ("", "")
        amount = session["amount_total"]
        if state == "paid" and intent.get("amount_received") not in (None, amount):
            amount = intent["amount_received"]
        return Report(
            provider=self.name,
            provider_id=str(session["id"]),
            state=state,
            amount_minor=int(amount),
            currency=str(session["currency"]).upper(),
            reference=_reference(session),
            account=str(intent.get("on_behalf_of") or self.account),
            livemode=bool(session["livemode"]),
            created_at=datetime.fromtimestamp(session["created"], UTC),
            expires_at=datetime.fromtimestamp(session["expires_at"], UTC),
            url=session.get("url"),
            charge_id=charge.get("id") if state == "paid" else None,
            charge_for=_charge_for(session, intent),
            paid_at=_moment(charge.get("created")) if state == "paid" else None,
            reason=reason,
            reason_code=code,
            declines=_declines(session, failure, code, reason),
            incomplete=any(charge.get(name) for name in ("refunded", "amount_refunded", "disputed")),
            raw=_evidence(session, intent),
        )


def _state(session: Mapping[str, Any], intent: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Our word for the pair (status, payment_status), and Stripe's account of the last failed attempt."""
    status, payment_status = session["status"], session["payment_status"]
    if payment_status in ("paid", "no_payment_required") and status != "open":
        return "paid", {}
    failure = _object(intent.get("last_payment_error"))
    if status == "open":
        # A refused card leaves the session open: the reason is told, and the buyer may try another.
        return "open", failure
    if status == "expired":
        # Who was refused and did not try again was not too slow.
        return ("failed" if failure else "expired"), failure
    if status != "complete":
        raise ValueError(f"unknown session status {status!r}")
    # Complete but unpaid: a delayed method. Its payment intent has the last word.
    if intent.get("status") in ("requires_payment_method", "canceled"):
        return "failed", failure
    return "processing", {}


def _declines(
    session: Mapping[str, Any], failure: Mapping[str, Any], code: str, reason: str
) -> tuple[Decline, ...]:
    """The attempt that failed last, of a payment that could be tried again after it."""
    again = session["status"] in ("open", "expired")
    return (Decline(str(failure.get("charge") or ""), code, reason),) if failure and again else ()


def _reference(session: Mapping[str, Any]) -> str:
    """Our reference, when both places that keep it agree; both of them, when they differ."""
    metadata = session.get("metadata") or {}
    told, kept = session.get("client_reference_id") or "", metadata.get("reference") or ""
    return str(told) if told == kept else f"{told} / {kept}"


def _charge_for(session: Mapping[str, Any], intent: Mapping[str, Any]) -> str:
    """The reference that was given to the payment intent, where it is not the session's."""
    kept = _object(intent.get("metadata")).get("reference")
    return str(kept) if kept and kept != _object(session.get("metadata")).get("reference") else ""


def _check_id(session: Mapping[str, Any], provider_id: str) -> None:
    if session["id"] != provider_id:
        raise Anothers(f"its id is {session['id']}, not {provider_id}")


def _check_of(things: Iterable[Mapping[str, Any]], intent: str) -> None:
    """Refunds and disputes say of which payment they are."""
    for thing in things:
        if thing["payment_intent"] != intent:
            raise Anothers(f"{thing['id']} is of {thing['payment_intent']}, not of {intent}")


def _evidence(session: Mapping[str, Any], intent: Mapping[str, Any]) -> dict[str, Any]:
    names = ("id", "status", "payment_status", "amount_total", "currency", "client_reference_id", "livemode")
    return {name: session.get(name) for name in names} | {
        "payment_intent": intent.get("id"),
        "payment_intent_status": intent.get("status"),
    }


def _names_of(thing: Mapping[str, Any]) -> dict[str, str | None]:
    """The names by which the payment behind an event may be found. BadSignature where one is no text."""
    kind = thing.get("object")
    charge = thing["id"] if kind == "charge" else _first_told(thing, "charge", "latest_charge")
    metadata = thing.get("metadata")
    metadata = {} if metadata is None else metadata
    return {
        "provider_id": told_name(thing["id"]) if kind == "checkout.session" else None,
        "charge_id": None if charge is None else told_name(charge),
        "reference": _written(metadata.get("reference")),
        "site": _written(metadata.get("site")),
    }


def _first_told(thing: Mapping[str, Any], *names: str) -> Any:
    """The first of the fields that says something; of an object that stands there, its id."""
    told = next((thing[name] for name in names if thing.get(name) is not None), None)
    return told["id"] if isinstance(told, Mapping) else told


def _written(value: Any) -> str | None:
    """What metadata says. What another program writes there, long or in several lines, names nothing here."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise BadSignature("Metadata is text.")
    return value if len(value) <= 255 and value.isprintable() else None


def _is_nameless(intent: Mapping[str, Any]) -> bool:
    """Whether the attempt that failed last left no charge: the buyer was not authenticated, say."""
    return not _object(intent.get("last_payment_error")).get("charge")


def _refund_report(refund: Mapping[str, Any]) -> RefundReport:
    return RefundReport(
        provider_id=str(refund["id"]),
        amount_minor=int(refund["amount"]),
        currency=str(refund["currency"]).upper(),
        state=_REFUND_STATES[refund["status"]],
        reason=str(refund.get("failure_reason") or ""),
        our_key=str((refund.get("metadata") or {}).get("refund") or ""),
    )


def _dispute_report(dispute: Mapping[str, Any]) -> DisputeReport:
    status = str(dispute["status"])
    return DisputeReport(
        provider_id=str(dispute["id"]),
        amount_minor=int(dispute["amount"]),
        currency=str(dispute["currency"]).upper(),
        state=_DISPUTE_STATES.get(status, "open"),
        status=status,
        reason=str(dispute.get("reason") or ""),
        inquiry=status.startswith("warning_"),
    )


def _moment(seconds: Any) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None


@contextmanager
def _readable() -> Iterator[None]:
    """Turn what cannot be read into a ProviderError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProviderError(f"Unreadable answer: {error!r}", permanent=False, code="unreadable") from error


def _object(value: Any) -> Mapping[str, Any]:
    """An expanded object, or an empty one where it is null or only an id."""
    return value if isinstance(value, Mapping) else {}


def _provider_error(error: stripe.StripeError) -> ProviderError:
    """Which of the SDK's errors cannot be helped by asking again."""
    status = error.http_status
    code = str(getattr(error.error, "code", None) or error.code or type(error).__name__)
    words = str(error.user_message or error).split("\n\n")[0][:300]
    if status == 404 or code == "resource_missing":
        return Missing(words)
    if status == 403:
        # A restricted key that lacks a right: given it, the same call is answered.
        return ProviderError(words, permanent=False, code="forbidden")
    permanent = isinstance(error, stripe.InvalidRequestError | stripe.IdempotencyError | stripe.CardError)
    # Stripe keeps the answer to a key, that of a fault of its own included.
    sticks = permanent or (status or 0) >= 500
    silent = isinstance(error, stripe.APIConnectionError)
    return ProviderError(words, permanent=permanent, code=code, sticks=sticks, silent=silent)
