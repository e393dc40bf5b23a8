"""What happens to Stripe's objects, whoever makes it happen: the API, the hosted page, /control or time.

Every method runs inside the store's transaction and leaves objects, events and scheduled work together.
`Impossible` says in words why something cannot happen in the state that things are in.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sandbox.clock import Clock
from sandbox.store import Store, Stored
from sandbox.stripe import objects
from sandbox.stripe.cards import AUTHENTICATION_FAILED, DEBIT_FAILED, Card, Decline, Fate
from sandbox.stripe.currencies import show
from sandbox.stripe.wire import missing

Body = dict[str, Any]

SESSION, INTENT, CHARGE, REFUND = "checkout.session", "payment_intent", "charge", "refund"
DISPUTE, METHOD, BALANCE, EVENT = "dispute", "payment_method", "balance_transaction", "event"
# How long the cards with slow refunds take, by the sandbox's clock.
SLOW_REFUND_SECONDS = 60
# The idempotency key of the request that is being worked on, for its events.
request_key: ContextVar[str | None] = ContextVar("request_key", default=None)


class Impossible(Exception):
    """The provider refuses: wrong state, or more than there is. `code` is Stripe's word where it has one."""

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class World:
    """All of Stripe that belongs to our account. `ring` is told of every event, to send webhooks."""

    def __init__(self, store: Store, clock: Clock, ring: Callable[[Body, str], None]) -> None:
        self.store = store
        self.clock = clock
        self._ring = ring

    @contextmanager
    def ready(self) -> Iterator[None]:
        """The store's transaction, with refunds that are due done first."""
        with self.store.transaction():
            while self.run_due(but="expire"):
                pass
            yield

    def now(self) -> int:
        return int(self.clock.now())

    def get(self, kind: str, object_id: str, param: str = "id") -> Stored:
        """An object as of now: what is due for it has happened. Raises ApiError 404."""
        self.run_due(object_id=object_id)
        stored = self.store.find(kind, object_id)
        if stored is None:
            raise missing(kind, object_id, param)
        return stored

    # Sessions

    def open_session(self, body: Body, lines: list[Body], intent: Body) -> Body:
        """Keep a new Checkout Session. `intent`: what its PaymentIntent will be made with."""
        self.store.add(SESSION, body, {"lines": lines, "intent": intent})
        self.store.schedule(body["expires_at"], "expire", body["id"])
        return body

    def expire(self, session: Stored) -> Stored:
        """Close an open session for good, and cancel the PaymentIntent of a failed attempt."""
        if session.body["status"] != "open":
            raise Impossible(
                f'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a status of '
                f"{session.body['status']}."
            )
        session.body.update(status="expired", url=None)
        self.store.save(session)
        self.store.unschedule(session.id, "expire")
        if session.body["payment_intent"]:
            intent = self.get(INTENT, session.body["payment_intent"])
            self._set(intent, "payment_intent.canceled", status="canceled", canceled_at=self.now(),
                      cancellation_reason="automatic", next_action=None)  # fmt: skip
        self._emit("checkout.session.expired", session.body)
        return session

    def pay_session(
        self,
        session: Stored,
        card: Card | None,
        *,
        name: str = "",
        email: str = "",
        authenticated: bool = False,
    ) -> Decline | None:
        """The buyer confirms with a card, or with a bank debit where `card` is None.

        Returns why it was declined. The session then stays open; it stays open, too, while the card waits
        for authentication (the PaymentIntent is then `requires_action`).
        """
        if session.body["status"] != "open":
            raise Impossible(f"This checkout is {session.body['status']}: it can no longer be paid.")
        kind = "sepa_debit" if card is None else "card"
        if kind not in session.body["payment_method_types"]:
            raise Impossible(f"This checkout does not take {kind}.")
        session.body["customer_details"] = self._customer(session.body, name, email)
        if session.body["amount_total"] == 0:
            self._complete(session, "no_payment_required")
            return None
        intent = self._session_intent(session)
        decline = self.pay_intent(intent, card, name=name, email=email, authenticated=authenticated)
        if intent.body["status"] in ("succeeded", "processing"):
            self._complete(session, "paid" if intent.body["status"] == "succeeded" else "unpaid")
            self._after_success(intent)
        else:
            self.store.save(session)
        return decline

    def reopen(self, session: Stored) -> None:
        """Fate's privilege: an expired session is open again, so that money can come late."""
        session.body["status"] = "open"
        if session.body["payment_intent"]:
            intent = self.get(INTENT, session.body["payment_intent"])
            intent.body.update(status="requires_payment_method", canceled_at=None, cancellation_reason=None)
            self.store.save(intent)

    def _customer(self, body: Body, name: str, email: str) -> Body:
        return {
            "address": dict(objects.ADDRESS) if name else None,
            "business_name": None,
            "email": email or body["customer_email"],
            "individual_name": None,
            "name": name or None,
            "phone": None,
            "tax_exempt": "none",
            "tax_ids": [],
        }

    def _session_intent(self, session: Stored) -> Stored:
        """The session's PaymentIntent, made at the first confirmation."""
        if session.body["payment_intent"] is None:
            values = {name: session.body[name] for name in ("currency", "livemode", "payment_method_types")}
            values |= {"amount": session.body["amount_total"], **session.inner["intent"]}
            intent = self.open_intent(values, {"session": session.id})
            session.body["payment_intent"] = intent.id
            self.store.save(session)
            return intent
        return self.get(INTENT, session.body["payment_intent"])

    def _complete(self, session: Stored, payment_status: str) -> None:
        session.body.update(status="complete", payment_status=payment_status, url=None)
        self.store.save(session)
        self.store.unschedule(session.id, "expire")
        self._emit("checkout.session.completed", session.body)

    # PaymentIntents

    def open_intent(self, values: Body, inner: Body) -> Stored:
        body = objects.payment_intent(values, self.now())
        self.store.add(INTENT, body, inner)
        self._emit("payment_intent.created", body)
        return self.get(INTENT, body["id"])

    def pay_intent(
        self,
        intent: Stored,
        card: Card | None,
        *,
        name: str = "",
        email: str = "",
        authenticated: bool = False,
    ) -> Decline | None:
        """One attempt. Returns why it failed; the PaymentIntent then waits for another method."""
        if intent.body["status"] not in (
            "requires_payment_method",
            "requires_confirmation",
            "requires_action",
        ):
            raise Impossible(
                f"You cannot confirm this PaymentIntent because it has a status of {intent.body['status']}.",
                code="payment_intent_unexpected_state",
            )
        kind = "sepa_debit" if card is None else "card"
        billing = objects.billing_details(name or None, email or None)
        method = objects.payment_method(kind, card, billing, self.now())
        self.store.add(METHOD, method)
        if card is None:
            self._start_debit(intent, method)
            return None
        if card.decline:
            self._fail(intent, method, card, card.decline)
            return card.decline
        if card.fate is Fate.AUTHENTICATE and not authenticated:
            action = {"redirect_to_url": {"return_url": None, "url": None}, "type": "redirect_to_url"}
            self._set(intent, "payment_intent.requires_action", status="requires_action", next_action=action,
                      payment_method=method["id"])  # fmt: skip
            return None
        self._succeed(intent, method, card)
        if intent.inner.get("session") is None:
            self._after_success(intent)
        return None

    def fail_authentication(self, intent: Stored) -> Decline:
        """The buyer did not pass 3D Secure."""
        method = self.get(METHOD, intent.body["payment_method"])
        self._refuse(intent, method.body, AUTHENTICATION_FAILED, None)
        return AUTHENTICATION_FAILED

    def cancel_intent(self, intent: Stored, reason: str | None) -> Stored:
        cancellable = ("requires_payment_method", "requires_capture", "requires_confirmation", "requires_action",
                       "processing")  # fmt: skip
        if intent.inner.get("session") and intent.body["status"] != "processing":
            raise Impossible(
                "You cannot cancel a PaymentIntent that a Checkout Session made. Expire the Checkout Session instead."
            )
        if intent.body["status"] not in cancellable:
            raise Impossible(
                f"You cannot cancel this PaymentIntent because it has a status of {intent.body['status']}. Only a "
                f"PaymentIntent with one of the following statuses may be canceled: {', '.join(cancellable)}.",
                code="payment_intent_unexpected_state",
            )
        processing = intent.body["status"] == "processing"
        self._set(intent, "payment_intent.canceled", status="canceled", canceled_at=self.now(),
                  cancellation_reason=reason, next_action=None)  # fmt: skip
        if processing:
            charge = self.get(CHARGE, intent.body["latest_charge"])
            self._set(charge, "charge.failed", status="failed", failure_message="The payment was canceled.")
            for session in self._sessions_of(intent):
                self._emit("checkout.session.async_payment_failed", session.body)
        return intent

    def settle_later(self, intent: Stored, *, paid: bool) -> None:
        """The bank's answer to a debit that was on its way."""
        if intent.body["status"] != "processing":
            raise Impossible(f"There is no payment on its way: the PaymentIntent is {intent.body['status']}.")
        charge = self.get(CHARGE, intent.body["latest_charge"])
        method = self.get(METHOD, intent.body["payment_method"])
        if paid:
            self._capture(intent, charge)
        else:
            charge.body.update(
                status="failed", failure_code="debit_not_authorized", failure_message=DEBIT_FAILED.message
            )
            self.store.save(charge)
            self._emit("charge.failed", charge.body)
            self._refuse(intent, method.body, DEBIT_FAILED, charge.id)
        for session in self._sessions_of(intent):
            if paid:
                session.body["payment_status"] = "paid"
                self.store.save(session)
            self._emit(f"checkout.session.async_payment_{'succeeded' if paid else 'failed'}", session.body)

    def _sessions_of(self, intent: Stored) -> list[Stored]:
        return self.store.select(SESSION, "payment_intent = ?", [intent.id])

    def _start_debit(self, intent: Stored, method: Body) -> None:
        charge = objects.charge(intent.body, method, None, self.now())
        self.store.add(CHARGE, charge, {"fate": Fate.OK.value})
        self._emit("charge.pending", charge)
        self._set(intent, "payment_intent.processing", status="processing", latest_charge=charge["id"],
                  payment_method=method["id"], last_payment_error=None, next_action=None)  # fmt: skip

    def _succeed(self, intent: Stored, method: Body, card: Card) -> None:
        charge = objects.charge(intent.body, method, card, self.now())
        self.store.add(CHARGE, charge, {"fate": card.fate.value})
        intent.body.update(payment_method=method["id"], latest_charge=charge["id"])
        self._capture(intent, self.get(CHARGE, charge["id"]))

    def _capture(self, intent: Stored, charge: Stored) -> None:
        """The money is there."""
        amount, currency = charge.body["amount"], charge.body["currency"]
        fee = min(amount, amount * 15 // 1000 + 25)
        charge.body.update(status="succeeded", paid=True, amount_captured=amount, outcome=objects.outcome())
        charge.body["balance_transaction"] = self._balance(charge.id, "charge", amount, fee, currency)
        self.store.save(charge)
        self._emit("charge.succeeded", charge.body)
        self._set(intent, "payment_intent.succeeded", status="succeeded", amount_received=amount,
                  last_payment_error=None, next_action=None)  # fmt: skip

    def _after_success(self, intent: Stored) -> None:
        """The card whose payments are disputed at once."""
        charge = self.store.find(CHARGE, intent.body["latest_charge"])
        if charge and charge.inner["fate"] == Fate.DISPUTED.value:
            self.dispute(charge, None)

    def _fail(self, intent: Stored, method: Body, card: Card, decline: Decline) -> None:
        charge = objects.charge(intent.body, method, card, self.now())
        charge.update(
            status="failed", captured=False, failure_code=decline.code, failure_message=decline.message
        )
        charge["outcome"] = objects.outcome(decline.decline_code)
        self.store.add(CHARGE, charge, {"fate": card.fate.value})
        self._emit("charge.failed", charge)
        self._refuse(intent, method, decline, charge["id"])

    def _refuse(self, intent: Stored, method: Body, decline: Decline, charge_id: str | None) -> None:
        error = {
            "charge": charge_id,
            "code": decline.code,
            "decline_code": decline.decline_code,
            "doc_url": f"https://docs.stripe.com/error-codes/{decline.code.replace('_', '-')}",
            "message": decline.message,
            "payment_method": method,
            "type": "card_error" if method["type"] == "card" else "invalid_request_error",
        }
        shown = {name: value for name, value in error.items() if value is not None}
        self._set(intent, "payment_intent.payment_failed", status="requires_payment_method", payment_method=None,
                  latest_charge=charge_id or intent.body["latest_charge"], last_payment_error=shown,
                  next_action=None)  # fmt: skip

    # Refunds

    def refund(self, charge: Stored, amount_minor: int | None, values: Body) -> Stored:
        """Send money of a charge back; all that is left of it where `amount_minor` is None."""
        body = charge.body
        if body["status"] != "succeeded":
            raise Impossible(f"Charge {charge.id} has not succeeded; there is nothing to refund.")
        if any(d.body["status"] in ("needs_response", "lost") for d in self._disputes_of(charge)):
            raise Impossible(
                f"Charge {charge.id} has been charged back; cannot issue a refund.", code="charge_disputed"
            )
        left = body["amount"] - body["amount_refunded"]
        if left == 0:
            raise Impossible(f"Charge {charge.id} has already been refunded.", code="charge_already_refunded")
        amount = left if amount_minor is None else amount_minor
        if amount < 1:
            raise Impossible("Invalid positive integer", code="parameter_invalid_integer", param="amount")
        if amount > left:
            raise Impossible(
                f"Refund amount ({show(amount, body['currency'])}) is greater than unrefunded amount on charge "
                f"({show(left, body['currency'])})",
                param="amount",
            )
        refund = objects.refund(body, amount, values, self.now())
        if charge.inner["fate"] == Fate.REFUND_PENDS.value:
            refund |= {"status": "pending", "pending_reason": "processing"}
            self.store.schedule(self.now() + SLOW_REFUND_SECONDS, "refund_succeeds", refund["id"])
        elif charge.inner["fate"] == Fate.REFUND_FAILS.value:
            self.store.schedule(self.now() + SLOW_REFUND_SECONDS, "refund_fails", refund["id"])
        refund["balance_transaction"] = self._balance(refund["id"], "refund", -amount, 0, body["currency"])
        self.store.add(REFUND, refund)
        self._emit("refund.created", refund)
        refunded = body["amount_refunded"] + amount
        self._set(charge, "charge.refunded", amount_refunded=refunded, refunded=refunded == body["amount"])
        return self.get(REFUND, refund["id"])

    def refund_succeeds(self, refund: Stored) -> None:
        if refund.body["status"] == "pending":
            refund.body.pop("pending_reason", None)
            self._set(refund, "refund.updated", status="succeeded")
            self._emit("charge.refund.updated", refund.body)

    def refund_fails(self, refund: Stored) -> None:
        """The buyer's bank sent the refund back; the money is ours again."""
        if refund.body["status"] not in ("pending", "succeeded", "requires_action"):
            raise Impossible(f"Refund {refund.id} is {refund.body['status']}.")
        amount = refund.body["amount"]
        returned = self._balance(refund.id, "refund_failure", amount, 0, refund.body["currency"])
        refund.body.pop("pending_reason", None)
        self.store.unschedule(refund.id, "refund_succeeds")
        self.store.unschedule(refund.id, "refund_fails")
        charge = self.get(CHARGE, refund.body["charge"])
        charge.body.update(amount_refunded=charge.body["amount_refunded"] - amount, refunded=False)
        self.store.save(charge)
        self._set(refund, "refund.updated", status="failed", failure_reason="lost_or_stolen_card",
                  failure_balance_transaction=returned)  # fmt: skip
        self._emit("refund.failed", refund.body)
        self._emit("charge.refund.updated", refund.body)

    def refunds_of(self, charge: Stored) -> list[Stored]:
        return self.store.select(REFUND, "charge = ?", [charge.id])

    # Disputes

    def dispute(self, charge: Stored, amount_minor: int | None) -> Stored:
        """The buyer's bank takes the money back, all of it where `amount_minor` is None."""
        if charge.body["status"] != "succeeded":
            raise Impossible("Only a payment that succeeded can be disputed.")
        if any(d.body["status"] == "needs_response" for d in self._disputes_of(charge)):
            raise Impossible("This payment is disputed already.")
        amount = charge.body["amount"] if amount_minor is None else amount_minor
        if not 0 < amount <= charge.body["amount"]:
            raise Impossible(
                f"A dispute can be of 1 to {charge.body['amount']} minor units.", param="amount_minor"
            )
        body = objects.dispute(charge.body, amount, self.now())
        self.store.add(DISPUTE, body)
        charge.body["disputed"] = True
        self.store.save(charge)
        dispute = self.get(DISPUTE, body["id"])
        self._emit("charge.dispute.created", dispute.body)
        self._move_disputed(dispute, -amount, 2000)
        self._emit("charge.dispute.funds_withdrawn", dispute.body)
        return dispute

    def close_dispute(self, charge: Stored, *, won: bool) -> Stored:
        """The bank's word on the open dispute of a charge."""
        opened = [d for d in self._disputes_of(charge) if d.body["status"] == "needs_response"]
        if not opened:
            raise Impossible("This payment has no open dispute.")
        dispute = opened[0]
        dispute.body["evidence_details"].update(
            has_evidence=True, submission_count=1, submission_method="manual"
        )
        if won:
            self._move_disputed(dispute, dispute.body["amount"], 0)
        self._set(dispute, "charge.dispute.closed", status="won" if won else "lost")
        if won:
            self._emit("charge.dispute.funds_reinstated", dispute.body)
        return dispute

    def _disputes_of(self, charge: Stored) -> list[Stored]:
        return self.store.select(DISPUTE, "charge = ?", [charge.id])

    def _move_disputed(self, dispute: Stored, amount: int, fee: int) -> None:
        moved = self._balance(dispute.id, "adjustment", amount, fee, dispute.body["currency"])
        found = self.store.find(BALANCE, moved)
        dispute.body["balance_transactions"] += [found.body] if found else []
        self.store.save(dispute)

    # Underneath

    def _balance(self, source: str, kind: str, amount: int, fee: int, currency: str) -> str:
        body = objects.balance_transaction(source, kind, amount, fee, currency, self.now())
        self.store.add(BALANCE, body)
        return str(body["id"])

    def _set(self, stored: Stored, event: str, **values: Any) -> None:
        """Change fields, keep the object, and tell of it."""
        before = {name: stored.body.get(name) for name, new in values.items() if stored.body.get(name) != new}
        stored.body.update(values)
        self.store.save(stored)
        self._emit(
            event, stored.body, before if event.endswith((".updated", ".refunded", ".closed")) else None
        )

    def _emit(self, kind: str, body: Body, before: Body | None = None) -> None:
        event = objects.event(kind, copy.deepcopy(body), before, request_key.get(), self.now())
        self.store.add(EVENT, event)
        self._ring(event, str(body.get("payment_intent") or body["id"]))

    def run_due(self, limit: int = 100, object_id: str | None = None, but: str = "") -> int:
        """Let happen what time has brought, oldest first; how many things that were."""
        due = self.store.take_due(self.clock.now(), limit, object_id, but)
        for action, due_id in due:
            if action == "expire":
                session = self.store.find(SESSION, due_id)
                if session and session.body["status"] == "open":
                    self.expire(session)
            else:
                refund = self.store.find(REFUND, due_id)
                if refund:
                    (self.refund_succeeds if action == "refund_succeeds" else self.refund_fails)(refund)
        return len(due)
