"""Money of a lost time where no provider tells it, and the names of a later life."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, text

from domain import clock, epochs
from domain.errors import DomainError
from domain.office import invariants
from domain.orders import attaching
from domain.orders.lost_goods import Buyer
from domain.payments import lost_money, starting, statements
from domain.sweep import sweeping
from extensions import db
from models import Epoch, Incident, OrderState, Refund, RefundState, Role, User
from tests.support.kaspi_told import PRICE, event_in_tenge, ordered, use_manual
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, make_user, place


@pytest.fixture
def boss(app: Flask) -> Iterator[User]:
    """An admin of a shop in its second life, which is open."""
    now = clock.now()
    db.session.add(Epoch(number=2, backup_at=now, began_at=now, opened_at=now))
    db.session.commit()
    epochs.look_again()
    yield make_user("boss@example.org", Role.ADMIN)
    epochs.look_again()


def waiting() -> list[Incident]:
    return list(db.session.scalars(select(Incident).filter_by(resolved_at=None).order_by(Incident.id)))


def test_what_a_person_read_at_the_bank_gets_its_order_or_goes_back(app: Flask, boss: User) -> None:
    use_manual()
    event = event_in_tenge()
    lines = "QR10002000 ORD-KSTX2345-1 5000\nQR10003000 4000\nQR10004000\nORD-KSTX2345-1 5000\n"
    written = lost_money.write_down("kaspi", lines, actor_id=boss.id)
    assert len(written.taken) == 2 and "Write the sum" in written.refused[0], written
    assert "does not look like a reference" in written.refused[1]
    again = lost_money.write_down("kaspi", lines, actor_id=boss.id)
    assert [line.endswith("known here already") for line in again.taken] == [True, True]
    first, second = waiting()
    buyer = Buyer("Ada", "ada@example.org", {event.ticket_types[0].id: 1})
    told: dict[str, Any] = {"reason": "By her receipt", "actor_id": boss.id}
    with pytest.raises(DomainError, match="Choose what costs just that sum"):
        attaching.attach(second.id, f"tickets:{event.id}", buyer, **told)
    db.session.rollback()
    order = attaching.attach(first.id, f"tickets:{event.id}", buyer, **told)
    assert (order.code, order.state, len(order.tickets)) == ("ORD-KSTX2345", OrderState.COMPLETED, 1)
    assert order.payments[0].received_minor == PRICE
    back = attaching.send_back(second.id, Buyer("", ""), **told)
    refund = db.session.scalars(select(Refund)).one()
    # A person makes it at the bank, as every refund there.
    assert (refund.payment_id, refund.amount_minor) == (back.payments[0].id, 400_000)
    assert refund.state is RefundState.CREATED and not waiting()
    assert invariants.look() == []


def test_a_later_life_is_in_each_name_and_is_read_again(app: Flask, boss: User, sandbox: Sandbox) -> None:
    """In the bank's statement, and by SumUp's search for money whose order was lost."""
    order = place(make_event("sumup"), provider="sumup")
    payment = starting.open_at_provider(order)
    assert payment is not None and payment.provider_id is not None
    reference = payment.reference
    assert reference == f"{order.code}-1-E2"
    sandbox.do(payment.provider_id, "pay")
    db.session.rollback()
    for table in ("order_words", "timeline", "outbox", "payments", "order_lines"):
        db.session.execute(text(f"DELETE FROM {table} WHERE order_id = (SELECT max(id) FROM orders)"))
    db.session.execute(text("UPDATE ticket_types SET held = 0"))
    db.session.execute(text("DELETE FROM orders"))
    db.session.commit()
    sweeping.run("test")
    (incident,) = waiting()
    assert incident.evidence["reference"] == reference
    use_manual()
    _, told = ordered()
    line = f"01.12.2026;QR77778888;5000;{told.reference}"
    found = statements.preview(f"Дата;Номер документа;Сумма;Назначение\n{line}\n".encode(), actor_id=boss.id)
    assert [(match.found, match.payment) for match in found.matches] == [("matched", told)]
