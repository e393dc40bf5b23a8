"""The back office: who may enter, what it shows, and that each button does what it says, once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TypeVar

import pytest
from flask import Flask
from flask.testing import FlaskClient
from rq import SimpleWorker

import config
from domain import clock, paging
from domain.office import overview
from domain.payments import reconciling, settling, starting
from extensions import JobText, db, queue
from models import (
    Agent,
    Event,
    EventState,
    Incident,
    MailState,
    Order,
    OrderState,
    OutboxMail,
    Page,
    Payment,
    PaymentState,
    Refund,
    RefundState,
    Role,
    SweepRun,
    TicketState,
    TicketType,
    User,
)
from tests.support.people import log_in, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place, report_on
from tests.support.tournaments import add_category, make_tournament
from tests.support.web import press

T = TypeVar("T")
PAGES = (
    "/admin/",
    "/admin/orders",
    "/admin/payments",
    "/admin/incidents",
    "/admin/incidents/lost",
    "/admin/statistics",
    "/admin/statistics/methods.csv",
    "/admin/sweeps",
    "/admin/rings",
    "/admin/mail",
    "/admin/restored",
    "/admin/stripe",
    "/admin/sumup",
    "/admin/kaspi",
    "/admin/records/",
    "/admin/records/events/",
    "/admin/records/events/new/",
    "/admin/records/ticket-types/",
    "/admin/records/ticket-types/new/",
    "/admin/records/users/",
    "/admin/records/agents/",
    "/admin/records/agents/new/",
    "/admin/records/pages/",
    "/admin/records/door-passes/",
)


@pytest.fixture
def boss(app: Flask) -> FlaskClient:
    """An admin's browser."""
    make_member("boss@example.org", Role.ADMIN)
    browser = app.test_client()
    log_in(browser, "boss@example.org")
    return browser


def opened(quantity: int = 2) -> tuple[Order, Payment]:
    """An order whose payment is open at the sandbox."""
    order = place(make_event(), quantity)
    payment = starting.open_at_provider(order)
    assert payment is not None and payment.provider_id is not None
    return order, payment


def paid(sandbox: Sandbox, quantity: int = 2) -> tuple[Order, Payment]:
    order, payment = opened(quantity)
    sandbox.do(str(payment.provider_id), "pay")
    reconciling.reconcile(payment.id, door="test")
    return fresh(Order, order.id), fresh(Payment, payment.id)


def fresh(kind: type[T], row_id: object) -> T:
    db.session.rollback()
    return db.session.get_one(kind, row_id, populate_existing=True)


def mismatch() -> Incident:
    order = place(make_event("other"), 1)
    payment = reconciling.active(order)
    assert payment is not None
    settling.settle(payment.id, report_on(payment, "open"), door="test")
    settling.settle(payment.id, report_on(payment, "paid", amount_minor=100), door="test")
    return db.session.query(Incident).one()


# --- Who may enter --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_only_admins_enter(app: Flask, client: FlaskClient, boss: FlaskClient, path: str) -> None:
    assert client.get(path).location == f"/account/login?next={path}"
    for role in (Role.BUYER, Role.ORGANISER, Role.DOOR):
        make_member(f"{role}@example.org", role)
        other = app.test_client()
        log_in(other, f"{role}@example.org")
        assert other.get(path).status_code == 403
    assert boss.get(path).status_code == 200


def test_every_button_is_for_admins_and_needs_its_token(
    app: Flask, client: FlaskClient, boss: FlaskClient
) -> None:
    make_member()
    log_in(client)
    buttons = [
        rule
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/admin/")
        and "POST" in (rule.methods or ())
        and not rule.rule.startswith("/admin/setup")
    ]
    assert len(buttons) > 10
    for rule in buttons:
        path = rule.rule
        for argument in rule.arguments:
            path = path.replace(f"<int:{argument}>", "1").replace(f"<{argument}>", "x")
        assert client.post(path).status_code in (400, 403), path
        assert boss.post(path).status_code == 400, path


def test_no_page_carries_inline_script_or_style(boss: FlaskClient, sandbox: Sandbox) -> None:
    order, _ = paid(sandbox)
    for path in (*PAGES, f"/admin/orders/{order.code}"):
        html = boss.get(path).text
        assert " style=" not in html
        assert "<script>" not in html
        assert "javascript:" not in html


# --- Orders ---------------------------------------------------------------------------------------------


def test_the_overview(boss: FlaskClient, sandbox: Sandbox) -> None:
    paid(sandbox)
    mismatch()
    html = boss.get("/admin/").text
    assert "€50.00" in html
    assert "1 incident waits in the money inbox" in html


@pytest.mark.parametrize(
    "words",
    [
        "{code}",
        "{code_lower}",
        "{part}",
        "Ada",
        "ada@",
        "ADA@EXAMPLE.ORG",
        "{provider_id}",
        "{charge_id}",
        "50.00",
        "50",
    ],
)
def test_orders_are_found(boss: FlaskClient, sandbox: Sandbox, words: str) -> None:
    order, payment = paid(sandbox)
    asked = words.format(
        code=order.code,
        code_lower=order.code.lower(),
        part=order.code[4:],
        provider_id=payment.provider_id,
        charge_id=payment.charge_id,
    )
    assert order.code in boss.get("/admin/orders", query_string={"q": asked}).text
    other = {"q": asked, "state": "failed"}
    assert f"/admin/orders/{order.code}" not in boss.get("/admin/orders", query_string=other).text


@pytest.mark.parametrize("words", ["%", "_", "nobody", "51.00", "NaN", "1e400", "\\", "'; --"])
def test_what_is_not_there_is_not_found(boss: FlaskClient, sandbox: Sandbox, words: str) -> None:
    paid(sandbox)
    assert "No order matches" in boss.get("/admin/orders", query_string={"q": words}).text


def test_lists_go_on_by_keyset(boss: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "PAGE", 2)
    event = make_event(price_minor=0)
    codes = [place(event, 1).code for _ in range(5)]
    seen: list[str] = []
    before: int | None = None
    for _ in range(3):
        found = overview.orders(before=before)
        seen += [order.code for order in found.rows]
        before = found.more
    assert seen == codes[::-1]
    assert before is None
    assert "Older ones" in boss.get("/admin/orders").text


def test_an_order_shows_all_that_is_known(boss: FlaskClient, sandbox: Sandbox) -> None:
    order, payment = paid(sandbox)
    html = boss.get(f"/admin/orders/{order.code.lower()}").text
    for known in (
        *(order.code, order.name, order.email, payment.reference, payment.provider_id, payment.charge_id),
        *(order.tickets[0].code, "€50.00", "answered in", "2 tickets issued", "What was seen"),
    ):
        assert str(known) in html
    assert boss.get("/admin/orders/ORD-NOTTHERE").status_code == 404


def test_recheck_asks_the_provider(boss: FlaskClient, sandbox: Sandbox) -> None:
    order, payment = opened()
    page = f"/admin/orders/{order.code}"
    sandbox.do(str(payment.provider_id), "pay")
    answer = post(boss, f"{page}/recheck", page=page, payment_id=str(payment.id))
    assert answer.status_code == 303
    html = boss.get(page).text
    assert "The provider says it is paid." in html
    assert "by recheck (boss@example.org)" in html
    assert fresh(Order, order.id).state is OrderState.COMPLETED


def test_recheck_of_somebody_elses_payment_does_nothing(boss: FlaskClient, sandbox: Sandbox) -> None:
    order, payment = opened()
    other = place(make_event("other"), 1)
    page = f"/admin/orders/{other.code}"
    post(boss, f"{page}/recheck", page=page, payment_id=str(payment.id))
    assert "That payment is not of this order." in boss.get(page).text
    assert order.id != other.id


def test_resend(boss: FlaskClient, sandbox: Sandbox) -> None:
    order, _ = paid(sandbox)
    page = f"/admin/orders/{order.code}"
    post(boss, f"{page}/resend", page=page)
    assert "on their way to ada@example.org" in boss.get(page).text
    assert db.session.query(OutboxMail).filter_by(kind="tickets", order_id=order.id).count() == 2


def test_a_part_is_refunded_and_its_ticket_voided(boss: FlaskClient, sandbox: Sandbox) -> None:
    order, payment = paid(sandbox)
    page = f"/admin/orders/{order.code}"
    fields = {"payment_id": str(payment.id), "reason": "One is ill"}
    shown = post(boss, f"{page}/refund", page=page, tickets=str(order.tickets[1].id), **fields)
    assert db.session.query(Refund).count() == 0
    press(boss, shown, f"{page}/refund")
    order = fresh(Order, order.id)
    assert order.state is OrderState.PARTIALLY_REFUNDED
    assert [ticket.state for ticket in order.tickets] == [TicketState.VALID, TicketState.VOID]
    refund = db.session.query(Refund).one()
    assert (refund.amount_minor, refund.state, refund.reason) == (2500, RefundState.SUCCEEDED, "One is ill")
    assert refund.actor_id == db.session.query(User).filter_by(email="boss@example.org").one().id
    assert "The refund of €25.00 went through." in boss.get(page).text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"amount": "51", "reason": "x"}, "At most €50.00 can be given back."),
        ({"amount": "many", "reason": "x"}, "is not an amount"),
        ({"amount": "1,000", "reason": "x"}, "Type 1000 for €1,000.00 or 1.00 for €1.00."),
        ({"amount": "1", "reason": ""}, "Say why."),
    ],
)
def test_refunds_that_are_refused(
    boss: FlaskClient, sandbox: Sandbox, fields: dict[str, str], words: str
) -> None:
    order, payment = paid(sandbox)
    page = f"/admin/orders/{order.code}"
    post(boss, f"{page}/refund", page=page, payment_id=str(payment.id), **fields)
    assert words in boss.get(page).text
    assert db.session.query(Refund).count() == 0


def test_cancel(boss: FlaskClient, sandbox: Sandbox) -> None:
    order, _ = opened()
    page = f"/admin/orders/{order.code}"
    post(boss, f"{page}/cancel", page=page)
    assert fresh(Order, order.id).state is OrderState.CANCELLED
    assert "tickets are on sale again" in boss.get(page).text


def test_a_review_is_decided_with_a_note(boss: FlaskClient) -> None:
    incident = mismatch()
    assert incident.order is not None and incident.payment_id is not None
    page, payment_id = f"/admin/orders/{incident.order.code}", incident.payment_id
    fields = {"payment_id": str(payment_id), "state": "failed"}
    post(boss, f"{page}/decide", page=page, note="", **fields)
    assert fresh(Payment, payment_id).state is PaymentState.REVIEW
    post(boss, f"{page}/decide", page=page, note="Their mistake", **fields)
    assert fresh(Payment, payment_id).state is PaymentState.FAILED
    assert "failed: Their mistake" in boss.get(page).text


# --- The money inbox ------------------------------------------------------------------------------------


def test_an_incident_shows_both_sides_and_is_decided_once(boss: FlaskClient) -> None:
    incident = mismatch()
    assert "does not match" in boss.get("/admin/incidents").text
    page = f"/admin/incidents/{incident.id}"
    html = boss.get(page).text
    assert "differs" in html
    assert "€25.00" in html and "€1.00" in html
    post(boss, f"{page}/resolve", page=page, how="issue", reason=" ")
    assert fresh(Incident, incident.id).resolved_at is None
    post(boss, f"{page}/resolve", page=page, how="issue", reason="They paid the rest in cash")
    incident = fresh(Incident, incident.id)
    assert incident.resolution == "issue"
    assert incident.order is not None
    assert len(incident.order.tickets) == 1
    html = boss.get(page).text
    assert "They paid the rest in cash" in html
    assert 'name="how"' not in html
    assert "Empty." in boss.get("/admin/incidents").text
    assert "They paid the rest in cash" in boss.get("/admin/incidents?decided=1").text


def test_an_incident_is_dismissed(boss: FlaskClient) -> None:
    incident = mismatch()
    page = f"/admin/incidents/{incident.id}"
    post(boss, f"{page}/resolve", page=page, how="dismiss", reason="A test of the provider's")
    assert fresh(Incident, incident.id).resolution == "dismiss"


def test_pending_payments(boss: FlaskClient) -> None:
    _, payment = opened()
    assert payment.reference in boss.get("/admin/payments").text
    assert payment.reference not in boss.get("/admin/payments?state=review").text
    assert boss.get("/admin/payments?state=nonsense").status_code == 200


# --- Sweeps, jobs and mail ------------------------------------------------------------------------------


def test_sweeps_are_listed(boss: FlaskClient) -> None:
    now = clock.now()
    for number in range(60):
        db.session.add(SweepRun(trigger="clock", started_at=now, finished_at=now, found=1000 + number))
    db.session.commit()
    html = boss.get("/admin/sweeps").text
    assert "1059" in html
    assert "1010" in html
    assert "1009" not in html


def test_failed_jobs_are_shown_and_run_again(boss: FlaskClient) -> None:
    job = queue.jobs().enqueue("worker.no_such_job")
    SimpleWorker([queue.jobs()], connection=queue.redis, serializer=JobText).work(burst=True)
    html = boss.get("/admin/sweeps").text
    assert "worker.no_such_job" in html
    post(boss, f"/admin/jobs/{job.id}/requeue", page="/admin/sweeps")
    assert "will run again" in boss.get("/admin/sweeps").text
    assert queue.jobs().job_ids == [job.id]
    post(boss, f"/admin/jobs/{job.id}/requeue", page="/admin/mail")
    assert "not among the failed ones" in boss.get("/admin/sweeps").text


@pytest.fixture
def no_redis() -> Iterator[None]:
    queue.bind("redis://127.0.0.1:1/0")
    yield
    queue.bind(config.get().redis_url)


def test_without_redis_the_page_says_so(boss: FlaskClient, no_redis: None) -> None:
    answer = boss.get("/admin/sweeps")
    assert answer.status_code == 200
    assert "Redis does not answer" in answer.text


def test_mail_is_tried_again(boss: FlaskClient) -> None:
    mail = OutboxMail(
        key="k", kind="test", to="a@example.org", message_id="<m>", state=MailState.FAILED, attempts=12,
        created_at=clock.now(), last_error="no such mailbox", context={},
    )  # fmt: skip
    db.session.add(mail)
    db.session.commit()
    mail_id = mail.id
    assert "no such mailbox" in boss.get("/admin/mail").text
    post(boss, f"/admin/mail/{mail_id}/retry", page="/admin/mail")
    assert fresh(OutboxMail, mail_id).state is MailState.DUE


def test_a_test_mail(boss: FlaskClient, sandbox: Sandbox) -> None:
    post(boss, "/admin/mail/test", page="/admin/mail", address="ops@example.org")
    assert len(sandbox.mail("ops@example.org")) == 1
    post(boss, "/admin/mail/test", page="/admin/mail", address="nonsense")
    assert "That is not an address." in boss.get("/admin/mail").text


# --- Records --------------------------------------------------------------------------------------------

EVENTS = "/admin/records/events/"
TYPES = "/admin/records/ticket-types/"
EVENT = {
    "title": "Winter Gala",
    "timezone": "America/New_York",
    "starts_at": "2027-01-10T19:30",
    "ends_at": "2027-01-10T23:00",
    "currency": "eur",
    "state": "published",
}
TYPE = {"name": "Adult", "price": "12.50", "capacity": "40", "per_order_limit": "6", "position": "0"}


def test_an_event_is_made_with_times_of_its_own_zone(boss: FlaskClient) -> None:
    assert post(boss, f"{EVENTS}new/", **EVENT).status_code == 302
    event = db.session.query(Event).one()
    assert (event.slug, event.currency, event.state) == ("winter-gala", "EUR", EventState.PUBLISHED)
    assert event.starts_at == datetime(2027, 1, 11, 0, 30, tzinfo=UTC)
    html = boss.get(f"{EVENTS}edit/?id={event.id}").text
    assert 'value="2027-01-10T19:30"' in html
    fields = {"event_id": str(event.id), **TYPE}
    assert post(boss, f"{TYPES}new/", **fields).status_code == 302
    assert db.session.query(TicketType).one().price_minor == 1250
    assert boss.get("/events/winter-gala").status_code == 200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"timezone": "Mars/Olympus"}, "is not a time zone"),
        ({"ends_at": "2027-01-09T19:30"}, "must end after it starts"),
        ({"currency": "XYZ"}, "is not a currency that people pay with"),
        ({"slug": "Not An Address"}, "small letters"),
        ({"title": ""}, "Give it a title."),
        ({"starts_at": "tomorrow"}, "Type a date and a time, such as"),
    ],
)
def test_rules_are_told_beside_their_field(boss: FlaskClient, change: dict[str, str], words: str) -> None:
    answer = post(boss, f"{EVENTS}new/", **(EVENT | change))
    assert answer.status_code == 200
    assert words in answer.text
    assert 'class="invalid-feedback"' in answer.text
    assert db.session.query(Event).count() == 0


def test_capacity_currency_and_deletion_are_kept_by_the_domain(boss: FlaskClient, sandbox: Sandbox) -> None:
    order, _ = paid(sandbox)
    event, kind = db.session.query(Event).one(), db.session.query(TicketType).one()
    event_id, kind_id = event.id, kind.id
    fields = {"event_id": str(event_id), **TYPE}
    answer = post(boss, f"{TYPES}edit/?id={kind_id}", **(fields | {"capacity": "1"}))
    assert "The capacity cannot be below 2" in answer.text
    answer = post(boss, f"{EVENTS}edit/?id={event_id}", **(EVENT | {"currency": "GBP"}))
    assert "The currency stays EUR" in answer.text
    post(boss, f"{EVENTS}delete/", page=EVENTS, id=str(event_id))
    post(boss, f"{TYPES}delete/", page=TYPES, id=str(kind_id))
    assert "has orders, so it stays on record" in boss.get(EVENTS).text
    assert fresh(TicketType, kind_id).capacity == 10
    assert fresh(Event, event_id).currency == "EUR"
    assert order.id


def test_an_event_without_orders_is_removed_and_one_is_cancelled(boss: FlaskClient) -> None:
    gone, called_off = make_event("gone"), make_event("called-off")
    off_id = called_off.id
    post(boss, f"{EVENTS}delete/", page=EVENTS, id=str(gone.id))
    page = "/organiser/events/called-off/cancel"
    assert page in boss.get(f"{EVENTS}edit/?id={off_id}").text
    post(boss, page, refund="no")
    assert [event.slug for event in db.session.query(Event)] == ["called-off"]
    assert fresh(Event, off_id).state is EventState.CANCELLED


def test_people_get_roles_and_the_last_admin_stays(boss: FlaskClient) -> None:
    ann = make_member()
    ann_id, boss_id = ann.id, db.session.query(User).filter_by(role=Role.ADMIN).one().id
    users = "/admin/records/users/"
    html = boss.get(users).text
    assert "ann@example.org" in html
    assert "$argon2" not in html
    assert "Password" not in html
    post(boss, f"{users}edit/?id={ann_id}", role="organiser")
    assert fresh(User, ann_id).role is Role.ORGANISER
    post(boss, f"{users}edit/?id={ann_id}", role="organiser", closed="y")
    assert fresh(User, ann_id).disabled_at is not None
    answer = post(boss, f"{users}edit/?id={boss_id}", role="buyer")
    assert "last admin" in answer.text
    assert fresh(User, boss_id).role is Role.ADMIN
    for path in ("new/", "delete/"):
        assert boss.get(users + path).status_code in (302, 405)


def test_texts_are_edited(boss: FlaskClient) -> None:
    pages = "/admin/records/pages/"
    assert "Terms of sale" in boss.get(pages).text
    post(boss, f"{pages}edit/?id=terms", title="Our terms", body="Be kind.")
    assert fresh(Page, "terms").body == "Be kind."
    assert "Be kind." in boss.get("/terms").text


def test_the_record_of_a_category_keeps_its_currency(boss: FlaskClient) -> None:
    event = make_tournament()
    kind = add_category(event, "Osaka", fee_minor=9000, currency="JPY")
    page = f"{TYPES}edit/?id={kind.id}"
    shown = boss.get(page).text
    assert 'value="9000"' in shown and "¥9,000" in boss.get(TYPES).text
    fields = {"name": "Osaka", "price": "8500", "capacity": "10", "per_order_limit": "1", "position": "1"}
    post(boss, page, event_id=str(event.id), **fields)
    db.session.refresh(kind)
    assert (kind.price_minor, kind.currency) == (8500, "JPY")
    assert event.title not in boss.get(f"{TYPES}new/").text


def test_agents_are_made_by_rule(boss: FlaskClient) -> None:
    path = "/admin/records/agents/new/"
    services = boss.get(path).text
    service = services.split('<option value="')[1].split('"')[0]
    fields = {"name": "Codes", "slug": "codes", "currency": "AED", "service": service, "active": "y"}
    assert "must be above zero" in post(boss, path, price="0", **fields).text
    post(boss, path, price="1.50", **fields)
    agent = db.session.query(Agent).one()
    assert (agent.slug, agent.price_minor, agent.active) == ("codes", 150, True)
    assert "already" in post(boss, path, price="2", **fields).text


def test_the_records_of_an_event_and_of_its_passes_lead_to_its_door(boss: FlaskClient) -> None:
    event = make_event()
    door = f"/door/events/{event.slug}/passes"
    assert boss.get(f"/admin/events/{event.slug}/door").location == door
    assert f'href="{door}"' in boss.get(f"/admin/records/events/edit/?id={event.id}").text
    post(boss, door, label="Main entrance")
    passes = boss.get("/admin/records/door-passes/").text
    assert "Main entrance" in passes
    assert f'href="{door}"' in passes
