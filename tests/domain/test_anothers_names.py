"""A report that names what is another payment's: its id, or its charge."""

from __future__ import annotations

import pytest
from flask import Flask

from domain import checks, payments, sweep
from domain.errors import DomainError
from extensions import db
from models import Incident, OrderState, Payment, PaymentState, TimelineEntry
from tests.support.merchants import use_sumup
from tests.support.people import mails
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, make_user, place


@pytest.fixture
def named(app: Flask, environ: dict[str, str], sandbox: Sandbox) -> tuple[Payment, Payment]:
    """A payment that is open, and one whose create was lost; SumUp finds the first under the other's name."""
    use_sumup(environ, sandbox)
    event = make_event(providers=["sumup"])
    honest = payments.open_at_provider(place(event))
    sandbox.faults("http_500", rate=1, seed=1, match={"method": "POST", "path": "/v0.1/checkouts"})
    lost = payments.open_at_provider(place(event))
    assert honest is not None and lost is not None and lost.state is PaymentState.CREATED
    sandbox.do(honest.provider_id or "", "tamper", set={"reference": lost.reference})
    return honest, lost


def again(payment: Payment) -> Payment:
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def test_the_sweep_finds_another_payment_under_an_unopened_ones_name(
    named: tuple[Payment, Payment], sandbox: Sandbox
) -> None:
    honest, lost = named
    sandbox.do(honest.provider_id or "", "pay")
    sandbox.advance(60)
    run = sweep.run("test")
    assert run.errors == 0
    lost = again(lost)
    assert (lost.state, lost.provider_id, lost.url) == (PaymentState.REVIEW, None, None)
    assert (lost.charge_id, lost.received_minor, lost.order.tickets) == (None, None, [])
    assert lost.order.state is OrderState.REVIEW
    entry = db.session.query(TimelineEntry).filter_by(payment_id=lost.id, what="incident").one()
    assert f"another payment's ({honest.provider_id})" in entry.text and entry.door == "sweep"
    incident = db.session.query(Incident).filter_by(payment_id=lost.id).one()
    assert incident.kind == "mismatch"
    subjects = [mail.context["subject"] for mail in mails("alert")]
    assert sum(lost.order.code in subject and "CRITICAL" in subject for subject in subjects) == 1
    assert checks.look() == []


def test_it_is_not_asked_about_any_more_and_can_only_be_closed(
    named: tuple[Payment, Payment], sandbox: Sandbox
) -> None:
    _, lost = named
    sandbox.advance(60)
    sweep.run("test")
    assert again(lost).next_check_at is None
    admin = make_user("boss@example.org")
    with pytest.raises(DomainError) as refused:
        payments.decide(lost.id, state=PaymentState.OPEN, actor_id=admin.id, note="Let them pay")
    assert refused.value.code == "never_opened"
    payments.decide(lost.id, state=PaymentState.FAILED, actor_id=admin.id, note="Never opened")
    assert again(lost).order.state is OrderState.FAILED
    assert checks.look() == []


def test_the_page_of_such_an_order_says_that_a_person_looks(
    named: tuple[Payment, Payment], app: Flask, sandbox: Sandbox
) -> None:
    honest, lost = named
    sandbox.do(honest.provider_id or "", "pay")
    sandbox.faults()
    sandbox.advance(3)
    answer = app.test_client().get(f"/o/{lost.order.code}/{lost.order.secret}")
    assert answer.status_code == 200
    assert again(lost).state is PaymentState.REVIEW
