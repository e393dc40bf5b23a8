"""The words of alerts, held against those of the systems that Kassa replaces."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from flask import Flask

from domain.post import alerts
from domain.post.alerts import Alert
from models import Order, Payment


def an_order(code: str = "ORD-ABC123", email: str = "customer@email.com", minute: int = 30) -> Order:
    return Order(
        code=code,
        email=email,
        name="John Doe",
        currency="GBP",
        total_minor=4500,
        created_at=datetime(2024, 1, 15, 14, minute, tzinfo=UTC),
    )


def a_payment() -> Payment:
    return Payment(
        reference="ORD-ABC123-1",
        provider="stripe",
        account="acct_1",
        provider_id="cs_test_1",
        amount_minor=4500,
        currency="GBP",
    )


def test_stuck_orders_are_one_digest_in_the_known_form(app: Flask) -> None:
    some = [
        an_order(),
        an_order("ORD-DEF456", "another@email.com", 25),
        an_order("ORD-GHI789", "t@email.com", 20),
    ]
    subject, text = alerts.stuck(some)
    assert subject == "3 Orders Stuck in Processing"
    assert text == (
        "3 orders have been in 'pending_verification' for >30 minutes:\n\n"
        "- Order ORD-ABC123: £45.00, created 2024-01-15 14:30, email customer@email.com\n"
        "- Order ORD-DEF456: £45.00, created 2024-01-15 14:25, email another@email.com\n"
        "- Order ORD-GHI789: £45.00, created 2024-01-15 14:20, email t@email.com\n\n"
        "These may be legitimate slow payments, but check for patterns.\n\n"
        "Admin panel: http://localhost/admin/orders"
    )


def test_one_order_is_not_spoken_of_as_many(app: Flask) -> None:
    assert alerts.stuck([an_order()])[0] == "1 Order Stuck in Processing"
    assert alerts.stuck([an_order()])[1].startswith("1 order has been in")
    assert alerts.expired([an_order()], 1)[0] == "1 Order Expired"


def test_a_digest_of_very_many_stays_readable(app: Flask) -> None:
    subject, text = alerts.expired([an_order()] * 100, 250)
    assert subject == "250 Orders Expired"
    assert text.count("- Order ") == 100 and "- and 150 more" in text


def test_a_mismatch_is_told_in_the_known_form(app: Flask) -> None:
    subject, text = alerts.amount_mismatch(an_order(), a_payment(), 4000, "GBP")
    assert subject == "Amount Mismatch - Order ORD-ABC123"
    assert text == (
        "CRITICAL PAYMENT ISSUE\n\n"
        "Order: ORD-ABC123\n"
        "Expected Amount: £45.00\n"
        "Received Amount: £40.00\n"
        "Customer: customer@email.com\n"
        "Customer Name: John Doe\n\n"
        "This order requires IMMEDIATE manual review.\n\n"
        "Do NOT issue tickets until verified.\n\n"
        "View order: http://localhost/admin/orders/ORD-ABC123"
    )


def test_a_mismatch_of_something_else_says_of_what(app: Flask) -> None:
    subject, text = alerts.amount_mismatch(an_order(), a_payment(), 4500, "XXQ", "currency")
    assert subject == "Payment Mismatch - Order ORD-ABC123"
    assert "Received Amount: 4500 minor units of 'XXQ'\nWhat differs: currency\n" in text
    assert "none named" in alerts.amount_mismatch(an_order(), a_payment(), None, "", "amount")[1]


@pytest.mark.parametrize(
    "made",
    [
        lambda: alerts.missing_record(an_order(), a_payment()),
        lambda: alerts.incident(an_order(), "Paid twice.", 4500, "GBP"),
        lambda: alerts.refund_failed(an_order(), 4500, "GBP", "expired_or_canceled_card"),
        lambda: alerts.dispute(an_order(), 4500, "GBP", "fraudulent"),
        lambda: alerts.suspicious_pattern("address 192.0.2.1", 15, an_order()),
    ],
)
def test_what_is_about_an_order_says_which_whose_and_how_much(app: Flask, made: Callable[[], Alert]) -> None:
    subject, text = made()
    assert len(subject) < 120
    for said in ("ORD-ABC123", "£45.00", "customer@email.com", "John Doe", "/admin/orders/ORD-ABC123"):
        assert said in text, said


def test_failing_mail_says_what_waits_why_and_what_to_do(app: Flask) -> None:
    subject, text = alerts.mail_failing(2, datetime(2024, 1, 15, 14, 30, tzinfo=UTC), "535 Bad password")
    assert "Email Delivery Failing" in subject
    for said in ("email delivery failing", "2 mails are waiting", "2024-01-15 14:30 UTC", "535 Bad password"):
        assert said in text.lower() or said in text
    subject, text = alerts.mail_failed("tickets", "a@b.c", "550 Gone", order=an_order(), given_up=True)
    assert subject == "Email Delivery Failing - Order ORD-ABC123"
    assert "550 Gone" in text and "not tried again by itself" in text
    assert (
        alerts.mail_failed("test", "a@b.c", "450", order=None, given_up=False)[0] == "Email Delivery Failing"
    )
