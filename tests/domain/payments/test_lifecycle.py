"""Two hours of an event that is sold through SumUp: a hundred buyers, a sweep every five minutes.

Nobody comes back from SumUp's page, and no doorbell rings: all that happens is what the sweeps find. Clock,
payments and mail are the sandbox's. Whatever has a time is expected at that sweep, and at no other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import func, select

from domain import clock
from domain.payments import starting
from domain.post import outbox
from domain.sweep import sweeping
from extensions import db
from models import Order, OrderState, Payment, PaymentState, Ticket, TicketType
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place

EVERY, STUCK, CLOSES, ENDS = 5, 30, 120, 135
# A little longer, so that what a sweep settles as it goes is an hour old when the twelfth after it begins.
MINUTE = timedelta(seconds=60.5)
# At these minutes a second sweep follows at once: it must find nothing to tell.
TWICE = (STUCK, CLOSES, ENDS)
ALERTS = "alerts@example.org"
PENDING = OrderState.PENDING_VERIFICATION
# What was mailed at each sweep: (minute, to whom, subject).
Mails = Counter[tuple[int, str, str]]


@dataclass
class Buyer:
    """One order, and when (minutes) its buyer is declined, and pays; `tampered`: pays another amount."""

    number: int
    pays: int = 0
    declined: tuple[int, ...] = ()
    tampered: bool = False
    code: str = ""
    provider_id: str = ""

    @property
    def email(self) -> str:
        return f"buyer{self.number}@example.org"

    @property
    def seen_at(self) -> int:
        """The sweep that sees the payment's end."""
        return -(-self.pays // EVERY) * EVERY if self.pays else CLOSES

    @property
    def ends_as(self) -> OrderState:
        if self.tampered:
            return OrderState.REVIEW
        if self.pays:
            return OrderState.COMPLETED
        return OrderState.FAILED if self.declined else OrderState.EXPIRED

    def state(self, minute: int) -> OrderState:
        return self.ends_as if minute >= self.seen_at else PENDING

    def calls(self, minute: int) -> int:
        """How many calls the sweep of this minute makes for this order."""
        if minute < self.seen_at:
            return 1
        if minute == self.seen_at:
            # A paid checkout is read with its transaction; one that SumUp has closed itself needs no more.
            return 2 if self.pays else 1
        # What is final is read again after an hour, for refunds and disputes.
        return 2 if self.pays and minute == self.seen_at + 60 else 0


def buyers() -> list[Buyer]:
    """A hundred: most pay and never return, some at the third try, some never; one is tampered with."""
    paying = [Buyer(n, pays=1 + n * 2) for n in range(59)]
    retrying = [Buyer(59 + n, pays=14 + n * 10, declined=(4 + n, 8 + n * 10)) for n in range(10)]
    declined = [Buyer(69 + n, declined=(2 + n * 7,)) for n in range(10)]
    alone = [Buyer(79 + n) for n in range(20)]
    return [*paying, *retrying, *declined, *alone, Buyer(99, pays=7, tampered=True)]


@dataclass
class Life:
    """Everything that happened, by the minute of the sweep. `told` is what each printed with --verbose."""

    sandbox: Sandbox
    everybody: list[Buyer]
    windows: dict[int, tuple[datetime, datetime]] = field(default_factory=dict)
    states: dict[int, dict[str, OrderState]] = field(default_factory=dict)
    runs: dict[int, tuple[int, int, int, int, int]] = field(default_factory=dict)
    calls: dict[int, int] = field(default_factory=dict)
    told: dict[int, list[str]] = field(default_factory=dict)

    def begin(self) -> None:
        """Minute 0: everybody is sent to SumUp's page, and the worker mails what is owed."""
        event = make_event(capacity=len(self.everybody), providers=["sumup"])
        began = clock.now()
        for buyer in self.everybody:
            order = place(event, email=buyer.email)
            payment = starting.open_at_provider(order)
            assert payment is not None and payment.state is PaymentState.OPEN
            assert payment.provider == "sumup" and payment.provider_id is not None
            buyer.code, buyer.provider_id = payment.order.code, payment.provider_id
        outbox.deliver_due()
        self._note(0, began)

    def minute(self, minute: int) -> None:
        """This minute: what the buyers do in it, and a sweep where one is due."""
        # The test's own seconds are part of it, however slow the machine.
        left = self.windows[0][1] + minute * MINUTE - clock.now()
        self.sandbox.advance(max(left.total_seconds(), 0))
        for buyer in self.everybody:
            if minute in buyer.declined:
                self.sandbox.do(buyer.provider_id, "decline")
            if minute == buyer.pays:
                if buyer.tampered:
                    self.sandbox.do(buyer.provider_id, "tamper", set={"amount_minor": 2000})
                self.sandbox.do(buyer.provider_id, "pay")
        if minute % EVERY == 0:
            self._sweep(minute)

    def _sweep(self, minute: int) -> None:
        began, before = clock.now(), len(self.sandbox.calls())
        run = sweeping.run("clock", tell=self.told.setdefault(minute, []).append, verbose=True)
        self.calls[minute] = len(self.sandbox.calls()) - before
        self.runs[minute] = (run.verified, run.failed, run.pending, run.errors, run.provider_calls)
        if minute in TWICE:
            sweeping.run("clock")
        self._note(minute, began)

    def _note(self, minute: int, began: datetime) -> None:
        now = db.session.execute(select(Order.code, Order.state))
        self.states[minute] = dict(now.tuples().all())
        self.windows[minute] = began, clock.now()
        db.session.rollback()

    def mails(self) -> Mails:
        """What was mailed in each sweep; -1 is between two of them."""
        return Counter(
            (self._minute_of(mail["received"]), mail["to"], mail["subject"]) for mail in self.sandbox.mail()
        )

    def _minute_of(self, moment: float) -> int:
        spans = self.windows.items()
        return next((m for m, (a, b) in spans if a.timestamp() <= moment <= b.timestamp()), -1)

    def alert(self, subject: str) -> str:
        """The text of the only alert whose subject ends so."""
        (text,) = [m["text"] for m in self.sandbox.mail(ALERTS) if m["subject"].endswith(subject)]
        return str(text)


@pytest.fixture
def life(app: Flask, sandbox: Sandbox) -> Iterator[Life]:
    """Two hours and a quarter."""
    it = Life(sandbox, buyers())
    it.begin()
    for minute in range(1, ENDS + 1):
        it.minute(minute)
    yield it


def expected(everybody: list[Buyer]) -> Mails:
    """Each mail and alert of the seeds' timeline at its sweep, once."""
    found: Mails = Counter()
    for buyer in everybody:
        found[0, buyer.email, f"Your order {buyer.code}: Concert"] += 1
        words = {
            OrderState.COMPLETED: f"Your ticket for Concert ({buyer.code})",
            OrderState.FAILED: f"Your payment did not go through: order {buyer.code}",
            OrderState.EXPIRED: f"Your order {buyer.code} has expired",
        }
        if buyer.ends_as in words:
            found[buyer.seen_at, buyer.email, words[buyer.ends_as]] += 1
        else:
            subject = f"[Kassa CRITICAL] Amount Mismatch - Order {buyer.code}"
            found[buyer.seen_at, ALERTS, subject] += 1
            told = f"Your payment for order {buyer.code} has arrived"
            found[buyer.seen_at, buyer.email, told] += 1
    stuck = sum(buyer.state(STUCK) is PENDING for buyer in everybody)
    gone = sum(buyer.ends_as is OrderState.EXPIRED for buyer in everybody)
    found[STUCK, ALERTS, f"[Kassa Alert] {stuck} Orders Stuck in Processing"] += 1
    found[CLOSES, ALERTS, f"[Kassa Alert] {gone} Orders Expired"] += 1
    return found


def test_a_hundred_orders_live_as_the_timeline_says(life: Life) -> None:
    everybody = life.everybody
    assert len(everybody) == 100
    sweeps = range(EVERY, ENDS + 1, EVERY)
    assert list(life.states) == [0, *sweeps]
    for minute in life.states:
        assert life.states[minute] == {b.code: b.state(minute) for b in everybody}, minute
    _each_sweep(life, sweeps)
    _digests(life)
    assert life.mails() == expected(everybody)
    _goods(life)


def _each_sweep(life: Life, sweeps: range) -> None:
    """What each sweep counted, and how often it asked SumUp."""
    for minute in sweeps:
        ended = Counter(b.ends_as for b in life.everybody if b.seen_at == minute)
        pending = sum(b.state(minute) is PENDING for b in life.everybody)
        calls = sum(b.calls(minute) for b in life.everybody)
        verified = ended.pop(OrderState.COMPLETED, 0)
        # And what happened since: Stripe's three lists and SumUp's one.
        calls += 4
        assert life.runs[minute] == (verified, ended.total(), pending, 0, calls), minute
        assert life.calls[minute] == calls, minute
        _lines(life, minute)
    polls = select(Payment.poll_count).join(Order).where(Order.state == OrderState.EXPIRED).distinct()
    # First within five minutes, then every five; the sweep that came twice at STUCK asked twice.
    assert db.session.scalars(polls).all() == [CLOSES // EVERY + 1]


WORDS = {OrderState.COMPLETED: "verified", OrderState.REVIEW: "review", PENDING: "still_pending"}


def _lines(life: Life, minute: int) -> None:
    """What the sweep printed: the seeds' lines, and with --verbose each order's polls."""
    asked = [buyer for buyer in life.everybody if minute <= buyer.seen_at]
    polls = minute // EVERY + sum(before < minute for before in TWICE)
    verified, failed, pending, errors, calls = life.runs[minute]
    told = life.told[minute]
    assert told[:2] == ["Starting payment polling service...", f"Found {len(asked)} pending orders to verify"]
    lines = told[2 : 2 + len(asked)]
    for buyer in asked:
        word = WORDS.get(buyer.state(minute), "failed")
        (line,) = (line for line in lines if line.startswith(f"Order {buyer.code}: {word} ("))
        assert f", {polls} {'poll' if polls == 1 else 'polls'}, " in line
        # The test's own seconds go by as well.
        assert minute <= float(line.split(", ")[-1].split()[0]) < minute + EVERY
        assert line.endswith(" of 120 minutes)")
    mails = next(line for line in told if line.startswith("  Mails sent: "))
    assert told[2 + len(asked) :] == [
        "",
        "Polling cycle complete!",
        f"  Verified: {verified}",
        f"  Failed: {failed}",
        f"  Still Pending: {pending}",
        f"  Errors: {errors}",
        f"  Provider calls: {calls}",
        mails,
        "",
        f"✓ Processed {len(asked)} orders",
    ]


def _digests(life: Life) -> None:
    """The texts in the seeds' form: each order is named once in the digest that it belongs to."""
    listed = {b.code: _line(b) for b in life.everybody}
    stuck = [listed[b.code] for b in life.everybody if b.state(STUCK) is PENDING]
    assert life.alert("Orders Stuck in Processing").strip() == (
        f"{len(stuck)} orders have been in 'pending_verification' for >30 minutes:\n\n"
        + "\n".join(stuck)
        + "\n\nThese may be legitimate slow payments, but check for patterns.\n\n"
        "Admin panel: http://localhost/admin/orders"
    )
    gone = [listed[b.code] for b in life.everybody if b.ends_as is OrderState.EXPIRED]
    final = life.alert("Orders Expired").splitlines()
    assert [line for line in final if line.startswith("- ")] == gone
    (odd,) = (buyer for buyer in life.everybody if buyer.tampered)
    assert life.alert(f"Amount Mismatch - Order {odd.code}").strip() == (
        "CRITICAL PAYMENT ISSUE\n\n"
        f"Order: {odd.code}\n"
        "Expected Amount: €25.00\n"
        "Received Amount: €20.00\n"
        f"Customer: {odd.email}\n"
        "Customer Name: Ada Buyer\n\n"
        "This order requires IMMEDIATE manual review.\n\n"
        "Do NOT issue tickets until verified.\n\n"
        f"View order: http://localhost/admin/orders/{odd.code}"
    )


def _line(buyer: Buyer) -> str:
    """An order as the digests name it."""
    made = db.session.scalars(select(Order.created_at).filter_by(code=buyer.code)).one()
    return f"- Order {buyer.code}: €25.00, created {made:%Y-%m-%d %H:%M}, email {buyer.email}"


def _goods(life: Life) -> None:
    """A ticket for whoever paid, and for nobody else; what was not paid is on sale again."""
    paid = [buyer.code for buyer in life.everybody if buyer.ends_as is OrderState.COMPLETED]
    holders = select(Order.code).join(Ticket, Ticket.order_id == Order.id)
    assert sorted(db.session.scalars(holders)) == sorted(paid)
    kind = db.session.scalars(select(TicketType)).one()
    # What is in review is held until a person decides.
    assert (kind.sold, kind.held) == (len(paid), 1)
    active = select(func.count()).select_from(Payment).where(Payment.state == PaymentState.OPEN)
    assert db.session.scalar(active) == 0
