"""The wallet's pages as a member's browser meets them, with the sandbox as the payment provider."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event, func, select

import config
from domain import money
from domain.ledger import agents, wallet
from domain.payments import reconciling
from extensions import db
from models import HoldState, Order, Payment, PaymentState, Transfer, User, Wallet, WalletHold
from tests.support.people import log_in, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.threads import at_once

SUCCESS = "/wallet/top-up/success/"


@pytest.fixture
def member(client: FlaskClient) -> User:
    """A member, logged in at `client`."""
    user = make_member()
    log_in(client)
    return user


def start(client: FlaskClient, amount: str = "50") -> str:
    """Top up as far as the provider's page; the session's id."""
    answer = post(client, "/wallet/topup/", amount=amount)
    assert answer.status_code == 303, answer.text
    payment = db.session.scalars(select(Payment).order_by(Payment.id.desc()).limit(1)).one()
    assert answer.location == payment.url
    assert payment.provider_id is not None
    return payment.provider_id


def come_back(client: FlaskClient, session_id: str | None) -> str:
    """Land on the success page; the words that the wallet then shows."""
    query = {} if session_id is None else {"session_id": session_id}
    answer = client.get(SUCCESS, query_string=query)
    assert (answer.status_code, answer.location) == (303, "/wallet/")
    html = client.get("/wallet/").text
    found = re.findall(r'<div class="alert[^>]*>(.*?)</div>', html, re.S)
    return " ".join(found)


def aed(minor: int) -> str:
    return money.show(minor, "AED")


def balance(user: User) -> int:
    db.session.rollback()
    minor = db.session.scalar(select(Wallet.balance_minor).filter_by(user_id=user.id))
    return minor or 0


# --- Who may see what -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/wallet/", "/wallet/topup/", SUCCESS, "/wallet/top-up/cancel/", "/wallet/agents/", "/wallet/agents/x/"],
)
def test_everything_needs_a_login(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 303
    assert urlsplit(answer.location).path == "/account/login"


def test_a_form_without_its_token_does_nothing(client: FlaskClient, member: User) -> None:
    assert client.post("/wallet/topup/", data={"amount": "50"}).status_code == 400
    assert db.session.scalars(select(func.count()).select_from(Order)).one() == 0


# --- By whom --------------------------------------------------------------------------------------------


def test_the_member_chooses_among_several_providers(
    client: FlaskClient, member: User, sandbox: Sandbox
) -> None:
    assert 'type="radio"' not in client.get("/wallet/topup/").text, "SumUp takes no AED"
    config.use(replace(config.get(), wallet_currency="EUR"))
    page = client.get("/wallet/topup/").text
    assert re.findall(r'name="provider" id="[^"]*" value="(\w+)"', page) == ["stripe", "sumup"]
    answer = post(client, "/wallet/topup/", amount="50", provider="sumup")
    payment = db.session.scalars(select(Payment)).one()
    assert (payment.provider, payment.currency, answer.location) == ("sumup", "EUR", payment.url)
    sandbox.do(payment.provider_id or "", "pay")
    # SumUp sends people back with our reference, as it fills in no id of its own.
    assert "in your wallet now" in come_back(client, payment.reference)
    assert balance(member) == 5000


def test_what_is_not_offered_is_not_chosen(client: FlaskClient, member: User) -> None:
    for name in ("sumup", "wallet", "nobody"):
        answer = post(client, "/wallet/topup/", amount="50", provider=name)
        assert answer.status_code == 400 and "Choose how to pay." in answer.text
    assert db.session.scalars(select(Order)).all() == []


# --- Topping up -----------------------------------------------------------------------------------------


def test_a_top_up_is_in_the_wallet_as_the_member_comes_back(
    client: FlaskClient, member: User, sandbox: Sandbox
) -> None:
    page = client.get("/wallet/topup/").text
    assert re.findall(r'name="amount" value="(\d+)"', page) == ["10", "50", "100", "500"]
    session_id = start(client)
    shown = sandbox.do(session_id, "pay")
    returned = urlsplit(shown["success_url"])
    assert (returned.path, returned.query) == (SUCCESS, f"session_id={session_id}")
    assert urlsplit(shown["cancel_url"]).path == "/wallet/top-up/cancel/"
    assert f"{aed(5000)} is in your wallet now" in come_back(client, session_id)
    assert balance(member) == 5000
    html = client.get("/wallet/").text
    assert 'data-type="top_up"' in html
    assert session_id in html


def test_coming_back_again_credits_nothing_and_says_so(
    client: FlaskClient, member: User, sandbox: Sandbox
) -> None:
    session_id = start(client)
    sandbox.do(session_id, "pay")
    come_back(client, session_id)
    for _ in range(3):
        assert "already processed" in come_back(client, session_id)
    assert balance(member) == 5000


def test_the_success_page_opened_many_times_at_once_credits_once(
    app: Flask, client: FlaskClient, member: User, sandbox: Sandbox
) -> None:
    session_id = start(client)
    sandbox.do(session_id, "pay")
    browsers = []
    for _ in range(12):
        browser = app.test_client()
        log_in(browser)
        browsers.append(browser)
    answers = at_once(app, 12, lambda n: browsers[n].get(f"{SUCCESS}?session_id={session_id}").status_code)
    assert answers == [303] * 12
    assert balance(member) == 5000
    assert db.session.scalars(select(func.count()).select_from(Transfer)).one() == 1


@pytest.mark.parametrize(
    "amount", ["", "0", "-50", "51", "50.00", "050", "5e1", "50 ", "٥٠", "10,50", "1000000", "NaN"]
)
def test_no_other_amount_is_accepted(client: FlaskClient, member: User, amount: str) -> None:
    answer = post(client, "/wallet/topup/", amount=amount)
    assert answer.status_code == 400
    assert f"Choose one of these amounts: {aed(1000)}, {aed(5000)}, {aed(10000)}" in answer.text
    assert db.session.scalars(select(func.count()).select_from(Order)).one() == 0


def test_the_amounts_and_the_currency_are_settings(client: FlaskClient, member: User) -> None:
    config.use(replace(config.get(), wallet_currency="JPY", topup_amounts=(1000, 3000)))
    assert "¥3,000" in client.get("/wallet/topup/").text
    assert post(client, "/wallet/topup/", amount="50").status_code == 400
    start(client, "3000")
    order = db.session.scalars(select(Order)).one()
    assert (order.total_minor, order.currency) == (3000, "JPY")


def test_a_form_sent_twice_is_one_order_and_another_amount_is_another(
    client: FlaskClient, member: User
) -> None:
    first = post(client, "/wallet/topup/", amount="50", form_token="same")
    again = post(client, "/wallet/topup/", amount="50", form_token="same")
    other = post(client, "/wallet/topup/", amount="10", form_token="same")
    assert first.location == again.location != other.location
    assert db.session.scalars(select(func.count()).select_from(Order)).one() == 2


def test_while_payments_are_not_set_up_nothing_is_sold(client: FlaskClient, member: User) -> None:
    config.use(replace(config.get(), mail_server="", mail_api_key=""))
    page = client.get("/wallet/topup/")
    assert "Top-ups are closed for now" in page.text
    assert 'name="amount"' not in page.text
    config.use(replace(config.get(), mail_server="x"))
    html = client.get("/wallet/topup/").text
    config.use(replace(config.get(), mail_server=""))
    token = re.search(r'name="csrf_token" value="([^"]+)"', html)
    assert token is not None
    answer = client.post("/wallet/topup/", data={"amount": "50", "csrf_token": token[1]})
    assert answer.status_code == 400
    assert "Top-ups are closed for now" in answer.text
    assert db.session.scalars(select(func.count()).select_from(Order)).one() == 0


def test_a_provider_that_does_not_answer_leads_to_a_page_that_waits(
    client: FlaskClient, member: User, sandbox: Sandbox
) -> None:
    sandbox.faults("http_500", seed=1, rate=1)
    answer = post(client, "/wallet/topup/", amount="50")
    assert answer.status_code == 303
    assert answer.location.startswith("/o/ORD-")


# --- Coming back, in every other way --------------------------------------------------------------------


def test_a_missing_session(client: FlaskClient, member: User) -> None:
    for session_id in (None, ""):
        words = come_back(client, session_id)
        assert "No payment session was found" in words
        assert "help@example.org" in words


@pytest.mark.parametrize("session_id", ["cs_test_nothing", "'; DROP TABLE users", "x" * 5000, "💸"])
def test_an_unknown_session(client: FlaskClient, member: User, session_id: str) -> None:
    words = come_back(client, session_id)
    assert "could not find that payment session" in words
    assert "help@example.org" in words


def test_another_members_session_reads_like_an_unknown_one(
    app: Flask, client: FlaskClient, member: User, sandbox: Sandbox
) -> None:
    session_id = start(client)
    sandbox.do(session_id, "pay")
    thief = make_member("thief@example.org")
    browser = app.test_client()
    log_in(browser, "thief@example.org")
    assert come_back(browser, session_id) == come_back(browser, "cs_test_nothing")
    assert (balance(thief), balance(member)) == (0, 0)
    come_back(client, session_id)
    assert (balance(thief), balance(member)) == (0, 5000)


def test_a_session_that_paid_for_tickets_is_no_top_up(client: FlaskClient, member: User) -> None:
    session_id = start(client)
    payment = db.session.scalars(select(Payment)).one()
    for line in payment.order.lines:
        db.session.delete(line)
    db.session.commit()
    assert "could not find that payment session" in come_back(client, session_id)


def test_an_unpaid_session_can_be_continued(client: FlaskClient, member: User) -> None:
    session_id = start(client)
    words = come_back(client, session_id)
    assert "Payment not completed" in words
    assert "help@example.org" in words
    assert balance(member) == 0
    url = db.session.scalars(select(Payment.url)).one()
    assert url is not None
    assert f'href="{url}"' in client.get("/wallet/").text
    assert f'href="{url}"' in client.get("/wallet/topup/").text


def test_a_declined_card_leaves_it_payable_and_says_why(
    client: FlaskClient, member: User, sandbox: Sandbox
) -> None:
    session_id = start(client)
    sandbox.do(session_id, "decline")
    assert "Payment not completed" in come_back(client, session_id)
    sandbox.do(session_id, "pay")
    assert "is in your wallet now" in come_back(client, session_id)


def test_a_payment_that_takes_time(client: FlaskClient, member: User, sandbox: Sandbox) -> None:
    session_id = start(client)
    sandbox.do(session_id, "pay_later")
    assert "bank is still confirming" in come_back(client, session_id)
    assert balance(member) == 0
    sandbox.do(session_id, "complete_later")
    assert "is in your wallet now" in come_back(client, session_id)
    assert balance(member) == 5000


def test_an_expired_session(client: FlaskClient, member: User, sandbox: Sandbox) -> None:
    session_id = start(client)
    sandbox.do(session_id, "expire")
    assert "closed without a charge" in come_back(client, session_id)


def test_a_provider_that_is_silent_as_the_member_comes_back(
    client: FlaskClient, member: User, sandbox: Sandbox
) -> None:
    session_id = start(client)
    sandbox.do(session_id, "pay")
    sandbox.faults("http_500", seed=1, rate=1)
    words = come_back(client, session_id)
    assert "could not reach the payment provider" in words
    assert "do not pay again" in words
    assert balance(member) == 0
    sandbox.faults()
    assert "is in your wallet now" in come_back(client, session_id)


def test_a_changed_amount_waits_for_a_person(client: FlaskClient, member: User, sandbox: Sandbox) -> None:
    session_id = start(client)
    sandbox.do(session_id, "pay")
    sandbox.do(session_id, "tamper", set={"amount_minor": 1})
    assert "needs a person" in come_back(client, session_id)
    assert "needs a person" in come_back(client, session_id)
    assert balance(member) == 0


def test_who_never_comes_back_is_credited_and_told_so_later(
    client: FlaskClient, member: User, sandbox: Sandbox
) -> None:
    session_id = start(client)
    sandbox.do(session_id, "pay")
    payment = db.session.scalars(select(Payment)).one()
    assert reconciling.reconcile(payment.id, door="sweep").state is PaymentState.PAID
    assert balance(member) == 5000
    # Whoever comes back at last hears that the money is there, and nothing of who found it first.
    assert "in your wallet now" in come_back(client, session_id)
    assert "already processed" in come_back(client, session_id)
    assert balance(member) == 5000


def test_cancelling_leads_back_to_the_form(client: FlaskClient, member: User) -> None:
    start(client)
    answer = client.get("/wallet/top-up/cancel/")
    assert (answer.status_code, answer.location) == (303, "/wallet/topup/")
    page = client.get("/wallet/topup/").text
    assert f"{aed(5000)} top-up is not paid, and nothing was charged" in page
    assert "Continue paying" in page


# --- The wallet -----------------------------------------------------------------------------------------


def test_the_wallet_pages_through_its_history_with_a_constant_number_of_queries(
    client: FlaskClient, member: User
) -> None:
    counts = []
    for total in (1, 30, 60):
        while wallet_entries(member) < total:
            wallet.add_balance(member, 100, "Present", key=f"p{wallet_entries(member)}")
        counts.append(_queries(client, "/wallet/"))
    assert counts == [counts[0]] * 3
    html = client.get("/wallet/").text
    assert html.count('class="entry"') == wallet.PAGE_SIZE
    older = re.search(r'href="(/wallet/\?before=\d+)#history"', html)
    assert older is not None
    assert client.get(older[1]).text.count('class="entry"') == wallet.PAGE_SIZE
    assert client.get("/wallet/?before=nonsense").status_code == 200


def wallet_entries(user: User) -> int:
    return db.session.scalars(select(func.count()).select_from(Transfer)).one()


def _queries(client: FlaskClient, path: str) -> int:
    count = 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1

    event.listen(db.engine, "before_cursor_execute", counted)
    try:
        assert client.get(path).status_code == 200
    finally:
        event.remove(db.engine, "before_cursor_execute", counted)
    return count


def test_every_currency_and_what_is_held_are_shown(client: FlaskClient, member: User) -> None:
    wallet.add_balance(member, 5000, "Present", key="a")
    wallet.add_balance(member, 1234, "Refund to wallet", key="b", currency="EUR")
    wallet.hold(member, 2000, key="h", description="x", agent_slug="x")
    html = client.get("/wallet/").text
    for shown in (aed(5000), aed(3000), aed(2000), "€12.34"):
        assert shown in html


def test_nobody_sees_anothers_transactions(app: Flask, client: FlaskClient, member: User) -> None:
    wallet.add_balance(member, 5000, "A secret present", key="a")
    other = app.test_client()
    make_member("other@example.org")
    log_in(other, "other@example.org")
    assert "A secret present" not in other.get("/wallet/").text
    assert "A secret present" in client.get("/wallet/").text


# --- Agents ---------------------------------------------------------------------------------------------


def use(client: FlaskClient, slug: str, text: str, token: str = "one") -> tuple[int, str]:
    answer = post(client, f"/wallet/agents/{slug}/", text=text, form_token=token)
    return answer.status_code, answer.text


@pytest.fixture
def funded(member: User) -> User:
    """The member with 5.00 in the wallet and the default agents in the catalogue."""
    agents.seed()
    agents.seed()
    wallet.add_balance(member, 500, "Present", key="present")
    return member


def test_using_an_agent_takes_its_price_once_and_shows_the_result(client: FlaskClient, funded: User) -> None:
    listed = client.get("/wallet/agents/").text
    assert re.findall(r'href="/wallet/agents/([a-z-]+)/"', listed) == [
        "guest-list",
        "qr-code",
        "running-order",
    ]
    status, html = use(client, "qr-code", "https://example.org/")
    assert status == 200
    assert "data:image/svg+xml;base64," in html
    assert balance(funded) == 400
    entry = wallet.history(funded).entries[0]
    assert (entry.kind, entry.agent_slug, entry.amount_minor) == ("agent_usage", "qr-code", -100)


def test_the_same_form_again_is_the_same_use(client: FlaskClient, funded: User) -> None:
    answers = [use(client, "qr-code", "https://example.org/") for _ in range(3)]
    assert [status for status, _ in answers] == [200, 200, 200]
    assert "not charged again" in answers[-1][1]
    assert balance(funded) == 400
    use(client, "qr-code", "https://example.org/other")
    assert balance(funded) == 300


@pytest.mark.parametrize(
    ("slug", "text", "words"),
    [
        ("qr-code", "   ", "Fill in the field"),
        ("qr-code", "x" * 501, "too long"),
        ("guest-list", "nobody, nothing", "no e-mail address"),
        ("running-order", "tonight\n20 Doors", "The first line must be the time"),
        ("running-order", "19:30\nDoors", "does not begin with minutes"),
    ],
)
def test_what_a_service_cannot_use_is_not_paid(
    client: FlaskClient, funded: User, slug: str, text: str, words: str
) -> None:
    status, html = use(client, slug, text)
    assert status == 400
    assert words in html
    assert "Nothing was taken" in html
    row = db.session.scalars(select(Wallet)).one()
    assert (row.balance_minor, row.held_minor) == (500, 0)
    assert set(db.session.scalars(select(WalletHold.state))) <= {HoldState.VOIDED}


def test_a_service_that_breaks_is_not_paid(
    client: FlaskClient, funded: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(text: str) -> agents.Result:
        raise ZeroDivisionError

    monkeypatch.setitem(agents.SERVICES, "qr_code", replace(agents.SERVICES["qr_code"], run=broken))
    status, html = use(client, "qr-code", "x")
    assert status == 400
    assert "nothing was taken" in html
    assert "help@example.org" in html
    row = db.session.scalars(select(Wallet)).one()
    assert (row.balance_minor, row.held_minor) == (500, 0)


def test_a_process_that_dies_while_a_service_runs_leaves_a_hold_that_expires(
    client: FlaskClient, funded: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(text: str) -> agents.Result:
        raise KeyboardInterrupt

    monkeypatch.setitem(agents.SERVICES, "qr_code", replace(agents.SERVICES["qr_code"], run=dies))
    with suppress(KeyboardInterrupt):
        use(client, "qr-code", "x")
    held = db.session.scalars(select(WalletHold)).one()
    assert held.state is HoldState.HELD
    assert wallet.expire_holds(held.expires_at) == 1
    row = db.session.scalars(select(Wallet)).one()
    assert (row.balance_minor, row.held_minor) == (500, 0)


def test_too_little_money_changes_nothing(client: FlaskClient, funded: User) -> None:
    wallet.deduct_balance(funded, 450, "Spent", "x", key="spent")
    status, html = use(client, "qr-code", "https://example.org/")
    assert status == 402
    assert f"Your wallet has {aed(50)} free, and this costs {aed(100)}" in html
    assert 'href="/wallet/topup/"' in html
    assert balance(funded) == 50
    assert db.session.scalars(select(func.count()).select_from(WalletHold)).one() == 0


def test_there_is_no_such_agent(client: FlaskClient, funded: User) -> None:
    assert client.get("/wallet/agents/nothing/").status_code == 404


def test_guest_lists_are_cleaned_and_safe_in_a_spreadsheet() -> None:
    text = "Bo <bo@example.org>; ann@example.org\n=cmd() ann@example.org\nno address\nANN@example.org, Ann"
    result = agents.SERVICES["guest_list"].run(text)
    rows = result.files[0].data.decode("utf-8-sig").splitlines()
    assert rows == ['"name","email"', '"\'=cmd","ann@example.org"', '"Bo","bo@example.org"']
    assert "Without a usable address (2):" in result.text


def test_a_running_order_counts_past_midnight() -> None:
    result = agents.SERVICES["running_order"].run("23:30\n45 Late set\n20 min - Encore")
    assert result.text.splitlines() == [
        "23:30–00:15  Late set (45 min)",
        "00:15–00:35  Encore (20 min)",
        "00:35        End, after 1 h 05 min",
    ]
