"""The sweep's smaller duties: none of them keeps the others from being done."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy import select

from domain import outbox, payments, refunds, sweep, wallet
from extensions import db
from models import MailState, OutboxMail, SweepRun
from tests.support.shop import make_event, place, report_on


def test_a_duty_that_fails_keeps_no_other_from_being_done(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def broken(*_: object, **__: object) -> list[int]:
        raise RuntimeError("a row that nobody has foreseen")

    monkeypatch.setattr(refunds, "due", broken)
    monkeypatch.setattr(wallet, "expire_holds", broken)

    def deliver(**_: object) -> outbox.Delivery:
        done.append("mail")
        return outbox.Delivery()

    monkeypatch.setattr(outbox, "deliver_due", deliver)
    run = sweep.run("test")
    assert (run.errors, run.error, done) == (2, "", ["mail"])
    assert run.finished_at is not None


def test_the_digest_of_what_expired_names_an_order_once(app: Flask) -> None:

    order = place(make_event())
    payment = order.payments[0]
    payments.settle(payment.id, report_on(payment, "open"), door="test")
    payments.settle(payment.id, report_on(payment, "expired"), door="test")
    sweep.run("test")
    sweep.run("test")
    digests = db.session.scalars(select(OutboxMail).where(OutboxMail.key.startswith("expired:"))).all()
    assert [mail.context["text"].count(order.code) for mail in digests] == [1]
    assert {mail.state for mail in digests} <= {MailState.DUE, MailState.SENT}
    assert db.session.scalars(select(SweepRun.error).distinct()).all() == [""]
