"""What happens to checkouts and their money, whoever makes it happen: the API, the page, /control or time.

`Impossible` says in words why something cannot happen in the state that things are in.
"""

from __future__ import annotations

import secrets
import string

from sandbox.sumup import money
from sandbox.sumup.books import (
    FAILED,
    OPEN,
    PAGE_SECONDS,
    PAID,
    PENDING,
    Books,
    Checkout,
    Event,
    Impossible,
    Transaction,
    new_id,
)
from sandbox.sumup.cards import FAILING_AMOUNT, NOT_CONFIRMED, Card

_LETTERS = string.ascii_uppercase + string.digits


class World(Books):
    """Payments, refunds, and how they end."""

    def open(self, checkout: Checkout) -> None:
        """Keep a new checkout. Raises Impossible where its payee has one of that reference already."""
        self._refuse_duplicate(checkout.merchant, checkout.reference)
        self.save(checkout)

    def rename(self, checkout: Checkout, reference: str) -> None:
        """Give a checkout another reference. Raises Impossible as `open` does."""
        if reference != checkout.reference:
            self._refuse_duplicate(checkout.merchant, reference)
            checkout.reference = reference

    def page_open(self, checkout: Checkout) -> bool:
        """Whether the hosted page still takes a card."""
        return checkout.status in OPEN and self.now() < checkout.created + PAGE_SECONDS

    def pay(self, checkout: Checkout, card: Card, *, confirmed: bool = False) -> str:
        """One attempt. Returns why it failed, in words for the buyer; "" where it did not.

        Where the card's bank asks and its holder has not `confirmed`, the transaction is PENDING afterwards.
        """
        self._require_open(checkout)
        waiting = self.waiting(checkout)
        if waiting is not None:
            self.turn(waiting, "CANCELLED")
        problem = card.decline
        if not problem and money.fails(checkout.amount_minor, checkout.currency):
            problem = FAILING_AMOUNT
        transaction = self._attempt(checkout, card)
        if not problem and card.asks and not confirmed:
            return ""
        return self._finish(checkout, transaction, problem)

    def confirm(self, checkout: Checkout, *, passed: bool) -> str:
        """The bank's word on the attempt that waits for it; as `pay`."""
        self._require_open(checkout)
        waiting = self.waiting(checkout)
        if waiting is None:
            raise Impossible("There is no payment to confirm. Type your card again.")
        return self._finish(checkout, waiting, "" if passed else NOT_CONFIRMED)

    def waiting(self, checkout: Checkout) -> Transaction | None:
        """The attempt that waits for its bank, if one does."""
        return next((t for t in self.transactions(checkout.id) if t.status == PENDING), None)

    def charged(self, checkout: Checkout) -> Transaction | None:
        """The attempt that succeeded, if one did; it may be refunded since."""
        found = self.transactions(checkout.id)
        return next((t for t in found if t.status in ("SUCCESSFUL", "REFUNDED")), None)

    def deactivate(self, checkout: Checkout) -> None:
        """Close a checkout that is not paid. Raises Impossible."""
        self._require_open(checkout)
        self.close(checkout)

    def refund(self, transaction: Transaction, amount_minor: int | None) -> int:
        """Send money back; all that is left where `amount_minor` is None. Returns how much it was."""
        if transaction.status not in ("SUCCESSFUL", "REFUNDED"):
            raise Impossible("The transaction is not refundable in its current state")
        if self._charge_backs(transaction, PENDING, "SUCCESSFUL"):
            raise Impossible("The transaction is not refundable: it was charged back")
        left = transaction.amount_minor - self.refunded_minor(transaction)
        amount = left if amount_minor is None else amount_minor
        if not 0 < amount <= left:
            raise Impossible("The transaction is not refundable in its current state")
        self.note(transaction, "REFUND", "REFUNDED", amount)
        self.turn(transaction, "REFUNDED")
        return amount

    def refund_fails(self, transaction: Transaction) -> None:
        """The latest refund did not get through; the money is the merchant's again."""
        alive = [e for e in self.events(transaction.id) if e.type == "REFUND" and e.status != FAILED]
        if not alive:
            raise Impossible("This payment has no refund that could fail.")
        self.mark(alive[-1], FAILED)
        self.turn(transaction, "REFUNDED" if len(alive) > 1 else "SUCCESSFUL")

    def charge_back(self, transaction: Transaction, amount_minor: int | None) -> None:
        """The buyer's bank wants the money back, all of it where `amount_minor` is None."""
        if self._charge_backs(transaction, PENDING):
            raise Impossible("This payment is charged back already.")
        amount = transaction.amount_minor if amount_minor is None else amount_minor
        if not 0 < amount <= transaction.amount_minor:
            raise Impossible(f"A chargeback can be of 1 to {transaction.amount_minor} minor units.")
        self.note(transaction, "CHARGE_BACK", PENDING, amount)
        self.turn(transaction, transaction.status)

    def close_charge_back(self, transaction: Transaction, *, won: bool) -> None:
        """The bank's word on the open chargeback of a payment."""
        opened = self._charge_backs(transaction, PENDING)
        if not opened:
            raise Impossible("This payment has no open chargeback.")
        self.mark(opened[0], FAILED if won else "SUCCESSFUL")
        self.turn(transaction, transaction.status)

    def _charge_backs(self, transaction: Transaction, *statuses: str) -> list[Event]:
        found = self.events(transaction.id)
        return [e for e in found if e.type == "CHARGE_BACK" and e.status in statuses]

    def _refuse_duplicate(self, merchant: str, reference: str) -> None:
        if self.checkouts(1, "merchant = ? AND reference = ?", (merchant, reference)):
            raise Impossible("Checkout with this checkout reference and pay to email already exists")

    def _require_open(self, checkout: Checkout) -> None:
        if checkout.status not in OPEN:
            raise Impossible(f"This checkout is {checkout.status}: it can no longer be paid or changed.")

    def _attempt(self, checkout: Checkout, card: Card) -> Transaction:
        now = self.now()
        transaction = Transaction(
            id=new_id(),
            code="T" + "".join(secrets.choice(_LETTERS) for _ in range(9)),
            checkout=checkout.id,
            merchant=checkout.merchant,
            amount_minor=checkout.amount_minor,
            currency=checkout.currency,
            status=PENDING,
            created=now,
            changed=now,
            more={"last4": card.last4, "card_type": card.type},
        )
        self.keep(transaction)
        return transaction

    def _finish(self, checkout: Checkout, transaction: Transaction, problem: str) -> str:
        if problem:
            transaction.more["problem"] = problem
            self.turn(transaction, FAILED)
            self.set_status(checkout, FAILED)
            return problem
        transaction.more["auth_code"] = f"{secrets.randbelow(1_000_000):06}"
        self.turn(transaction, "SUCCESSFUL")
        paid_out = transaction.amount_minor - money.fee(transaction.amount_minor)
        self.note(transaction, "PAYOUT", "SCHEDULED", paid_out)
        self.set_status(checkout, PAID)
        return ""
