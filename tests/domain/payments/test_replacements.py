"""What is closed for another that does not come: its buyer is told, whatever went wrong, and nobody else."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from flask import Flask

from domain import clock
from domain.errors import DomainError
from domain.orders import managing, placing, publishing
from domain.payments import creating, starting
from domain.sweep import sweeping
from extensions import db
from models import EventState, Order, OrderState, Payment, Role
from tests.support.merchants import make_organiser, use_sumup
from tests.support.people import mails
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, make_user, place

# An error of the database, or of ours; and a process that dies.
ENDS = [RuntimeError, KeyboardInterrupt]


@pytest.fixture(autouse=True)
def _two_ways(app: Flask, environ: dict[str, str], sandbox: Sandbox) -> None:
    use_sumup(environ, sandbox, listing_fee=Decimal("12.50"), listing_fee_currency="EUR")


def told() -> list[tuple[int | None, str]]:
    return [(mail.order_id, mail.kind) for mail in mails("order_cancelled")]


def begun(**more: Any) -> Order:
    order = place(make_event(providers=["stripe", "sumup"], **more), 2)
    assert starting.open_at_provider(order) is not None
    return again(order)


def again(order: Order) -> Order:
    db.session.rollback()
    return db.session.get_one(Order, order.id, populate_existing=True)


def sweeps(sandbox: Sandbox, times: int = 3) -> None:
    for _ in range(times):
        sandbox.advance(200)
        sweeping.run("test")


def _raising(error: type[BaseException]) -> Any:
    def end(*_: Any, **__: Any) -> None:
        raise error

    return end


@pytest.mark.parametrize("error", ENDS)
def test_another_way_to_pay_that_breaks_off_is_told_once(
    sandbox: Sandbox, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    order = begun()
    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(creating, "prepare", _raising(error))
        managing.pay_again(order.id, "sumup", payer_id=None)
    order = again(order)
    assert (order.state, len(order.payments)) == (OrderState.CANCELLED, 1)
    assert told() == ([(order.id, "order_cancelled")] if error is RuntimeError else [])
    order_id = order.id
    sweeps(sandbox)
    assert told() == [(order_id, "order_cancelled")]


@pytest.mark.parametrize("how", ["pays", "waives"])
def test_a_fees_order_that_nothing_took_the_place_of_is_told_once(
    environ: dict[str, str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    olga, boss = make_organiser(), make_user("boss@example.org", Role.ADMIN)
    for number, error in enumerate(ENDS):
        event = make_event(f"gala-{number}", organiser_id=olga.id, state=EventState.DRAFT)
        use_sumup(environ, sandbox, listing_fee=Decimal("12.50"), listing_fee_currency="EUR")
        order = publishing.publish(event, olga, "stripe")
        assert order is not None and starting.open_at_provider(order) is not None
        order_id, before = order.id, len(told())
        # The fee is another one by now, so the order for the old one is closed.
        use_sumup(environ, sandbox, listing_fee=Decimal(20), listing_fee_currency="EUR")
        with monkeypatch.context() as patch, pytest.raises(error):
            patch.setattr(placing, "place_listing_fee", _raising(error))
            if how == "pays":
                publishing.publish(event, olga, "stripe")
            else:
                publishing.waive(event, boss, "A friend")
        assert len(told()) - before == (1 if error is RuntimeError else 0)
        sweeps(sandbox)
        assert told()[before:] == [(order_id, "order_cancelled")]
        olga, boss = (db.session.merge(user) for user in (olga, boss))


def test_what_was_replaced_is_nobodys_mail(environ: dict[str, str], sandbox: Sandbox) -> None:
    """Another way to pay, and another fee: both go on."""
    order = begun()
    managing.pay_again(order.id, "sumup", payer_id=None)
    olga = make_organiser()
    event = make_event("gala", organiser_id=olga.id, state=EventState.DRAFT)
    fee = publishing.publish(event, olga, "stripe")
    assert fee is not None and starting.open_at_provider(fee) is not None
    use_sumup(environ, sandbox, listing_fee=Decimal(20), listing_fee_currency="EUR")
    assert publishing.publish(event, olga, "stripe") is not None
    sweeps(sandbox)
    assert told() == []
    assert db.session.query(Payment).filter(Payment.replacing_since.is_not(None)).count() == 0


def test_who_ended_it_on_the_page_is_not_told_that_it_ended(sandbox: Sandbox) -> None:
    """Not as paying again is refused afterwards, nor by a sweep; not even if it was to be replaced before."""
    order = begun()
    sandbox.faults("http_500", match={"method": "POST", "path": "/expire$"})
    managing.pay_again(order.id, "sumup", payer_id=None)
    sandbox.faults()
    managing.cancel(again(order), door="order_page")
    order = again(order)
    assert order.state is OrderState.CANCELLED and order.event is not None
    order.event.sales_close_at = clock.now()
    db.session.commit()
    with pytest.raises(DomainError):
        managing.pay_again(order.id, "stripe", payer_id=None)
    sweeps(sandbox)
    assert told() == []
