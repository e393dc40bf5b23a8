"""Pebble: a toy payment provider, and its adapter, as docs/adding-a-provider.md builds it.

It is here so that the guide stays true: the contract's suite runs over it, and a test compares the guide's
lines with these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from config import Settings
from domain import clock, money
from domain.providers import bulkhead
from domain.providers.contract import (
    Abilities,
    Anothers,
    BadSignature,
    Credentials,
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
from domain.providers.throttle import Throttle, calls

# --- Pebble's side: what would be on the other end of the wire ------------------------------------------


@dataclass
class PebbleBank:
    """Pebble's whole API is `call`: a method, a path, a body and a key; a status and JSON come back."""

    token: str = "pebble-test-token"
    # Whose token is whose: each shop sees its own payments only.
    shops: dict[str, str] = field(default_factory=lambda: {"pebble-test-token": "shop-1"})
    payments: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    received: int = 0
    # What goes wrong, how many times yet (None: for ever), and with which method only.
    trouble: str = ""
    times: int | None = None
    only: str = ""

    def call(self, method: str, path: str, body: Mapping[str, Any], key: str, token: str) -> tuple[int, str]:
        """Answer one request. Raises TimeoutError when Pebble does not."""
        self.received += 1
        trouble = self._trouble(method)
        if trouble == "timeout_before":
            raise TimeoutError
        if trouble in ("http_500", "http_429"):
            return int(trouble[-3:]), '{"problem": "try again"}'
        if token not in self.shops:
            return 401, '{"problem": "who are you?"}'
        status, answer = self._once(method, path, dict(body), key, self.shops[token])
        if trouble == "timeout_after":
            raise TimeoutError
        if trouble == "mixed_up":
            # The answer to somebody else.
            answer = next((p for p in self.payments.values() if p["id"] != answer.get("id")), answer)
        return (200, "<html>") if trouble == "garbage" else (status, json.dumps(answer))

    def _trouble(self, method: str) -> str:
        if self.times == 0 or self.only not in ("", method):
            return ""
        self.times = None if self.times is None else self.times - 1
        return self.trouble

    def _once(
        self, method: str, path: str, body: dict[str, Any], key: str, shop: str
    ) -> tuple[int, dict[str, Any]]:
        """The work; under a key that was seen before, the same answer again."""
        asked, known = json.dumps([method, path, body]), f"{shop} {key}"
        if key and known in self.answers:
            before, answer = self.answers[known]
            return (200, answer) if before == asked else (409, {"problem": "key used for something else"})
        status, answer = self._work(method, path.strip("/").split("/"), body, shop)
        if key and status < 300:
            self.answers[known] = asked, answer
        return status, answer

    def _work(
        self, method: str, parts: list[str], body: dict[str, Any], shop: str
    ) -> tuple[int, dict[str, Any]]:
        own = {number: payment for number, payment in self.payments.items() if payment["shop"] == shop}
        match method, parts:
            case "GET", ["me"]:
                return 200, {"shop": shop}
            case "GET", ["payments"]:
                return 200, {"found": [p for p in own.values() if p["reference"] == body["reference"]]}
            case "GET", ["changed"]:
                return 200, {"found": [p for p in own.values() if p["changed"] >= body["since"]]}
            case "POST", ["payments"]:
                return self._open(body, shop)
            case _, ["payments", known, *rest] if known in own:
                return self._on(method, own[known], rest, body)
        return 404, {"problem": "no such thing"}

    def _open(self, body: dict[str, Any], shop: str) -> tuple[int, dict[str, Any]]:
        if set(body) != {"reference", "amount", "currency", "title", "return_to"}:
            return 422, {"problem": "unknown field"}
        number = f"peb_{len(self.payments) + 1}"
        made = {**body, "id": number, "state": "waiting", "shop": shop, "why": "", "returns": []}
        self.payments[number] = made
        self.touch(made)
        return 201, made

    def touch(self, payment: dict[str, Any]) -> None:
        """Something happened to a payment just now."""
        payment["changed"] = clock.now().isoformat()

    def _on(
        self, method: str, payment: dict[str, Any], rest: list[str], body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        match method, rest:
            case "GET", []:
                return 200, payment
            case "POST", ["close"]:
                if payment["state"] != "waiting":
                    return 409, {"problem": "it is final"}
                payment["state"] = "closed"
                self.touch(payment)
                return 200, payment
            case "POST", ["returns"]:
                left = Decimal(payment["amount"]) - sum(Decimal(r["amount"]) for r in payment["returns"])
                if payment["state"] != "taken" or Decimal(body["amount"]) > left:
                    return 409, {"problem": "there is not so much to give back"}
                return 201, self.give_back(payment, body["amount"])
        return 404, {"problem": "no such thing"}

    def give_back(self, payment: dict[str, Any], amount: str) -> dict[str, Any]:
        """Send money back, for a call or by hand: Pebble cannot tell them apart."""
        number = f"{payment['id']}_ret_{len(payment['returns']) + 1}"
        made = {"id": number, "amount": amount, "state": "done", "why": ""}
        payment["returns"].append(made)
        self.touch(payment)
        return made


BANK = PebbleBank()


# --- Kassa's side: the adapter --------------------------------------------------------------------------

_STATES = {
    "waiting": "open",
    "on_its_way": "processing",
    "taken": "paid",
    "bounced": "failed",
    "closed": "cancelled",
    "lapsed": "expired",
}


def build(settings: Settings, account: str = "shop-1", tokens: Credentials | None = None) -> PebbleProvider:
    """The adapter of our own shop, or of an organiser's, for which `tokens` speak."""
    tokens = tokens or OurToken(BANK.token)
    return PebbleProvider(BANK, tokens, account, livemode=settings.livemode, site=settings.public_url)


@dataclass(frozen=True)
class OurToken:
    """The credentials of our own shop: a token in the settings, which nobody renews."""

    text: str

    def token(self) -> str:
        return self.text

    def renewed(self, rejected: str) -> str:
        raise ProviderError("Pebble refuses our token.", permanent=False, code="not_connected")


class PebbleProvider:
    """See `domain.providers.Provider`."""

    name = "pebble"
    label = "Pebble"
    methods: tuple[str, ...] = ("pebble",)
    can = Abilities()
    immediate = False
    connects = True
    pending_alert = True
    keeps_refund_keys = False
    open_minutes = 60
    rings = True

    def __init__(
        self,
        bank: PebbleBank,
        tokens: Credentials,
        account: str,
        *,
        livemode: bool,
        site: str = "",
        rate: int = 1000,
    ) -> None:
        self.account = account
        self._site = site
        self.livemode = livemode
        self.ready = not isinstance(tokens, OurToken) or bool(tokens.text)
        self._bank = bank
        self._tokens = tokens
        self._throttle = Throttle(rate)

    def presents(self, method: str) -> Presentation:
        return Presentation.PAGE

    def supports(self, currency: str) -> bool:
        return currency in ("EUR", "CHF")

    def minimum_minor(self, currency: str) -> int:
        return 100

    def params(self, purchase: Purchase) -> dict[str, Any]:
        return {
            "reference": purchase.reference,
            "amount": str(money.to_major(purchase.amount_minor, purchase.currency)),
            "currency": purchase.currency,
            "title": f"Order {purchase.order_code}",
            "return_to": purchase.return_url,
        }

    def create(self, params: dict[str, Any], key: str, *, patient: bool = False) -> Report:
        return self._report(self._call("POST", "/payments", params, key, patient=patient))

    def find(self, reference: str, since: datetime, *, patient: bool = True) -> Report | None:
        answer = self._call("GET", "/payments", {"reference": reference}, patient=patient)
        return next((self._report(payment) for payment in answer["found"]), None)

    def fetch(self, provider_id: str, *, patient: bool = False, thorough: bool = False) -> Report:
        payment = self._call("GET", _path(provider_id), patient=patient)
        if payment["id"] != provider_id:
            raise Anothers(f"its id is {payment['id']}, not {provider_id}")
        return self._report(payment)

    def pages(self, since: datetime, until: datetime) -> Iterator[list[Report]] | None:
        """Pebble has no list by time: the sweep reads its payments one by one."""
        return None

    def happened(self, since: datetime, until: datetime) -> Iterator[Told] | None:
        def pages() -> Iterator[Told]:
            answer = self._call("GET", "/changed", {"since": since.isoformat()}, patient=True)
            ours = [p for p in answer["found"] if p["return_to"].startswith(f"{self._site}/")]
            yield Told(tuple(_happening(p) for p in ours if p["state"] == "taken"), through=until)

        return pages()

    def behind(self, happening: Happening) -> Report | None:
        return self.fetch(happening.handle, patient=True)

    def close(self, provider_id: str, key: str, *, patient: bool = False) -> Report:
        try:
            self._call("POST", _path(provider_id, "/close"), {}, key, patient=patient)
        except ProviderError as error:
            # 409: it is final already, as the next reading shows.
            if error.code != "409":
                raise
        return self.fetch(provider_id, patient=patient)

    def refund(self, provider_id: str, amount_minor: int, key: str, *, patient: bool = False) -> RefundReport:
        currency = self.fetch(provider_id, patient=patient).currency
        wanted = {"amount": str(money.to_major(amount_minor, currency))}
        # One attempt, even where the caller can wait: Pebble keeps no key, and would pay twice.
        made = self._call("POST", _path(provider_id, "/returns"), wanted)
        return _refund_report(made, currency)

    def find_refund(self, provider_id: str, key: str) -> RefundReport | None:
        raise ProviderError("Pebble keeps no keys of ours.", permanent=True, code="no_keys")

    def refunded_minor(self, provider_id: str, *, patient: bool = False) -> int:
        refunds = self.fetch(provider_id, patient=patient).refunds
        return sum(refund.amount_minor for refund in refunds if refund.state != "failed")

    def ring(self, body: bytes, headers: Mapping[str, str]) -> Ring:
        try:
            number = json.loads(body)["payment"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadSignature(type(error).__name__) from error
        if not isinstance(number, str):
            raise BadSignature("The payment's number is no text.")
        return Ring(event_id="", type="payment", object_id=number, provider_id=number)

    def health(self) -> Mapping[str, Any]:
        return {"account": self._call("GET", "/me")["shop"], "mode": "live" if self.livemode else "test"}

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] = {}, key: str = "", *, patient: bool = False
    ) -> dict[str, Any]:
        """One request, or up to three where the caller can wait. Raises ProviderError and nothing else."""
        if not self.ready:
            raise ProviderError("Pebble has no token.", permanent=False, code="not_configured")
        for left in (2, 1, 0) if patient else (0,):
            try:
                return self._attempt(method, path, body, key, longest=60 if patient else 3)
            except ProviderError as error:
                if error.permanent or not left:
                    raise
        raise AssertionError("The last attempt returns or raises.")

    def _attempt(
        self, method: str, path: str, body: Mapping[str, Any], key: str, *, longest: float
    ) -> dict[str, Any]:
        token = self._tokens.token()
        status, text = self._send(method, path, body, key, token, longest)
        if status == 401:
            # Refused: renewed once, and then asked again. A second refusal passes, too, when it is mended.
            token = self._tokens.renewed(token)
            status, text = self._send(method, path, body, key, token, longest)
        if status == 404:
            raise Missing("Pebble knows no such payment.")
        if status >= 400:
            passing = status in (401, 429) or status >= 500
            # Turned away: whatever it was, nothing of it was done.
            away = status in (401, 429)
            raise ProviderError(
                f"Pebble answered {status}.", permanent=not passing, code=str(status), undone=away
            )
        try:
            answer: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise ProviderError(
                "Pebble's answer is unreadable.", permanent=False, code="unreadable"
            ) from error
        return answer

    def _send(
        self, method: str, path: str, body: Mapping[str, Any], key: str, token: str, longest: float
    ) -> tuple[int, str]:
        with bulkhead.place(self.name, self.account):
            self._throttle.wait(longest)
            calls.add()
            try:
                return self._bank.call(method, path, body, key, token)
            except TimeoutError as error:
                raise ProviderError(
                    "Pebble did not answer.", permanent=False, code="timeout", silent=True
                ) from error

    def _report(self, payment: Mapping[str, Any]) -> Report:
        currency, state = payment["currency"], _STATES.get(payment["state"])
        if state is None:
            # Unknown is not unpaid: a word that we do not know changes nothing.
            raise ProviderError(f"Pebble says {payment['state']!r}.", permanent=False, code="unreadable")
        return Report(
            provider=self.name,
            provider_id=payment["id"],
            state=state,
            amount_minor=money.to_minor(Decimal(payment["amount"]), currency),
            currency=currency,
            reference=payment["reference"],
            account=payment["shop"],
            livemode=self.livemode,
            url=f"https://pebble.example.org/{payment['id']}" if state == "open" else None,
            charge_id=payment["id"] if state == "paid" else None,
            reason=payment["why"],
            refunds=tuple(_refund_report(refund, currency) for refund in payment["returns"]),
            raw=dict(payment),
        )


def _path(provider_id: str, rest: str = "") -> str:
    """Where a payment is. The id may be what somebody typed, so it is looked at before it is in a path."""
    if not re.fullmatch(r"peb_[0-9]+", provider_id):
        raise Missing("That is not an id of Pebble's.")
    return f"/payments/{provider_id}{rest}"


def _happening(payment: Mapping[str, Any]) -> Happening:
    made = (refund for refund in payment["returns"] if refund["state"] == "done")
    back = sum((Decimal(refund["amount"]) for refund in made), Decimal(0))
    return Happening(
        charges=(payment["id"],),
        name=payment["reference"],
        handle=payment["id"],
        paid=True,
        refunded_minor=money.to_minor(back, payment["currency"]),
    )


def _refund_report(refund: Mapping[str, Any], currency: str) -> RefundReport:
    return RefundReport(
        provider_id=refund["id"],
        amount_minor=money.to_minor(Decimal(refund["amount"]), currency),
        currency=currency,
        state={"done": "succeeded", "bounced": "failed"}[refund["state"]],
        reason=refund["why"],
    )
