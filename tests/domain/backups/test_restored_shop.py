"""A restored shop: closed, in another epoch, and with all that its providers know after one sweep."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, update

import config
from domain import clock, epochs
from domain.backups import forgotten as forgotten_list
from domain.backups import programs
from domain.errors import DomainError
from domain.office import erasures, invariants, restored
from domain.orders import managing, placing, top_ups
from domain.payments import reconciling, refunds, settling, starting
from domain.post import outbox
from domain.sweep import sweeping
from extensions import db
from models import (
    Athlete,
    AuditEntry,
    Epoch,
    Event,
    EventState,
    Incident,
    MailState,
    Order,
    OrderState,
    OutboxMail,
    Participant,
    ParticipantState,
    Payment,
    PaymentState,
    Refund,
    Role,
    SettingSeen,
    TicketState,
    TicketType,
    User,
    Wallet,
)
from tests.support.people import log_in, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, make_user, place, report_on
from tests.support.tournaments import enter, make_athlete, make_tournament


@pytest.fixture(autouse=True)
def believed(app: Flask) -> Iterator[None]:
    """No belief about an epoch outlives its test."""
    epochs.look_again()
    yield
    epochs.look_again()


def restore_here(app: Flask, backup: Path) -> str:
    """Lose the database, and restore the backup into an empty one in its place."""
    db.session.remove()
    db.engine.dispose()
    with psycopg.connect(programs.database(), autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    said = app.test_cli_runner().invoke(args=["restore", str(backup)])
    assert said.exit_code == 0, said.output
    db.session.remove()
    epochs.look_again()
    return said.output


def bought(sandbox: Sandbox, event_id: int, token: str, *, pay: bool = True) -> int:
    """An order whose page is open at the provider, paid and settled where asked; the payment's id."""
    payment = starting.open_at_provider(place(db.session.get_one(Event, event_id), form_token=token))
    assert payment is not None and payment.provider_id is not None
    if pay:
        sandbox.do(payment.provider_id, "pay")
        reconciling.reconcile(payment.id, door="test")
    return payment.id


def lose_one_of_each(sandbox: Sandbox, member: User, kind: TicketType, draft: Event) -> dict[str, str]:
    """A wallet's top-up, an athlete's entry and a listing fee, paid and never heard of; their references."""
    athlete = db.session.scalars(select(Athlete)).one()
    orders = {
        "top_up": placing.place_top_up(member, top_ups.amounts()[0], provider="stripe"),
        "entry": enter(kind, athlete, provider="stripe").order,
        "listing": placing.place_listing_fee(
            draft, member, 1500, "EUR", provider="stripe", form_token="listing"
        ),
        "return": place(db.session.scalars(select(Event).filter_by(slug="concert")).one(), form_token="back"),
    }
    names = {}
    for what, order in orders.items():
        payment = starting.open_at_provider(order)
        assert payment is not None and payment.provider_id is not None
        sandbox.do(payment.provider_id, "pay")
        names[what] = payment.reference
    return names


def each_is_made_anew(client: FlaskClient, lost: dict[str, str], kind: TicketType, draft: Event) -> None:
    """Whatever was sold, the button of its incident gives it back to whom it was sold; or the money."""
    of = {one.evidence["reference"]: one for one in db.session.scalars(select(Incident))}
    athlete = db.session.scalars(select(Athlete)).one()
    # The provider knows the address of whom the order was for; a person may know better.
    known = {"name": "Mel", "email": "member@example.org", "reason": "By the mail that they have"}
    forms: dict[str, dict[str, Any]] = {
        "top_up": {"what": "top_up"},
        "entry": {"what": f"entry:{kind.event_id}", "category": kind.id, "athlete": athlete.public_id},
        "listing": {"what": f"listing:{draft.id}"},
    }
    for what, form in forms.items():
        at = f"/admin/incidents/{of[lost[what]].id}"
        assert (
            ">Make the order<"
            in client.get(
                f"{at}/attach", query_string={"what": form["what"], "email": "member@example.org"}
            ).text
        )
        post(client, f"{at}/attach", page=f"{at}/attach?what={form['what']}", **known, **form)
        attached = db.session.scalars(select(Payment).filter_by(reference=lost[what])).one()
        assert attached.fulfilled and attached.order.state is OrderState.COMPLETED, what
    wallet = db.session.scalars(select(Wallet)).one()
    assert (wallet.user.email, wallet.balance_minor) == ("member@example.org", top_ups.amounts()[0])
    assert db.session.scalars(select(Participant)).one().state is ParticipantState.PAID
    assert db.session.get_one(Event, draft.id).state is EventState.PUBLISHED
    at = f"/admin/incidents/{of[lost['return']].id}"
    post(client, f"{at}/send-back", page=at, email="", name="", reason="Nobody knows")
    back = db.session.scalars(select(Payment).filter_by(reference=lost["return"])).one()
    assert [(refund.state, refund.amount_minor) for refund in back.refunds] == [("succeeded", 2500)]
    assert back.order.state is OrderState.REFUNDED and not back.order.tickets


def sent(sandbox: Sandbox) -> int:
    """How often a refund was asked for at the provider."""
    return sum(c["path"].endswith("/v1/refunds") and c["method"] == "POST" for c in sandbox.calls())


def refused(code: str, payment_id: int, amount: int) -> None:
    with pytest.raises(DomainError) as error:
        refunds.request(payment_id, amount, actor_id=None, reason="Ill")
    assert error.value.code == code, error.value.message
    db.session.rollback()


def test_what_was_paid_after_the_backup_comes_back_and_nothing_is_sent_twice(
    app: Flask, client: FlaskClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    make_member("boss@example.org", Role.ADMIN)
    event_id = make_event(capacity=50).id
    paid, waits = bought(sandbox, event_id, "paid"), bought(sandbox, event_id, "waits", pay=False)
    again = bought(sandbox, event_id, "again", pay=False)
    settling.settle(again, report_on(db.session.get_one(Payment, again), "expired"), door="test")
    again_order = db.session.get_one(Payment, again).order_id
    assert outbox.deliver_due(limit=1).sent == 1
    member = make_user()
    make_athlete(member)
    kind = make_tournament().ticket_types[0]
    draft = make_event("draft", state=EventState.DRAFT, organiser_id=member.id)
    forgotten = tmp_path / forgotten_list.NAME
    forgotten.write_text(f"{erasures.line_of('gone@example.org')}\n")
    past = make_event("past", price_minor=0)
    place(past, email="gone@example.org")
    past.starts_at, past.ends_at = clock.now() - timedelta(days=2), clock.now() - timedelta(days=1)
    old = "https://tickets.old.example.org"
    db.session.add(SettingSeen(name="public_url", value=old, seen_at=clock.now()))
    db.session.commit()
    backup = tmp_path / "shop.dump"
    assert app.test_cli_runner().invoke(args=["backup", "--to", str(backup), "--plain"]).exit_code == 0
    owed = select(OutboxMail).where(OutboxMail.state == MailState.DUE, OutboxMail.to != "gone@example.org")
    due = len(db.session.scalars(owed).all())
    # From here on nothing is in the backup.
    lost = db.session.get_one(Payment, bought(sandbox, event_id, "lost")).reference
    assert refunds.request(paid, 1000, actor_id=None, reason="Ill").failure_reason == ""
    sandbox.do(db.session.get_one(Payment, waits).provider_id or "", "pay")
    retried = managing.pay_again(again_order, "stripe", payer_id=None)
    assert retried is not None and retried.provider_id is not None
    second = retried.reference
    sandbox.do(retried.provider_id, "pay")
    lost_goods = lose_one_of_each(sandbox, member, kind, draft)
    made_before = sent(sandbox)
    sandbox.advance(24 * 3600)
    said = restore_here(app, backup)
    assert "epoch 2, and it is closed" in said and "1 of them are here: 1 forgotten again" in said, said
    assert f"The shop was at {old}, and PUBLIC_URL is {config.get().public_url} now." in said
    assert "gone@example.org" not in [order.email for order in db.session.scalars(select(Order))]

    # Closed: nothing is sold, sent back or mailed.
    with pytest.raises(epochs.Closed):
        place(db.session.get_one(Event, event_id), form_token="no")
    db.session.rollback()
    slug = db.session.get_one(Event, event_id).slug
    assert "not on sale at the moment" in client.get(f"/events/{slug}").text
    # Each page says so, also where a form says that a mail is on its way: none leaves.
    assert "brought back after a fault" in client.get("/account/mailed").text
    refused("shop_closed", paid, 1000)
    run = sweeping.run("test")
    assert (run.errors, run.mails, outbox.deliver_due().tried) == (0, 0, 0)

    # One sweep: settled with its ticket, the refund taken over, the lost money an incident.
    settled = db.session.get_one(Payment, waits)
    assert settled.state is PaymentState.PAID
    assert [ticket.state for ticket in settled.order.tickets] == [TicketState.VALID]
    assert [refund.amount_minor for refund in db.session.get_one(Payment, paid).refunds] == [1000]
    adopted = db.session.scalars(select(Payment).filter_by(reference=second)).one()
    assert (adopted.order_id, adopted.state) == (again_order, PaymentState.PAID)
    assert len(adopted.order.tickets) == 1
    incidents = {one.evidence["reference"]: one for one in db.session.scalars(select(Incident))}
    assert incidents.keys() == {lost, *lost_goods.values()}
    assert {one.kind for one in incidents.values()} == {"unknown_payment"}
    incident = incidents[lost]
    assert incident.evidence["payer"]["email"] == "ada@example.org"
    assert invariants.look() == []

    # A person looks, decides about mails, and opens it.
    log_in(client, "boss@example.org")
    page = client.get("/admin/restored").text
    assert settled.reference in page and "5 new in the money inbox" in page
    found = restored.look()
    assert found is not None and found.unheard == [] and found.mails_waiting == due > 0
    for mail in found.mails[:1]:
        post(client, f"/admin/mail/{mail.id}/drop", page="/admin/restored")
    assert db.session.get_one(OutboxMail, found.mails[0].id).state is MailState.FAILED
    post(client, "/admin/restored/open", page="/admin/restored")
    assert restored.look() is None and not epochs.is_closed()
    assert "brought back after a fault" not in client.get("/account/mailed").text
    assert db.session.scalars(select(AuditEntry).filter_by(subject="epoch")).one().actor_id is not None
    assert outbox.deliver_due().sent > 0
    held = db.session.scalars(select(OutboxMail).filter_by(held_with=outbox.FROM_BACKUP, state=MailState.DUE))
    assert len(held.all()) == due - 1

    # The same refund asked for again is not sent twice; another is, under a key of this epoch.
    refused("refunded_before_restore", paid, 1000)
    assert sent(sandbox) == made_before
    assert refunds.request(paid, 500, actor_id=None, reason="Ill").failure_reason == ""
    key = db.session.scalars(select(Refund.idempotency_key).filter_by(amount_minor=500)).one()
    assert key.endswith("-E2") and sent(sandbox) == made_before + 1

    # Also where the shop was opened before its account had told of that refund, or has not told yet.
    db.session.execute(update(Epoch).values(opened_at=Epoch.began_at))
    db.session.commit()
    refused("refunded_before_restore", paid, 1000)
    sandbox.do(db.session.get_one(Payment, paid).provider_id or "", "refund", amount_minor=100)
    refused("refunds_differ", paid, 300)

    # The lost order is made anew, for just its sum, under the code that its buyer has in a mail.
    at = f"/admin/incidents/{incident.id}"
    assert "ada@example.org" in client.get(f"{at}/attach?what=tickets:{event_id}").text
    sold = db.session.get_one(Event, event_id).ticket_types[0].id
    form = {
        "what": f"tickets:{event_id}",
        "name": "Ada Buyer",
        "email": "ada@example.org",
        "reason": "By her mail",
    }
    again_shown = post(client, f"{at}/attach", page=at, **form, **{f"quantity-{sold}": 2})
    assert incident.resolved_at is None and "what costs just that sum" in again_shown.text
    assert 'value="By her mail"' in again_shown.text and 'value="2"' in again_shown.text
    post(client, f"{at}/attach", page=at, **form, **{f"quantity-{sold}": 1})
    attached = db.session.scalars(select(Payment).filter_by(reference=lost)).one()
    assert (incident.resolution, attached.state) == ("attach", PaymentState.PAID)
    assert attached.order.code == lost[:12] and len(attached.order.tickets) == 1
    each_is_made_anew(client, lost_goods, db.session.merge(kind), db.session.merge(draft))
    assert invariants.look() == []

    # What is sold now has a name that no provider has seen.
    anew = db.session.get_one(Payment, bought(sandbox, event_id, "anew"))
    assert anew.reference.endswith("-1-E2") and anew.state is PaymentState.PAID
    assert len(db.session.scalars(select(Order)).all()) == 10
    assert invariants.look() == []
