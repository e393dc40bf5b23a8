"""What happened at the accounts is found by asking them, whatever was rung, and whatever we remember."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from domain import clock
from domain.ledger import transfers
from domain.office import health, invariants
from domain.payments import incidents, reconciling, settling, starting
from domain.providers import registry, stripe_history, sumup_history
from domain.sweep import account_history, sweeping
from extensions import db
from models import (
    AccountCursor,
    DisputeState,
    Incident,
    OrderState,
    OutboxMail,
    Payment,
    PaymentState,
    Role,
    TicketState,
    TimelineEntry,
    Transfer,
)
from tests.support.merchants import connect, make_organiser, use_sumup
from tests.support.people import log_in, make_member
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place, report_on
from tests.support.tables import empty

DAY = 24 * 3600


@pytest.fixture(params=["stripe", "sumup"])
def name(app: Flask, environ: dict[str, str], sandbox: Sandbox, request: pytest.FixtureRequest) -> str:
    """Each provider of the sandbox, both in use."""
    use_sumup(environ, sandbox)
    told: str = request.param
    return told


def bought(sandbox: Sandbox, name: str, number: int = 0, **more: Any) -> Payment:
    """A ticket that was paid, settled and is at rest."""
    event = make_event(f"concert-{number}", providers=[name], **more)
    payment = starting.open_at_provider(place(event, form_token=f"t{number}"))
    assert payment is not None and payment.provider_id is not None
    sandbox.do(payment.provider_id, "pay")
    reconciling.reconcile(payment.id, door="test")
    assert payment.state is PaymentState.PAID
    return payment


def days_later(sandbox: Sandbox, days: float) -> None:
    """Time goes by, and a sweep at its end has read what was to be read again after an hour and a day."""
    sandbox.advance(days * DAY)
    sweeping.run("test")


def asked(sandbox: Sandbox, since: int = 0) -> list[str]:
    """The paths of the calls that ask what happened."""
    paths = ("/v1/charges", "/v1/refunds", "/v1/disputes", "/history")
    return [c["path"] for c in sandbox.calls()[since:] if c["path"].endswith(paths) and c["method"] == "GET"]


def cursor(name: str) -> AccountCursor:
    db.session.rollback()
    return db.session.scalars(select(AccountCursor).filter_by(provider=name)).one()


def test_a_refund_made_in_the_dashboard_weeks_later_is_found(sandbox: Sandbox, name: str) -> None:
    payment = bought(sandbox, name)
    days_later(sandbox, 3)
    assert payment.next_check_at is None
    sandbox.do(payment.provider_id or "", "refund")
    sandbox.advance(300)
    sweeping.run("test")
    assert [refund.amount_minor for refund in payment.refunds] == [2500]
    assert payment.order.state is OrderState.REFUNDED
    assert {ticket.state for ticket in payment.order.tickets} == {TicketState.VOID}
    sandbox.advance(300)
    assert sweeping.run("test").errors == 0
    assert len(payment.refunds) == 1 and invariants.look() == []


def test_a_dispute_weeks_later_is_found(sandbox: Sandbox, name: str) -> None:
    payment = bought(sandbox, name)
    days_later(sandbox, 3)
    sandbox.do(payment.provider_id or "", "dispute")
    sandbox.advance(300)
    sweeping.run("test")
    assert [dispute.state for dispute in payment.disputes] == [DisputeState.OPEN]
    assert {ticket.state for ticket in payment.order.tickets} == {TicketState.SUSPENDED}
    assert invariants.look() == []


def test_money_for_an_order_that_was_closed_long_ago_is_found(sandbox: Sandbox, name: str) -> None:
    event = make_event(providers=[name])
    payment = starting.open_at_provider(place(event))
    assert payment is not None
    settling.settle(payment.id, report_on(payment, "expired"), door="test")
    payment.next_check_at = None
    db.session.commit()
    sandbox.do(payment.provider_id or "", "pay")
    sandbox.advance(300)
    sweeping.run("test")
    assert payment.state is PaymentState.PAID and len(payment.order.tickets) == 1
    assert invariants.look() == []


def test_a_restored_backup_finds_what_happened_since(sandbox: Sandbox, name: str) -> None:
    """The backup has an order, paid, and one that was open; not a refund of the first, and not a third."""
    first = bought(sandbox, name)
    waiting = starting.open_at_provider(place(make_event("concert-1", providers=[name]), form_token="t1"))
    assert waiting is not None
    sweeping.run("test")
    # From here on nothing is in the backup.
    lost = bought(sandbox, name, 2)
    sandbox.do(first.provider_id or "", "refund", amount_minor=1000)
    sandbox.do(waiting.provider_id or "", "pay")
    reference, charge, order_id = lost.reference, lost.charge_id, lost.order_id
    assert charge is not None
    forget(order_id)
    days_later(sandbox, 4)
    assert [refund.amount_minor for refund in first.refunds] == [1000]
    assert first.order.state is OrderState.PARTIALLY_REFUNDED
    assert waiting.state is PaymentState.PAID and len(waiting.order.tickets) == 1
    incident = db.session.scalars(select(Incident)).one()
    assert (incident.kind, incident.amount_minor, incident.charge_id) == ("unknown_payment", 2500, charge)
    assert incident.evidence["reference"] == reference and incident.order_id is None
    alerts = db.session.scalars(select(OutboxMail).where(OutboxMail.key.startswith("unknown_payment:"))).all()
    assert len(alerts) == 1 and reference in alerts[0].context["subject"]
    assert invariants.look() == []


def test_lost_money_is_told_once_by_whichever_name_and_what_is_left_of_it(
    client: FlaskClient, sandbox: Sandbox, name: str
) -> None:
    """The list names the transaction, and a ring the checkout that took it; some of it went back before."""
    lost = bought(sandbox, name)
    sandbox.do(lost.provider_id or "", "refund", amount_minor=1000)
    told = registry.get(name).fetch(lost.provider_id or "", patient=True, thorough=True)
    assert told.charge_id is not None and told.provider_id != told.charge_id
    forget(lost.order_id)
    for known_as in (told.charge_id, told.provider_id):
        incidents.open_unknown(replace(told, provider_id=known_as))
        db.session.commit()
    incident = db.session.scalars(select(Incident)).one()
    assert (incident.amount_minor, incident.evidence["sent_back_minor"]) == (1500, 1000)
    assert transfers.balance(transfers.SUSPENSE, "EUR") == 1500
    (alert,) = db.session.scalars(select(OutboxMail).where(OutboxMail.key.startswith("unknown_payment:")))
    assert "€15.00" in alert.context["text"] and "€10.00 more was sent back" in alert.context["text"]
    make_member("boss@example.org", Role.ADMIN)
    log_in(client, "boss@example.org")
    page = client.get(f"/admin/incidents/{incident.id}").text
    assert "€15.00" in page and "<dt>Sent back before</dt><dd>€10.00</dd>" in page
    # What went back altogether is no news.
    incidents.open_unknown(replace(told, charge_id="another", provider_id="another", amount_minor=1000))
    db.session.commit()
    assert len(db.session.scalars(select(Incident)).all()) == 1
    assert invariants.look() == []


def forget(order_id: int) -> None:
    """An order as if it had never been written."""
    db.session.rollback()
    mine = {"order": order_id}
    for statement in (
        "DELETE FROM timeline WHERE order_id = :order",
        "DELETE FROM outbox WHERE order_id = :order",
        "DELETE FROM transfers WHERE order_id = :order",
        "DELETE FROM tickets WHERE order_id = :order",
        "UPDATE ticket_types SET sold = 0 WHERE id IN "
        "(SELECT ticket_type_id FROM order_lines WHERE order_id = :order)",
        "DELETE FROM order_lines WHERE order_id = :order",
        "DELETE FROM payments WHERE order_id = :order",
        "DELETE FROM orders WHERE id = :order",
    ):
        db.session.execute(db.text(statement), mine)
    db.session.commit()


def test_an_empty_database_finds_all_that_it_sold(sandbox: Sandbox, name: str) -> None:
    """The cursor of an account that was never asked begins 30 days ago."""
    bought(sandbox, name)
    given_back = bought(sandbox, name, 1)
    sandbox.do(given_back.provider_id or "", "refund")
    sandbox.advance(29 * DAY)
    empty()
    sweeping.run("test")
    incident = db.session.scalars(select(Incident)).one()
    # What went back altogether waits for nobody.
    assert (incident.kind, incident.amount_minor, incident.currency) == ("unknown_payment", 2500, "EUR")
    assert cursor(name).since <= clock.now() and invariants.look() == []
    sandbox.advance(3 * DAY)
    empty()
    sweeping.run("test")
    assert db.session.scalars(select(Incident)).all() == []


def test_what_is_another_programs_is_neither_kept_nor_shown(
    sandbox: Sandbox, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = registry.get(name)
    order = place(make_event(providers=[name]))
    params = dict(order.payments[0].params)
    elsewhere = {"metadata": {"site": "https://other.example", "reference": "THEIRS-1"}}
    params |= (
        {"client_reference_id": "THEIRS-1", **elsewhere, "payment_intent_data": elsewhere}
        if name == "stripe"
        else {"checkout_reference": "THEIRS-1", "description": "Two flat whites"}
    )
    theirs = provider.create(params, "their-key").provider_id
    sandbox.do(theirs, "pay")
    sandbox.do(theirs, "refund", amount_minor=500)
    before = [db.session.query(model).count() for model in (Incident, OutboxMail, TimelineEntry, Transfer)]
    capsys.readouterr()
    sweeping.run("test", verbose=True)
    after = [db.session.query(model).count() for model in (Incident, OutboxMail, TimelineEntry, Transfer)]
    assert after == before
    said = capsys.readouterr()
    assert "THEIRS-1" not in said.out + said.err and theirs not in said.out + said.err


def test_another_kassa_in_the_same_account_keeps_its_own_money(
    app: Flask, environ: dict[str, str], sandbox: Sandbox
) -> None:
    """SumUp keeps nothing of ours but a code, which looks the same; the checkout has the other's address."""
    use_sumup(environ, sandbox, public_url="https://staging.example")
    bought(sandbox, "sumup")
    empty()
    use_sumup(environ, sandbox)
    sweeping.run("test")
    assert db.session.scalars(select(Incident)).all() == []


def test_who_may_not_ask_hears_it_once(sandbox: Sandbox, name: str) -> None:
    payment = bought(sandbox, name)
    days_later(sandbox, 3)
    before = cursor(name).since
    asks = "history" if name == "sumup" else "/v1/(charges|refunds|disputes)$"
    sandbox.faults("http_403", match={"path": asks})
    sandbox.do(payment.provider_id or "", "refund")
    for _ in range(3):
        sandbox.advance(300)
        sweeping.run("test")
    told = select(OutboxMail).where(OutboxMail.key.startswith("not_told:"))
    mine = [m for m in db.session.scalars(told) if registry.title(name) in m.context["subject"]]
    assert len(mine) == 1 and "have it connected again" in mine[0].context["text"]
    assert cursor(name).since == before and payment.refunds == []
    # Given the right, it goes on from where it was, and what happened meanwhile is found.
    sandbox.faults()
    sandbox.advance(300)
    sweeping.run("test")
    assert cursor(name).since == clock.now() or cursor(name).since > before
    assert len(payment.refunds) == 1


def test_an_account_that_is_silent_for_hours_is_told_of(sandbox: Sandbox, name: str) -> None:
    sweeping.run("test")
    sandbox.faults("http_500")
    for hours in (1, 6, 1):
        sandbox.advance(hours * 3600)
        sweeping.run("test")
    told = db.session.scalars(select(OutboxMail).where(OutboxMail.key.startswith("not_told:"))).all()
    assert sorted(mail.context["subject"].split()[2] for mail in told) == ["Stripe", "SumUp"]


@pytest.mark.parametrize("cause", ["unread", "broken", "no time"])
def test_an_account_that_is_behind_is_told_of_once_whatever_the_cause(
    sandbox: Sandbox, name: str, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    """The list itself can be read all the time."""
    payment = bought(sandbox, name)
    days_later(sandbox, 3)
    reference = payment.reference
    sandbox.do(payment.provider_id or "", "refund")
    sandbox.advance(300)
    if cause == "unread":
        sandbox.faults("http_500", match={"path": "(sessions|checkouts)/"})
    elif cause == "broken":
        monkeypatch.setattr(account_history, "_look", _break)
    else:
        monkeypatch.setattr(account_history, "_goes_on", lambda *_: False)
    before = cursor(name).since
    for hours in (1, 3, 3, 1, 1):
        sandbox.advance(hours * 3600)
        sweeping.run("test")
    (told,) = [m for m in alerts_of("not_told:") if registry.title(name) in m.context["subject"]]
    assert (reference in told.context["text"]) is (cause != "no time")
    assert cursor(name).since == before
    check = health.report().checks["accounts"]
    assert check.state == health.DEGRADED
    assert "was last known 9 hours ago" in check.words


def _break(_: int) -> settling.Outcome:
    raise RuntimeError("a row that nobody has foreseen")


def alerts_of(key: str) -> list[OutboxMail]:
    told = select(OutboxMail).where(OutboxMail.key.startswith(key)).order_by(OutboxMail.id)
    return list(db.session.scalars(told))


def test_one_payment_that_cannot_be_read_stops_the_others_for_a_day(sandbox: Sandbox, name: str) -> None:
    bad = bought(sandbox, name)
    days_later(sandbox, 3)
    reference = bad.reference
    before = cursor(name).since
    sandbox.do(bad.provider_id or "", "refund")
    sandbox.faults("http_500", match={"path": f"(sessions|checkouts)/{bad.provider_id}"})
    for hours in (1, 6, 12):
        sandbox.advance(hours * 3600)
        sweeping.run("test")
    assert cursor(name).since == before and alerts_of("left_unread:") == []
    for _ in range(2):
        sandbox.advance(8 * 3600)
        sweeping.run("test")
    assert cursor(name).since > before
    (told,) = alerts_of("left_unread:")
    assert reference in told.context["text"]
    assert health.report().checks["accounts"].state == health.OK
    # It is asked once more, when it can be read.
    sandbox.faults()
    sandbox.advance(7 * 3600)
    sweeping.run("test")
    assert db.session.query(Payment).one().order.state is OrderState.REFUNDED


def test_the_cursor_stays_until_a_pages_work_is_done(
    sandbox: Sandbox, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = bought(sandbox, name)
    days_later(sandbox, 3)
    sandbox.do(payment.provider_id or "", "refund")
    sandbox.advance(300)
    before = cursor(name).since
    # The list can be read, the payment cannot.
    sandbox.faults("http_500", match={"path": "(sessions|checkouts)/"})
    sweeping.run("test")
    assert cursor(name).since == before and payment.refunds == []
    sandbox.faults()
    sandbox.advance(12 * 3600)
    # The process dies as it has read the page.
    with monkeypatch.context() as patch:
        patch.setattr(reconciling, "reconcile", die)
        with pytest.raises(KeyboardInterrupt):
            sweeping.run("test")
    assert cursor(name).since == before and cursor(name).leased_until is not None
    # Its lease is over when another comes.
    sandbox.advance(600)
    sweeping.run("test")
    assert len(payment.refunds) == 1 and cursor(name).since > before
    assert cursor(name).leased_until is None


def die(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_what_was_read_is_not_read_again(sandbox: Sandbox, name: str) -> None:
    """What a sweep costs when nothing happens: three lists of Stripe's, one of SumUp's."""
    for number in range(5):
        bought(sandbox, name, number)
    sweeping.run("test")
    sandbox.advance(2 * DAY)
    sweeping.run("test")
    for _ in range(2):
        sandbox.advance(300)
        before = len(sandbox.calls())
        run = sweeping.run("test")
        assert run.provider_calls == 4 == len(sandbox.calls()) - before
        assert len(asked(sandbox, before)) == 4
    # A sale is in the lists for as long as they overlap: it costs no call more.
    bought(sandbox, name, 9)
    sandbox.advance(60)
    before = len(sandbox.calls())
    assert sweeping.run("test").provider_calls == 4 == len(sandbox.calls()) - before
    assert since_minutes(name) == 0


def since_minutes(name: str) -> int:
    return round((clock.now() - cursor(name).since).total_seconds() / 60)


def test_each_time_ten_minutes_are_read_again(sandbox: Sandbox, name: str) -> None:
    sweeping.run("test")
    moved = cursor(name).since
    sandbox.advance(600)
    before = len(sandbox.calls())
    sweeping.run("test")
    path = "/v1/refunds" if name == "stripe" else "/history"
    call = next(c for c in sandbox.calls()[before:] if c["path"].endswith(path))
    since = moved - timedelta(minutes=10)
    wanted = str(int(since.timestamp())) if name == "stripe" else since.strftime("%Y-%m-%dT%H%%3A%M")
    assert wanted in call["query"]


def test_accounts_of_organisers_are_asked_every_hour(
    app: Flask, environ: dict[str, str], sandbox: Sandbox
) -> None:
    use_sumup(environ, sandbox)
    organiser = make_organiser()
    connection = connect(organiser)
    payment = bought(sandbox, "sumup", organiser_id=organiser.id)
    assert payment.account == connection.account
    path = f"/{connection.account}/transactions/history"

    def times(*minutes: int) -> int:
        before = len(sandbox.calls())
        for more in minutes:
            sandbox.advance(60 * more)
            sweeping.run("test")
        return sum(path in call["path"] for call in sandbox.calls()[before:])

    assert times(5, 5, 5) == 1
    assert times(50, 5, 5) == 1
    days_later(sandbox, 3)
    sandbox.do(payment.provider_id or "", "refund")
    assert times(61) == 1
    assert payment.order.state is OrderState.REFUNDED
    # Of an account that was taken away nobody can ask.
    db.session.execute(db.text("UPDATE connections SET state = 'disconnected'"))
    db.session.commit()
    assert times(61) == 0


def test_two_sweeps_ask_an_account_once(app: Flask, sandbox: Sandbox) -> None:
    sweeping.run("test")
    lane = account_history._own()[0]
    sandbox.advance(60)
    assert account_history._claim(lane, clock.now()) is not None
    before = len(sandbox.calls())
    sweeping.run("test")
    assert [path for path in asked(sandbox, before) if lane.provider in path] == []


# --- Long lists -----------------------------------------------------------------------------------------


def test_a_long_list_is_read_page_by_page(
    sandbox: Sandbox, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe_history, "_PAGE", 2)
    monkeypatch.setattr(sumup_history, "_PAGE", 2)
    # More than is read of a list at once is asked about in parts.
    monkeypatch.setattr(stripe_history, "_MOST_PAGES", 3)
    theirs = []
    for number in range(5):
        theirs.append(bought(sandbox, name, number))
        sandbox.advance(90)
    days_later(sandbox, 2)
    for payment in theirs:
        sandbox.do(payment.provider_id or "", "refund")
        sandbox.advance(90)
    run = sweeping.run("test")
    assert run.errors == 0
    assert {payment.order.state for payment in theirs} == {OrderState.REFUNDED}
    assert since_minutes(name) == 0


def test_a_page_that_cannot_be_read_moves_nothing(
    sandbox: Sandbox, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = bought(sandbox, name)
    sweeping.run("test")
    before = cursor(name).since
    sandbox.advance(300)
    adapter = stripe_history if name == "stripe" else sumup_history

    def broken(*_: Any) -> None:
        raise ValueError("a new form")

    with monkeypatch.context() as patch:
        patch.setattr(adapter, "read", broken)
        sweeping.run("test")
    assert cursor(name).since == before
    sweeping.run("test")
    assert cursor(name).since > before and payment.state is PaymentState.PAID


def test_a_restored_shop_asks_organisers_accounts_at_once(
    app: Flask, environ: dict[str, str], sandbox: Sandbox
) -> None:
    """A restore forgets when each was asked: whoever was not asked since is asked in the first sweep."""
    use_sumup(environ, sandbox)
    account = connect(make_organiser()).account
    sweeping.run("test")
    cursor = db.session.scalars(select(AccountCursor).filter_by(account=account)).one()
    before = cursor.since - timedelta(hours=1)
    cursor.since, cursor.asked_at = before, None
    db.session.commit()
    sweeping.run("test")
    assert cursor.asked_at is not None and cursor.since > before
