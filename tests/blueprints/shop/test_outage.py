"""A bad day: the provider is away for twenty minutes in the midst of a hundred purchases.

Half of those who pay close the tab. Every paid order has its tickets, and everybody else a true mail.
"""

from __future__ import annotations

from dataclasses import dataclass

from flask.testing import FlaskClient
from sqlalchemy import select

from domain.office import invariants
from domain.post import mail_kinds
from domain.sweep import sweeping
from extensions import db
from models import Event, Order, OrderState, OutboxMail, Payment, PaymentState, TicketType
from tests.support.sandbox import Sandbox
from tests.support.shop import address, make_event
from tests.support.web import buy, newest_order

BUYERS = 100
STRIPE = {"path": "^/stripe/"}
ENDS = {
    "order_expired": "not paid in time",
    "payment_failed": "Nothing was charged",
    "order_cancelled": "Nothing was charged",
}


@dataclass
class Buyer:
    """Somebody with an order: whether they pay where they can, and whether they come back then."""

    order_id: int
    pays: bool
    returns: bool
    tried: bool = False


class Day:
    """The event, its buyers, and the provider's weather."""

    def __init__(self, client: FlaskClient, sandbox: Sandbox) -> None:
        self.client, self.sandbox = client, sandbox
        self.event_id = make_event(capacity=BUYERS * 2).id
        self.buyers: list[Buyer] = []

    def come(self, count: int) -> None:
        """So many order: of each four two pay, of whom one closes the tab."""
        for _ in range(count):
            number = len(self.buyers)
            event = db.session.get_one(Event, self.event_id)
            answer = buy(self.client, event, email=f"buyer{number}@example.org")
            assert answer.status_code == 303, answer.text
            self.buyers.append(Buyer(newest_order().id, pays=number % 2 == 0, returns=number % 4 == 0))

    def pay(self) -> None:
        """Whoever wants to pay and has a page to pay on does so, and comes back, or closes the tab."""
        for buyer in self.buyers:
            payment = self.open_payment(buyer) if buyer.pays and not buyer.tried else None
            if payment is None:
                continue
            buyer.tried = True
            self.sandbox.do(payment.provider_id or "", "pay")
            if buyer.returns:
                order = db.session.get_one(Order, buyer.order_id)
                back = self.client.get(f"/pay/success/{order.code}/{order.secret}", follow_redirects=True)
                assert back.status_code == 200 and "did not go through" not in back.text

    def open_payment(self, buyer: Buyer) -> Payment | None:
        db.session.rollback()
        return db.session.scalar(
            select(Payment).filter_by(order_id=buyer.order_id, state=PaymentState.OPEN).limit(1)
        )

    def minutes(self, number: int) -> None:
        """So many minutes go by, with a sweep every five."""
        for _ in range(number // 5):
            self.sandbox.advance(300)
            sweeping.run("test")


def paid_there(sandbox: Sandbox) -> dict[str, int]:
    """What the provider took, by order, in payments."""
    paid: dict[str, int] = {}
    for payment in sandbox.get("payments"):
        if payment["status"] == "paid":
            code = payment["reference"].rsplit("-", 1)[0]
            paid[code] = paid.get(code, 0) + 1
    return paid


def ends_of(order: Order) -> list[tuple[str, str]]:
    """The mails that say how an order ended, each with its text."""
    query = select(OutboxMail).where(OutboxMail.order_id == order.id, OutboxMail.kind.in_(ENDS))
    return [(mail.kind, mail_kinds.compose(mail).text) for mail in db.session.scalars(query)]


def test_an_outage_of_twenty_minutes_in_the_midst_of_a_hundred_purchases(
    client: FlaskClient, sandbox: Sandbox
) -> None:
    day = Day(client, sandbox)
    day.come(40)
    # Some have a page to pay on, and pay on it while our questions are not answered.
    sandbox.faults("timeout_before", seconds=0.05, match=STRIPE)
    day.pay()
    day.come(15)
    day.minutes(10)
    sandbox.faults("http_500", match=STRIPE)
    day.come(15)
    day.minutes(10)
    sandbox.faults()
    day.come(30)
    day.minutes(5)
    day.pay()
    # What is open still ends with its hold, and what was paid last is found by a sweep.
    day.minutes(60)

    paid = paid_there(sandbox)
    assert len(paid) == BUYERS // 2 and set(paid.values()) == {1}
    sold = 0
    for buyer in day.buyers:
        order = db.session.get_one(Order, buyer.order_id)
        tickets = sum(1 for mail in mails_of(order) if mail.kind == "tickets")
        if order.code in paid:
            assert buyer.pays and order.state is OrderState.COMPLETED and len(order.tickets) == 1, order.code
            assert tickets == 1 and ends_of(order) == []
            assert "Your tickets" in client.get(address(order)).text
            sold += 1
        else:
            assert order.state in (OrderState.EXPIRED, OrderState.FAILED) and not order.tickets, order.code
            (told,) = ends_of(order)
            assert ENDS[told[0]] in told[1] and tickets == 0, told
    stock = db.session.execute(select(TicketType.sold, TicketType.held)).one()
    assert tuple(stock) == (sold, 0) == (BUYERS // 2, 0)
    assert invariants.look() == []


def mails_of(order: Order) -> list[OutboxMail]:
    return list(db.session.scalars(select(OutboxMail).where(OutboxMail.order_id == order.id)))
