"""What is measured of payments: success and time by method, failures by reason, revenue by event and time."""

from __future__ import annotations

import csv
import io
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, text

from domain import clock
from domain.errors import DomainError
from domain.ledger import transfers
from domain.office import metrics, statistics
from domain.orders import managing
from domain.payments import refunds, starting
from extensions import db
from models import Event, Order, Payment, PaymentState, Role
from tests.support.people import log_in, make_member
from tests.support.queries import recorded
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, make_user, place, settled
from tests.support.tournaments import enter, make_athlete, make_tournament

pytestmark = pytest.mark.usefixtures("app")


def took(order: Order, seconds: float, *states: str, **changes: Any) -> Payment:
    """The payment of an order, after these states; begun so many seconds before it was paid."""
    settled(order, *states, **changes)
    payment = order.payments[-1]
    payment.created_at = (payment.paid_at or clock.now()) - timedelta(seconds=seconds)
    db.session.commit()
    return payment


def some_payments() -> Event:
    """Of one event: four by Stripe, of which one by Apple Pay, and one by SumUp."""
    event = make_event(capacity=50)
    for seconds, method in ((10, ""), (20, ""), (30, "apple_pay")):
        took(place(event), seconds, "open", "paid", used_method=method)
    took(place(event), 5, "open", "failed", reason="No.", reason_code="no_funds")
    took(place(event, provider="sumup"), 60, "open", "expired")
    place(event)
    return event


def test_success_and_time_by_the_method_that_was_used() -> None:
    some_payments()
    found = {one.method: one for one in statistics.methods(statistics.span())}
    assert set(found) == {"card", "apple_pay", "sumup"}
    card = found["card"]
    assert (card.paid, card.failed, card.waiting, card.ended) == (2, 1, 1, 3)
    assert card.success == pytest.approx(2 / 3)
    assert card.median_seconds == pytest.approx(15) and card.p95_seconds == pytest.approx(19.5)
    assert found["apple_pay"].success == 1 and found["apple_pay"].median_seconds == pytest.approx(30)
    assert (found["sumup"].expired, found["sumup"].success, found["sumup"].median_seconds) == (1, 0, None)


def test_a_payment_of_before_there_was_a_choice_counts_by_its_provider() -> None:
    payment = took(place(make_event()), 10, "open", "paid")
    payment.method = ""
    db.session.commit()
    assert [one.method for one in statistics.methods(statistics.span())] == ["stripe"]


def test_failures_by_reason() -> None:
    some_payments()
    took(place(make_event("other")), 5, "open", "failed", reason="No.", reason_code="no_funds")
    [failure] = statistics.failures(statistics.span())
    assert (failure.code, failure.method, failure.count) == ("no_funds", "card", 2)
    assert "not enough money" in failure.words


def test_an_attempt_that_another_took_the_place_of_is_nobodys_failure() -> None:
    """Unless no other did: then a buyer was there who could not pay."""
    order = place(make_event())
    first = took(order, 5, "open", "failed", reason="Never opened.", reason_code="not_opened")
    [failure] = statistics.failures(statistics.span())
    assert (failure.code, failure.count) == ("not_opened", 1)
    managing.pay_again(order.id, "stripe", payer_id=None)
    found = statistics.read(statistics.span())
    assert [(one.method, one.failed, one.waiting) for one in found.methods] == [("card", 0, 1)]
    assert first.order.payments[-1] is not first and list(found.failures) == []


def test_revenue_by_tournament_and_time(sandbox: Sandbox) -> None:
    tournament, other = make_tournament(), make_event(currency="JPY", price_minor=900)
    user = make_user()
    entries = [enter(tournament.ticket_types[0], make_athlete(user, f"Athlete {n}")) for n in range(3)]
    for entry in entries[:2]:
        payment = starting.open_at_provider(entry.order)
        assert payment is not None
        sandbox.do(payment.provider_id or "", "pay")
        settled(entry.order, "paid", charge_id=f"ch_{entry.id}")
    settled(place(other, 2), "open", "paid")
    one = entries[0].order.payments[-1]
    refunds.request(one.id, 1000, actor_id=user.id, reason="part", door="admin")
    # A payment of another month.
    late = entries[1].order.payments[-1]
    late.paid_at = clock.now() - timedelta(days=70)
    db.session.commit()
    found = statistics.revenue(statistics.span())
    told = {(row.title, row.currency): (row.payments, row.taken_minor, row.net_minor) for row in found}
    assert told == {("Open", "EUR"): (1, 2500, 1500), ("Concert", "JPY"): (1, 1800, 1800)}
    year = (clock.now() - timedelta(days=364)).date().isoformat()
    only = statistics.revenue(statistics.span(year, "", "month", tournament.slug))
    assert [(row.title, row.taken_minor, row.net_minor) for row in only] == [
        *(("Open", 2500, 2500), ("Open", 2500, 1500))
    ]
    assert all(row.begins is not None and row.begins.day == 1 for row in only)
    [both] = statistics.by_event(only)
    assert (both.begins, both.payments, both.net_minor) == (None, 2, 4000)
    # The ledger says the same, also of what a wallet paid.
    transfers.wallet_of(user.id, "JPY").balance_minor = 5000
    db.session.commit()
    starting.open_at_provider(place(other, provider="wallet", user=user))
    sums: Counter[tuple[str, str]] = Counter()
    for row in statistics.revenue(statistics.span(year, "", "month")):
        sums[transfers.sales_account(None), row.currency] += row.net_minor
    assert sums == {("sales:house", "EUR"): 4000, ("sales:house", "JPY"): 2700}
    assert sums == {key: transfers.balance(*key) for key in sums}


def test_a_disputed_payment_is_no_revenue() -> None:
    from domain.providers.contract import DisputeReport

    order = settled(place(make_event()), "open", "paid")
    dispute = DisputeReport("dp_1", 2500, "EUR", "open", "needs_response")
    settled(order, "paid", disputes=(dispute,))
    [row] = statistics.revenue(statistics.span())
    assert (row.taken_minor, row.back_minor, row.net_minor) == (2500, 2500, 0)


def test_events_beyond_those_that_are_named_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MOST_EVENTS", 2)
    for number, quantity in enumerate((5, 1, 2, 4)):
        settled(place(make_event(f"show-{number}"), quantity), "open", "paid")
    told = [(row.title, row.payments, row.taken_minor) for row in statistics.by_event(_revenue())]
    assert told == [("Show-0", 1, 12500), ("Show-3", 1, 10000), ("Other events", 2, 7500)]


def _revenue() -> list[statistics.Revenue]:
    return statistics.revenue(statistics.span())


# --- The time -------------------------------------------------------------------------------------------


def test_days_are_the_box_offices_and_both_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_zone", lambda: ZoneInfo("Asia/Almaty"))
    span = statistics.span("2026-03-01", "2026-03-02")
    assert span.since == datetime(2026, 2, 28, 19, tzinfo=UTC)
    assert span.until - span.since == timedelta(days=2)
    assert (span.first.isoformat(), span.last.isoformat()) == ("2026-03-01", "2026-03-02")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (("2026-03-02", "2026-03-01"), "after the last"),
        (("yesterday",), "such as 2026-11-29"),
        (("0001-01-01",), "of such a year"),
        (("2020-01-01", "2026-01-01"), "92 days"),
        (("", "", "", "nowhere"), "no event"),
    ],
)
def test_a_time_that_cannot_be_shown_is_refused_in_words(typed: tuple[str, ...], words: str) -> None:
    with pytest.raises(DomainError) as refused:
        statistics.span(*typed)
    assert words in refused.value.message


# --- Cost -----------------------------------------------------------------------------------------------


def test_a_time_is_read_by_indexes_in_a_few_questions() -> None:
    """However many payments there are: a plan over an empty table is asked not to read it all."""
    some_payments()
    with recorded() as statements:
        statistics.read(statistics.span())
    # One more sees whether the shop is a large one.
    assert len([one for one in statements if "SELECT" in one]) <= 6, statements
    db.session.execute(text("SET LOCAL enable_seqscan = off"))
    span = statistics.span()
    begun = statistics._begun(span, PaymentState)
    bought = statistics._bought(span, Payment.currency)
    for query, index in (
        (select(Payment.id).where(*begun), "payments_state"),
        (bought, "payments_bought"),
    ):
        made = query.compile(dialect=db.engine.dialect, compile_kwargs={"literal_binds": True})
        explain = text("EXPLAIN " + str(made).replace(":", r"\:"))
        plan = db.session.execute(explain).scalars().all()
        assert any(index in line for line in plan), plan
        assert not any("Seq Scan on payments" in line for line in plan), plan


# --- Where they are shown -------------------------------------------------------------------------------


@pytest.fixture
def boss(app: Flask) -> FlaskClient:
    make_member("boss@example.org", Role.ADMIN)
    browser = app.test_client()
    log_in(browser, "boss@example.org")
    return browser


def test_the_page_and_its_files(boss: FlaskClient) -> None:
    event = some_payments()
    page = boss.get("/admin/statistics").text
    assert "66.7 %" in page and "apple pay" in page and "not enough money" in page and "€75.00" in page
    assert page.count("<svg") >= 5 and "<script>" not in page and " style=" not in page
    assert boss.get("/admin/statistics?from=2026-13-01").status_code == 400
    assert boss.get("/admin/statistics/revenue.csv?from=nonsense").status_code == 400
    none = boss.get("/admin/statistics?from=2001-01-01&to=2001-01-31&by=week").text
    assert "No payment was begun" in none and "Nothing was paid" in none

    def rows(what: str, **more: str) -> list[list[str]]:
        answer = boss.get(f"/admin/statistics/{what}.csv", query_string=more)
        return list(csv.reader(io.StringIO(answer.data.decode("utf-8-sig"))))

    assert rows("methods")[1][:2] == ["card", "2"]
    assert [row[0] for row in rows("failures")[1:]] == ["no_funds"]
    assert rows("revenue", event=event.slug)[1][1:] == [
        *("Concert", event.slug, "EUR", "3", "75.00", "0.00", "75.00")
    ]
    # Two events of one title are told apart.
    assert f"event={event.slug}" in page
    assert boss.get("/admin/statistics/passwords.csv").status_code == 404


def test_the_last_day_is_measured() -> None:
    some_payments()
    old = took(place(make_event("old")), 10, "open", "paid")
    old.created_at = old.paid_at = clock.now() - timedelta(days=2)
    db.session.commit()
    told = {(s.metric.name, *s.values): s.number for s in metrics.read(fresh=True)}
    assert told["kassa_payment_success_ratio", "card"] == pytest.approx(2 / 3)
    assert told["kassa_payment_completion_seconds", "card", "0.95"] == pytest.approx(19.5)
    assert told["kassa_payment_failures", "no_funds"] == 1
    assert told["kassa_revenue_minor", "concert", "EUR"] == 7500


def test_as_json_tells_it() -> None:
    some_payments()
    told = statistics.as_dict(statistics.read(statistics.span()))
    assert list(told) == ["from", "to", "step", "methods", "failures", "revenue"]
    assert told["methods"][0]["success_rate"] == 0.6667
    assert told["revenue"][0]["taken_minor"] == 7500
