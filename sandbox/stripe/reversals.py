"""Money that goes back: refunds, and disputes."""

from __future__ import annotations

from collections.abc import Callable

from sandbox.clock import Clock
from sandbox.store import Store, Stored
from sandbox.stripe import objects
from sandbox.stripe.books import BALANCE, CHARGE, DISPUTE, REFUND, Body, Books, Impossible
from sandbox.stripe.cards import Fate
from sandbox.stripe.currencies import show

# How long the cards with slow refunds take, by the sandbox's clock.
SLOW_REFUND_SECONDS = 60


class Reversals(Books):
    """What happens to a charge after it succeeded."""

    def __init__(self, store: Store, clock: Clock, ring: Callable[[Body, str], None]) -> None:
        super().__init__(store, clock, ring)
        self._when_due |= {"refund_succeeds": self.refund_succeeds, "refund_fails": self.refund_fails}

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
                f"Refund amount ({show(amount, body['currency'])}) is greater than unrefunded amount on "
                f"charge ({show(left, body['currency'])})",
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
        """The buyer's bank took a refund that was pending."""
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
        self._set(
            refund,
            "refund.updated",
            status="failed",
            failure_reason="lost_or_stolen_card",
            failure_balance_transaction=returned,
        )
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
