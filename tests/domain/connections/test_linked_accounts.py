"""Organisers' accounts: connecting them, renewing their tokens under a lease, and what breaks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import inspect, select

from domain import clock
from domain.connections import credentials, linked_accounts
from domain.errors import DomainError
from domain.ledger import transfers
from domain.payments import poll_schedule, reconciling, refunds, settling, starting
from domain.providers import registry
from domain.providers.connecting import Owner, Tokens
from domain.providers.contract import ProviderError
from domain.security import keyring
from domain.sweep import sweeping
from extensions import db
from models import (
    Connection,
    ConnectionState,
    Event,
    OrderState,
    OutboxMail,
    Payment,
    PaymentState,
    RefundState,
    Role,
    TicketType,
    User,
)
from tests.support.merchants import allow, connect, make_organiser, query, token_calls, use_sumup, variables
from tests.support.people import mails
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, make_user, place
from tests.support.threads import at_once

ROOT = Path(__file__).resolve().parents[3]
ACCOUNT = "MHARBOUR"
# What a process of its own does first: an application that talks to the sandbox.
CHILD = """
import os, sys
import config
from app import create_app
from domain.connections import credentials
app = create_app(config.load())
credentials._WAIT_SECONDS = 120.0
def token():
    return credentials.AccountCredentials("sumup", "MHARBOUR").token()
"""
# Ten of them at once. The application is imported once, for it is not what is tested.
TEN = """
def one():
    try:
        os.write(1, f"token {token()}\\n".encode())
        os._exit(0)
    finally:
        os._exit(1)
born = [os.fork() or one() for _ in range(10)]
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in born))
"""
# A machine that is busy with other things may need minutes for what it does in a second.
PATIENCE = 600


@pytest.fixture(autouse=True)
def _sumup(app: Flask, environ: dict[str, str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._BUILDERS, "sumup", "domain.providers.sumup")
    # Whoever waits for another one who renews does so even where that one is slow for want of a processor.
    monkeypatch.setattr(credentials, "_WAIT_SECONDS", 120.0)
    use_sumup(environ, sandbox)


@pytest.fixture
def olga(app: Flask) -> User:
    return make_organiser()


@pytest.fixture
def connected(olga: User) -> Connection:
    return connect(olga)


def fresh(row: Connection) -> Connection:
    (row_id,) = inspect(row).identity or (0,)
    db.session.rollback()
    return db.session.get_one(Connection, row_id, populate_existing=True)


def credentials_of(row: Connection) -> credentials.AccountCredentials:
    """As another process would have them: nothing is known yet."""
    return credentials.AccountCredentials(row.provider, row.account)


def age(row: Connection, left: timedelta = timedelta(minutes=-1)) -> None:
    """Leave the access token so much to live, and let nobody know an earlier one."""
    row.access_expires_at = clock.now() + left
    db.session.commit()
    credentials.use(db.engine)


def refused(row: Connection) -> str:
    """The code with which the credentials are refused, passing always."""
    with pytest.raises(ProviderError) as error:
        credentials_of(row).token()
    assert not error.value.permanent
    return error.value.code


def open_order(row: Connection) -> int:
    """A payment into the account that is open at the provider; its id."""
    order = place(events(row), provider="sumup")
    payment = starting.open_at_provider(order)
    assert payment is not None and payment.state is PaymentState.OPEN
    assert payment.account == row.account
    return payment.id


def events(row: Connection) -> Event:
    return make_event("own", organiser_id=row.user_id, providers=["sumup"])


def child(environ: dict[str, str], sandbox: Sandbox, code: str) -> subprocess.Popen[str]:
    """A process of its own, over the same database and sandbox."""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + code],
        cwd=ROOT,
        env={**os.environ, **environ, **variables(sandbox)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- Connecting -----------------------------------------------------------------------------------------


def test_an_account_is_connected_with_its_name_and_its_tokens_are_sealed(connected: Connection) -> None:
    assert (connected.account, connected.account_name, connected.currency) == (
        ACCOUNT,
        "Harbour Jazz Club",
        "EUR",
    )
    assert connected.state is ConnectionState.CONNECTED and connected.generation == 0
    assert "classic" not in connected.access_token + connected.refresh_token
    token = keyring.unseal(connected.access_token)
    assert token.startswith("at_") and credentials_of(connected).token() == token


def test_the_state_is_bound_to_browser_and_person_and_works_once(olga: User) -> None:
    url, state = linked_accounts.authorize_url(olga, "sumup")
    assert query(url)["redirect_uri"] == "http://localhost/organiser/connect/sumup/done"
    assert query(url)["state"] == state
    told = allow(url, ACCOUNT)

    def finish(user: User, expected: str) -> Connection:
        return linked_accounts.finish(user, "sumup", expected=expected, state=state, code=told["code"])

    other = make_organiser("other@example.org")
    for user, expected in ((olga, ""), (olga, "another browser's"), (other, state)):
        with pytest.raises(DomainError) as stale:
            finish(user, expected)
        assert stale.value.code == "state_stale"
    assert finish(olga, state).account == ACCOUNT
    with pytest.raises(DomainError) as again:
        finish(olga, state)
    assert again.value.code == "state_stale"


def test_a_state_grows_old(olga: User, sandbox: Sandbox) -> None:
    url, state = linked_accounts.authorize_url(olga, "sumup")
    told = allow(url, ACCOUNT)
    sandbox.advance(31 * 60)
    with pytest.raises(DomainError) as stale:
        linked_accounts.finish(olga, "sumup", expected=state, state=state, code=told["code"])
    assert stale.value.code == "state_stale"


def test_a_no_a_used_code_and_a_silent_provider_are_said_in_words(olga: User, sandbox: Sandbox) -> None:
    url, state = linked_accounts.authorize_url(olga, "sumup")
    with pytest.raises(DomainError, match="did not let") as no:
        linked_accounts.finish(olga, "sumup", expected=state, state=state, code="", refusal="access_denied")
    assert no.value.code == "not_allowed"
    uri = linked_accounts.redirect_uri("sumup")
    code = allow(linked_accounts.authorize_url(olga, "sumup")[0], ACCOUNT)["code"]
    with pytest.raises(DomainError) as elsewhere:
        linked_accounts.connect(olga.id, "sumup", code, f"{uri}/")
    assert elsewhere.value.code == "code_refused"
    linked_accounts.connect(olga.id, "sumup", code, uri)
    with pytest.raises(DomainError) as used:
        linked_accounts.connect(olga.id, "sumup", code, uri)
    assert used.value.code == "code_refused"
    sandbox.faults("http_500", rate=1, seed=1, match={"path": "/token"})
    code = allow(linked_accounts.authorize_url(olga, "sumup")[0], ACCOUNT)["code"]
    with pytest.raises(DomainError, match="did not answer") as silent:
        linked_accounts.connect(olga.id, "sumup", code, uri)
    assert silent.value.code == "provider_silent"


def test_only_approved_organisers_connect(app: Flask) -> None:
    with pytest.raises(DomainError) as refusal:
        linked_accounts.authorize_url(make_user(), "sumup")
    assert refusal.value.code == "not_an_organiser"


def test_an_account_is_one_organisers_until_they_end_it(connected: Connection, olga: User) -> None:
    other = make_organiser("other@example.org")
    with pytest.raises(DomainError) as taken:
        connect(other)
    assert taken.value.code == "account_taken"
    linked_accounts.disconnect(olga.id, "sumup")
    theirs = connect(other)
    assert theirs.id == connected.id and fresh(connected).user_id == other.id


def test_the_platforms_own_account_is_nobodys(olga: User) -> None:
    own = Owner(registry.get("sumup").account)
    with pytest.raises(DomainError) as taken:
        linked_accounts._keep(olga.id, "sumup", Tokens("a", "r", timedelta(hours=1)), own)
    db.session.rollback()
    assert taken.value.code == "account_taken"


def test_connecting_again_revives_the_row_and_another_account_ends_it(
    connected: Connection, olga: User
) -> None:
    linked_accounts.disconnect(olga.id, "sumup")
    assert fresh(connected).state is ConnectionState.DISCONNECTED and connected.ended_at is not None
    again = connect(olga)
    assert again.id == connected.id and again.generation == 1
    assert again.state is ConnectionState.CONNECTED and again.ended_at is None
    another = connect(olga, "MLANTERN")
    assert another.id != again.id
    assert fresh(again).state is ConnectionState.DISCONNECTED


# --- Renewing -------------------------------------------------------------------------------------------


def test_a_token_is_renewed_some_minutes_before_its_end(connected: Connection, sandbox: Sandbox) -> None:
    mine, before = credentials_of(connected), token_calls(sandbox)
    first = mine.token()
    sandbox.advance(3599 - 6 * 60)
    assert mine.token() == first and token_calls(sandbox) == before
    sandbox.advance(90)
    second = mine.token()
    assert second != first and token_calls(sandbox) == before + 1
    assert mine.token() == second and token_calls(sandbox) == before + 1
    assert fresh(connected).generation == 1 and connected.refreshed_at is not None


def test_a_refresh_token_that_is_not_replaced_is_kept(connected: Connection, sandbox: Sandbox) -> None:
    sandbox.post("settings", {"sumup": {"rotate_refresh": False}})
    before = keyring.unseal(connected.refresh_token)
    age(connected)
    credentials_of(connected).token()
    assert keyring.unseal(fresh(connected).refresh_token) == before


def test_a_refused_token_is_renewed_once_and_the_call_goes_through(
    connected: Connection, sandbox: Sandbox
) -> None:
    payment_id = open_order(connected)
    sandbox.post(f"merchants/{ACCOUNT}", {"do": "revoke_access"})
    before = token_calls(sandbox)
    assert reconciling.reconcile(payment_id, door="command").error is None
    assert token_calls(sandbox) == before + 1


def test_ten_threads_make_one_call(app: Flask, connected: Connection, sandbox: Sandbox) -> None:
    age(connected)
    before = token_calls(sandbox)
    found = at_once(app, 10, lambda _: credentials.AccountCredentials("sumup", ACCOUNT).token())
    assert len(set(found)) == 1 and isinstance(found[0], str)
    assert token_calls(sandbox) == before + 1
    assert fresh(connected).generation == 1


def test_ten_threads_with_one_adapter_and_a_refused_token_make_one_call(
    app: Flask, connected: Connection, sandbox: Sandbox
) -> None:
    mine = credentials_of(connected)
    old, before = mine.token(), token_calls(sandbox)
    found = at_once(app, 10, lambda _: mine.renewed(old))
    assert len(set(found)) == 1 and found[0] != old
    assert token_calls(sandbox) == before + 1


def test_without_the_lease_there_are_more_calls_and_the_connection_breaks(
    app: Flask, connected: Connection, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above: it would notice a lease that is none."""
    monkeypatch.setattr(credentials, "_take_lease", lambda row: True)
    sandbox.faults("slow", rate=1, seed=1, match={"path": "/token"})
    age(connected)
    before = token_calls(sandbox)
    found = at_once(app, 10, lambda _: credentials.AccountCredentials("sumup", ACCOUNT).token())
    assert token_calls(sandbox) > before + 1
    assert len({str(each) for each in found}) > 1


def test_ten_processes_make_one_call(
    connected: Connection, environ: dict[str, str], sandbox: Sandbox
) -> None:
    age(connected)
    before = token_calls(sandbox)
    process = child(environ, sandbox, TEN)
    said, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, complaints
    # What ten say at once may be on one line, and among what they log.
    tokens = re.findall(r"token (at_\w+)", said)
    assert len(tokens) == 10 and len(set(tokens)) == 1
    assert token_calls(sandbox) == before + 1


def test_a_process_that_dies_before_its_commit_costs_a_reconnect_and_no_payment(
    connected: Connection, olga: User, environ: dict[str, str], sandbox: Sandbox
) -> None:
    payment_id = open_order(connected)
    age(connected)
    dying = "credentials._keep = lambda row, tokens: os.kill(os.getpid(), 9)\ntoken()"
    process = child(environ, sandbox, dying)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL
    assert fresh(connected).leased_until is not None and connected.generation == 0
    # While the lease runs nobody asks; then the old refresh token turns out to be worth nothing.
    sandbox.advance(60)
    outcome = reconciling.reconcile(payment_id, door="sweep")
    assert outcome.error is not None and outcome.error.code == "not_connected"
    assert outcome.state is PaymentState.OPEN
    assert fresh(connected).state is ConnectionState.BROKEN
    provider_id = db.session.get_one(Payment, payment_id).provider_id
    sandbox.do(str(provider_id), "pay")
    connect(olga)
    assert reconciling.reconcile(payment_id, door="sweep").state is PaymentState.PAID


def test_where_the_old_refresh_token_stays_good_such_a_death_costs_nothing(
    connected: Connection, environ: dict[str, str], sandbox: Sandbox
) -> None:
    sandbox.post("settings", {"sumup": {"rotate_refresh": False}})
    age(connected)
    process = child(environ, sandbox, "credentials._keep = lambda *_: os.kill(os.getpid(), 9)\ntoken()")
    process.communicate(timeout=PATIENCE)
    sandbox.advance(60)
    assert credentials_of(connected).token()
    assert fresh(connected).state is ConnectionState.CONNECTED


# --- What goes wrong ------------------------------------------------------------------------------------


def test_a_broken_connection_is_told_once_and_mended_by_connecting_again(
    connected: Connection, olga: User, sandbox: Sandbox
) -> None:
    payment_id = open_order(connected)
    sandbox.post(f"merchants/{ACCOUNT}", {"do": "revoke"})
    age(connected)
    for _ in range(3):
        outcome = reconciling.reconcile(payment_id, door="sweep")
        assert outcome.state is PaymentState.OPEN and outcome.error is not None
    row = fresh(connected)
    assert row.state is ConnectionState.BROKEN and row.refresh_token == ""
    (letter,) = mails("connection_broken")
    assert letter.to == olga.email and letter.context["waiting"] == 1
    admin = make_user("admin@example.org", Role.ADMIN)
    with pytest.raises(DomainError):
        settling.override(payment_id, state=PaymentState.EXPIRED, actor_id=admin.id, note="Gone.")
    (alert,) = [mail for mail in mails("alert") if "Connection Broken" in mail.context["subject"]]
    assert ACCOUNT in alert.context["subject"] and "marked failed" in alert.context["text"]
    provider_id = db.session.get_one(Payment, payment_id).provider_id
    sandbox.do(str(provider_id), "pay")
    connect(olga)
    assert reconciling.reconcile(payment_id, door="sweep").state is PaymentState.PAID
    sandbox.post(f"merchants/{ACCOUNT}", {"do": "revoke"})
    age(fresh(connected))
    assert refused(connected) == "not_connected"
    assert len(mails("connection_broken")) == 2


def test_a_person_may_close_what_nobody_can_be_asked_about_any_more(
    connected: Connection, sandbox: Sandbox
) -> None:
    """Its account is gone, and its end has come; money that was paid all the same is found after a return."""
    payment_id = open_order(connected)
    sandbox.do(str(db.session.get_one(Payment, payment_id).provider_id), "pay")
    sandbox.post(f"merchants/{ACCOUNT}", {"do": "revoke"})
    sandbox.advance(121 * 60)
    for _ in range(3):
        sweeping.run("test")
    admin = make_user("admin@example.org", Role.ADMIN)
    for state in (PaymentState.PAID, PaymentState.OPEN, PaymentState.REVIEW):
        with pytest.raises(DomainError):
            settling.override(payment_id, state=state, actor_id=admin.id, note="Not by hand.")
    settling.override(payment_id, state=PaymentState.EXPIRED, actor_id=admin.id, note="The club has closed.")
    payment = db.session.get_one(Payment, payment_id, populate_existing=True)
    assert (payment.state, payment.order.state) == (PaymentState.EXPIRED, OrderState.EXPIRED)
    assert db.session.scalars(select(TicketType.held)).all() == [0]
    # A sweep lets go of all that was read before it.
    connect(db.session.query(User).filter_by(role=Role.ORGANISER).one())
    sandbox.advance(3601)
    sweeping.run("test")
    assert db.session.get_one(Payment, payment_id, populate_existing=True).fulfilled


def test_a_silent_provider_breaks_nothing_and_a_token_that_is_still_good_is_used(
    connected: Connection, sandbox: Sandbox
) -> None:
    sandbox.faults("http_500", rate=1, seed=1, match={"path": "/token"})
    age(connected, timedelta(minutes=2))
    assert credentials_of(connected).token() == keyring.unseal(connected.access_token)
    assert fresh(connected).state is ConnectionState.CONNECTED and connected.last_error
    sandbox.advance(180)
    assert refused(connected) not in ("not_connected", "invalid_grant")
    sandbox.faults()
    sandbox.advance(10)
    assert credentials_of(connected).token()
    assert fresh(connected).last_error == ""


def test_an_app_that_the_provider_does_not_know_is_the_operators_trouble(
    connected: Connection, environ: dict[str, str], sandbox: Sandbox
) -> None:
    use_sumup(environ, sandbox, sumup_client_secret="wrong")
    age(connected)
    assert refused(connected) == "invalid_client"
    assert fresh(connected).state is ConnectionState.CONNECTED
    (alert,) = mails("alert")
    assert "Refuses This App" in alert.context["subject"]


def test_no_token_is_ever_logged(
    connected: Connection, sandbox: Sandbox, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    age(connected)
    token = credentials_of(connected).token()
    sandbox.post(f"merchants/{ACCOUNT}", {"do": "revoke"})
    age(fresh(connected))
    assert refused(connected) == "not_connected"
    db.session.refresh(connected)
    said = "".join(capsys.readouterr()) + caplog.text + repr(connected.__dict__)
    assert token not in said and "rt_classic" not in said and "at_classic" not in said
    written = db.session.scalars(select(OutboxMail)).all()
    assert not any("_classic_" in repr(mail.context) for mail in written)


# --- Ending ---------------------------------------------------------------------------------------------


def test_the_tokens_of_an_ended_connection_stay_until_its_last_payment_is_final(
    connected: Connection, olga: User, sandbox: Sandbox
) -> None:
    payment_id = open_order(connected)
    linked_accounts.disconnect(olga.id, "sumup")
    assert linked_accounts.forget_ended() == 0
    provider_id = db.session.get_one(Payment, payment_id).provider_id
    sandbox.do(str(provider_id), "pay")
    sandbox.advance(600)
    sweeping.run("test")
    assert db.session.get_one(Payment, payment_id).state is PaymentState.PAID
    assert fresh(connected).refresh_token, "it is read again after an hour and a day"
    for _ in range(2):
        sandbox.advance(25 * 3600)
        sweeping.run("test")
    row = fresh(connected)
    assert (row.refresh_token, row.access_token) == ("", "")
    assert refused(row) == "not_connected" and mails("connection_broken") == []


def test_a_merchant_who_connects_another_account_keeps_what_is_under_way_at_the_first(
    connected: Connection, olga: User, sandbox: Sandbox
) -> None:
    """Each payment is asked about, and given back, by the tokens of the account that it goes to."""
    event = events(connected)
    first, lost = (starting.open_at_provider(place(event, form_token=f"t{n}")) for n in range(2))
    assert first is not None and lost is not None
    first_id, lost_id = first.id, lost.id
    another = connect(olga, "MLANTERN")
    second = starting.open_at_provider(place(event, form_token="t3"))
    assert second is not None and second.account == another.account == "MLANTERN"
    assert (first.account, fresh(connected).state) == (ACCOUNT, ConnectionState.DISCONNECTED)
    second_id = second.id
    for payment_id in (first_id, second_id):
        sandbox.do(str(db.session.get_one(Payment, payment_id).provider_id), "pay")
    sandbox.advance(3600)
    sweeping.run("test")
    states = [db.session.get_one(Payment, n).state for n in (first_id, second_id, lost_id)]
    assert states == [PaymentState.PAID, PaymentState.PAID, PaymentState.OPEN]
    assert refunds.request(first_id, 2500, actor_id=None, reason="Ill").state is RefundState.SUCCEEDED
    assert transfers.balance(transfers.provider_account("sumup", ACCOUNT), "EUR") == 0
    assert transfers.balance(transfers.provider_account("sumup", "MLANTERN"), "EUR") == -2500


def test_who_ends_a_connection_here_and_then_there_is_not_asked_to_connect_again(
    connected: Connection, olga: User, sandbox: Sandbox
) -> None:
    """What is left to be read is final: it is asked about ever more seldom, and then no more."""
    payment_id = open_order(connected)
    sandbox.do(str(db.session.get_one(Payment, payment_id).provider_id), "pay")
    assert reconciling.reconcile(payment_id, door="test").state is PaymentState.PAID
    linked_accounts.disconnect(olga.id, "sumup")
    sandbox.post(f"merchants/{ACCOUNT}", {"do": "revoke"})
    sandbox.advance(3601)
    sweeping.run("test")
    assert mails("connection_broken") == [] and fresh(connected).refresh_token == ""
    with pytest.raises(DomainError, match="is not connected any more") as refused:
        refunds.request(payment_id, 2500, actor_id=None, reason="Ill")
    assert refused.value.code == "not_connected"
    payment, now = db.session.get_one(Payment, payment_id, populate_existing=True), clock.now()
    for calls, wait in ((1, timedelta(minutes=15)), (12, timedelta(hours=6))):
        payment.error_count = calls
        assert poll_schedule.after_silence(payment, now, permanent=False) == now + wait
    late = payment.state_since + timedelta(days=15)
    assert poll_schedule.after_silence(payment, late, permanent=False) is None


def test_a_lost_key_of_an_ended_connection_is_told_once(
    connected: Connection, olga: User, environ: dict[str, str], sandbox: Sandbox
) -> None:
    payment_id = open_order(connected)
    linked_accounts.disconnect(olga.id, "sumup")
    use_sumup(environ, sandbox, secret_key="another secret altogether")
    credentials.use(db.engine)
    for _ in range(3):
        outcome = reconciling.reconcile(payment_id, door="sweep")
        assert outcome.error is not None and outcome.state is PaymentState.OPEN
    assert len(mails("connection_broken")) == 1 == len(mails("alert"))
    assert fresh(connected).refresh_token
    use_sumup(environ, sandbox)
    assert reconciling.reconcile(payment_id, door="sweep").error is None


def test_an_ended_connection_sells_nothing(connected: Connection, olga: User) -> None:
    event = events(connected)
    linked_accounts.disconnect(olga.id, "sumup")
    with pytest.raises(DomainError) as off:
        place(event, provider="sumup")
    assert off.value.code == "payments_off"


# --- Keys -----------------------------------------------------------------------------------------------


def test_keys_are_rotated_and_lost_ones_break_nothing_for_good(
    app: Flask, connected: Connection, environ: dict[str, str], sandbox: Sandbox
) -> None:
    use_sumup(environ, sandbox, token_keys=("new key of some length", "old key of some length"))
    token = credentials_of(connected).token()
    result = app.test_cli_runner().invoke(args=["connections", "rotate"])
    assert result.exit_code == 0 and "1 connections" in result.output
    use_sumup(
        environ, sandbox, token_keys=("new key of some length",), secret_key="another secret altogether"
    )
    assert credentials_of(fresh(connected)).token() == token
    use_sumup(environ, sandbox, token_keys=("a third key of some length",))
    assert refused(connected) == "not_connected"
    row = fresh(connected)
    assert row.state is ConnectionState.BROKEN and row.refresh_token and "TOKEN_KEYS" in row.last_error
    assert len(mails("connection_broken")) == 1
    result = app.test_cli_runner().invoke(args=["connections", "rotate"])
    assert result.exit_code == 1 and ACCOUNT in result.output
    assert linked_accounts.summary().unreadable == (f"sumup {ACCOUNT}",)
    use_sumup(environ, sandbox, token_keys=("a third key of some length", "new key of some length"))
    linked_accounts.tend()
    assert fresh(connected).state is ConnectionState.CONNECTED
    assert credentials_of(connected).token() == token


def test_the_list_of_connections(app: Flask, connected: Connection, olga: User) -> None:
    result = app.test_cli_runner().invoke(args=["connections", "list"])
    assert result.output.split() == ["connected", "sumup", ACCOUNT, olga.email]


def test_a_renewal_is_not_written_over_a_new_connection(connected: Connection, olga: User) -> None:
    """Who connects while somebody renews the old tokens keeps the new ones."""
    db.session.rollback()
    row = credentials._read("sumup", ACCOUNT)
    assert credentials._take_lease(row)
    connect(olga)
    new = fresh(connected).refresh_token
    credentials._renew(row, "")
    assert fresh(connected).refresh_token == new
