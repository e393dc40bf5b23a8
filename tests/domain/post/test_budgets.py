"""What strangers may have sent to one recipient: one budget, whatever they ask by, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from time import perf_counter

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

import config
from domain import clock
from domain.errors import DomainError
from domain.office import health
from domain.orders import managing, placing, waiting_line
from domain.payments import settling
from domain.people import accounts, desks, organisers
from domain.post import budgets, joining, mail_kinds, outbox
from domain.post.transport import MailError
from domain.security import one_time_links
from extensions import db
from models import LineMode, MailBudget, MailRequest, MailState, Order, OutboxMail, Role
from tests.support.people import PASSWORD, mails, make_member, post
from tests.support.queries import recorded
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place, report_on
from tests.support.threads import at_once

VICTIM = "vic@example.org"


@pytest.fixture(autouse=True)
def limited(app: Flask) -> None:
    config.use(replace(config.get(), limits=True))


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def move(**how_much: float) -> None:
        moment = clock.now() + timedelta(**how_much)
        monkeypatch.setattr(clock, "now", lambda: moment)

    return move


def arrived(sandbox: Sandbox, to: str = VICTIM) -> list[str]:
    """The subjects of what reached an address, the oldest first."""
    db.session.rollback()
    while outbox.deliver_due().tried:
        pass
    return [str(mail["subject"]) for mail in reversed(sandbox.mail(to))]


def test_a_stranger_is_not_mailed_through_corrected_addresses(
    app: Flask, sandbox: Sandbox, later: Callable[..., None]
) -> None:
    """Forty orders whose address is corrected to somebody else's: ten mails, then one with all the others."""
    event = make_event(capacity=100)
    spelled = (VICTIM, "VIC@EXAMPLE.ORG", "vic@\uff45xample.org", "vic@example\uff0eorg")
    for number in range(40):
        order = place(event, email=f"me{number}@example.com")
        managing.correct_email(order, spelled[number % 4])
    assert len(arrived(sandbox)) == budgets.MAILS
    # What is asked for by other doors comes out of the same budget, and nobody is refused.
    accounts.register(VICTIM, PASSWORD, "Vic Tim")
    managing.mail_links(VICTIM)
    place(event, email=VICTIM, client_address="192.0.2.1")
    assert len(arrived(sandbox)) == budgets.MAILS
    later(minutes=61)
    subjects = arrived(sandbox)[budgets.MAILS :]
    assert sorted(subjects) == ["32 messages from Kassa in one", "Your orders at Kassa"]
    joined = next(mail for mail in sandbox.mail(VICTIM) if "in one" in mail["subject"])
    told = db.session.scalars(select(Order).where(Order.email == VICTIM)).all()
    sent_before = "".join(mail["text"] for mail in sandbox.mail(VICTIM) if mail["id"] != joined["id"])
    assert all(order.secret in joined["text"] + sent_before for order in told)
    assert "Confirm your address" in joined["text"]
    assert not mails("held_back")[-1].context.get("links")
    later(minutes=61)
    assert len(arrived(sandbox)) == budgets.MAILS + 2


def test_eight_at_one_moment_are_counted_one_by_one(app: Flask) -> None:
    event = make_event(capacity=100)
    event_id, kind = event.id, event.ticket_types[0].id

    def order(number: int) -> int:
        made = 0
        for _ in range(4):
            found = db.session.get_one(type(event), event_id)
            try:
                placing.place(found, {kind: 1}, name="Ada", email=VICTIM, client_address="2001:db8::1")
                made += 1
            except DomainError as error:
                assert error.code == "too_many_orders"
        return made

    made = [one for one in at_once(app, 8, order) if isinstance(one, int)]
    assert sum(made) == db.session.query(Order).count() == budgets.ORDERS
    leaving = [mail for mail in mails("order_received") if mail.held_with is None]
    assert len(leaving) == budgets.MAILS
    # A refused form was undone with all that it had counted, and somebody else's network is another one.
    counted = db.session.scalars(select(MailBudget.count).where(MailBudget.purpose == "order")).all()
    assert counted == [budgets.ORDERS]
    place(db.session.get_one(type(event), event_id), email=VICTIM, client_address="2001:db8:0:1::1")


def test_what_was_paid_for_always_leaves(app: Flask) -> None:
    event = make_event(capacity=100)
    for _ in range(20):
        order = place(event, email=VICTIM)
        settling.settle(order.payments[0].id, report_on(order.payments[0], "paid"), door="test")
    assert [mail.held_with for mail in mails("tickets")] == [None] * 20
    assert [mail.held_with for mail in mails("order_received")].count("mail") == 20 - budgets.MAILS


def test_a_held_link_of_an_order_is_not_told_once_it_is_paid(app: Flask, later: Callable[..., None]) -> None:
    event = make_event(capacity=100)
    orders = [place(event, email=VICTIM) for _ in range(budgets.MAILS + 3)]
    for order in orders[-2:]:
        settling.settle(order.payments[0].id, report_on(order.payments[0], "paid"), door="test")
    later(minutes=61)
    # One was held back and is still to be paid: it leaves as it was written, and alone.
    assert joining.join_due() == 1
    due = [mail for mail in mails("order_received") if mail.state is MailState.DUE]
    assert [mail.order_id for mail in due] == [order.id for order in orders[:-2]]
    assert not mails("held_back") and {mail.held_with for mail in due} == {None}


def test_what_is_held_back_is_still_true_when_it_leaves(
    app: Flask, sandbox: Sandbox, later: Callable[..., None]
) -> None:
    """Orders that are paid again or are another's by now, and links that would have ended meanwhile."""
    event = make_event(capacity=100)
    orders = [place(event, email=VICTIM) for _ in range(budgets.MAILS)]
    for order in orders[:3]:
        settling.settle(order.payments[0].id, report_on(order.payments[0], "expired"), door="test")
    managing.pay_again(orders[0].id, "stripe", payer_id=None)
    managing.correct_email(orders[1], "me@example.com")
    later(minutes=30)
    accounts.register(VICTIM, PASSWORD, "Vic Tim")
    accounts.register(VICTIM, PASSWORD, "Vic Tim")
    later(minutes=31)
    assert joining.join_due() == 1
    told = mails("held_back")[-1].context["links"]
    assert {link["title"] for link in told} == {
        f"Your order {orders[2].code} has expired",
        mail_kinds.about(mails("already_registered")[0]),
    }
    # The first registration's link was voided by the second; this one lives for its hour.
    token = next(link["url"] for link in told if "/account/" in link["url"]).rpartition("/")[2]
    later(minutes=58)
    assert one_time_links.look(token, one_time_links.TO_CHOOSE_A_PASSWORD).user.email == VICTIM


def test_a_mailbox_is_counted_once_and_its_owner_gets_into_a_line(app: Flask, sandbox: Sandbox) -> None:
    event = make_event(capacity=100, line=LineMode.OFF)
    for number in range(budgets.MAILS + 2):
        place(event, email=f"v.ic+{number}@gmail.com")
    assert [mail.held_with for mail in mails("order_received")].count("mail") == 2
    event.line = LineMode.ON
    db.session.commit()
    waiting_line.ask(event, "vic@gmail.com", user=None, client_address="192.0.2.9")
    assert [mail.held_with for mail in mails("line_place")] == [None]


def test_other_doors_by_which_a_stranger_is_mailed(app: Flask, sandbox: Sandbox) -> None:
    """An order that is given up at the provider, again and again, and a desk that nobody asked for."""
    event, boss = make_event(capacity=100), make_member("boss@example.org", Role.ORGANISER)
    order = place(event, email=VICTIM, client_address="192.0.2.1")
    for _ in range(budgets.ORDERS - 1):
        payment = order.payments[-1]
        settling.settle(payment.id, report_on(payment, "cancelled"), door="webhook")
        managing.pay_again(order.id, "stripe", payer_id=None)
        db.session.refresh(order)
    desks.give(boss, VICTIM)
    leaving = list(db.session.scalars(select(OutboxMail).filter_by(to=VICTIM)))
    assert sum(mail.held_with is None for mail in leaving) == budgets.MAILS
    assert mails("desk_given")[0].held_with == "mail"
    # Each time it kept a ticket anew, and orders have a limit.
    settling.settle(order.payments[-1].id, report_on(order.payments[-1], "cancelled"), door="webhook")
    with pytest.raises(DomainError, check=lambda error: error.code == "too_many_orders"):
        managing.pay_again(order.id, "stripe", payer_id=None)
    # What one of ours has cancelled is always told.
    last = place(event, email=VICTIM)
    managing.cancel(last, door="office", actor_id=boss.id)
    assert mails("order_cancelled")[-1].held_with is None


def test_free_tickets_and_guests_count_and_members_do_not(app: Flask) -> None:
    free = make_event("free", price_minor=0, capacity=100)
    admin = make_member("boss@example.org")
    for _ in range(budgets.MAILS):
        placing.place_guests(free, free.ticket_types[0].id, 1, name="Vic", email=VICTIM, actor_id=admin.id)
    guest = place(free, email=VICTIM)
    assert mails("tickets")[-1].held_with == "mail"
    # Nor can an organiser send them again and again to whom they have put on the list.
    managing.resend(guest, door="organiser")
    assert mails("tickets")[-1].held_with == "mail"
    managing.resend(guest, door="desk")
    assert mails("tickets")[-1].held_with is None
    member = make_member("own@example.org")
    for _ in range(budgets.MAILS + 1):
        place(free, email="own@example.org", user=member)
    assert all(mail.held_with is None for mail in mails("tickets") if mail.to == "own@example.org")


def test_a_reset_has_a_budget_that_nothing_else_spends(
    app: Flask, client: FlaskClient, sandbox: Sandbox, later: Callable[..., None]
) -> None:
    make_member(VICTIM)
    event = make_event(capacity=100)
    accounts.register(VICTIM, PASSWORD, "Vic Tim")
    for _ in range(budgets.MAILS):
        place(event, email=VICTIM)
    before = len(arrived(sandbox))
    answers = set()
    for number in range(budgets.RESETS + 2):
        answer = post(client, "/account/forgot", email=VICTIM)
        answers.add((answer.status_code, answer.location))
        assert len(arrived(sandbox)) - before == min(number + 1, budgets.RESETS)
    assert answers == {(303, "/account/mailed")}
    later(minutes=61)
    assert arrived(sandbox).count("Choose a new password for Kassa") == budgets.RESETS + 1


def test_asking_for_a_password_does_nothing_that_depends_on_the_address(client: FlaskClient) -> None:
    """The same statements and the same answer, whether it is known, unknown, or closed."""
    make_member("ann@example.org")
    closed = make_member("closed@example.org")
    accounts.disable(closed.id)
    for page, path in (("/account/forgot", "/account/forgot"), ("/tickets/find", "/tickets/find")):
        seen = set()
        for email in ("ann@example.org", "nobody@example.org", "closed@example.org"):
            token = post(client, path, page=page, email="warm@example.org")
            assert token.status_code == 303
            with recorded() as statements:
                began = perf_counter()
                answer = post(client, path, page=page, email=email)
                assert perf_counter() - began < 5
            seen.add((tuple(statements), answer.status_code, answer.location))
        assert len(seen) == 1, seen
    outbox.deliver_due()
    assert [mail.to for mail in mails("reset_password")] == ["ann@example.org"]
    assert not db.session.query(MailRequest).count()


def test_odd_addresses_are_one_alert_an_hour_and_no_fault_of_ours(
    app: Flask, sandbox: Sandbox, later: Callable[..., None]
) -> None:
    """Free orders to addresses that a mail server refuses: seen at /admin/mail, and told once."""
    for number in range(25):
        to = f"odd{number}@example.com"
        outbox.stage("order_links", key=f"odd:{number}", to=to, context={"links": []}, unproven=True)
    db.session.commit()
    for mail in mails("order_links"):
        mail.state, mail.next_attempt_at = MailState.FAILED, None
        outbox._tell(mail, MailError("550 No such mailbox.", permanent=True))
    db.session.commit()
    assert len(arrived(sandbox, "alerts@example.org")) == 1
    assert health.report().checks["outbox"].state == health.OK
    later(minutes=61)
    assert len(arrived(sandbox, "alerts@example.org")) == 2
    second = sandbox.mail("alerts@example.org")[0]
    assert "24 more" in second["text"] and "(and 23 more)" in second["subject"]
    assert "odd1@example.com" in second["text"] and "odd24@example.com" in second["text"]
    # A server that puts us off for days, or what was held back until now, is none either.
    for mail in mails("order_links"):
        mail.state, mail.attempts, mail.next_attempt_at = MailState.DUE, 3, clock.now()
        mail.created_at = clock.now() - timedelta(hours=2)
    mails("order_links")[1].attempts = 0
    db.session.commit()
    assert health.report().checks["outbox"].state == health.OK
    for mail in mails("order_links"):
        mail.state, mail.next_attempt_at = MailState.FAILED, None
    # A mail that somebody has paid for is another matter; and so is a server that refuses everybody.
    mails("order_links")[0].unproven = False
    mails("order_links")[0].created_at = clock.now()
    db.session.commit()
    assert health.report().checks["outbox"].state == health.DEGRADED


def test_alerts_of_other_kinds_leave_at_once(app: Flask, sandbox: Sandbox) -> None:
    for number in range(3):
        outbox.alert(
            f"Amount Mismatch - Order {number}", "It differs.", key=f"incident:{number}", critical=True
        )
        outbox.alert(f"Missing Payment Record - Order {number}", "Gone.", key=f"incident:m{number}")
        outbox.alert(
            f"{number + 1} {('Order', 'Orders')[number > 0]} Expired", "Unpaid.", key=f"expired:{number}"
        )
        hall = make_member(f"hall{number}@example.org")
        profile = dict.fromkeys(organisers.FIELDS, "") | {"name": f"Hall {number}", "description": "Jazz."}
        organisers.apply(hall, profile | {"contact_email": hall.email})
    db.session.commit()
    assert len(arrived(sandbox, "alerts@example.org")) == 4
