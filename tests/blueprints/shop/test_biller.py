"""Kaspi's calls: may it be paid, and it was paid. Each over HTTP, from an address that the front names."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select

import logs
from domain import locks
from domain.office import invariants
from domain.orders import event_cancellation
from domain.payments import calls, reconciling, telling
from domain.providers.calling import Call, Caller
from domain.sweep import sweeping
from extensions import db
from models import (
    BillerAnswer,
    Incident,
    Order,
    OrderState,
    Payment,
    PaymentState,
    Ticket,
    TimelineEntry,
    ToldReport,
    Transfer,
)
from tests.support.kaspi_told import KASPI, PATH, PRICE, call, event_in_tenge, ordered, use_biller, use_manual
from tests.support.people import mails
from tests.support.sandbox import Sandbox
from tests.support.shop import address, make_user
from tests.support.threads import at_once

# Two hours ago by Almaty's clock, as Kaspi writes it.
PAID_AT = f"{datetime.now(UTC) + timedelta(hours=5 - 2):%Y%m%d%H%M%S}"


@pytest.fixture(autouse=True)
def biller(app: Flask) -> None:
    use_biller()


def fresh(payment: Payment) -> Payment:
    db.session.rollback()
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def holds() -> bool:
    return invariants.look() == []


def pay(client: FlaskClient, account: str, **more: str) -> dict[str, Any]:
    sent = {"sum": "5000.00", "txn_date": PAID_AT, **more}
    answer: dict[str, Any] = call(client, "pay", account, **sent).get_json()
    return answer


def test_the_buyer_is_taken_to_kaspi_by_a_form_of_this_page_alone(app: Flask, client: FlaskClient) -> None:
    order, payment = ordered()
    answer = client.get(address(order))
    for field in (f'name="OrderId" value="{order.code}"', 'name="Amount" value="500000"'):
        assert field in answer.text
    assert f'name="TranId" value="{payment.reference}"' in answer.text
    assert 'action="https://kaspi.kz/online"' in answer.text and 'value="KassaTickets"' in answer.text
    assert "https://kaspi.kz" in answer.headers["Content-Security-Policy"]
    assert "https://kaspi.kz" not in client.get("/").headers["Content-Security-Policy"]
    # Coming back is no evidence.
    back = client.get(f"/pay/success/{order.code}/{order.secret}?session_id={payment.reference}")
    assert back.status_code == 303 and fresh(payment).state is PaymentState.OPEN


def test_check_pay_and_the_same_pay_again(app: Flask, client: FlaskClient) -> None:
    order, payment = ordered()
    for account in (order.code, payment.reference, order.code.lower()):
        checked = call(client, "check", account, sum="1.00")
        assert checked.content_type.startswith("application/json")
        told = checked.get_json()
        assert (told["txn_id"], told["result"], told["sum"]) == ("100200300", 0, "5000.00")
    assert fresh(payment).state is PaymentState.OPEN and not db.session.scalars(select(ToldReport)).all()

    first = call(client, "pay", order.code, sum="5000.00", txn_date=PAID_AT)
    told = first.get_json()
    row = db.session.scalars(select(ToldReport)).one()
    assert (told["result"], told["prv_txn_id"], told["sum"]) == (0, str(row.id), "5000.00")
    # Kaspi's clock is Almaty's.
    assert row.paid_at == datetime.strptime(f"{PAID_AT}+0500", "%Y%m%d%H%M%S%z")
    payment = fresh(payment)
    assert (payment.state, payment.order.state) == (PaymentState.PAID, OrderState.COMPLETED)
    assert "You’re going to" in client.get(address(order)).text

    again = call(client, "pay", order.code, sum="5000.00", txn_date=PAID_AT)
    assert again.data == first.data
    # Whatever else it says: its name is what counts.
    assert call(client, "pay", "ORD-23456789", sum="1.00").data == first.data
    assert db.session.scalar(select(func.count()).select_from(Ticket)) == 1
    assert db.session.scalar(select(func.count()).select_from(Transfer)) == 1
    assert call(client, "check", order.code).get_json()["result"] == 3
    other = pay(client, order.code, txn_id="100200301")
    assert other["result"] == 3 and "call_refused" in noted(order) and holds()


def noted(order: Order) -> list[str]:
    return list(db.session.scalars(select(TimelineEntry.what).where(TimelineEntry.order_id == order.id)))


def test_a_wrong_sum_is_kept_and_goes_to_a_person(app: Flask, client: FlaskClient) -> None:
    order, payment = ordered()
    told = pay(client, order.code, sum="4999.99")
    assert (told["result"], told["sum"]) == (0, "4999.99")
    payment = fresh(payment)
    assert (payment.state, payment.received_minor) == (PaymentState.REVIEW, 499_999)
    assert db.session.scalars(select(Incident.kind)).one() == "mismatch"
    assert not payment.order.tickets and len(mails("money_arrived")) == 1
    assert call(client, "check", order.code).get_json()["result"] == 4 and holds()


@pytest.mark.parametrize(
    ("path", "sender"),
    [
        (PATH, "203.0.113.9"),
        (PATH, "10.0.0.1"),
        ("kassa-biller-path-for-test", KASPI),
        (f"{PATH}x", KASPI),
        ("x", KASPI),
        (PATH, f"{KASPI}, 203.0.113.9"),
        (PATH, "not an address"),
    ],
)
def test_a_stranger_and_a_wrong_path_find_nothing(
    app: Flask, client: FlaskClient, path: str, sender: str
) -> None:
    """Of several addresses the last one is the front's; what stands before it anybody may have written."""
    order, payment = ordered()
    nowhere = client.get("/kaspi/nothing/here")
    for command in ("check", "pay"):
        answer = call(client, command, order.code, path=path, address=sender)
        assert answer.status_code == 404
        assert answer.text.split("<main")[1] == nowhere.text.split("<main")[1]
    assert fresh(payment).state is PaymentState.OPEN
    assert not db.session.scalars(select(BillerAnswer)).all()


def test_a_front_that_adds_the_callers_address_is_believed(app: Flask, client: FlaskClient) -> None:
    order, _ = ordered()
    assert call(client, "check", order.code, address=f"203.0.113.9, {KASPI}").get_json()["result"] == 0
    use_biller(kaspi_biller_ips=("194.187.247.0/24", "2001:db8::/32"))
    for sender in ("194.187.247.77", "2001:db8::5", f"::ffff:{KASPI}"):
        assert call(client, "check", order.code, address=sender).get_json()["result"] == 0


@pytest.mark.parametrize(
    ("change", "result"),
    [
        ({"command": "steal"}, 5),
        ({"txn_id": ""}, 5),
        ({"txn_id": "../x"}, 5),
        ({"account": ""}, 5),
        ({"account": "ORD-23456789"}, 1),
        ({"account": "' OR 1=1"}, 1),
        ({"sum": ""}, 5),
        ({"sum": "-5000"}, 5),
        ({"sum": "5e3"}, 5),
        ({"sum": "0.00"}, 5),
        ({"sum": "5000,00"}, 5),
        ({"txn_date": "yesterday"}, 0),
        ({"txn_date": "00010101000000"}, 0),
        ({"txn_date": "99991231235959"}, 0),
        ({"txn_date": "20991231235959"}, 0),
        ({"account": '{"a": 1}'}, 1),
        ({"account": "<!DOCTYPE x [<!ENTITY y SYSTEM 'file:///etc/passwd'>]>&y;"}, 1),
        ({"account": 'x","result":0,"y":"'}, 1),
    ],
)
def test_calls_that_say_something_else(
    app: Flask, client: FlaskClient, change: dict[str, str], result: int
) -> None:
    order, payment = ordered()
    query = {"command": "pay", "account": order.code, "sum": "5000.00"} | change
    answer = call(client, query.pop("command"), query.pop("account"), **query)
    assert answer.status_code == 200 and answer.get_json()["result"] == result
    assert (fresh(payment).state is PaymentState.PAID) is (result == 0) and holds()
    # A day that cannot be is left out, and the money is taken in.
    assert all(row.paid_at is None for row in db.session.scalars(select(ToldReport)))


def test_a_large_sum_waits_for_the_statement(app: Flask, client: FlaskClient) -> None:
    use_biller(kaspi_biller_believed_minor=400_000)
    order, payment = ordered()
    assert pay(client, order.code)["result"] == 0
    payment = fresh(payment)
    assert payment.state is PaymentState.PROCESSING and not payment.order.tickets and holds()
    assert call(client, "check", order.code).get_json()["result"] == 4
    assert pay(client, order.code, txn_id="100200301")["result"] == 4
    # What is busy now is not what was answered for good.
    assert db.session.scalar(select(func.count()).select_from(BillerAnswer)) == 1
    assert "still confirming" in client.get(address(order)).text
    row = db.session.scalars(select(ToldReport)).one()
    telling.confirm(row.id, actor_id=make_user("boss@example.org").id, note="In the statement")
    assert fresh(payment).state is PaymentState.PAID and holds()


def test_what_is_over_is_refused_and_what_was_begun_is_waited_for(
    app: Flask, client: FlaskClient, sandbox: Sandbox
) -> None:
    order, payment = ordered()
    sandbox.advance(30 * 60 + 10)
    assert call(client, "check", order.code).get_json()["result"] == 2
    sweeping.run("test")
    assert fresh(payment).state is PaymentState.OPEN
    page = client.get(address(order)).text
    assert "The time to pay is over. We make sure" in page and "Go on to" not in page
    assert pay(client, order.code)["result"] == 0
    assert fresh(payment).state is PaymentState.PAID and holds()


def test_silence_until_the_last_moment_means_that_nobody_paid(
    app: Flask, client: FlaskClient, sandbox: Sandbox
) -> None:
    order, payment = ordered()
    sandbox.advance(41 * 60)
    sweeping.run("test")
    payment = fresh(payment)
    assert (payment.state, payment.order.state) == (PaymentState.EXPIRED, OrderState.EXPIRED)
    assert not mails("payment_unclear") and len(mails("order_expired")) == 1
    # A call that comes all the same is real money.
    assert pay(client, order.code)["result"] == 0
    assert fresh(payment).order.state is OrderState.COMPLETED and holds()


def test_silence_says_nothing_of_what_another_mode_had_opened(app: Flask, sandbox: Sandbox) -> None:
    use_manual()
    _, payment = ordered()
    use_biller()
    sandbox.advance(26 * 3600)
    sweeping.run("test")
    assert fresh(payment).state is PaymentState.REVIEW and len(mails("payment_unclear")) == 1


def test_nobody_begins_to_pay_for_a_cancelled_event(app: Flask, client: FlaskClient) -> None:
    event = event_in_tenge()
    order, _ = ordered(event)
    event_cancellation.cancel(event, refund=False, actor_id=make_user("boss@example.org").id)
    assert call(client, "check", order.code).get_json()["result"] == 2


def test_a_process_that_dies_before_it_settles_is_made_up_for(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, payment = ordered()

    def dies(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("The process ends here.")

    with monkeypatch.context() as broken:
        broken.setattr(reconciling, "reconcile", dies)
        with pytest.raises(RuntimeError):
            call(client, "pay", order.code, sum="5000.00")
    assert fresh(payment).state is PaymentState.OPEN
    sweeping.run("test")
    assert fresh(payment).state is PaymentState.PAID and holds()
    assert call(client, "pay", order.code, sum="5000.00").get_json()["result"] == 0
    assert db.session.scalar(select(func.count()).select_from(ToldReport)) == 1


# --- Twenty at once -------------------------------------------------------------------------------------


def many(app: Flask, count: int, account: str) -> list[bytes]:
    """The same pay, so many times at the same moment, each over HTTP."""
    results = at_once(app, count, lambda n: call(app.test_client(), "pay", account, sum="5000.00").data)
    assert [r for r in results if isinstance(r, BaseException)] == []
    return [r for r in results if isinstance(r, bytes)]


def losers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Those calls that only a constraint kept from being written down twice."""
    lost: list[str] = []
    fallback = calls._lost_the_race

    def noted(name: str, caller: Caller, call: Call) -> str:
        lost.append(call.txn_id)
        return fallback(name, caller, call)

    monkeypatch.setattr(calls, "_lost_the_race", noted)
    return lost


def test_a_second_pay_before_the_first_is_settled_takes_nobodys_money(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two transactions for one order, at one moment: the second comes after the first is written down."""
    order, payment = ordered()
    second: list[int] = []
    reconcile = reconciling.reconcile

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        if not second:
            second.append(-1)
            second[0] = pay(app.test_client(), order.code, txn_id="100200301")["result"]
        return reconcile(*args, **kwargs)

    monkeypatch.setattr(reconciling, "reconcile", meanwhile)
    assert pay(client, order.code)["result"] == 0 and second == [4]
    assert fresh(payment).order.state is OrderState.COMPLETED and len(payment.order.tickets) == 1
    # Asked again, it is paid already; and its money stays with whoever has it.
    assert pay(client, order.code, txn_id="100200301")["result"] == 3
    assert db.session.scalar(select(func.count()).select_from(ToldReport)) == 1 and holds()


def test_the_same_pay_twenty_times_at_once_is_one(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    order, _ = ordered()
    lost = losers(monkeypatch)
    answers = many(app, 20, order.code)
    assert len(set(answers)) == 1 and json.loads(answers[0])["result"] == 0
    assert not lost, "The lock keeps them apart, so that no constraint has to."
    assert db.session.scalar(select(func.count()).select_from(ToldReport)) == 1
    assert db.session.scalar(select(func.count()).select_from(Ticket)) == 1
    assert db.session.scalar(select(func.count()).select_from(Transfer)) == 1 and holds()


def test_without_the_lock_only_the_constraint_stops_a_second_telling(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the test above: all have seen that nothing is there before anybody writes."""
    order, _ = ordered()
    together, lost = Barrier(3), losers(monkeypatch)

    def unlocked(payment_id: int) -> tuple[Payment, Order]:
        found = db.session.get_one(Payment, payment_id, populate_existing=True)
        return found, found.order

    stored = calls._stored

    def seen(name: str, txn_id: str) -> BillerAnswer | None:
        found = stored(name, txn_id)
        with suppress(BrokenBarrierError):
            together.wait(1)
        return found

    monkeypatch.setattr(locks, "payment_and_order", unlocked)
    monkeypatch.setattr(calls, "_stored", seen)
    many(app, 3, order.code)
    assert lost and db.session.scalar(select(func.count()).select_from(ToldReport)) == 1


# --- What is written down -------------------------------------------------------------------------------


def test_the_secret_path_is_in_no_log(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order, _ = ordered()

    def breaks(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError(f"/kaspi/biller/{PATH}?command=pay broke")

    app.testing, app.config["PROPAGATE_EXCEPTIONS"] = False, False
    try:
        call(client, "check", order.code)
        call(client, "check", order.code, path="a-near-miss-of-the-secret")
        monkeypatch.setattr(calls, "_check", breaks)
        assert call(client, "check", order.code).status_code == 500
    finally:
        app.testing, app.config["PROPAGATE_EXCEPTIONS"] = True, None
    written = capsys.readouterr()
    assert "/kaspi/biller/***" in written.out + written.err
    for secret in (PATH, "a-near-miss-of-the-secret"):
        assert secret not in written.out and secret not in written.err
    assert logs.safe_path(f"/kaspi/biller/{PATH}") == "/kaspi/biller/***"


def test_prices_are_not_changed_by_a_call(app: Flask, client: FlaskClient) -> None:
    """The sum that Kassa asks for is its own, in tenge with two decimals."""
    use_biller(kaspi_allow_tiyn=True)
    order, payment = ordered(event_in_tenge(PRICE + 5), 2)
    assert call(client, "check", order.code).get_json()["sum"] == "10000.10"
    assert payment.amount_minor == 2 * (PRICE + 5)
