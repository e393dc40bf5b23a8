"""Stripe, through the official SDK: Checkout Sessions on its own page, PaymentIntents for wallets on ours.

Facts about the API behind each choice are in docs/payments.md. Everything that leaves this module is a
`Report` or a `ProviderError`: no Stripe object, and no exception of the SDK.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import stripe
from stripe import StripeClient

from config import Settings
from domain import pay_links
from domain.providers import (
    bulkhead,
    stripe_amounts,
    stripe_domains,
    stripe_history,
    stripe_intents,
    stripe_rings,
    stripe_sessions,
)
from domain.providers.contract import (
    Abilities,
    Anothers,
    Decline,
    DisputeReport,
    DomainStatus,
    Happening,
    Missing,
    Presentation,
    ProviderError,
    Purchase,
    RefundReport,
    Report,
    Ring,
    Told,
)
from domain.providers.stripe_intents import INTENTS
from domain.providers.stripe_reading import (
    Shape,
    check_id,
    check_of,
    dispute_report,
    object_of,
    provider_error,
    readable,
    refund_report,
)
from domain.providers.stripe_reasons import why
from domain.providers.stripe_sessions import SESSIONS
from domain.providers.throttle import Throttle, calls

stripe.enable_telemetry = False
# The two shapes of a payment. Payments are asked for by the SDK's raw request: an object for each part of an
# answer, which is then turned into plain data, cost more than all the rest of the call.
_SHAPES = (SESSIONS, INTENTS)
# The most that a page of a list holds, and in how many of them a lost create is looked for; in one alone
# while a person waits.
_PAGE = 100
_FIND_PAGES = 50


def build(settings: Settings) -> StripeProvider:
    """The adapter for the keys in `settings`."""
    return StripeProvider(settings)


class StripeProvider:
    """See `domain.providers.Provider`; the account is always our own."""

    name = "stripe"
    label = "Card"
    methods: tuple[str, ...] = ("card", *stripe_intents.METHODS)
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
        self.element = stripe_intents.element(settings)
        self._site = settings.public_url
        self._settings = settings
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
        chosen = method or self.methods[0]
        return Presentation.ELEMENT if chosen in stripe_intents.METHODS else Presentation.PAGE

    def supports(self, currency: str) -> bool:
        return len(currency) == 3

    def minimum_minor(self, currency: str) -> int:
        """Stripe's smallest charge; it refuses by itself where the account's own currency wants more."""
        return stripe_amounts.least_minor(currency)

    # Opening and reading

    def params(self, purchase: Purchase) -> dict[str, Any]:
        if self.presents(purchase.method) is Presentation.ELEMENT:
            return stripe_intents.params(purchase, self._site)
        return stripe_sessions.params(purchase, self._site)

    def create(self, params: dict[str, Any], key: str, *, patient: bool = False) -> Report:
        # Only a session has a mode. Which of the two it was is told by the parameters that were stored.
        shape = SESSIONS if "mode" in params else INTENTS
        with self._calling(patient, shape.path) as client:
            made = client.raw_request("post", shape.path, idempotency_key=key, **params)
            return self._report(shape, made.data)

    def find(self, reference: str, since: datetime, *, patient: bool = True) -> Report | None:
        for shape in _SHAPES:
            found = self._listed(shape, reference, since, patient)
            if found is not None:
                return self.fetch(found, patient=patient)
        return None

    def _listed(self, shape: Shape, reference: str, since: datetime, patient: bool) -> str | None:
        """The id of the payment with our reference, as the list of its shape tells it."""
        # Stripe's clock may be behind ours.
        first, last = since - timedelta(minutes=10), since + timedelta(hours=25)
        most = _FIND_PAGES if patient else 1
        for number, (things, is_last) in enumerate(self._pages(shape, first, last, patient=patient), 1):
            for thing in things:
                with readable():
                    if shape.reference(thing) == reference:
                        return str(thing["id"])
            # Only after the last page is the payment certainly absent.
            if number >= most and not is_last:
                raise ProviderError("Too many payments to look through.", permanent=False, code="too_many")
        return None

    def fetch(self, provider_id: str, *, patient: bool = False, thorough: bool = False) -> Report:
        shape, thing = self._read(provider_id, patient)
        with readable():
            report = self._report(shape, thing)
            intent = shape.intent(thing)
            charge = object_of(intent.get("latest_charge"))
            name = str(intent["id"]) if intent else ""
        if thorough and intent or charge.get("refunded") or charge.get("amount_refunded"):
            report = replace(report, refunds=self._refunds(name, patient))
        if thorough and intent or charge.get("disputed"):
            report = replace(report, disputes=self._disputes(name, patient))
        return replace(report, incomplete=False)

    def _read(self, provider_id: str, patient: bool) -> tuple[Shape, Mapping[str, Any]]:
        """A payment with its charge. Missing where the id is not of one, or of a session's intent."""
        shape = _shape_of(provider_id)
        with self._calling(patient, shape.path) as client:
            path = f"{shape.path}/{provider_id}"
            thing: Mapping[str, Any] = client.raw_request("get", path, expand=[shape.expand]).data
            check_id(thing, provider_id)
        if not shape.counts(thing):
            raise Missing("That belongs to a Checkout Session, and is no payment of its own.")
        return shape, thing

    def client_secret(self, provider_id: str) -> str | None:
        shape, intent = self._read(provider_id, patient=False)
        with readable():
            return str(intent["client_secret"]) if shape is INTENTS else None

    def declines(self, report: Report, *, patient: bool = False) -> tuple[Decline, ...]:
        """A payment tells of the last one only; each attempt with a card left a charge of its intent."""
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
        """Newest first, a hundred a call. No status filter: a payment that was just made must be seen too.

        First the sessions, then the intents that no session made. Others in the account make some, too,
        without an amount or in a state that ours never have: what cannot be read is left out of its page,
        and if it is ours, it is read by its id.
        """
        for shape in _SHAPES:
            for things, _ in self._pages(shape, since, until, patient=True):
                reports = []
                for thing in things:
                    with suppress(ProviderError), readable():
                        reports.append(self._report(shape, thing))
                yield reports

    def _pages(
        self, shape: Shape, since: datetime, until: datetime, *, patient: bool
    ) -> Iterator[tuple[list[Mapping[str, Any]], bool]]:
        """The payments of a shape as they are listed, a page at a time, and whether it was the last page."""
        params: dict[str, Any] = {
            "created": {"gte": int(since.timestamp()), "lte": int(until.timestamp()) + 1},
            "limit": _PAGE,
            "expand": [f"data.{shape.expand}"],
        }
        while True:
            with self._calling(patient, shape.path) as client:
                page = client.raw_request("get", shape.path, **params).data
                things = page["data"]
                counted = [thing for thing in things if shape.counts(thing)]
                is_last = not page["has_more"] or not things
            yield counted, is_last
            if is_last:
                return
            params["starting_after"] = things[-1]["id"]

    # What happened at the account

    def happened(self, since: datetime, until: datetime) -> Iterator[Told]:
        def ask(path: str, params: dict[str, Any]) -> Mapping[str, Any]:
            with self._calling(True, path) as client:
                page: Mapping[str, Any] = client.raw_request("get", path, **params).data
                return page

        def read(thing: Mapping[str, Any]) -> Happening | None:
            with readable():
                return stripe_history.read(thing, self._site, refund_report, dispute_report)

        return stripe_history.happened(ask, read, since, until)

    def behind(self, happening: Happening) -> Report | None:
        """By the handle, which is the id of the intent: a session's, or one that is a payment itself."""
        with self._calling(patient=True) as client:
            page = client.raw_request("get", SESSIONS.path, payment_intent=happening.handle, limit=1).data
            made_by = [str(session["id"]) for session in page["data"]]
        try:
            return self.fetch((*made_by, happening.handle)[0], patient=True, thorough=True)
        except Missing:
            # Neither: somebody else's, who copied our metadata.
            return None

    # Closing, and giving back

    def close(self, provider_id: str, key: str, *, patient: bool = False) -> Report:
        shape = _shape_of(provider_id)
        try:
            with self._calling(patient, shape.path) as client:
                path = f"{shape.path}/{provider_id}/{shape.end}"
                client.raw_request("post", path, idempotency_key=key, **shape.end_params)
        except ProviderError as error:
            # Only an open one can be closed. Another is final already, or its bank is confirming it, as the
            # next reading shows.
            if not error.permanent or isinstance(error, Missing):
                raise
        return self.fetch(provider_id, patient=patient)

    def refund(self, provider_id: str, amount_minor: int, key: str, *, patient: bool = False) -> RefundReport:
        intent = self._intent(provider_id, patient)
        params = {"payment_intent": intent, "amount": amount_minor, "metadata": {"refund": key}}
        with self._calling(patient, "refunds") as client:
            made = client.v1.refunds.create(cast(Any, params), {"idempotency_key": key}).to_dict()
            check_of([made], intent)
            refund = refund_report(made)
        if refund.our_key != key:
            raise Anothers(f"the refund's key is {refund.our_key}, not {key}")
        return refund

    def find_refund(self, provider_id: str, key: str) -> RefundReport | None:
        made = self._refunds(self._intent(provider_id, patient=True), patient=True)
        return next((refund for refund in made if refund.our_key == key), None)

    def refunded_minor(self, provider_id: str, *, patient: bool = False) -> int:
        made = self._refunds(self._intent(provider_id, patient), patient)
        return sum(refund.amount_minor for refund in made if refund.state in ("pending", "succeeded"))

    def _intent(self, provider_id: str, patient: bool) -> str:
        """The intent that was paid, of which Stripe keeps refunds and disputes."""
        shape, thing = self._read(provider_id, patient)
        with readable():
            intent = shape.intent(thing)
            if not intent:
                raise ProviderError(
                    "The session has no payment to refund.", permanent=True, code="no_payment_intent"
                )
            return str(intent["id"])

    def _refunds(self, intent: str, patient: bool) -> tuple[RefundReport, ...]:
        with self._calling(patient, "refunds") as client:
            page = client.v1.refunds.list({"payment_intent": intent, "limit": 100}).to_dict()
            check_of(page["data"], intent)
            return tuple(refund_report(refund) for refund in page["data"])

    def _disputes(self, intent: str, patient: bool) -> tuple[DisputeReport, ...]:
        with self._calling(patient, "disputes") as client:
            page = client.v1.disputes.list({"payment_intent": intent, "limit": 100}).to_dict()
            check_of(page["data"], intent)
            return tuple(dispute_report(dispute) for dispute in page["data"])

    # The account, its domains and its doorbell

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

    def domain_status(self, domain: str) -> DomainStatus | None:
        with self._calling(False, stripe_domains.PATH) as client:
            return stripe_domains.status(client, domain)

    def register_domain(self, domain: str, *, patient: bool = True) -> DomainStatus:
        with self._calling(patient, stripe_domains.PATH) as client:
            return stripe_domains.register(client, domain)

    def ring(self, body: bytes, headers: Mapping[str, str]) -> Ring:
        return stripe_rings.read(body, headers.get("stripe-signature", ""), self._webhook_secrets)

    # Underneath

    def _report(self, shape: Shape, thing: Mapping[str, Any]) -> Report:
        return shape.report(thing, self.account, self._page)

    def _page(self, reference: str) -> str:
        return pay_links.address(self._settings, reference)

    @contextmanager
    def _calling(self, patient: bool, kind: str = SESSIONS.path) -> Iterator[StripeClient]:
        """Take a place under the limit, count the call, and turn what the SDK raises into a ProviderError."""
        if not self.ready:
            raise ProviderError("Stripe has no secret key.", permanent=False, code="not_configured")
        with bulkhead.place(self.name, self.account):
            self._throttle.wait(60 if patient else 3, kind.rpartition("/")[2])
            calls.add()
            try:
                with readable():
                    yield self._patient if patient else self._quick
            except stripe.StripeError as error:
                raise provider_error(error) from error


def _shape_of(provider_id: str) -> Shape:
    """By the form of its id. Ids may be what somebody typed, and become a part of a path."""
    shape = next((shape for shape in _SHAPES if shape.ids.fullmatch(provider_id)), None)
    if shape is None:
        raise Missing("That is the id of no payment at Stripe.")
    return shape
