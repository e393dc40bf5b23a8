"""The house's account for organisers' events: the operator's choice, and whom the ledger says it owes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import downgrade, upgrade

import config
from domain.catalogue import availability, events, front_page, house_account, payees
from domain.catalogue.availability import Sale
from domain.connections import linked_accounts
from domain.errors import DomainError
from domain.ledger import transfers, wallet
from domain.office import demo, doctor, organiser_events
from domain.orders import placing
from domain.payments import incident_decisions, reconciling, refunds, settling, starting
from domain.people import organisers
from extensions import db
from models import Event, EventState, Incident, Order, OrderState, Payment, Role, User
from tests.support.merchants import allow, make_organiser
from tests.support.people import log_in, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place, report_on
from tests.support.web import newest_order

PROFILE = {"name": "Pier Nine", "contact_email": "olga@example.org"}


@pytest.fixture
def olga(app: Flask, environ: dict[str, str]) -> Iterator[User]:
    """An organiser with a profile, in a Kassa as a new one is."""
    config.use(config.load(environ | {"HOUSE_ACCOUNT_FOR_ORGANISERS": ""}))
    user = make_organiser("olga@example.org")
    organisers.edit(user, PROFILE)
    yield user
    config.use(config.load(environ))


def let(user: User, allowed: bool = True) -> None:
    profile = organisers.of(user)
    assert profile is not None
    house_account.allow(profile.id, allowed)
    db.session.expire_all()


def connect(user: User, merchant: str = "MHARBOUR") -> None:
    url, _ = linked_accounts.authorize_url(user, "sumup")
    linked_accounts.connect(
        user.id, "sumup", allow(url, merchant)["code"], linked_accounts.redirect_uri("sumup")
    )
    db.session.expire_all()


def names(event: Event) -> list[str]:
    return [way.name for way in events.ways_to_pay(event)]


def test_an_organisers_event_does_not_sell_through_the_house_unless_it_is_let(olga: User) -> None:
    event = make_event(organiser_id=olga.id)
    assert availability.selling(event).state is Sale.PAYMENTS_OFF
    assert front_page.upcoming()[0].state is Sale.PAYMENTS_OFF
    with pytest.raises(DomainError) as refused:
        place(event, provider="stripe")
    assert refused.value.code == "payments_off"
    let(olga)
    assert availability.selling(event).is_open
    # SumUp's account of the house takes others' money by a setting of its own.
    assert names(event) == ["stripe"]
    let(olga, allowed=False)
    assert availability.selling(event).state is Sale.PAYMENTS_OFF
    assert availability.selling(make_event("house")).is_open


def test_what_is_on_the_way_is_paid_where_it_was_begun(olga: User, sandbox: Sandbox) -> None:
    let(olga)
    payment = starting.open_at_provider(place(make_event(organiser_id=olga.id)))
    assert payment is not None
    let(olga, allowed=False)
    sandbox.do(payment.provider_id or "", "pay")
    reconciling.reconcile(payment.id, door="test")
    assert newest_order().state is OrderState.COMPLETED
    assert transfers.held_for(olga.id) == {"EUR": 2500}


def test_the_organisers_own_account_comes_first(olga: User) -> None:
    event = make_event(organiser_id=olga.id)
    connect(olga)
    assert names(event) == ["sumup"]
    let(olga)
    assert names(event) == ["sumup", "stripe"]
    # Also where the event names them the other way round, and where nobody chooses.
    event.providers = ["stripe", "sumup"]
    db.session.commit()
    assert names(event) == ["sumup", "stripe"]
    (payment,) = place(event).payments
    assert (payment.provider, payment.account, payment.owed_to_id) == ("sumup", "MHARBOUR", None)
    assert [p.account for p in payees.offered(event)][0] == "MHARBOUR"


def test_the_form_says_whose_account_it_is(olga: User, client: FlaskClient) -> None:
    db.session.get_one(User, olga.id).password_hash = make_member("pat@example.org").password_hash
    db.session.commit()
    log_in(client, "olga@example.org")
    page = client.get("/organiser/events/new").text
    assert "accounts of your own only" in page and "Card" not in page
    connect(olga)
    page = client.get("/organiser/events/new").text
    assert "your own account, MHARBOUR" in page
    (box,) = re.findall(r'<input[^>]*value="sumup"[^>]*>', page)
    assert " checked" in box
    let(olga)
    page = client.get("/organiser/events/new").text
    assert "the account of Kassa" in page and "is owed to you" in page
    assert [name for name, _ in organiser_events.provider_choices(olga.id)] == ["sumup", "stripe"]


def test_a_wallets_money_is_in_the_houses_account_too(olga: User, client: FlaskClient) -> None:
    event = make_event(organiser_id=olga.id)
    connect(olga)
    ann = make_member()
    wallet.add_balance(ann, 9000, "Present", key="present", currency="EUR")
    assert [way.name for way in events.ways_to_pay(event, ann)] == ["sumup"]
    with pytest.raises(DomainError) as refused:
        place(event, user=ann, email=ann.email, provider="wallet")
    assert refused.value.code == "not_connected"
    let(olga)
    assert [way.name for way in events.ways_to_pay(event, ann)] == ["sumup", "stripe", "wallet"]
    starting.open_at_provider(place(event, user=ann, email=ann.email, provider="wallet"))
    assert transfers.held_for(olga.id) == {"EUR": 2500}
    payment = newest_order().payments[0]
    refunds.request(payment.id, 1000, actor_id=None, reason="Ill")
    assert transfers.held_for(olga.id) == {"EUR": 1500}


# --- The ledger -----------------------------------------------------------------------------------------


def sold(sandbox: Sandbox, event: Event, quantity: int = 2, **more: Any) -> Payment:
    payment = starting.open_at_provider(place(event, quantity, **more))
    assert payment is not None
    sandbox.do(payment.provider_id or "", "pay")
    reconciling.reconcile(payment.id, door="test")
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def balances(user: User) -> tuple[int, int]:
    """What is on the organiser's own accounts by their sales, and what the house owes them."""
    return (
        transfers.balance(transfers.sales_account(user.id), "EUR"),
        transfers.balance(transfers.owed_account(user.id), "EUR"),
    )


def test_the_ledger_says_whose_money_it_is(olga: User, sandbox: Sandbox) -> None:
    let(olga)
    connect(olga)
    event = make_event(organiser_id=olga.id, capacity=50)
    sold(sandbox, event, provider="sumup")
    assert balances(olga) == (5000, 0)
    sold(sandbox, event, 3, provider="stripe")
    assert balances(olga) == (5000, 7500)
    sold(sandbox, make_event("house"), provider="stripe")
    assert balances(olga) == (5000, 7500)
    assert transfers.balance(transfers.sales_account(None), "EUR") == 5000


def test_refunds_and_disputes_take_it_from_where_it_went(olga: User, sandbox: Sandbox) -> None:
    let(olga)
    payment = sold(sandbox, make_event(organiser_id=olga.id))
    provider_id = payment.provider_id or ""
    refunds.request(payment.id, 1000, actor_id=None, reason="Ill")
    assert balances(olga) == (0, 4000)
    sandbox.do(provider_id, "dispute", amount_minor=1500)
    reconciling.reconcile(payment.id, door="test")
    assert balances(olga) == (0, 2500)
    sandbox.do(provider_id, "dispute_won")
    reconciling.reconcile(payment.id, door="test")
    assert balances(olga) == (0, 4000)
    sandbox.do(provider_id, "refund", amount_minor=500)
    reconciling.reconcile(payment.id, door="test")
    assert balances(olga) == (0, 3500)
    sandbox.do(provider_id, "refund_fail")
    reconciling.reconcile(payment.id, door="test")
    assert balances(olga)[0] == 0


def test_what_was_sold_before_it_was_kept_apart_goes_back_from_where_it_is(
    olga: User, sandbox: Sandbox
) -> None:
    """A payment of the version before was booked as the organiser's sale, and is refunded from there."""
    let(olga)
    order = place(make_event(organiser_id=olga.id), 2)
    order.payments[0].owed_to_id = None
    db.session.commit()
    payment = starting.open_at_provider(order)
    assert payment is not None
    sandbox.do(payment.provider_id or "", "pay")
    reconciling.reconcile(payment.id, door="test")
    assert balances(olga) == (5000, 0)
    refunds.request(payment.id, 5000, actor_id=None, reason="Ill")
    assert balances(olga) == (0, 0)


def test_goods_that_a_person_hands_over_are_owed_too(olga: User) -> None:
    let(olga)
    event = make_event(organiser_id=olga.id)
    payment = place(event).payments[0]
    for report in (report_on(payment, "open"), report_on(payment, "paid", amount_minor=2400)):
        settling.settle(payment.id, report, door="test")
    incident = db.session.query(Incident).one()
    incident_decisions.resolve(incident.id, how="issue", reason="A rounding", actor_id=None)
    assert balances(olga) == (0, 2400)


def test_a_listing_fee_is_owed_to_nobody(olga: User) -> None:
    event = make_event(organiser_id=olga.id, state="draft")
    fee = placing.place_listing_fee(event, olga, 1000, "EUR", provider="stripe", form_token="fee")
    assert fee.payments[0].owed_to_id is None


# --- The operator ---------------------------------------------------------------------------------------


def test_an_admin_lets_an_organiser_and_sees_what_is_held(olga: User, client: FlaskClient) -> None:
    make_member("boss@example.org", Role.ADMIN)
    log_in(client, "boss@example.org")
    profile = organisers.of(olga)
    assert profile is not None
    page = f"/admin/organisers/{profile.id}"
    assert "Let them sell through it" in client.get(page).text
    assert "accounts of their own" in client.get("/admin/setup").text
    post(client, f"{page}/house", page=page, allowed="yes")
    event = make_event(organiser_id=olga.id)
    payment = place(event).payments[0]
    for state in ("open", "paid"):
        settling.settle(payment.id, report_on(payment, state), door="test")
    shown = client.get(page).text
    assert "Stop new sales through it" in shown and "€25.00" in shown
    assert "Pier Nine may sell through the house" in client.get("/admin/setup").text
    assert "Held for Pier Nine" in client.get(f"/organiser/events/{event.slug}").text
    post(client, f"{page}/house", page=page, allowed="no")
    assert availability.selling(db.session.get_one(Event, event.id)).state is Sale.PAYMENTS_OFF
    assert client.post(f"{page}/house", data={"allowed": "yes"}).status_code == 400


def test_an_organiser_lets_nobody(olga: User, client: FlaskClient) -> None:
    profile = organisers.of(olga)
    make_member("other@example.org", Role.ORGANISER)
    log_in(client, "other@example.org")
    assert profile is not None
    answer = post(client, f"/admin/organisers/{profile.id}/house", page="/tickets/find", allowed="yes")
    assert answer.status_code == 403
    assert not house_account.serves_organiser(olga.id)


def test_an_organisers_page_says_that_nobody_can_pay(olga: User, client: FlaskClient) -> None:
    make_member("boss@example.org", Role.ADMIN)
    log_in(client, "boss@example.org")
    make_event(organiser_id=olga.id)
    make_event("draft", organiser_id=olga.id, state=EventState.DRAFT)
    assert "Nobody can pay for it yet" in client.get("/organiser/events/concert").text
    assert "Nobody can pay for its tickets yet" in client.get("/organiser/events/draft/publish").text
    connect(olga)
    assert "Nobody can pay" not in client.get("/organiser/events/draft/publish").text
    assert "Nobody can pay for it yet" not in client.get("/organiser/events/concert").text


def test_the_doctor_tells_who_sells_through_the_house(olga: User) -> None:
    def words() -> str:
        return doctor._house_account().words

    assert "accounts of their own" in words()
    let(olga)
    assert words().startswith("Pier Nine may sell through the house's account.")


def test_an_upgrade_leaves_on_sale_what_is_on_sale(
    app: Flask, environ: dict[str, str], sandbox: Sandbox
) -> None:
    """Before, every organiser's event sold through the house's account."""
    on_sale, sold_before, own, drafts, bare = (
        make_organiser(f"{name}@example.org") for name in ("onsale", "before", "own", "drafts", "bare")
    )
    make_event("on-sale", organiser_id=on_sale.id)
    past = make_event("sold-before", organiser_id=sold_before.id)
    order_id = place(past, provider="stripe").id
    past.state = EventState.CANCELLED
    connect(own, "MLANTERN")
    make_event("own", organiser_id=own.id, providers=["sumup"])
    make_event("draft", organiser_id=drafts.id, state="draft")
    for user in (on_sale, sold_before, own, drafts):
        organisers.edit(user, PROFILE)
    make_event("bare", organiser_id=bare.id, providers=["stripe"])
    db.session.commit()
    ids = [user.id for user in (on_sale, sold_before, own, drafts, bare)]
    # Reading the ids has begun a transaction, for which the migration would wait.
    db.session.rollback()
    downgrade(revision="0003")
    upgrade()
    config.use(config.load(environ | {"HOUSE_ACCOUNT_FOR_ORGANISERS": ""}))
    assert [house_account.serves_organiser(one) for one in ids] == [True, True, False, False, True]
    assert db.session.get_one(Order, order_id).payments[0].owed_to_id is None
    event = events.event("bare")
    assert availability.selling(event).is_open


def test_the_demo_sells_where_there_is_only_the_houses_account(app: Flask, environ: dict[str, str]) -> None:
    bare = {name: "" for name in environ if name.startswith("SUMUP_")}
    config.use(config.load(environ | bare | {"HOUSE_ACCOUNT_FOR_ORGANISERS": ""}))
    demo.seed()
    assert all(one.state in (Sale.OPEN, Sale.SOLD_OUT) for one in front_page.upcoming())
    made = demo.event("gig", capacity=5, price_minor=1000, currency="EUR", provider="stripe")
    assert names(made) == ["stripe"] and availability.selling(made).is_open
    config.use(config.load(environ))
