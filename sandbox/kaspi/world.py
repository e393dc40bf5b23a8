"""What happens to payments, whoever makes it happen: the API, its emulator, the page, /control or time.

`Impossible` says in words why something cannot happen in the state that things are in.
"""

from __future__ import annotations

from sandbox.kaspi.books import CREATED, ERROR, OPENED, PROCESSED, WAIT, Books, Impossible, Payment
from sandbox.kaspi.wire import NOT_IN_PART, NOT_RETURNABLE, TOO_MUCH_BACK, Refusal


class World(Books):
    """Payments, and how they end."""

    def is_over(self, payment: Payment) -> bool:
        """Whether its code, or its link, can no longer be scanned."""
        return payment.status in (CREATED, OPENED) and self.now() >= payment.expires

    def says(self, payment: Payment) -> str:
        """The word for it at this moment."""
        if "status" not in payment.more and self.is_over(payment):
            return str(self.options()["expired_status"])
        return payment.says

    def look(self, payment: Payment) -> None:
        """Somebody has opened the link in their app, and has not begun to pay."""
        self._require(payment, CREATED)
        if payment.kind == "link":
            payment.status = OPENED
            self.save(payment)

    def scan(self, payment: Payment) -> None:
        """Somebody has scanned the code, or has begun to pay by the link: now they confirm, or do not."""
        self._require(payment, CREATED, OPENED)
        payment.status, payment.scanned = WAIT, self.now()
        self.save(payment)

    def confirm(self, payment: Payment) -> None:
        """They have confirmed: it is paid."""
        self._require(payment, WAIT)
        self._processed(payment)

    def pay(self, payment: Payment, *, late: bool = False) -> None:
        """Scanned and confirmed. `late`: whatever has become of it since, as money comes late."""
        if not late and payment.status != WAIT:
            self.scan(payment)
        if payment.status == PROCESSED:
            raise Impossible("It is paid already.")
        self._processed(payment)

    def fail(self, payment: Payment) -> None:
        """They have refused to pay, or have not got the money. It cannot be tried again."""
        self._require(payment, CREATED, OPENED, WAIT)
        payment.status = ERROR
        self.save(payment)

    def run_out(self, payment: Payment) -> None:
        """The code's time is over."""
        self._require(payment, CREATED, OPENED)
        payment.expires = self.now()
        self.save(payment)

    def give_back(self, payment: Payment, amount_minor: int) -> int:
        """Send money back; the number of the return. Raises Refusal."""
        if payment.status != PROCESSED:
            raise Refusal(NOT_RETURNABLE)
        left = payment.amount_minor - self.returned_minor(payment)
        if amount_minor > left:
            raise Refusal(TOO_MUCH_BACK)
        if amount_minor != payment.amount_minor and not self.options()["partial_returns"]:
            raise Refusal(NOT_IN_PART)
        return super().give_back(payment, amount_minor)

    def _processed(self, payment: Payment) -> None:
        payment.status, payment.paid = PROCESSED, self.now()
        self.save(payment)

    def _require(self, payment: Payment, *statuses: str) -> None:
        if payment.status not in statuses:
            raise Impossible(f"This payment is {payment.status}.")
        if self.is_over(payment):
            raise Impossible("The code’s time is over.")
