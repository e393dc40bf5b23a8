"""What happens side by side. Each race has its negative control: the same race with the lock taken out.

Where a provider is asked, it is each of those that the sandbox imitates, over HTTP and through its SDK.
"""

from __future__ import annotations

from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from domain import locks
from domain.connections import linked_accounts
from domain.errors import DomainError
from domain.orders import managing
from domain.payments import fulfilment, reconciling, refunds, settling, starting
from domain.payments.fulfilment import SoldOut
from domain.payments.settling import Outcome
from domain.security import one_time_links
from extensions import db
from models import (
    Connection,
    ConnectionState,
    Event,
    Order,
    Payment,
    PaymentState,
    Ticket,
    TicketType,
    Transfer,
    User,
)
from tests.support.merchants import allow, make_organiser
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place, report_on
from tests.support.threads import at_once
from tests.support.tills import Till

# As many as the test's connection pool allows to be inside a transaction at once.
SIDE_BY_SIDE = 4


def count(table: type[Ticket] | type[Transfer]) -> int:
    return db.session.scalars(select(func.count()).select_from(table)).one()


def created(till: Till, quantity: int = 1) -> Payment:
    """A payment that the provider has not been asked for yet."""
    return place(make_event(providers=[till.name]), quantity).payments[0]


def open_payment(till: Till, quantity: int = 1) -> Payment:
    """A payment whose page at the provider is open."""
    payment = starting.open_at_provider(created(till, quantity).order)
    assert payment is not None and payment.state is PaymentState.OPEN
    assert payment.provider == till.name
    return payment


def take_the_lock_out(monkeypatch: pytest.MonkeyPatch, readers: int) -> None:
    """Let so many read a payment before the first of them writes, as without a lock."""
    together = Barrier(readers)

    def unlocked(payment_id: int) -> tuple[Payment, Order]:
        found = db.session.get_one(Payment, payment_id, populate_existing=True)
        order = found.order
        with suppress(BrokenBarrierError):
            together.wait(1)
        return found, order

    monkeypatch.setattr(locks, "payment_and_order", unlocked)


def at_provider(sandbox: Sandbox) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sandbox.get("payments")
    return found


def test_a_start_made_by_many_at_once_opens_one_payment(app: Flask, sandbox: Sandbox, till: Till) -> None:
    """The buyer's clicks and the sweep: Stripe is told our key, SumUp refuses a reference that it has."""
    payment_id = created(till).id
    results = at_once(
        app,
        SIDE_BY_SIDE,
        lambda n: starting.finish_start(payment_id, door=f"door{n}", patient=n % 2 == 0),
    )
    assert [r for r in results if isinstance(r, Exception)] == []
    (only,) = at_provider(sandbox)
    payment = db.session.get_one(Payment, payment_id, populate_existing=True)
    assert (payment.state, payment.provider_id) == (PaymentState.OPEN, only["id"])
    assert payment.url == only["hosted_url"]


def test_doors_that_settle_at_the_same_moment_credit_once(app: Flask, sandbox: Sandbox, till: Till) -> None:
    payment = open_payment(till, 2)
    sandbox.do(payment.provider_id or "", "pay")
    payment_id = payment.id
    results = at_once(app, 20, lambda n: reconciling.reconcile(payment_id, door=f"door{n}"))
    assert [r for r in results if isinstance(r, Exception)] == []
    assert sum(r.changed for r in results if isinstance(r, Outcome)) == 1
    assert (count(Ticket), count(Transfer)) == (2, 1)


def test_without_the_row_lock_they_would_collide(
    app: Flask, sandbox: Sandbox, till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: unlocked, all see the payment open, and only the constraints stop a second credit."""
    payment = open_payment(till, 2)
    sandbox.do(payment.provider_id or "", "pay")
    payment_id = payment.id
    take_the_lock_out(monkeypatch, 3)
    results = at_once(app, 3, lambda n: reconciling.reconcile(payment_id, door=f"door{n}"))
    assert [r for r in results if isinstance(r, Exception)] != []
    assert (count(Ticket), count(Transfer)) == (2, 1)


def test_four_hundred_buyers_for_two_hundred_tickets(app: Flask) -> None:
    event_id = make_event(capacity=200).id

    def buy(number: int) -> int:
        sold = 0
        for turn in range(20):
            try:
                place(db.session.get_one(Event, event_id), 1, email=f"b{number}-{turn}@example.org")
                sold += 1
            except SoldOut:
                db.session.rollback()
        return sold

    results = at_once(app, 20, buy)
    assert [r for r in results if isinstance(r, Exception)] == []
    assert sum(r for r in results if isinstance(r, int)) == 200
    row = db.session.execute(select(TicketType.held, TicketType.sold)).one()
    assert (row.held, row.sold) == (200, 0)
    assert db.session.scalars(select(func.count()).select_from(Order)).one() == 200


def test_the_last_ticket_in_a_forced_interleaving(app: Flask) -> None:
    """Everybody has read that one ticket is left before anybody takes it: still only one gets it."""
    event_id = make_event(capacity=1).id
    together = Barrier(SIDE_BY_SIDE)

    def buy(number: int) -> str:
        event = db.session.get_one(Event, event_id)
        assert event.ticket_types[0].available == 1
        together.wait(10)
        return place(event, 1, email=f"b{number}@example.org").code

    results = at_once(app, SIDE_BY_SIDE, buy)
    assert len([r for r in results if isinstance(r, str)]) == 1, results
    assert {type(r) for r in results if not isinstance(r, str)} == {SoldOut}


def test_counting_before_taking_would_oversell(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: stock that is read and then written is refused only by the table's own constraint."""
    event_id = make_event(capacity=1).id
    together = Barrier(SIDE_BY_SIDE)

    def read_then_write(wanted: dict[int, int], *, held: int, sold: int) -> None:
        for type_id, quantity in wanted.items():
            free = db.session.scalars(
                select(TicketType.capacity - TicketType.sold - TicketType.held).where(
                    TicketType.id == type_id
                )
            ).one()
            together.wait(10)
            if free < quantity:
                raise SoldOut("sold_out", "sold out")
            db.session.execute(
                update(TicketType).where(TicketType.id == type_id).values(held=TicketType.held + quantity)
            )

    monkeypatch.setattr(fulfilment, "_claim", read_then_write)
    results = at_once(
        app,
        SIDE_BY_SIDE,
        lambda n: place(db.session.get_one(Event, event_id), 1, email=f"b{n}@example.org").code,
    )
    refused = [r for r in results if isinstance(r, Exception)]
    assert refused and not any(isinstance(r, SoldOut) for r in refused)


def test_a_form_posted_many_times_at_once_is_one_order(app: Flask) -> None:
    event_id = make_event().id
    results = at_once(
        app,
        SIDE_BY_SIDE,
        lambda n: place(db.session.get_one(Event, event_id), 2, form_token="same").code,
    )
    assert len(set(results)) == 1
    assert db.session.scalars(select(TicketType.held)).one() == 2


def test_paid_and_closed_at_the_same_moment(app: Flask, sandbox: Sandbox, till: Till) -> None:
    """The buyer pays while the hold is given up: whichever is first, the money has its goods."""
    payment = open_payment(till)
    payment_id, provider_id = payment.id, payment.provider_id or ""

    def work(number: int) -> None:
        if number == 0:
            sandbox.do(provider_id, "pay")
        else:
            reconciling.reconcile(payment_id, door=f"door{number}", closing=True)

    # A buyer who is too late reads that the page is closed.
    refused = [r for r in at_once(app, SIDE_BY_SIDE, work) if isinstance(r, BaseException)]
    assert all(isinstance(r, AssertionError) and "409" in str(r) for r in refused)
    reconciling.reconcile(payment_id, door="test")
    order = db.session.scalars(select(Order)).one()
    sold = at_provider(sandbox)[0]["status"] == "paid"
    assert (order.state.value, count(Ticket)) == (("completed", 1) if sold else ("cancelled", 0))
    row = db.session.execute(select(TicketType.held, TicketType.sold)).one()
    assert (row.held, row.sold) == (0, int(sold))


def paid(sandbox: Sandbox, till: Till) -> int:
    """A payment that has bought its ticket; its id."""
    payment = open_payment(till)
    sandbox.do(payment.provider_id or "", "pay")
    reconciling.reconcile(payment.id, door="test")
    return payment.id


def give_back(app: Flask, payment_id: int, people: int) -> list[Exception]:
    """So many ask for the same refund at the same moment; what all but one of them were told."""
    results = at_once(
        app, people, lambda n: refunds.request(payment_id, 2500, actor_id=None, reason="Ill").state
    )
    refused = [r for r in results if isinstance(r, Exception)]
    assert len(refused) == people - 1, results
    return refused


def test_a_refund_that_many_ask_for_at_once_is_made_once(app: Flask, sandbox: Sandbox, till: Till) -> None:
    refused = give_back(app, paid(sandbox, till), SIDE_BY_SIDE)
    assert all(isinstance(r, DomainError) for r in refused), refused
    assert at_provider(sandbox)[0]["refunded_minor"] == 2500


def test_without_the_row_lock_only_the_index_stops_a_second_refund(
    app: Flask, sandbox: Sandbox, till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the test above."""
    payment_id = paid(sandbox, till)
    take_the_lock_out(monkeypatch, 3)
    assert any(isinstance(r, IntegrityError) for r in give_back(app, payment_id, 3))


def test_two_words_that_contradict_each_other_at_the_same_moment(app: Flask) -> None:
    """Of a paid and a closed report, whichever comes first, the money has its goods."""
    order = place(make_event())
    payment = order.payments[0]
    settling.settle(payment.id, report_on(payment, "open"), door="test")
    payment_id, paid, gone = payment.id, report_on(payment, "paid"), report_on(payment, "expired")
    results = at_once(
        app, SIDE_BY_SIDE, lambda n: settling.settle(payment_id, gone if n % 2 else paid, door=f"door{n}")
    )
    assert [r for r in results if isinstance(r, Exception)] == []
    order = db.session.scalars(select(Order)).one()
    assert (order.state.value, count(Ticket)) == ("completed", 1)
    row = db.session.execute(select(TicketType.held, TicketType.sold)).one()
    assert (row.held, row.sold) == (0, 1)


def test_correcting_the_address_while_it_is_paid(app: Flask) -> None:
    payment = place(make_event()).payments[0]
    settling.settle(payment.id, report_on(payment, "open"), door="test")
    payment_id, order_id, report = payment.id, payment.order_id, report_on(payment, "paid")

    def work(number: int) -> None:
        if number % 2:
            settling.settle(payment_id, report, door="test")
        else:
            managing.correct_email(db.session.get_one(Order, order_id), f"new{number}@example.org")

    at_once(app, SIDE_BY_SIDE, work)
    order = db.session.get_one(Order, order_id, populate_existing=True)
    assert len(order.tickets) == 1


# --- Connecting accounts --------------------------------------------------------------------------------


def in_use() -> list[Connection]:
    query = select(Connection).where(Connection.state != ConnectionState.DISCONNECTED)
    return list(db.session.scalars(query))


def connect_at_once(app: Flask, wishes: list[tuple[User, str]]) -> list[Exception]:
    """Each connects an account, all at the same moment; what those were told who could not."""
    ready = []
    for user, merchant in wishes:
        url, _ = linked_accounts.authorize_url(user, "sumup")
        ready.append((user.id, allow(url, merchant)["code"]))
    uri = linked_accounts.redirect_uri("sumup")
    results = at_once(
        app, len(ready), lambda n: linked_accounts.connect(ready[n][0], "sumup", ready[n][1], uri).account
    )
    return [r for r in results if isinstance(r, Exception)]


def test_an_account_that_two_connect_at_once_is_one_of_theirs(app: Flask) -> None:
    one, other = make_organiser("one@example.org"), make_organiser("other@example.org")
    (refused,) = connect_at_once(app, [(one, "MHARBOUR"), (other, "MHARBOUR")])
    assert isinstance(refused, DomainError) and refused.code == "account_taken"
    assert [row.account for row in in_use()] == ["MHARBOUR"]


def test_of_two_accounts_that_one_connects_at_once_the_last_is_in_use(app: Flask) -> None:
    olga = make_organiser()
    assert connect_at_once(app, [(olga, "MHARBOUR"), (olga, "MLANTERN")]) == []
    assert len(in_use()) == 1


def test_without_the_users_lock_only_the_index_stops_a_second_account(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the test above."""
    together, olga = Barrier(2), make_organiser()

    def unlocked(user_id: int) -> User:
        with suppress(BrokenBarrierError):
            together.wait(2)
        return db.session.get_one(User, user_id)

    wishes = [(olga, "MHARBOUR"), (olga, "MLANTERN")]
    find = linked_accounts._in_use

    def read(*which: Any) -> list[Connection]:
        found = find(*which)
        with suppress(BrokenBarrierError):
            together.wait(2)
        return found

    monkeypatch.setattr(linked_accounts, "_in_use", read)
    monkeypatch.setattr(one_time_links, "lock", unlocked)
    assert len(connect_at_once(app, wishes)) == 1
