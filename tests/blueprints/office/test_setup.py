"""`/admin/setup`, the first admin's link in the log, and the operator's `flask users` commands."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.exc import OperationalError

import config
from blueprints.office.setup import _FirstRequest
from domain.office import doctor
from domain.office.doctor import Finding
from domain.people import accounts
from models import Role
from tests.support.people import log_in, make_member, post


@pytest.fixture
def quick_doctor(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """A doctor who has looked already: the real one asks Stripe and the mail server."""
    found = [
        Finding("stripe_keys", "Stripe keys", doctor.FAIL, "No key is set.", "Set STRIPE_SECRET_KEY."),
        Finding("redis", "Redis", doctor.OK, "Redis 7.4 answers."),
    ]
    monkeypatch.setattr(doctor, "findings", lambda: found)
    return found


def test_before_any_admin_the_page_only_says_where_the_link_is(client: FlaskClient) -> None:
    config.use(replace(config.get(), development=False, admin_email="boss@example.org"))
    page = client.get("/admin/setup").text
    assert "Open the link in the log" in page
    assert "flask users admin boss@example.org" in page
    assert "webhook" not in page


def test_then_it_is_for_admins(app: Flask, client: FlaskClient, quick_doctor: list[Finding]) -> None:
    make_member("boss@example.org", Role.ADMIN)
    make_member()
    assert client.get("/admin/setup").location == "/account/login?next=/admin/setup"
    log_in(client)
    assert client.get("/admin/setup").status_code == 403
    boss = app.test_client()
    log_in(boss, "boss@example.org")
    assert boss.get("/admin/setup").status_code == 200


def test_the_list_says_what_is_missing_and_how_to_mend_it(
    client: FlaskClient, quick_doctor: list[Finding]
) -> None:
    make_member("boss@example.org", Role.ADMIN)
    log_in(client, "boss@example.org")
    page = client.get("/admin/setup").text
    assert "No key is set." in page
    assert "To mend it: Set STRIPE_SECRET_KEY." in page
    assert 'value="http://localhost/stripe/webhook/"' in page
    for event in ("checkout.session.completed", "charge.dispute.closed", "refund.failed"):
        assert event in page
    for secret in (config.get().stripe_secret_key, config.get().stripe_webhook_secret):
        assert secret not in page


def test_the_real_doctor_fills_the_page(client: FlaskClient) -> None:
    make_member("boss@example.org", Role.ADMIN)
    log_in(client, "boss@example.org")
    page = client.get("/admin/setup").text
    for code in (
        "public_url",
        "stripe_keys",
        "mail",
        "support_email",
        "alert_email",
        "worker",
        "sweep",
        "redis",
    ):
        assert f'id="check-{code}"' in page


def test_a_test_mail_goes_to_who_asked_for_it(
    client: FlaskClient, quick_doctor: list[Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_member("boss@example.org", Role.ADMIN)
    log_in(client, "boss@example.org")
    sent: list[str] = []

    def send(address: str) -> str:
        sent.append(address)
        return "Sent."

    monkeypatch.setattr("domain.post.outbox.send_test", send)
    assert post(client, "/admin/setup/mail", page="/admin/setup").location == "/admin/setup"
    assert sent == ["boss@example.org"]
    assert "Sent." in client.get("/admin/setup").text


def test_our_host_is_registered_by_a_button(client: FlaskClient, quick_doctor: list[Finding]) -> None:
    make_member("boss@example.org", Role.ADMIN)
    log_in(client, "boss@example.org")
    assert "Register " not in client.get("/admin/setup").text
    for host, told in (
        ("tickets.example.org", "tickets.example.org is registered for Apple Pay"),
        ("tickets.invalid", "tickets.invalid is registered. Apple Pay: "),
    ):
        config.use(replace(config.get(), public_url=f"https://{host}"))
        assert f"Register {host}" in client.get("/admin/setup").text
        assert post(client, "/admin/setup/domain", page="/admin/setup").location == "/admin/setup"
        assert told in client.get("/admin/setup").text


def test_the_first_request_prints_one_link_that_leads_to_the_set_up(
    app: Flask, client: FlaskClient, quick_doctor: list[Finding], capsys: pytest.CaptureFixture[str]
) -> None:
    config.use(replace(config.get(), development=False, admin_email="boss@example.org"))
    web, another = _FirstRequest(), _FirstRequest()
    for process in (web, another, web):
        process()
    printed = re.findall(r"FIRST ADMIN: .*http://localhost(/account/reset/\S+)", capsys.readouterr().out)
    assert len(printed) == 1
    assert "Welcome, admin" in client.get(printed[0]).text
    entered = post(client, printed[0], password="the boss's password")
    assert entered.location == "/account/second-factor/?next=/admin/setup"
    assert client.get("/admin/setup").status_code == 200


def test_a_database_that_is_not_there_yet_is_asked_again(
    app: Flask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config.use(replace(config.get(), development=False, admin_email="boss@example.org"))
    first = _FirstRequest()
    with monkeypatch.context() as patch:

        def down() -> None:
            raise OperationalError("SELECT 1", {}, Exception("down"))

        patch.setattr(accounts, "_one_at_a_time", down)
        first()
    assert "FIRST ADMIN" not in capsys.readouterr().out
    first()
    assert "FIRST ADMIN" in capsys.readouterr().out


# --- Commands -------------------------------------------------------------------------------------------


def test_the_command_prints_a_link_for_an_admin(app: Flask, client: FlaskClient) -> None:
    done = app.test_cli_runner().invoke(args=["users", "admin", "Boss@Example.org"])
    assert done.exit_code == 0
    link = re.search(r"http://localhost(/account/reset/\S+)", done.output)
    assert link is not None
    refused = post(client, link[1], password="short")
    assert "Welcome, admin" in refused.text and "At least 10 characters" in refused.text
    assert post(client, link[1], password="the boss's password").status_code == 303
    assert accounts.find("boss@example.org").role is Role.ADMIN  # type: ignore[union-attr]


def test_the_command_refuses_what_is_no_address(app: Flask) -> None:
    done = app.test_cli_runner().invoke(args=["users", "admin", "nobody"])
    assert done.exit_code == 1
    assert "e-mail address" in done.output


def test_the_command_lists_people(app: Flask) -> None:
    make_member("boss@example.org", Role.ADMIN)
    accounts.disable(make_member(confirmed=False).id)
    lines = app.test_cli_runner().invoke(args=["users", "list"]).output.splitlines()
    assert lines == ["admin      boss@example.org", "buyer      ann@example.org (not confirmed, closed)"]
