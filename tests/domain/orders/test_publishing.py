"""Listing fees: an order whose payment publishes its event, and what becomes of it when the fee goes back."""

from __future__ import annotations

from decimal import Decimal

import pytest
from flask import Flask
from flask.testing import FlaskClient

from domain.catalogue import availability, events
from domain.catalogue.availability import Sale
from domain.errors import DomainError, NotFound
from domain.ledger import transfers
from domain.office import invariants
from domain.orders import managing, publishing
from domain.payments import reconciling, refunds, starting
from domain.post.mail_kinds import compose
from domain.sweep import sweeping
from extensions import db
from models import Event, EventState, Order, OrderState, Payment, PaymentState, Role, User
from tests.support.merchants import make_organiser, use_sumup
from tests.support.people import log_in, mails, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, make_user


@pytest.fixture(autouse=True)
def _fee(app: Flask, environ: dict[str, str], sandbox: Sandbox) -> None:
    use_sumup(environ, sandbox, listing_fee=Decimal("12.50"), listing_fee_currency="EUR")


@pytest.fixture
def olga(app: Flask) -> User:
    return make_organiser()


@pytest.fixture
def draft(olga: User) -> Event:
    return make_event("gala", organiser_id=olga.id, state=EventState.DRAFT)


def begun(event: Event, user: User, provider: str = "stripe") -> tuple[Order, Payment]:
    """The fee's order with its payment open at the provider."""
    order = publishing.publish(event, user, provider)
    assert order is not None
    payment = starting.open_at_provider(order)
    assert payment is not None
    return order, payment


def state_of(event: Event) -> EventState:
    db.session.rollback()
    return db.session.get_one(Event, event.id, populate_existing=True).state


def paid(event: Event, user: User, sandbox: Sandbox, provider: str = "stripe") -> Payment:
    """The fee, paid and settled."""
    _, payment = begun(event, user, provider)
    sandbox.do(str(payment.provider_id), "pay")
    reconciling.reconcile(payment.id, door="success")
    assert state_of(event) is EventState.PUBLISHED
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def test_nothing_to_pay_publishes_at_once(
    olga: User, draft: Event, environ: dict[str, str], sandbox: Sandbox
) -> None:
    use_sumup(environ, sandbox)
    assert publishing.publish(draft, olga, None) is None
    assert state_of(draft) is EventState.PUBLISHED


def test_the_houses_events_cost_nothing(app: Flask) -> None:
    boss = make_user("boss@example.org", Role.ADMIN)
    event = make_event("house", state=EventState.DRAFT)
    assert publishing.publish(event, boss, None) is None
    assert state_of(event) is EventState.PUBLISHED


@pytest.mark.parametrize("provider", ["stripe", "sumup"])
def test_the_event_goes_live_when_the_fee_settles_by_the_sweep(
    olga: User, draft: Event, sandbox: Sandbox, provider: str
) -> None:
    order, payment = begun(draft, olga, provider)
    assert payment.account != "" and state_of(draft) is EventState.DRAFT
    sandbox.do(str(payment.provider_id), "pay")
    sandbox.advance(400)
    event_id, order_id, account = draft.id, order.id, payment.account
    sweeping.run("test")
    assert db.session.get_one(Event, event_id).state is EventState.PUBLISHED
    order = db.session.get_one(Order, order_id)
    assert order.state is OrderState.COMPLETED and order.tickets == []
    assert transfers.balance(transfers.PLATFORM, "EUR") == 1250
    assert transfers.balance(transfers.provider_account(provider, account), "EUR") == -1250
    (letter,) = mails("listing_live")
    assert letter.to == "olga@example.org" and mails("tickets") == []
    assert invariants.look() == []


def test_the_fee_is_paid_from_the_wallet(olga: User, draft: Event) -> None:
    transfers.wallet_of(olga.id, "EUR")
    transfers.post(
        key="gift",
        debit=transfers.SUSPENSE,
        credit=transfers.wallet_account(olga.id),
        amount_minor=2000,
        currency="EUR",
        kind="adjustment",
    )
    db.session.commit()
    assert "wallet" in [way.name for way in publishing.offer(draft, olga).ways]
    order = publishing.publish(draft, olga, "wallet")
    assert order is not None
    starting.open_at_provider(order)
    assert state_of(draft) is EventState.PUBLISHED
    assert transfers.balance(transfers.wallet_account(olga.id), "EUR") == 750


def test_asking_again_takes_up_the_same_order(olga: User, draft: Event, sandbox: Sandbox) -> None:
    order, payment = begun(draft, olga)
    again = publishing.publish(draft, olga, "stripe")
    assert again is not None and again.id == order.id and len(again.payments) == 1
    other = publishing.publish(draft, olga, "sumup")
    assert other is not None and other.id == order.id
    assert [p.state for p in other.payments] == [PaymentState.CANCELLED, PaymentState.OPEN]
    sandbox.do(str(other.payments[1].provider_id), "pay")
    reconciling.reconcile(other.payments[1].id, door="success")
    assert state_of(draft) is EventState.PUBLISHED
    assert payment.id == other.payments[0].id


def test_a_cancelled_attempt_can_be_paid_after_all(olga: User, draft: Event, sandbox: Sandbox) -> None:
    order, _ = begun(draft, olga)
    assert managing.cancel(order, door="order_page").state is OrderState.CANCELLED
    again, payment = begun(draft, olga)
    assert again.id == order.id
    sandbox.do(str(payment.provider_id), "pay")
    reconciling.reconcile(payment.id, door="success")
    assert state_of(draft) is EventState.PUBLISHED


def test_what_cannot_be_published_is_refused_in_words(olga: User, draft: Event) -> None:
    with pytest.raises(NotFound):
        publishing.publish(draft, make_organiser("other@example.org"), "stripe")
    with pytest.raises(DomainError, match="how to pay"):
        publishing.publish(draft, olga, None)
    with pytest.raises(DomainError, match="how to pay"):
        publishing.publish(draft, olga, "wallet")
    for state, code in ((EventState.CANCELLED, "cancelled"), (EventState.PUBLISHED, "published")):
        draft.state = state
        db.session.commit()
        with pytest.raises(DomainError) as refusal:
            publishing.publish(draft, olga, "stripe")
        assert refusal.value.code == code
    draft.state, draft.starts_at, draft.ends_at = (
        EventState.DRAFT,
        draft.created_at.replace(year=2020),
        draft.created_at.replace(year=2021),
    )
    db.session.commit()
    with pytest.raises(DomainError, match="over"):
        publishing.publish(draft, olga, "stripe")


def test_a_fee_that_is_refunded_takes_the_event_to_review_until_an_admin_decides(
    olga: User, draft: Event, sandbox: Sandbox
) -> None:
    boss = make_user("boss@example.org", Role.ADMIN)
    payment = paid(draft, olga, sandbox)
    refunds.request(payment.id, 1250, actor_id=boss.id, reason="By mistake")
    assert state_of(draft) is EventState.REVIEW
    assert availability.selling(draft).state is Sale.WITHDRAWN
    assert transfers.balance(transfers.PLATFORM, "EUR") == 0
    (alert,) = [mail for mail in mails("alert") if "Off Sale" in mail.context["subject"]]
    assert "/admin/listings" in alert.context["text"]
    (letter,) = mails("listing_review")
    assert letter.to == "olga@example.org" and "fee was refunded" in letter.context["what"]
    with pytest.raises(DomainError, match="An admin looks"):
        publishing.publish(draft, olga, "stripe")
    assert [item.event.slug for item in publishing.waiting()] == ["gala"]
    with pytest.raises(DomainError, match="Say why"):
        publishing.decide_review(draft.id, "publish", reason=" ", actor_id=boss.id)
    publishing.decide_review(draft.id, "publish", reason="Our mistake", actor_id=boss.id)
    assert state_of(draft) is EventState.PUBLISHED
    reconciling.reconcile(payment.id, door="admin")
    assert state_of(draft) is EventState.PUBLISHED, "what was decided stays decided"
    with pytest.raises(DomainError, match="nothing to decide"):
        publishing.decide_review(draft.id, "cancel", reason="Again", actor_id=boss.id)
    timeline = db.session.get_one(Payment, payment.id).order.timeline
    assert [entry.actor_id for entry in timeline if entry.what == "listing_decided"] == [boss.id]
    assert [letter.context for letter in mails("listing_decided")] == [{"state": "published"}]


@pytest.mark.parametrize("provider", ["stripe", "sumup"])
def test_a_fee_that_is_refunded_at_the_provider_does_the_same(
    olga: User, draft: Event, sandbox: Sandbox, provider: str
) -> None:
    payment = paid(draft, olga, sandbox, provider)
    sandbox.do(str(payment.provider_id), "refund", amount_minor=1250)
    reconciling.reconcile(payment.id, door="admin")
    assert state_of(draft) is EventState.REVIEW
    assert invariants.look() == []


def test_a_dispute_takes_it_to_review_and_winning_it_brings_it_back(
    olga: User, draft: Event, sandbox: Sandbox
) -> None:
    payment = paid(draft, olga, sandbox)
    sandbox.do(str(payment.provider_id), "dispute")
    reconciling.reconcile(payment.id, door="admin")
    assert state_of(draft) is EventState.REVIEW
    (alert,) = [mail for mail in mails("alert") if "Disputed" in mail.context["subject"]]
    assert "tickets" not in alert.context["text"]
    sandbox.do(str(payment.provider_id), "dispute_won")
    reconciling.reconcile(payment.id, door="admin")
    assert state_of(draft) is EventState.PUBLISHED
    assert [letter.context for letter in mails("listing_decided")] == [{"state": "published"}]


def test_a_lost_dispute_waits_for_the_admin_who_may_cancel(
    olga: User, draft: Event, sandbox: Sandbox
) -> None:
    boss = make_user("boss@example.org", Role.ADMIN)
    payment = paid(draft, olga, sandbox)
    sandbox.do(str(payment.provider_id), "dispute")
    sandbox.do(str(payment.provider_id), "dispute_lost")
    reconciling.reconcile(payment.id, door="admin")
    assert state_of(draft) is EventState.REVIEW
    publishing.decide_review(draft.id, "cancel", reason="The bank took it", actor_id=boss.id)
    assert state_of(draft) is EventState.CANCELLED
    assert [letter.context for letter in mails("listing_decided")] == [{"state": "cancelled"}]


def test_money_for_an_event_that_was_cancelled_meanwhile_waits_for_a_person(
    olga: User, draft: Event, sandbox: Sandbox
) -> None:
    order, payment = begun(draft, olga)
    events.cancel_event(draft)
    sandbox.do(str(payment.provider_id), "pay")
    reconciling.reconcile(payment.id, door="success")
    assert db.session.get_one(Order, order.id).state is OrderState.REVIEW
    assert state_of(draft) is EventState.CANCELLED


def test_a_fee_that_was_paid_is_not_asked_for_again(olga: User, draft: Event, sandbox: Sandbox) -> None:
    paid(draft, olga, sandbox)
    events.update_event(draft, state=EventState.DRAFT)
    assert publishing.offer(draft, olga).price.amount_minor == 0
    assert publishing.publish(draft, olga, None) is None
    assert state_of(draft) is EventState.PUBLISHED


# --- What admins may ------------------------------------------------------------------------------------


@pytest.fixture
def boss(app: Flask) -> FlaskClient:
    """An admin's browser."""
    make_member("boss@example.org", Role.ADMIN)
    browser = app.test_client()
    log_in(browser, "boss@example.org")
    return browser


def record(event: Event, state: str) -> dict[str, str]:
    """What the admins' form of the record sends."""
    return {
        "title": event.title,
        "slug": event.slug,
        "timezone": event.timezone,
        "starts_at": "2027-01-10T19:30",
        "ends_at": "2027-01-10T23:00",
        "currency": event.currency,
        "state": state,
    }


def test_an_admins_record_does_not_go_round_the_fee(boss: FlaskClient, draft: Event) -> None:
    edit = f"/admin/records/events/edit/?id={draft.id}"
    answer = post(boss, edit, **record(draft, "published"))
    assert "Its listing fee of €12.50 is not paid" in answer.text
    assert state_of(draft) is EventState.DRAFT
    # The rest of the record, and the house's events, are the admins' own.
    assert post(boss, edit, **(record(draft, "draft") | {"title": "Gala 2"})).status_code == 302
    house = make_event("house", state=EventState.DRAFT)
    edit = f"/admin/records/events/edit/?id={house.id}"
    assert post(boss, edit, **record(house, "published")).status_code == 302
    assert state_of(house) is EventState.PUBLISHED


def test_an_admin_waives_the_fee_and_the_timeline_says_who_and_why(
    boss: FlaskClient, draft: Event, olga: User
) -> None:
    begun(draft, olga)
    page = f"/organiser/events/{draft.slug}/publish"
    assert "Or waive the fee" in boss.get(page).text
    post(boss, f"{page}/waive", page=page, reason=" ")
    assert state_of(draft) is EventState.DRAFT
    post(boss, f"{page}/waive", page=page, reason="A gift to the school")
    assert state_of(draft) is EventState.PUBLISHED
    unpaid, order = db.session.query(Order).order_by(Order.id)
    assert (unpaid.state, order.state, order.total_minor) == (OrderState.CANCELLED, OrderState.COMPLETED, 0)
    entry = next(each for each in order.timeline if each.what == "fee_waived")
    assert entry.actor is not None and entry.actor.email == "boss@example.org"
    assert entry.text == "The fee of €12.50 was waived: A gift to the school"
    (letter,) = mails("listing_live")
    assert letter.to == "olga@example.org" and "no listing fee is asked for" in compose(letter).text
    assert publishing.due(draft).amount_minor == 0 and invariants.look() == []


def test_an_organiser_waives_no_fee(app: Flask, draft: Event, boss: FlaskClient) -> None:
    owner = make_member("owner@example.org", Role.ORGANISER)
    draft.organiser_id = owner.id
    db.session.commit()
    browser = app.test_client()
    log_in(browser, "owner@example.org")
    page = f"/organiser/events/{draft.slug}/publish"
    assert "waive" not in browser.get(page).text
    post(browser, f"{page}/waive", page=page, reason="I am nice")
    assert state_of(draft) is EventState.DRAFT and db.session.query(Order).count() == 0


def test_an_event_in_review_is_not_put_back_by_its_record(boss: FlaskClient, draft: Event) -> None:
    draft.state = EventState.REVIEW
    db.session.commit()
    edit = f"/admin/records/events/edit/?id={draft.id}"
    for state in ("published", "draft"):
        assert "decide it at /admin/listings" in post(boss, edit, **record(draft, state)).text
    assert state_of(draft) is EventState.REVIEW
    assert "Not a valid choice" in post(boss, edit, **record(draft, "cancelled")).text
    assert state_of(draft) is EventState.REVIEW
