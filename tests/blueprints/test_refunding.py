"""The refund form: ticks decide the amount, a page says what will happen, and only then it does."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

import config
from domain.orders import placing
from domain.payments import reconciling, refunds, starting
from domain.post import mail_kinds
from extensions import db
from models import (
    Order,
    OrderState,
    Payment,
    Refund,
    RefundState,
    Role,
    Ticket,
    TicketState,
    TicketType,
    User,
)
from tests.support.factors import PROVE, Time, answer, set_up
from tests.support.people import log_in, mails, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import address, make_event, place
from tests.support.web import press

VALID, VOID = TicketState.VALID, TicketState.VOID


@pytest.fixture
def boss(app: Flask) -> FlaskClient:
    make_member("boss@example.org", Role.ADMIN)
    client = app.test_client()
    log_in(client, "boss@example.org")
    return client


def paid(sandbox: Sandbox, quantity: int = 2) -> Order:
    """Tickets of 12.00, paid."""
    payment = starting.open_at_provider(place(make_event(price_minor=1200), quantity))
    assert payment is not None and payment.provider_id is not None
    sandbox.do(payment.provider_id, "pay")
    reconciling.reconcile(payment.id, door="test")
    return fresh(payment.order)


def fresh(order: Order) -> Order:
    db.session.rollback()
    return db.session.get_one(Order, order.id, populate_existing=True)


def page(order: Order) -> str:
    return f"/admin/orders/{order.code}"


def ask(client: FlaskClient, order: Order, ticked: int = 0, **fields: Any) -> TestResponse:
    """The form with the first tickets ticked, sent."""
    tickets = [str(ticket.id) for ticket in order.tickets[:ticked]]
    fields = {"payment_id": str(order.payments[0].id), "reason": "Ill", "tickets": tickets} | fields
    return post(client, f"{page(order)}/refund", page=page(order), **fields)


def words(shown: TestResponse) -> str:
    """What a page says, without its tags."""
    main = shown.text[shown.text.index("<h1>") :]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", main)))


def states(order: Order) -> list[TicketState]:
    return [ticket.state for ticket in fresh(order).tickets]


def sent() -> list[int]:
    return list(db.session.scalars(select(Refund.amount_minor).order_by(Refund.id)))


def test_one_of_two_tickets_is_what_goes_back(boss: FlaskClient, sandbox: Sandbox) -> None:
    order = paid(sandbox)
    first, second = (ticket.code for ticket in order.tickets)
    shown = ask(boss, order, 1)
    told = words(shown)
    assert told.startswith("Send €12.00 back?") and "€12.00 goes back to Ada Buyer, ada@example.org" in told
    assert f"Ticket 1 ({first}) stops" in told and f"Ticket 2 ({second}) stays" in told
    assert sent() == [] and states(order) == [VALID, VALID]
    press(boss, shown, f"{page(order)}/refund")
    assert sent() == [1200] and states(order) == [VOID, VALID]
    assert fresh(order).state is OrderState.PARTIALLY_REFUNDED
    assert "The refund of €12.00 went through." in boss.get(page(order)).text


@pytest.mark.parametrize(
    ("ticked", "amount", "says", "after"),
    [
        (2, "", "Send €24.00 back?", [VOID, VOID]),
        (0, "5", "Send €5.00 back?", [VALID, VALID]),
        (1, "24", "Tickets 1", [VOID, VOID]),
        (2, "20.00", "The tickets that you ticked cost €24.00, and €20.00 is sent.", [VOID, VOID]),
        (0, "24.00", "Nothing of the payment is left then.", [VOID, VOID]),
    ],
)
def test_what_the_page_says_is_what_happens(
    boss: FlaskClient, sandbox: Sandbox, ticked: int, amount: str, says: str, after: list[TicketState]
) -> None:
    order = paid(sandbox)
    shown = ask(boss, order, ticked, amount=amount)
    told = words(shown)
    assert says in told
    assert ("stop" in told) is (VOID in after) and (" stays as it is" in told or "stay as" in told) is (
        VALID in after
    )
    press(boss, shown, f"{page(order)}/refund")
    assert states(order) == after


def test_without_a_tick_and_an_amount_nothing_is_sent(boss: FlaskClient, sandbox: Sandbox) -> None:
    order = paid(sandbox)
    ask(boss, order)
    assert "Tick the tickets whose money goes back" in boss.get(page(order)).text and sent() == []


def test_pressed_twice_it_is_shown_again_and_sent_once(boss: FlaskClient, sandbox: Sandbox) -> None:
    order = paid(sandbox)
    shown = ask(boss, order, amount="5.00")
    press(boss, shown, f"{page(order)}/refund")
    again = press(boss, shown, f"{page(order)}/refund")
    assert again.status_code == 200 and "Send €5.00 back?" in again.text
    assert sent() == [500]


def test_pressed_twice_at_once_it_is_sent_once(
    boss: FlaskClient, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other press gets in between this one's look at the form and its turn at the payment."""
    order = paid(sandbox)
    shown = ask(boss, order, amount="5.00")
    noted_before, pressed = refunds._noted_before, list[TestResponse]()

    def slow(payment_id: int) -> int | None:
        if not pressed:
            pressed.append(shown)
            other = boss.application.test_client()
            log_in(other, "boss@example.org")
            press(other, ask(other, order, amount="5.00"), f"{page(order)}/refund")
        return noted_before(payment_id)

    monkeypatch.setattr(refunds, "_noted_before", slow)
    press(boss, shown, f"{page(order)}/refund")
    assert sent() == [500]
    assert "Another refund of this payment was asked for meanwhile" in boss.get(page(order)).text


def test_what_changed_meanwhile_is_shown_before_it_is_done(boss: FlaskClient, sandbox: Sandbox) -> None:
    order = paid(sandbox)
    shown = ask(boss, order, amount="12.00")
    assert "stops" not in words(shown)
    refunds.request(order.payments[0].id, 1200, actor_id=None, reason="By another admin")
    again = press(boss, shown, f"{page(order)}/refund")
    assert "Tickets 1" in words(again) and sent() == [1200]


def test_tickets_of_several_prices_cost_what_they_cost(boss: FlaskClient, sandbox: Sandbox) -> None:
    event = make_event(price_minor=1200)
    event.ticket_types.append(TicketType(name="Child", price_minor=500, capacity=5, position=1))
    event.ticket_types.append(TicketType(name="Baby", price_minor=0, capacity=5, position=2))
    db.session.commit()
    wanted = {kind.id: 1 for kind in event.ticket_types}
    payment = starting.open_at_provider(
        placing.place(event, wanted, name="Ada Buyer", email="ada@example.org")
    )
    assert payment is not None and payment.provider_id is not None
    sandbox.do(payment.provider_id, "pay")
    reconciling.reconcile(payment.id, door="test")
    order = fresh(payment.order)
    child, baby = (next(t for t in order.tickets if t.ticket_type.name == name) for name in ("Child", "Baby"))
    shown = ask(boss, order, tickets=[str(child.id), str(baby.id)])
    assert "Send €5.00 back?" in shown.text
    press(boss, shown, f"{page(order)}/refund")
    void = db.session.scalars(select(Ticket.id).where(Ticket.state == VOID)).all()
    assert sent() == [500] and set(void) == {child.id, baby.id}


def test_a_refund_that_failed_after_all_is_corrected_on_the_order_s_page(
    app: Flask, client: FlaskClient, sandbox: Sandbox
) -> None:
    order = paid(sandbox)
    payment: Payment = order.payments[0]
    refunds.request(payment.id, 2400, actor_id=None, reason="Ill")
    assert "You were paid back" in client.get(address(order)).text
    sandbox.do(payment.provider_id or "", "refund_fail")
    reconciling.reconcile(payment.id, door="test")
    assert db.session.scalars(select(Refund.state)).one() is RefundState.FAILED
    text = words(client.get(address(order)))
    assert "The refund of €24.00 that we wrote to you about did not get through" in text
    assert states(order) == [VALID, VALID]
    # And by mail, once: the one before said that the money is on its way.
    reconciling.reconcile(payment.id, door="test")
    (mail,) = mails("refund_failed")
    letter = mail_kinds.compose(mail).text
    assert mail.to == "ada@example.org" and "That was too early: the refund did not get through" in letter
    assert "€24.00" in letter and "Valid again:" in letter
    refunds.request(payment.id, 2400, actor_id=None, reason="Once more")
    assert "did not get through" not in client.get(address(order)).text


def test_a_large_sum_asks_for_the_second_factor_and_goes_on_by_itself(
    boss: FlaskClient, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Time(monkeypatch)
    order = paid(sandbox)
    small, large = (replace(config.get(), second_factor_above=Decimal(limit)) for limit in (24, 23))
    factor = set_up(db.session.scalars(select(User).where(User.role == Role.ADMIN)).one())
    time.move(seconds=30)
    post(boss, PROVE, second_factor_code=factor.code)
    time.move(minutes=6)
    for settings, asked in ((small, False), (large, True)):
        config.use(settings)
        # Whoever only looks at what will happen is not asked.
        shown = ask(boss, order, ticked=2)
        assert "Your second factor" not in shown.text
        if asked:
            page_asking = press(boss, shown, f"{page(order)}/refund")
            assert "Your second factor" in page_asking.text
            assert not db.session.scalars(select(Refund)).all()
            assert "went through" in answer(boss, page_asking, factor.code).text
    made = db.session.scalars(select(Refund)).one()
    assert (made.amount_minor, made.state) == (2400, RefundState.SUCCEEDED)
