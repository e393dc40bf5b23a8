"""What /control does to Stripe's payments: a person in the dashboard, and fate."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from sandbox.dashboards import BadRequest, Conflict, NotFound
from sandbox.store import Stored
from sandbox.stripe import cards
from sandbox.stripe.books import CHARGE, INTENT, REFUND, SESSION, Impossible
from sandbox.stripe.cards import Card
from sandbox.stripe.world import World

Body = dict[str, Any]

WALLETS = ("apple_pay", "google_pay")
PLACEHOLDER = "{CHECKOUT_SESSION_ID}"
_TAMPERED = ("amount_minor", "currency", "reference", "account", "livemode")


class StripeDashboard:
    """Payments are Checkout Sessions, and PaymentIntents that no session made."""

    name = "stripe"

    def __init__(self, world: World, public_url: str) -> None:
        self._world = world
        self._public_url = public_url

    def has(self, payment_id: str) -> bool:
        return payment_id.startswith(("cs_", "pi_"))

    def payments(self, limit: int) -> list[Body]:
        """The newest payments. Each with `created` besides what /control shows of every provider."""
        with self._world.ready():
            sessions = self._world.store.select(SESSION, limit=limit)
            over = [
                s
                for s in sessions
                if s.body["status"] == "open" and s.body["expires_at"] <= self._world.now()
            ]
            for session in over:
                self._world.run_due(object_id=session.id)
            if over:
                sessions = self._world.store.select(SESSION, limit=limit)
            alone = self._world.store.select(INTENT, "json_extract(inner, '$.session') IS NULL", limit=limit)
            found = [self._show(stored) for stored in (*sessions, *alone)]
        return sorted(found, key=lambda payment: -float(payment["created"]))[:limit]

    def payment(self, payment_id: str) -> Body:
        """One payment. Raises NotFound."""
        with self._world.ready():
            return self._show(self._find(payment_id))

    def act(self, payment_id: str, request: Body) -> Body:
        """Do `request["do"]` and answer the payment as it is then. Raises BadRequest, NotFound, Conflict."""
        do = request.get("do")
        with self._world.ready():
            payment = self._find(payment_id)
            action = getattr(self, f"_do_{do}", None) if do in ACTIONS else None
            if action is None:
                raise BadRequest(f"do must be one of {', '.join(ACTIONS)}.")
            allowed = {"do"} | _MORE.get(str(do), set())
            if request.keys() - allowed:
                raise BadRequest(
                    f"{do} takes {', '.join(sorted(allowed))}; not {', '.join(request.keys() - allowed)}."
                )
            try:
                extra = action(payment, request) or {}
            except Impossible as error:
                raise Conflict(str(error)) from error
            return self._show(self._find(payment_id)) | extra

    # Each action is given the payment and the request, and may return more to show.

    def _do_pay(self, payment: Stored, request: Body) -> None:
        """`card`: one of the test cards; `wallet`: what it is in. `force`: also what is over already."""
        card = Card(str(request.get("card") or cards.GOOD).replace(" ", ""))
        wallet = _wallet(request)
        if payment.kind == INTENT:
            if request.get("force") and payment.body["status"] == "canceled":
                self._world.reopen_intent(payment)
            decline = self._world.pay_intent(payment, card, authenticated=True, wallet=wallet)
        else:
            if request.get("force") and payment.body["status"] == "expired":
                self._world.reopen(payment)
            decline = self._world.pay_session(
                payment, card, name="Sandbox Buyer", authenticated=True, wallet=wallet
            )
        if decline:
            raise Conflict(decline.message)

    def _do_decline(self, payment: Stored, request: Body) -> None:
        card = Card(cards.BAD)
        if payment.kind == INTENT:
            self._world.pay_intent(payment, card)
        else:
            self._world.pay_session(payment, card, name="Sandbox Buyer")

    def _do_pay_later(self, payment: Stored, request: Body) -> None:
        if payment.kind == INTENT:
            self._world.pay_intent(payment, None)
        else:
            self._world.pay_session(payment, None, name="Sandbox Buyer")

    def _do_complete_later(self, payment: Stored, request: Body) -> None:
        self._world.settle_later(self._intent(payment), paid=True)

    def _do_fail_later(self, payment: Stored, request: Body) -> None:
        self._world.settle_later(self._intent(payment), paid=False)

    def _do_cancel(self, payment: Stored, request: Body) -> None:
        """The buyer goes back to the shop; Stripe changes nothing. A debit on its way is called back."""
        if payment.kind == INTENT:
            self._world.cancel_intent(payment, "requested_by_customer")
        elif payment.body["status"] == "open":
            return
        else:
            intent = self._intent(payment)
            if intent.body["status"] != "processing":
                raise Impossible(f"The payment is {self._status(payment)}: it can no longer be cancelled.")
            self._world.cancel_intent(intent, "requested_by_customer")

    def _do_expire(self, payment: Stored, request: Body) -> None:
        if payment.kind == INTENT:
            # It has no end of its own; this is Stripe ending it, as it does now and then.
            self._world.cancel_intent(payment, "automatic")
        else:
            self._world.expire(payment)

    def _do_refund(self, payment: Stored, request: Body) -> Body:
        values = {"reason": "requested_by_customer", "metadata": {}}
        refund = self._world.refund(self._charge(payment), _amount(request), values)
        return {"refund": refund.id}

    def _do_refund_fail(self, payment: Stored, request: Body) -> Body:
        refunds = self._world.refunds_of(self._charge(payment))
        alive = [r for r in refunds if r.body["status"] in ("pending", "succeeded")]
        if not alive:
            raise Impossible("This payment has no refund that could fail.")
        self._world.refund_fails(alive[0])
        return {"refund": alive[0].id}

    def _do_dispute(self, payment: Stored, request: Body) -> Body:
        return {"dispute": self._world.dispute(self._charge(payment), _amount(request)).id}

    def _do_inquiry(self, payment: Stored, request: Body) -> Body:
        """The bank only asks. `dispute` makes a dispute of it, `dispute_won` ends it."""
        return {"dispute": self._world.inquire(self._charge(payment), _amount(request)).id}

    def _do_dispute_won(self, payment: Stored, request: Body) -> Body:
        return {"dispute": self._world.close_dispute(self._charge(payment), won=True).id}

    def _do_dispute_lost(self, payment: Stored, request: Body) -> Body:
        return {"dispute": self._world.close_dispute(self._charge(payment), won=False).id}

    def _do_tamper(self, payment: Stored, request: Body) -> None:
        """Change what Stripe says. `account` shows as `on_behalf_of` of the PaymentIntent and its charge."""
        changes = request.get("set")
        if not isinstance(changes, dict) or not changes or changes.keys() - set(_TAMPERED):
            raise BadRequest(f"set must be some of {', '.join(_TAMPERED)}.")
        _check_tampering(changes)
        objects = [payment]
        if payment.kind == SESSION and payment.body["payment_intent"]:
            objects.append(self._world.get(INTENT, payment.body["payment_intent"]))
        intent = objects[-1]
        if intent.kind == INTENT and intent.body["latest_charge"]:
            objects.append(self._world.get(CHARGE, intent.body["latest_charge"]))
        reference = payment.body.get("client_reference_id")
        for stored in objects:
            _tamper(stored, changes, reference)
            self._world.store.save(stored)

    # Underneath

    def _find(self, payment_id: str) -> Stored:
        kind = SESSION if payment_id.startswith("cs_") else INTENT
        self._world.run_due(object_id=payment_id)
        stored = self._world.store.find(kind, payment_id)
        if stored is None:
            raise NotFound(f"No Stripe payment has the id {payment_id}.")
        return stored

    def _intent(self, payment: Stored) -> Stored:
        if payment.kind == INTENT:
            return payment
        if payment.body["payment_intent"] is None:
            raise Impossible(f"Nobody has paid yet: the payment is {self._status(payment)}.")
        return self._world.get(INTENT, payment.body["payment_intent"])

    def _charge(self, payment: Stored) -> Stored:
        intent = self._intent(payment)
        if intent.body["latest_charge"] is None:
            raise Impossible(f"Nobody has paid yet: the payment is {self._status(payment)}.")
        return self._world.get(CHARGE, intent.body["latest_charge"])

    def _status(self, payment: Stored) -> str:
        """One word for every provider: open, processing, paid, failed, cancelled or expired."""
        body = payment.body
        if payment.kind == SESSION:
            if body["status"] != "complete":
                return str(body["status"])
            if body["payment_status"] != "unpaid":
                return "paid"
            body = self._intent(payment).body
        words = {"succeeded": "paid", "processing": "processing", "canceled": "cancelled"}
        return words.get(body["status"], "failed" if payment.kind == SESSION else "open")

    def _show(self, payment: Stored) -> Body:
        body, session = payment.body, payment.kind == SESSION
        intent_id = body["payment_intent"] if session else body["id"]
        refunded = [
            r.body["amount"]
            for r in self._world.store.select(REFUND, "payment_intent = ?", [intent_id])
            if r.body["status"] in ("pending", "succeeded")
        ]
        return {
            "id": payment.id,
            "provider": self.name,
            "status": self._status(payment),
            "amount_minor": body["amount_total"] if session else body["amount"],
            "currency": str(body["currency"]).upper(),
            "reference": body["client_reference_id"] if session else body["metadata"].get("reference"),
            "hosted_url": f"{self._public_url}/stripe/pay/{payment.id}" if session else None,
            "success_url": substituted(body["success_url"], payment.id) if session else None,
            "cancel_url": substituted(body["cancel_url"], payment.id) if session else None,
            # Finer than Stripe tells it, so that /control can put the payments of all providers in one order.
            "created": payment.inner.get("made_at", body["created"]),
            "expires_at": body["expires_at"] if session else None,
            "payment_intent": intent_id,
            "refunded_minor": sum(refunded),
        }


ACTIONS = (
    "pay",
    "decline",
    "pay_later",
    "complete_later",
    "fail_later",
    "cancel",
    "expire",
    "refund",
    "refund_fail",
    "inquiry",
    "dispute",
    "dispute_won",
    "dispute_lost",
    "tamper",
)
_MORE = {
    "pay": {"card", "force", "wallet"},
    "refund": {"amount_minor"},
    "inquiry": {"amount_minor"},
    "dispute": {"amount_minor"},
    "tamper": {"set"},
}


def substituted(url: str | None, session_id: str) -> str | None:
    """An address as Stripe sends the buyer there, with the session's id in it."""
    if url is None:
        return None
    return url.replace(PLACEHOLDER, session_id).replace(quote(PLACEHOLDER), session_id)


def _wallet(request: Body) -> str:
    """The wallet that the card is in; "" for a plain card."""
    wallet = request.get("wallet", "none")
    if wallet not in ("none", *WALLETS):
        raise BadRequest(f"wallet must be one of none, {', '.join(WALLETS)}.")
    return "" if wallet == "none" else str(wallet)


def _amount(request: Body) -> int | None:
    amount = request.get("amount_minor")
    if amount is not None and (isinstance(amount, bool) or not isinstance(amount, int) or amount < 1):
        raise BadRequest("amount_minor must be a whole number of minor units, 1 or more.")
    return amount


def _check_tampering(changes: Body) -> None:
    kinds: dict[str, type] = {
        "amount_minor": int,
        "currency": str,
        "reference": str,
        "account": str,
        "livemode": bool,
    }
    for name, value in changes.items():
        if not isinstance(value, kinds[name]) or isinstance(value, bool) and kinds[name] is int:
            raise BadRequest(f"set.{name} must be of type {kinds[name].__name__}.")


def _tamper(stored: Stored, changes: Body, old_reference: str | None) -> None:
    body = stored.body
    if "amount_minor" in changes:
        amount = changes["amount_minor"]
        for name in ("amount_total", "amount_subtotal", "amount"):
            if name in body:
                body[name] = amount
        for name in ("amount_received", "amount_captured"):
            if body.get(name):
                body[name] = amount
    if "currency" in changes:
        body["currency"] = changes["currency"].lower()
    if "livemode" in changes:
        body["livemode"] = changes["livemode"]
    if "account" in changes:
        # A session has no such field; its PaymentIntent, which is made as it is paid, will have it.
        (stored.inner["intent"] if stored.kind == SESSION else body)["on_behalf_of"] = changes["account"]
    if "reference" in changes:
        if stored.kind == SESSION:
            body["client_reference_id"] = changes["reference"]
        body["metadata"] = {
            key: changes["reference"] if key == "reference" or value == old_reference else value
            for key, value in body["metadata"].items()
        }
