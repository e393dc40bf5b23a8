"""A report that names what is another payment's: its id, or its charge."""

from __future__ import annotations

import pytest
from flask import Flask

from domain.office import invariants
from domain.payments import settling, starting
from domain.sweep import sweeping
from extensions import db
from models import Incident, OrderState, Payment, PaymentState
from tests.support.merchants import use_sumup
from tests.support.people import mails
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, make_user, place


@pytest.fixture
def named(app: Flask, environ: dict[str, str], sandbox: Sandbox) -> tuple[Payment, Payment]:
    """A payment that is open, and one whose create was lost; SumUp finds the first under the other's name."""
    use_sumup(environ, sandbox)
    event = make_event(providers=["sumup"])
    honest = starting.open_at_provider(place(event))
    sandbox.faults("http_500", rate=1, seed=1, match={"method": "POST", "path": "/v0.1/checkouts"})
    lost = starting.open_at_provider(place(event))
    assert honest is not None and lost is not None and lost.state is PaymentState.CREATED
    sandbox.do(honest.provider_id or "", "tamper", set={"reference": lost.reference})
    return honest, lost


def again(payment: Payment) -> Payment:
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def test_the_sweep_finds_another_payment_under_an_unopened_ones_name(
    named: tuple[Payment, Payment], sandbox: Sandbox
) -> None:
    """Nothing of it is kept, and the lost one is looked for again."""
    honest, lost = named
    sandbox.do(honest.provider_id or "", "pay")
    sandbox.advance(60)
    for _ in range(2):
        run = sweeping.run("test")
        assert run.errors == 1
        sandbox.advance(400)
    assert (lost.state, lost.provider_id, lost.url) == (PaymentState.CREATED, None, None)
    assert (lost.charge_id, lost.received_minor, lost.order.tickets) == (None, None, [])
    assert lost.next_check_at is not None and lost.order.state is OrderState.PENDING
    assert lost.last_error.startswith("unreadable: The answer is about another payment")
    assert db.session.query(Incident).filter_by(payment_id=lost.id).all() == []
    subjects = [mail.context["subject"] for mail in mails("alert")]
    assert sum(lost.order.code in subject and "Wrong Answer" in subject for subject in subjects) == 1
    assert invariants.look() == []


def test_it_is_opened_as_soon_as_the_name_is_free(named: tuple[Payment, Payment], sandbox: Sandbox) -> None:
    honest, lost = named
    sandbox.advance(60)
    sweeping.run("test")
    assert lost.state is PaymentState.CREATED
    sandbox.do(honest.provider_id or "", "tamper", set={"reference": honest.reference})
    sandbox.faults()
    sandbox.advance(400)
    sweeping.run("test")
    assert again(lost).state is PaymentState.OPEN
    assert lost.provider_id not in (None, honest.provider_id)
    assert invariants.look() == []


def test_past_its_end_a_person_can_close_it(named: tuple[Payment, Payment], sandbox: Sandbox) -> None:
    _, lost = named
    for _ in range(3):
        sandbox.advance(3600)
        sweeping.run("test")
    assert lost.state is PaymentState.CREATED
    admin = make_user("boss@example.org")
    settling.override(lost.id, state=PaymentState.FAILED, actor_id=admin.id, note="Never opened")
    assert again(lost).order.state is OrderState.FAILED
    assert invariants.look() == []


def test_the_page_of_such_an_order_still_waits(
    named: tuple[Payment, Payment], app: Flask, sandbox: Sandbox
) -> None:
    honest, lost = named
    sandbox.do(honest.provider_id or "", "pay")
    sandbox.faults()
    sandbox.advance(3)
    answer = app.test_client().get(f"/o/{lost.order.code}/{lost.order.secret}")
    assert answer.status_code == 200
    assert again(lost).state is PaymentState.CREATED
