"""Being forgotten: where a person is, what goes and stays, what is in the way, and once more by hash."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, text, update

import config
import logs
from domain import addresses, clock
from domain.errors import DomainError
from domain.ledger import adjustments
from domain.office import erasures, person_map, thinning
from domain.orders import managing
from domain.payments import incident_decisions, incidents, reconciling, refunds, starting
from domain.people import accounts, athletes, desks
from domain.post import alerts, outbox
from domain.security import api_keys
from extensions import Base, db
from models import (
    ApiKey,
    ApiRequest,
    Athlete,
    AuditEntry,
    BillerAnswer,
    CheckIn,
    DeskGrant,
    Erasure,
    ErasureState,
    Event,
    Incident,
    LinePlace,
    MailState,
    Order,
    OrderState,
    OutboxMail,
    Role,
    TimelineEntry,
    ToldReport,
    ToldState,
    User,
    Verdict,
    Wallet,
)
from tests.support.people import PASSWORD, log_in, mails, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place, report_on

# Nobody else's name or address has this in it.
MARK = "zebedee"
EMAIL = f"{MARK}@example.org"
NETWORK = "192.0.2.7"
NAME = "Zebedee Quill"
# Where the name stays, for what was paid.
IN_BOOKS = {"orders.name", "orders.folded", "order_words.word"}
# And in a file of the books only: what a person, or a bank, wrote of what was paid.
WRITTEN = {"told_reports.reference", "told_reports.note", "biller_answers.account", "biller_answers.answer"}
WALLET = {"transfers.description"}


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Move the time on by so many days."""
    real = clock.now

    def move(days: float) -> None:
        monkeypatch.setattr(clock, "now", lambda: real() + timedelta(days=days))

    return move


def paid(sandbox: Sandbox, event: Event, **more: Any) -> Order:
    order = place(event, 2, name=NAME, email=EMAIL, **more)
    payment = starting.open_at_provider(order)
    assert payment is not None and payment.provider_id is not None
    sandbox.do(payment.provider_id, "pay")
    reconciling.reconcile(payment.id, door="test")
    return db.session.get_one(Order, order.id, populate_existing=True)


def all_sent() -> None:
    """Every mail has left, without its PDF being made for it."""
    db.session.execute(
        update(OutboxMail).values(state=MailState.SENT, next_attempt_at=None, sent_at=clock.now())
    )
    db.session.commit()


def found() -> set[str]:
    """The columns, as `table.column`, of all rows in which the person still is."""
    places = set()
    db.session.rollback()
    for table in Base.metadata.sorted_tables:
        for row in db.session.execute(text(f'SELECT to_jsonb(t) FROM "{table.name}" t')).scalars():
            for name, value in row.items():
                said = json.dumps(value, ensure_ascii=False).lower()
                if MARK in said or NETWORK in said:
                    places.add(f"{table.name}.{name}")
    return places


def everywhere(app: Flask, sandbox: Sandbox) -> tuple[User, Order]:
    """A member who is in all that a person can be in, with a paid order, a free one and one that expired."""
    make_member("boss@example.org", Role.ADMIN)
    user = make_member(EMAIL)
    user.name = NAME
    owner = make_member("owner@example.org", Role.ORGANISER)
    event = make_event(organiser_id=owner.id)
    order = paid(sandbox, event, user=user, client_address=NETWORK)
    place(make_event("free", price_minor=0), name=NAME, email=EMAIL.upper().replace("ORG", "org"))
    unpaid = place(make_event("unpaid"), name=NAME, email=EMAIL)
    managing.cancel(unpaid, door="test")
    managing.remark(order, f"{NAME} rang", door="desk", actor_id=owner.id)
    managing.resend(order, door="desk", actor_id=owner.id)
    refunds.request(order.payments[0].id, 100, actor_id=owner.id, reason=f"For {NAME}")
    ticket = order.tickets[0]
    ticket.holder, order.lines[0].holder = NAME, NAME
    detail = {
        "holder": NAME,
        "door": "x",
        "said": ticket.code,
        "by": "Door",
        "type": "",
        "words": "",
        "at": "",
    }
    scan = CheckIn(
        scan_id="s1", event_id=event.id, ticket_id=ticket.id, verdict=Verdict.VALID, at=clock.now()
    )
    scan.detail = detail
    db.session.add(scan)
    athletes.add(user, {"name": NAME, "birth_date": date(2015, 5, 1), "club": "Zebedee Club"})
    strange = {"reference": "ORD-LOST2222-1", "payer_email": EMAIL, "payer_name": NAME}
    incidents.open_unknown(
        report_on(order.payments[0], "paid", provider_id="cs_lost", charge_id="ch_lost", **strange)
    )
    place_in_line = LinePlace(event_id=event.id, email=EMAIL, secret="s", network=NETWORK, order_id=order.id)
    place_in_line.created_at = clock.now()
    db.session.add(place_in_line)
    api_keys.make(user, "Zebedee's server", ["wallet:read"], 30)
    desks.give(owner, EMAIL)
    db.session.commit()
    elsewhere(user, order)
    all_sent()
    assert "Money came from this address" in " ".join(erasures.plan(EMAIL).problems)
    lost = db.session.scalars(select(Incident).filter_by(kind="unknown_payment")).one()
    incident_decisions.resolve(lost.id, how="dismiss", reason="Paid back there", actor_id=owner.id)
    for one in db.session.scalars(select(Event)):
        one.starts_at, one.ends_at = clock.now() - timedelta(days=3), clock.now() - timedelta(days=2)
    db.session.commit()
    return user, order


def elsewhere(user: User, order: Order) -> None:
    """Where nobody looks: what staff was mailed of them, what programs were answered, others' orders."""
    outbox.alert(*alerts.incident(order, "Strange money.", 100, "EUR"), key="incident:1")
    key = db.session.query(ApiKey).one()
    asked = {"method": "POST", "path": f"/x/{MARK}", "key": MARK, "body_hash": "", "attempt": ""}
    times = {"started_at": clock.now(), "finished_at": clock.now()}
    db.session.add(ApiRequest(caller=f"key:{key.id}", status=201, answer=f'"{NAME}"', **asked, **times))
    payment = order.payments[0]
    payment.reason, order.failure_reason, order.tickets[0].state_reason = (
        f"{NAME}?",
        NAME,
        "Mr Quill, zebedee",
    )
    payment.refunds[0].failure_reason = f"No such {NAME}"
    money = {"amount_minor": 1, "currency": "EUR", "provider": "stripe", "created_at": clock.now()}
    told = ToldReport(payment_id=payment.id, state=ToldState.PAID, reference=MARK, note=NAME, **money)
    db.session.add(told)
    db.session.flush()
    answer = {"provider": "kaspi", "txn_id": "1", "account": MARK, "answer": NAME, "answered_at": clock.now()}
    db.session.add(BillerAnswer(told_id=told.id, **answer))
    theirs = {"ours": {}, "theirs": {"state": "paid"}, "provider": {"customer": EMAIL}}
    seen = Incident(key="i1", kind="late_money", order_id=order.id, evidence=theirs, **money)
    seen.resolution, seen.resolution_reason, seen.resolved_at = "dismiss", f"{NAME} rang", clock.now()
    db.session.add(seen)
    wallet = Wallet(user_id=user.id, currency="EUR", created_at=clock.now())
    db.session.add(wallet)
    adjustments.adjust(user, "5", f"For {NAME}", takes=False, key="k1", actor_id=user.id)
    adjustments.adjust(user, "5", f"From {NAME}", takes=True, key="k2", actor_id=user.id)
    # Somebody else's, who had typed this address first.
    other = place(make_event("others"), name="Ann Other", email=EMAIL)
    managing.correct_email(other, "ann@example.org")
    assert not db.session.scalars(select(OutboxMail.key).where(OutboxMail.key.contains("@"))).all()
    managing.correct_email(other, EMAIL)
    managing.correct_email(other, "ann@example.org")
    managing.cancel(other, door="test")


def test_a_member_is_forgotten_after_a_week(
    app: Flask, sandbox: Sandbox, client: FlaskClient, later: Any
) -> None:
    user, order = everywhere(app, sandbox)
    user_id, order_id = user.id, order.id
    before = found()
    assert {"users.email", "orders.email", "outbox.to", "timeline.text", "check_ins.detail"} <= before
    assert {
        "athletes.name",
        "api_keys.name",
        "tickets.holder",
        "refunds.reason",
        "desk_grants.email",
    } <= before
    unplaced = {
        place for place in before if place.split(".")[1] not in person_map.PERSONS[place.split(".")[0]]
    }
    assert not unplaced, "the map does not know of these"
    log_in(client, EMAIL)
    page = client.get("/account/data").text
    assert "3 orders" in page and "The name on 1 paid order" in page and "10 years" in page
    for what in ("file", "forget"):
        post(client, f"/account/data/{what}", page="/account/data", password="wrong")
        assert "not right" in client.get("/account/data").text
    told = post(client, "/account/data/file", page="/account/data", password=PASSWORD)
    kept = json.loads(told.text)
    assert (kept["address"], kept["account"]["name"], len(kept["orders"])) == (EMAIL, NAME, 3)
    assert kept["account"]["athletes"][0]["birth_date"] == "2015-05-01"
    assert "argon2" not in told.text and "no-store" in told.headers["Cache-Control"]
    post(client, "/account/data/forget", page="/account/data", password=PASSWORD)
    assert [mail.to for mail in mails("erasure_asked")] == [EMAIL]
    assert "You have asked to be forgotten" in client.get("/account/data").text
    post(client, "/account/data/stay", page="/account/data")
    assert erasures.run_due() == 0 and db.session.query(Erasure).one().state is ErasureState.TAKEN_BACK
    post(client, "/account/data/forget", page="/account/data", password=PASSWORD)
    later(6.9)
    assert erasures.run_due() == 0
    later(7.1)
    with pytest.raises(DomainError, match="cannot be taken back now"):
        erasures.take_back(user)
    assert erasures.run_due() == 1 and erasures.run_due() == 0
    # The last mail is still to leave; then its row is emptied, too.
    assert found() == {*IN_BOOKS, *WRITTEN, *WALLET, "outbox.to"}
    outbox.deliver_due()
    assert sandbox.mail(EMAIL)[0]["subject"] == "Kassa has forgotten you"
    erasures.run_due()
    assert found() == {*IN_BOOKS, *WRITTEN, *WALLET}
    due = select(OutboxMail.id).where(OutboxMail.state == MailState.DUE)
    assert db.session.scalars(due).all() == [], "nothing is on its way to nowhere"
    names = db.session.scalars(select(Order.name).order_by(Order.id)).all()
    assert names == [NAME, "", "", "Ann Other"], "the name stays where money was paid, and nowhere else"
    gone = db.session.get_one(User, user_id, populate_existing=True)
    assert (gone.name, gone.is_active, gone.role) == ("", False, Role.BUYER)
    assert client.get("/account/").status_code == 303, "the session is over"
    whole = db.session.get_one(Order, order_id, populate_existing=True)
    assert (whole.state, len(whole.tickets)) == (OrderState.PARTIALLY_REFUNDED, 2)
    assert any("…" in entry.text for entry in whole.timeline)
    row = db.session.scalars(select(Erasure).order_by(Erasure.id.desc())).first()
    assert row is not None and row.kept_until is not None and row.address == ""
    noted = select(AuditEntry.deed).where(AuditEntry.subject == "erasure").order_by(AuditEntry.id)
    deeds = db.session.scalars(noted).all()
    assert deeds == ["made", "removed", "made", "changed"]
    # Whoever registers the address now is a stranger to all that.
    make_member(EMAIL)
    assert erasures.plan(EMAIL).orders == 0
    later(365.25 * 10 + 8)
    assert erasures.run_due() == 1
    assert db.session.scalars(select(Order.name).order_by(Order.id)).all() == ["", "", "", "Ann Other"]
    assert found() <= {"users.email", "users.folded"}, "of the stranger alone"


def test_what_is_in_the_way_is_said_and_waited_for(
    app: Flask, sandbox: Sandbox, later: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    boss = make_member("boss@example.org", Role.ADMIN)
    user, event = make_member(EMAIL), make_event()
    order = paid(sandbox, event)
    adjustments.adjust(user, "5", "Hello", takes=False, key="k1", actor_id=boss.id)
    open_order = place(make_event("another"), email=EMAIL)
    problems = " ".join(erasures.plan(EMAIL).problems)
    assert "a ticket for “Concert”, which is still to come" in problems
    assert f"Order {open_order.code} is not settled" in problems
    assert "The wallet has AED\xa05.00 in it" in problems
    with pytest.raises(DomainError, match="still to come"):
        erasures.ask_for(EMAIL, boss, "By letter")
    assert "An admin’s account" in " ".join(erasures.plan("boss@example.org").problems)
    managing.cancel(open_order, door="test")
    adjustments.adjust(user, "5", "Bye", takes=True, key="k2", actor_id=boss.id)
    event.starts_at, event.ends_at = clock.now() - timedelta(days=3), clock.now() - timedelta(days=2)
    db.session.commit()
    assert erasures.plan(EMAIL).problems == ()
    erasures.ask(user, PASSWORD)
    # Bought since: it waits, says why, and is done the day after it is over.
    fresh = paid(sandbox, make_event("since"))
    later(8)
    assert erasures.run_due() == 0
    waits = db.session.query(Erasure).one()
    assert waits.state is ErasureState.ASKED and "“Since”" in waits.waits_for
    assert db.session.get_one(Order, order.id, populate_existing=True).email == EMAIL
    later(60)
    # And one that is bought while the others are emptied: the account is locked, and looked at once more.
    user_id, each = user.id, erasures._each

    def meanwhile(*arguments: Any) -> None:
        each(*arguments)
        place(make_event("meanwhile", price_minor=0), email=EMAIL, user=db.session.get_one(User, user_id))

    monkeypatch.setattr(erasures, "_each", meanwhile)
    assert erasures.run_due() == 0
    monkeypatch.setattr(erasures, "_each", each)
    waits = db.session.query(Erasure).populate_existing().one()
    assert "“Meanwhile”" in waits.waits_for and db.session.get_one(User, user_id).is_active
    later(120)
    assert erasures.run_due() == 1 and found() <= IN_BOOKS | WALLET | {"outbox.to"}
    assert db.session.get_one(Order, fresh.id, populate_existing=True).email == addresses.GONE


def test_who_did_what_is_known_when_they_are_forgotten(app: Flask, later: Any) -> None:
    """Of whoever worked here the audit log keeps the address, for as long as the books; of nobody else."""
    boss_user, ann = make_member("boss@example.org", Role.ADMIN), make_member("ann@example.org")
    user_id, ann_id = make_member(EMAIL, Role.ADMIN).id, ann.id
    boss, browser = app.test_client(), app.test_client()
    log_in(boss, "boss@example.org")
    log_in(browser, EMAIL)
    post(browser, f"/admin/records/users/edit/?id={ann_id}", role="desk")
    mail = {"what": "it was removed", "link": ""}
    outbox.stage("second_factor_reset", key="k", to="boss@example.org", context={"whose": EMAIL, "who": "x"})
    outbox.stage("second_factor_changed", key="l", to="ann@example.org", context=mail)
    db.session.commit()
    desks.give(db.session.get_one(User, user_id), "helper@example.org")
    accounts.change_role(user_id, Role.BUYER)
    all_sent()
    page = boss.get(f"/admin/persons?q={EMAIL}").text
    assert "beside what was done here for others, until" in page and "at doors where they let" in page
    erasures.ask_for(EMAIL, boss_user, "By letter")
    assert erasures.run_due() == 1
    outbox.deliver_due()
    erasures.run_due()
    assert found() == {"users.worked_as"}
    assert db.session.scalars(select(DeskGrant.email)).all() == [addresses.GONE]
    page = boss.get("/admin/audit", query_string={"q": f"{EMAIL} desk"}).text
    assert EMAIL in page and "buyer → desk" in page
    # Whoever has the address next is somebody else.
    assert accounts.find(EMAIL) is None
    later(365.25 * 10 + 1)
    assert erasures.run_due() == 1 and found() == set()
    log_in(boss, "boss@example.org")
    assert "(address forgotten)" in boss.get("/admin/audit?q=desk").text


def test_an_admin_has_a_guest_forgotten_and_a_restore_does_it_again(
    app: Flask, sandbox: Sandbox, later: Any
) -> None:
    boss_user = make_member("boss@example.org", Role.ADMIN)
    boss = app.test_client()
    log_in(boss, "boss@example.org")
    event = make_event()
    order = paid(sandbox, event)
    order_id = order.id
    event.starts_at, event.ends_at = clock.now() - timedelta(days=3), clock.now() - timedelta(days=2)
    db.session.commit()
    all_sent()
    # As a backup would have it.
    saved = {"email": order.email, "name": order.name}
    assert "Nothing is kept about this address" in boss.get("/admin/persons?q=else@example.org").text
    page = f"/admin/persons?q={EMAIL}"
    assert "What stays" in boss.get(page).text
    told = post(boss, "/admin/persons/file", page=page, email=EMAIL)
    assert json.loads(told.text)["orders"][0]["name"] == NAME
    post(boss, "/admin/persons/forget", page=page, email=EMAIL, reason=" ")
    assert "Say who asked for it" in boss.get("/admin/persons").text
    post(boss, "/admin/persons/forget", page=page, email=EMAIL, reason=f"By letter of {NAME}, {EMAIL}")
    assert erasures.run_due() == 1
    outbox.deliver_due()
    erasures.run_due()
    assert found() == IN_BOOKS
    noted = select(AuditEntry).where(AuditEntry.subject == "erasure").order_by(AuditEntry.id)
    entry = db.session.scalars(noted).first()
    assert entry is not None and (entry.actor_id, entry.door) == (boss_user.id, "admin")
    run = app.test_cli_runner()
    lines = run.invoke(args=["users", "erasures"]).output
    assert MARK not in lines and len(lines.splitlines()) == 1
    # The backup comes back, without the erasure.
    restored = db.session.get_one(Order, order_id, populate_existing=True)
    restored.email, restored.name = saved["email"], saved["name"]
    db.session.query(Erasure).delete()
    db.session.commit()
    said = run.invoke(args=["users", "erase-again", "-"], input=lines + "nonsense\n1:x:y\n")
    assert said.output.endswith("1 of them are here: 1 forgotten again, 0 wait.\n")
    assert db.session.get_one(Order, order_id, populate_existing=True).email == addresses.GONE
    assert erasures.lines() == lines.split(), "by the same hash, so that the list does not grow"
    assert erasures.again(lines.splitlines()).found == 0
    # Nobody without the key can try addresses at a line; the keys before today's still read it.
    old = config.get()
    config.use(replace(old, secret_key="another key of this shop, and as long"))
    assert erasures.line_of(EMAIL) not in lines
    assert "1 line cannot be read: put the SECRET_KEY of then" in erasures.again(lines.splitlines()).words
    config.use(replace(config.get(), secret_keys_revoked=(old.secret_key,)))
    make_member(EMAIL)
    assert erasures.again(lines.splitlines()) == erasures.Again(1, 1, 0)
    assert accounts.find(EMAIL) is None
    # The log's line is as good: it tells of who was forgotten after the backup. In digits some would be
    # hidden there, as they look like a card's number.
    redact, logged = logs.Redactor(config.get()), lines.strip().translate(erasures._AS_LETTERS)
    chance = "2:0a1b2c3d:" + "4242424242424242" + 48 * "a"
    written = [chance, chance.translate(erasures._AS_LETTERS), logged]
    assert [redact(None, "info", {"line": one})["line"] == one for one in written] == [False, True, True]
    make_member(EMAIL)
    assert erasures.again([logged]) == erasures.Again(1, 1, 0)
    # A guest has no account by which the books find them: when they need the name no more, it goes.
    erasures.run_due()
    assert found() == IN_BOOKS
    later(365.25 * 10 + 1)
    assert erasures.run_due() > 0 and found() == set()


def test_buyers_of_past_events_are_thinned_by_age(app: Flask, sandbox: Sandbox, later: Any) -> None:
    event, young = make_event(), make_event("young")
    order, other = paid(sandbox, event), paid(sandbox, young)
    all_sent()
    for one, days in ((event, 1100), (young, 1000)):
        one.starts_at, one.ends_at = (
            clock.now() - timedelta(days=days + 1),
            clock.now() - timedelta(days=days),
        )
    db.session.commit()
    config.use(replace(config.get(), buyers_kept_months=0))
    assert thinning.run() == 0, "0 is for ever"
    config.use(replace(config.get(), buyers_kept_months=36))
    order.state = OrderState.REVIEW
    db.session.commit()
    assert thinning.run() == 0 and db.session.get_one(Event, event.id).thin_again_at is not None
    order.state = OrderState.COMPLETED
    db.session.commit()
    assert thinning.run() == 0, "it is looked at again in a month"
    later(31)
    assert thinning.run() == 1
    thinned = db.session.get_one(Order, order.id, populate_existing=True)
    assert (thinned.email, thinned.name, thinned.client_address) == (addresses.GONE, NAME, "")
    assert db.session.get_one(Order, other.id, populate_existing=True).email == EMAIL
    assert thinning.run() == 0
    sent = db.session.scalars(select(OutboxMail.to).where(OutboxMail.order_id == order.id)).all()
    assert set(sent) == {addresses.GONE}
    later(3700)
    assert thinning.run() == 2
    assert db.session.scalars(select(Order.name)).all() == ["", ""]
    # What is owed to somebody who is gone is on record, and goes nowhere.
    outbox.stage("refund", key="late", to=thinned.email, order=thinned)
    db.session.commit()
    late = db.session.scalars(select(OutboxMail).where(OutboxMail.key == "late")).one()
    assert late.state is MailState.FAILED and outbox.deliver_due().tried == 0
    assert db.session.query(TimelineEntry).count() > 0 and db.session.query(Athlete).count() == 0
    assert accounts.find(EMAIL) is None
