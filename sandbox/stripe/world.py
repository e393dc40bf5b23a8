"""What happens to payments, whoever makes it happen: the API, the hosted page, /control or time.

Every method leaves objects, events and scheduled work together. `Impossible` says in words why something
cannot happen in the state that things are in.
"""

from __future__ import annotations

from collections.abc import Callable

from sandbox.clock import Clock
from sandbox.store import Store, Stored
from sandbox.stripe import objects
from sandbox.stripe.books import CHARGE, INTENT, METHOD, SESSION, Body, Impossible
from sandbox.stripe.cards import AUTHENTICATION_FAILED, DEBIT_FAILED, GOOD, Card, Decline, Fate
from sandbox.stripe.reversals import Reversals

_PAYABLE = ("requires_payment_method", "requires_confirmation", "requires_action")
_CANCELLABLE = (*_PAYABLE, "requires_capture", "processing")


class World(Reversals):
    """Checkout Sessions and PaymentIntents, and through its parents all that follows from them."""

    def __init__(self, store: Store, clock: Clock, ring: Callable[[Body, str], None]) -> None:
        super().__init__(store, clock, ring)
        self._when_due["expire"] = self._expire_if_open

    # Sessions

    def open_session(self, body: Body, lines: list[Body], intent: Body) -> Body:
        """Keep a new Checkout Session. `intent`: what its PaymentIntent will be made with."""
        inner = {"lines": lines, "intent": intent, "made_at": self.clock.now()}
        self.store.add(SESSION, body, inner)
        self.store.schedule(body["expires_at"], "expire", body["id"])
        return body

    def expire(self, session: Stored) -> Stored:
        """Close an open session for good, and cancel the PaymentIntent of a failed attempt."""
        if session.body["status"] != "open":
            raise Impossible(
                'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has '
                f"a status of {session.body['status']}."
            )
        session.body.update(status="expired", url=None)
        self.store.save(session)
        self.store.unschedule(session.id, "expire")
        if session.body["payment_intent"]:
            intent = self.get(INTENT, session.body["payment_intent"])
            self._set(
                intent,
                "payment_intent.canceled",
                status="canceled",
                canceled_at=self.now(),
                cancellation_reason="automatic",
                next_action=None,
            )
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
        wallet: str = "",
    ) -> Decline | None:
        """The buyer confirms with a card, in a `wallet` or not, or with a bank debit where `card` is None.

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
        decline = self.pay_intent(
            intent, card, name=name, email=email, authenticated=authenticated, wallet=wallet
        )
        if intent.body["status"] in ("succeeded", "processing"):
            self._complete(session, "paid" if intent.body["status"] == "succeeded" else "unpaid")
            self._after_success(intent)
        else:
            self.store.save(session)
        return decline

    def _expire_if_open(self, session: Stored) -> None:
        if session.body["status"] == "open":
            self.expire(session)

    def reopen(self, session: Stored) -> None:
        """Fate's privilege: an expired session is open again, so that money can come late."""
        session.body["status"] = "open"
        if session.body["payment_intent"]:
            self.reopen_intent(self.get(INTENT, session.body["payment_intent"]))

    def reopen_intent(self, intent: Stored) -> None:
        """Fate's privilege over an intent: one that was cancelled can be paid."""
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
        self.store.add(INTENT, body, inner | {"made_at": self.clock.now()})
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
        wallet: str = "",
    ) -> Decline | None:
        """One attempt. Returns why it failed; the PaymentIntent then waits for another method.

        `card` None is a way to pay that takes time: a bank debit, or, where an intent takes cards only, one
        whose bank does not answer at once.
        """
        if intent.body["status"] not in (
            "requires_payment_method",
            "requires_confirmation",
            "requires_action",
        ):
            raise Impossible(
                f"You cannot confirm this PaymentIntent because it has a status of {intent.body['status']}.",
                code="payment_intent_unexpected_state",
            )
        slow = card is None
        if card is None and "sepa_debit" not in intent.body["payment_method_types"]:
            card = Card(GOOD)
        kind = "sepa_debit" if card is None else "card"
        billing = objects.billing_details(name or None, email or None)
        method = objects.payment_method(kind, card, billing, self.now(), wallet)
        self.store.add(METHOD, method)
        if card is None or slow:
            self._start_slowly(intent, method, card)
            return None
        if card.decline:
            self._fail(intent, method, card, card.decline)
            return card.decline
        if card.fate is Fate.AUTHENTICATE and not authenticated:
            action = {"redirect_to_url": {"return_url": None, "url": None}, "type": "redirect_to_url"}
            self._set(
                intent,
                "payment_intent.requires_action",
                status="requires_action",
                next_action=action,
                payment_method=method["id"],
            )
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
        if intent.inner.get("session") and intent.body["status"] != "processing":
            raise Impossible(
                "You cannot cancel a PaymentIntent that a Checkout Session made. Expire the Checkout Session "
                "instead."
            )
        if intent.body["status"] not in _CANCELLABLE:
            raise Impossible(
                f"You cannot cancel this PaymentIntent because it has a status of {intent.body['status']}. "
                "Only a PaymentIntent with one of the following statuses may be canceled: "
                f"{', '.join(_CANCELLABLE)}.",
                code="payment_intent_unexpected_state",
            )
        processing = intent.body["status"] == "processing"
        if processing and self._charge_kind(intent) == "card":
            raise Impossible(
                "You cannot cancel this PaymentIntent because its payment method is still processing.",
                code="payment_intent_unexpected_state",
            )
        self._set(
            intent,
            "payment_intent.canceled",
            status="canceled",
            canceled_at=self.now(),
            cancellation_reason=reason,
            next_action=None,
        )
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

    def _charge_kind(self, intent: Stored) -> str:
        charge = self.get(CHARGE, intent.body["latest_charge"])
        return str(charge.body["payment_method_details"]["type"])

    def _sessions_of(self, intent: Stored) -> list[Stored]:
        return self.store.select(SESSION, "payment_intent = ?", [intent.id])

    def _start_slowly(self, intent: Stored, method: Body, card: Card | None) -> None:
        charge = objects.charge(intent.body, method, card, self.now())
        self.store.add(CHARGE, charge, {"fate": Fate.OK.value})
        self._emit("charge.pending", charge)
        self._set(
            intent,
            "payment_intent.processing",
            status="processing",
            latest_charge=charge["id"],
            payment_method=method["id"],
            last_payment_error=None,
            next_action=None,
        )

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
        self._set(
            intent,
            "payment_intent.succeeded",
            status="succeeded",
            amount_received=amount,
            last_payment_error=None,
            next_action=None,
        )

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
        self._set(
            intent,
            "payment_intent.payment_failed",
            status="requires_payment_method",
            payment_method=None,
            latest_charge=charge_id or intent.body["latest_charge"],
            last_payment_error=shown,
            next_action=None,
        )
