"""Kaspi by hand: what an admin confirms from the bank's statement, line by line or many at once."""

from __future__ import annotations

import io
import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select
from sqlalchemy.event import listen, remove
from werkzeug.test import TestResponse

from domain import clock
from domain.errors import DomainError
from domain.office import invariants
from domain.orders import managing
from domain.payments import reconciling, refunds, statements, telling
from domain.sweep import sweeping
from extensions import db
from models import (
    Incident,
    Order,
    OrderState,
    Payment,
    PaymentState,
    Role,
    StockState,
    Ticket,
    TimelineEntry,
    ToldReport,
    Transfer,
    User,
)
from tests.support.kaspi_told import PRICE, event_in_tenge, ordered, use_manual
from tests.support.people import log_in, mails, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import address, place
from tests.support.threads import at_once


@pytest.fixture
def boss(app: Flask) -> FlaskClient:
    """An admin's browser, in a Kassa that takes Kaspi by hand."""
    use_manual()
    return admin(app, "boss@example.org")


def admin(app: Flask, email: str) -> FlaskClient:
    make_member(email, Role.ADMIN)
    browser = app.test_client()
    log_in(browser, email)
    return browser


def told(browser: FlaskClient, payment: Payment, reference: str, amount: str = "5000", **more: str) -> str:
    """Send the form of the order's page; what the page says then."""
    page = f"/admin/orders/{payment.order.code}"
    fields = {"reference": reference, "amount": amount, "note": "Statement of today", **more}
    answer = post(browser, f"{page}/told", page=page, payment_id=payment.id, **fields)
    return unescape(browser.get(answer.location).text)


def fresh(payment: Payment) -> Payment:
    db.session.rollback()
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def timeline(order: Order) -> list[str]:
    query = select(TimelineEntry.what).where(TimelineEntry.order_id == order.id).order_by(TimelineEntry.id)
    return list(db.session.scalars(query))


def holds() -> bool:
    return invariants.look() == []


# --- One at a time --------------------------------------------------------------------------------------


def test_a_wrong_a_reused_and_a_right_reference(app: Flask, boss: FlaskClient, client: FlaskClient) -> None:
    event = event_in_tenge()
    (order, payment), (_, other) = ordered(event), ordered(event)
    page = client.get(address(order)).text
    assert "Aigerim S." in page and payment.reference in page and "Cancel this order" not in page

    for wrong in ("", "12", "paid!", order.code, payment.reference, "=1+1", "A" * 60):
        assert "reference" in told(boss, payment, wrong) and fresh(payment).state is PaymentState.OPEN
    assert "does not look like a reference of the bank" in told(boss, payment, "abc")
    assert db.session.scalar(select(func.count()).select_from(ToldReport)) == 0

    assert "Confirmed." in told(boss, payment, " qr 6458937894 ")
    payment = fresh(payment)
    assert (payment.state, payment.charge_id) == (PaymentState.PAID, "QR6458937894")
    assert payment.order.state is OrderState.COMPLETED and len(payment.order.tickets) == 1
    assert "told_paid" in timeline(order) and "paid" in timeline(order)
    assert "You’re going to" in client.get(address(order)).text

    said = told(boss, other, "QR6458937894")
    assert f"was used before, for KZT\u00a05,000.00 of payment {payment.reference}" in said.replace(
        "₸", "KZT\u00a0"
    )
    assert fresh(other).state is PaymentState.OPEN
    assert "Confirmed." in told(boss, other, "QR6458937895", paid_on=f"{clock.now():%Y-%m-%d}")
    # The same once more is the same money.
    told(boss, other, "QR6458937895")
    assert db.session.scalar(select(func.count()).select_from(Transfer)) == 2 and holds()
    assert "by boss" not in client.get(address(order)).text


def test_above_the_threshold_two_people_confirm(app: Flask, boss: FlaskClient, client: FlaskClient) -> None:
    use_manual(kaspi_two_people_above_minor=400_000)
    second = admin(app, "second@example.org")
    order, payment = ordered()
    assert "needs a second person" in told(boss, payment, "QR6458937894")
    payment = fresh(payment)
    assert payment.state is PaymentState.PROCESSING and not payment.order.tickets and holds()
    assert "a second person looks at it" in client.get(address(order)).text
    row = db.session.scalars(select(ToldReport)).one()
    page, fields = f"/admin/orders/{order.code}", {"told_id": row.id, "note": "I saw it, too"}
    assert "You wrote this down yourself" in boss.get(page).text
    post(boss, f"{page}/told/confirm", page=page, **fields)
    assert "You wrote this down yourself" in unescape(boss.get(page).text)
    assert fresh(payment).state is PaymentState.PROCESSING
    post(second, f"{page}/told/confirm", page=page, **fields)
    payment = fresh(payment)
    assert payment.state is PaymentState.PAID and len(payment.order.tickets) == 1 and holds()
    actors = db.session.scalars(
        select(User.email)
        .join(TimelineEntry, TimelineEntry.actor_id == User.id)
        .where(TimelineEntry.what.in_(("told_paid", "told_confirmed")))
        .order_by(TimelineEntry.id)
    ).all()
    assert actors == ["boss@example.org", "second@example.org"]
    shown = boss.get(page).text
    assert "Statement of today. Above" in unescape(shown)
    assert "told by boss@example.org" in shown and "confirmed by second@example.org" in shown


def test_a_large_sum_in_parts_takes_two_people_too(app: Flask, boss: FlaskClient) -> None:
    use_manual(kaspi_two_people_above_minor=400_000)
    _, payment = ordered()
    for half in ("QR6458937894", "QR6458937895"):
        told(boss, payment, half, "2500")
    assert fresh(payment).state is PaymentState.PROCESSING and not fresh(payment).order.tickets
    second = make_member("second@example.org", Role.ADMIN).id
    for row in db.session.scalars(select(ToldReport).order_by(ToldReport.id)).all():
        telling.confirm(row.id, actor_id=second, note="Seen, too")
    assert fresh(payment).received_minor == PRICE and holds()


@pytest.mark.parametrize(
    ("day", "words"),
    [
        (timedelta(days=3), "has not come yet"),
        (timedelta(days=-3), "before the order was made"),
        (None, "Choose a date between"),
    ],
)
def test_a_day_on_which_it_cannot_have_come_is_asked_about(
    app: Flask, boss: FlaskClient, day: timedelta | None, words: str
) -> None:
    _, payment = ordered()
    typed = "0001-01-01" if day is None else f"{clock.now() + day:%Y-%m-%d}"
    assert words in told(boss, payment, "QR6458937894", paid_on=typed)
    assert fresh(payment).state is PaymentState.OPEN
    assert "Confirmed." in told(boss, payment, "QR6458937894")


def test_what_was_wrong_is_taken_back_and_its_reference_is_free(app: Flask, boss: FlaskClient) -> None:
    use_manual(kaspi_two_people_above_minor=400_000)
    event = event_in_tenge()
    (order, payment), (_, other) = ordered(event), ordered(event)
    told(boss, payment, "QR6458937894")
    row = db.session.scalars(select(ToldReport)).one()
    page = f"/admin/orders/{order.code}"
    post(boss, f"{page}/told/withdraw", page=page, told_id=row.id, note="The other order's")
    assert fresh(payment).state is PaymentState.OPEN
    assert "second person" in told(boss, other, "QR6458937894") and holds()


def test_another_sum_goes_to_a_person(app: Flask, boss: FlaskClient) -> None:
    order, payment = ordered()
    assert "another sum than the order costs" in told(boss, payment, "QR6458937894", "4000")
    payment = fresh(payment)
    assert (payment.state, payment.received_minor) == (PaymentState.REVIEW, 400_000)
    assert db.session.scalars(select(Incident.kind)).one() == "mismatch"
    assert not payment.order.tickets and len(mails("money_arrived")) == 1 and holds()
    assert order.code


def test_money_that_comes_twice_waits_in_the_inbox(app: Flask, boss: FlaskClient) -> None:
    _, payment = ordered()
    told(boss, payment, "QR6458937894")
    told(boss, payment, "QR6458937895")
    payment = fresh(payment)
    assert payment.state is PaymentState.PAID and len(payment.order.tickets) == 1
    incident = db.session.scalars(select(Incident)).one()
    assert (incident.kind, incident.amount_minor) == ("told_twice", PRICE)
    suspended = select(Transfer.amount_minor).where(Transfer.credit == "suspense")
    assert db.session.scalars(suspended).all() == [PRICE] and holds()
    reconciling.reconcile(payment.id, door="test")
    assert fresh(payment).state is PaymentState.PAID


def test_silence_ends_nothing_before_a_person_has_looked(
    app: Flask, boss: FlaskClient, client: FlaskClient, sandbox: Sandbox
) -> None:
    order, payment = ordered()
    sandbox.advance(24 * 3600 + 60)
    sweeping.run("test")
    assert fresh(payment).state is PaymentState.OPEN
    page = client.get(address(order)).text
    assert "don’t send it any more" in page and "Aigerim S." not in page
    sandbox.advance(3700)
    sweeping.run("test")
    payment = fresh(payment)
    assert (payment.state, payment.order.state) == (PaymentState.REVIEW, OrderState.REVIEW)
    assert payment.order.stock_state is StockState.HELD and holds()
    assert len(mails("payment_unclear")) == 1
    assert "we have not seen your money yet" in client.get(address(order)).text
    for _ in range(3):
        sandbox.advance(90_000)
        sweeping.run("test")
    assert fresh(payment).state is PaymentState.REVIEW and len(mails("payment_unclear")) == 1
    # The money is found after all: the place was kept for it.
    told(boss, payment, "QR6458937894")
    payment = fresh(payment)
    assert payment.order.state is OrderState.COMPLETED and len(payment.order.tickets) == 1
    assert db.session.scalars(select(Incident.resolution)).one() == "told" and holds()


def test_nothing_came_ends_the_order_and_late_money_is_still_money(app: Flask, boss: FlaskClient) -> None:
    order, payment = ordered()
    page = f"/admin/orders/{order.code}"
    post(boss, f"{page}/unpaid", page=page, payment_id=payment.id, note="Not in the statement")
    payment = fresh(payment)
    assert (payment.state, payment.order.state) == (PaymentState.EXPIRED, OrderState.EXPIRED)
    assert payment.order.stock_state is StockState.RELEASED and len(mails("order_expired")) == 1
    told(boss, payment, "QR6458937894")
    payment = fresh(payment)
    assert payment.state is PaymentState.PAID and len(payment.order.tickets) == 1 and holds()


def test_a_buyer_cannot_cancel_what_may_be_on_its_way(app: Flask, boss: FlaskClient) -> None:
    order, payment = ordered()
    with pytest.raises(DomainError) as refused:
        managing.cancel(order, door="order_page")
    assert refused.value.code == "not_closable" and "on its way" in refused.value.message
    assert fresh(payment).cancel_asked_at is None


def test_a_refund_is_made_at_the_bank_and_written_down(app: Flask, boss: FlaskClient) -> None:
    order, payment = ordered()
    told(boss, payment, "QR6458937894")
    refund = refunds.request(payment.id, PRICE, actor_id=None, reason="Ill")
    page = f"/admin/orders/{order.code}"
    assert "No call sends this money back" in boss.get(page).text
    form = {"refund_id": refund.id, "note": "In the app"}
    post(boss, f"{page}/refunded", page=page, reference="x", **form)
    assert "does not look like a reference of the bank" in unescape(boss.get(page).text)
    post(boss, f"{page}/refunded", page=page, reference="RB-7654321", **form)
    assert fresh(payment).order.state is OrderState.REFUNDED and len(mails("refund")) == 1 and holds()


def test_two_references_told_at_one_moment_pay_once(
    app: Flask, boss: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is written down after the first, and before that is settled."""
    _, payment = ordered()
    someone, second = make_member("third@example.org", Role.ADMIN).id, list[ToldReport]()
    reconcile = reconciling.reconcile

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        if not second:
            second.append(ToldReport())
            telling.tell_paid(
                payment.id, reference="QR6458937895", amount_minor=PRICE, actor_id=someone, note="Seen"
            )
        return reconcile(*args, **kwargs)

    monkeypatch.setattr(reconciling, "reconcile", meanwhile)
    assert "Confirmed." in told(boss, payment, "QR6458937894")
    payment = fresh(payment)
    assert (payment.state, len(payment.order.tickets)) == (PaymentState.PAID, 1)
    assert payment.received_minor == PRICE
    assert db.session.scalars(select(Incident.kind)).all() == ["told_twice"] and holds()


# --- Side by side ---------------------------------------------------------------------------------------


def test_one_reference_that_two_use_at_once_pays_one_order(app: Flask, boss: FlaskClient) -> None:
    event, someone = event_in_tenge(), make_member("third@example.org", Role.ADMIN).id
    ids = [ordered(event)[1].id for _ in range(4)]

    def tell(number: int) -> str:
        told = telling.tell_paid(
            ids[number], reference="QR6458937894", amount_minor=PRICE, actor_id=someone, note="Seen"
        )
        return told.reference

    results = at_once(app, 4, tell)
    refused = [r for r in results if isinstance(r, DomainError)]
    assert len(refused) == 3 and {r.code for r in refused} == {"reference_used"}, results
    assert db.session.scalar(select(func.count()).select_from(Ticket)) == 1 and holds()


# --- A statement ----------------------------------------------------------------------------------------


def send(browser: FlaskClient, data: bytes) -> TestResponse:
    token = re.search(r'name="csrf_token" value="([^"]+)"', browser.get("/admin/statements").text)
    assert token is not None
    sent = {"csrf_token": token[1], "statement": (io.BytesIO(data), "statement.csv")}
    return browser.post("/admin/statements", data=sent, content_type="multipart/form-data")


def test_a_statement_matches_many_and_says_what_is_in_the_way(app: Flask, boss: FlaskClient) -> None:
    event = event_in_tenge(capacity=20)
    payments = [ordered(event)[1] for _ in range(5)]
    one, two, three, four, late = payments
    told(boss, four, "QR0000000004")
    late.closes_at = clock.now() - timedelta(days=1)
    db.session.commit()
    day = f"{clock.now():%d.%m.%Y}"
    rows = [
        "Выписка по счёту;;;;",
        "Дата операции;Номер документа;Дебет;Кредит;Назначение платежа",
        f"{day} 10:15:00;QR0000000001;;5 000,00;Оплата {one.reference}",
        f"{day};QR0000000002;;5\u00a0000,00 тг;билет {two.order.code.lower()} спасибо",
        f"{day};QR0000000003;;4 999,00;{three.reference}",
        f"{day};QR0000000004;;5 000,00;{four.reference}",
        f"{day};QR0000000005;;1 000,00;Перевод от Марата",
        f"{day};QR0000000006;;5 000,00;{one.reference} {two.reference}",
        f"{day};QR0000000007;2 000,00;;Комиссия",
        ";;;Итого;25 000,00",
    ]
    page = send(boss, "\r\n".join(rows).encode("cp1251"))
    shown = unescape(page.text)
    assert page.status_code == 200 and "2 lines fit" in shown
    assert f"{three.reference} is to be" in shown and "It may be about" in shown
    assert "It was confirmed for" in shown and "No order's code stands in it" in shown
    assert late.reference in shown.split("Waiting, and not in it")[1]
    # Nothing is confirmed by looking.
    assert fresh(one).state is PaymentState.OPEN

    lines = [unescape(token) for token in re.findall(r'name="line"[^>]*value="([^"]+)"', page.text)]
    token = re.findall(r'name="csrf_token" value="([^"]+)"', page.text)[-1]
    boss.post(
        "/admin/statements/confirm",
        data={"csrf_token": token, "line": lines, "unpaid": [str(late.id)]},
    )
    states = [fresh(payment).state for payment in payments]
    assert states == [
        *(PaymentState.PAID, PaymentState.PAID, PaymentState.OPEN, PaymentState.PAID, PaymentState.EXPIRED),
    ]
    assert "By the bank's statement, line 3." in str(
        db.session.scalars(select(TimelineEntry.text).where(TimelineEntry.what == "told_paid")).all()
    )
    assert "0 lines fit" in unescape(send(boss, "\r\n".join(rows).encode()).text) and holds()


def test_a_statement_as_spreadsheets_leave_it(app: Flask, boss: FlaskClient) -> None:
    """A mark at its beginning, line breaks in cells, the same line twice, other money, and sent once more."""
    event = event_in_tenge(capacity=20)
    one, two, three = (ordered(event)[1] for _ in range(3))
    day = f"{clock.now():%d.%m.%Y}"
    rows = (
        "\ufeff№ документа;Дата;Сумма;Валюта;Назначение\r\n"
        f'QR0000000001;{day};"5\u202f000,00";KZT;"Оплата\r\n{one.reference}; спасибо"\r\n'
        f'QR0000000001;{day};"5\u202f000,00";KZT;"Оплата\r\n{one.reference}; спасибо"\r\n'
        f"QR0000000002;{day};5 000,00;USD;{two.reference}\r\n"
        f"QR0000000003;01.01.0001;5 000,00;398;{three.reference}\r\n"
    ).encode()
    page = send(boss, rows)
    shown = unescape(page.text)
    assert "2 lines fit" in shown and "The same reference stands in an earlier line." in shown
    assert "It is in USD, and not in tenge." in shown
    lines = [unescape(line) for line in re.findall(r'name="line"[^>]*value="([^"]+)"', page.text)]
    done = statements.tell(lines, [], actor_id=make_member("third@example.org", Role.ADMIN).id)
    assert done.confirmed == 1 and "before the order was made" in done.refused[0]
    assert [fresh(p).state for p in (one, two, three)] == [
        *(PaymentState.PAID, PaymentState.OPEN, PaymentState.OPEN),
    ]
    again = unescape(send(boss, rows).text)
    assert "1 line fits" in again and again.count("It was confirmed for") == 2
    # Nobody is told twice of the same money, and what is written down can be read.
    assert boss.get(f"/admin/orders/{three.order.code}").status_code == 200 and holds()


def test_a_long_statement_is_read_in_few_questions(app: Flask, boss: FlaskClient) -> None:
    event = event_in_tenge(capacity=20)
    known = [ordered(event)[1] for _ in range(3)]
    head, day = "reference;amount;date;text", f"{clock.now():%Y-%m-%d}"
    rows = [f"QR{n:010};5000;{day};{known[n % 3].reference if n < 3 else 'rent'}" for n in range(1500)]
    asked: list[str] = []

    def asking(*call: Any) -> None:
        asked.append(call[2])

    listen(db.engine, "before_cursor_execute", asking)
    try:
        found = statements.preview("\n".join((head, *rows)).encode(), actor_id=1)
    finally:
        remove(db.engine, "before_cursor_execute", asking)
    assert len(found.of("matched")) == 3 and len(found.of("unknown")) == 1497
    assert len(asked) < 20, len(asked)


@pytest.mark.parametrize(
    ("cell", "minor"),
    [
        ("1 500,00", 150_000),
        ("1\u00a0500,00 ₸", 150_000),
        ("1500", 150_000),
        ("1,500.00", 150_000),
        ("KZT 1500.5", 150_050),
        ("-1 500,00", -150_000),
        ("1,500", None),
        ("1.500,00", None),
        ("1e3", None),
        ("١٥٠٠", None),
        ("=1500", None),
        ("", None),
    ],
)
def test_amounts_as_banks_write_them(cell: str, minor: int | None) -> None:
    assert statements.amount_of(cell) == minor


HEAD = b"reference;amount;date\r\n"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"PK\x03\x04\x00\x00", "no text"),
        (b"x" * (statements.MOST_BYTES + 1), "512 KB"),
        (HEAD + b"QR1234567;=HYPERLINK(1);\r\n", "formula"),
        (HEAD + b"@SUM(A1);5000;\r\n", "formula"),
        (HEAD + b"+cmd|x;5000;\r\n", "formula"),
        (HEAD + b"QR1234567;5000\r\n" * (statements.MOST_LINES + 1), "2000 lines"),
        (HEAD + b"QR1234567;5000" + b";x" * 80, "more in it"),
        (HEAD + b'QR1234567;"5000' + b"y" * 3000 + b'"', "more in it"),
        (b"a;b;c\r\n1;2;3\r\n", "names its columns"),
        (HEAD, "no line in it"),
        (b"\xff\xfe" + b"\x00\xd8" * 3, "not known here"),
    ],
)
def test_a_file_that_is_no_statement_is_refused_in_words(app: Flask, data: bytes, words: str) -> None:
    with pytest.raises(DomainError, match=re.escape(words)):
        statements.read(data)


def test_a_statement_is_for_admins_and_a_forged_line_confirms_nothing(app: Flask, boss: FlaskClient) -> None:
    assert app.test_client().get("/admin/statements").status_code in (302, 303)
    _, payment = ordered()
    forged = (
        *(f"3|p{payment.id}|QR1234567|-5|", f"3|p{payment.id}|x|500000|", "nonsense", "1|t99|QR7654321|5|"),
        *(f"3|p{payment.id}|QR1234567|²|", "1|t²|QR7654321|5|", f"3|p{payment.id}|QR1234567|5|yesterday"),
        f"3|p{payment.id}|QR1234567|500000|0001-01-01T00:00:00",
    )
    done = statements.tell(forged, [10**9], actor_id=1)
    assert done.confirmed == 0 and len(done.refused) == len(forged) + 1
    page = boss.get("/admin/statements").text
    token = re.findall(r'name="csrf_token" value="([^"]+)"', page)[-1]
    sent = boss.post("/admin/statements/confirm", data={"csrf_token": token, "unpaid": ["²", "9" * 30, "x"]})
    assert sent.status_code in (302, 303)
    assert fresh(payment).state is PaymentState.OPEN


def test_an_organisers_file_and_place_stay_as_they_are(app: Flask, boss: FlaskClient) -> None:
    """A payment that can be asked is not told: it is asked."""
    order = place(event_in_tenge(slug="other"))
    with pytest.raises(DomainError, match="never opened"):
        telling.tell_paid(order.payments[0].id, reference="QR1234567", amount_minor=1, actor_id=1, note="x")
