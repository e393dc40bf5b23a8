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
# The status of a dispute by which the bank only asks.
INQUIRY = "warning_needs_response"


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
        """The buyer's bank takes the money back, all of it where `amount_minor` is None.

        An inquiry that is open becomes the dispute, under its id and, unless another is named, of its amount.
        """
        asked = next(iter(self._open_disputes(charge, INQUIRY)), None)
        if asked is not None:
            amount = asked.body["amount"] if amount_minor is None else amount_minor
            self._set(asked, "charge.dispute.updated", status="needs_response", amount=amount)
            return self._withdraw(asked)
        dispute = self._new_dispute(charge, amount_minor, "needs_response")
        return self._withdraw(dispute)

    def inquire(self, charge: Stored, amount_minor: int | None) -> Stored:
        """The buyer's bank asks about a payment, and moves no money."""
        return self._new_dispute(charge, amount_minor, INQUIRY)

    def _new_dispute(self, charge: Stored, amount_minor: int | None, status: str) -> Stored:
        if charge.body["status"] != "succeeded":
            raise Impossible("Only a payment that succeeded can be disputed.")
        if self._open_disputes(charge, INQUIRY, "needs_response"):
            raise Impossible("This payment is disputed already.")
        amount = charge.body["amount"] if amount_minor is None else amount_minor
        if not 0 < amount <= charge.body["amount"]:
            raise Impossible(
                f"A dispute can be of 1 to {charge.body['amount']} minor units.", param="amount_minor"
            )
        body = objects.dispute(charge.body, amount, self.now()) | {"status": status}
        self.store.add(DISPUTE, body)
        charge.body["disputed"] = True
        self.store.save(charge)
        dispute = self.get(DISPUTE, body["id"])
        self._emit("charge.dispute.created", dispute.body)
        return dispute

    def _withdraw(self, dispute: Stored) -> Stored:
        self._move_disputed(dispute, -dispute.body["amount"], 2000)
        self._emit("charge.dispute.funds_withdrawn", dispute.body)
        return dispute

    def close_dispute(self, charge: Stored, *, won: bool) -> Stored:
        """The bank's word on the open dispute of a charge, or, where it is `won`, on an inquiry."""
        asked = self._open_disputes(charge, INQUIRY)
        if asked and won:
            self._set(asked[0], "charge.dispute.closed", status="warning_closed")
            return asked[0]
        opened = self._open_disputes(charge, "needs_response")
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

    def _open_disputes(self, charge: Stored, *statuses: str) -> list[Stored]:
        return [dispute for dispute in self._disputes_of(charge) if dispute.body["status"] in statuses]

    def _disputes_of(self, charge: Stored) -> list[Stored]:
        return self.store.select(DISPUTE, "charge = ?", [charge.id])

    def _move_disputed(self, dispute: Stored, amount: int, fee: int) -> None:
        moved = self._balance(dispute.id, "adjustment", amount, fee, dispute.body["currency"])
        found = self.store.find(BALANCE, moved)
        dispute.body["balance_transactions"] += [found.body] if found else []
        self.store.save(dispute)
