"""A sweep over many accounts: none keeps another one waiting, and what is silent is left alone."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event, func, select

import config
from cli import payments_sweep
from domain import clock
from domain.catalogue import events
from domain.errors import DomainError
from domain.office import invariants
from domain.payments import poll_schedule
from domain.providers import registry
from domain.providers.throttle import Throttle
from domain.sweep import account_history, lanes, reading, sweeping
from extensions import connect_redis, db, queue
from models import OutboxMail, Payment, PaymentState, SweepRun
from tests.domain.payments.test_second_provider import connect, later, opened, sold
from tests.support.backends import backend, end_backend
from tests.support.benches import Bench, PebbleBench, SumUpBench
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, make_user, place
from tests.support.threads import at_once


@pytest.fixture(autouse=True)
def _only_what_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call here is one for a payment; test_account_history.py asks the accounts what happened."""
    monkeypatch.setattr(account_history, "ask_accounts", lambda work: None)


@pytest.fixture
def bank(app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> PebbleBench:
    """Pebble, beside Stripe."""
    return PebbleBench(sandbox, monkeypatch)


@pytest.fixture(params=[SumUpBench, PebbleBench], ids=lambda bench: bench.name)
def any_bank(
    app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Bench:
    """Each provider whose accounts are connected; SumUp over HTTP and through its SDK."""
    made: Bench = request.param(sandbox, monkeypatch)
    return made


def pending(bank: Bench, accounts: int, each: int) -> dict[str, list[Payment]]:
    """Open payments at organisers' accounts."""
    found = {}
    for number in range(accounts):
        organiser = make_user(f"org{number}@example.org")
        account = connect(bank, organiser)
        event = sold(bank.name, slug=f"concert-{number}", organiser_id=organiser.id, capacity=each)
        found[account] = [opened(event, email=f"b{n}@example.org") for n in range(each)]
    return found


def asked(bank: PebbleBench, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """When and for which account Pebble is called from now on."""
    call, seen, lock = bank.bank.call, list[tuple[float, str]](), threading.Lock()

    def answer(*what: Any) -> tuple[int, str]:
        with lock:
            seen.append((time.monotonic(), bank.bank.shops.get(what[-1], "?")))
            return call(*what)

    monkeypatch.setattr(bank.bank, "call", answer)
    return seen


def test_every_account_has_its_turn(bank: PebbleBench, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = pending(bank, accounts=4, each=6)
    for payment in theirs["shop-3"]:
        bank.do(payment.provider_id or "", "pay")
    seen = asked(bank, monkeypatch)
    run = sweeping.run("test")
    assert (run.found, run.verified, run.pending, run.errors) == (24, 6, 18, 0)
    assert Counter(account for _, account in seen) == dict.fromkeys(theirs, 6)
    # The first round asks each once.
    assert len({account for _, account in seen[:4]}) >= 3
    assert all(
        payment.poll_count == 1 and payment.leased_until is None
        for payment in db.session.scalars(select(Payment).where(Payment.state == PaymentState.OPEN))
    )


def test_the_limit_of_one_account_stalls_no_other(bank: PebbleBench, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = pending(bank, accounts=3, each=8)
    slow = registry.get("pebble", "shop-2")
    monkeypatch.setattr(slow, "_throttle", Throttle(4))
    seen = asked(bank, monkeypatch)
    sweeping.run("test")
    last = {account: max(at for at, who in seen if who == account) for account in theirs}
    slowly = [at for at, who in seen if who == "shop-2"]
    assert len(slowly) == 8 and slowly[-1] - slowly[0] > 1.6
    assert max(last["shop-3"], last["shop-4"]) < last["shop-2"] - 0.5


def test_a_broken_account_is_left_alone_and_the_others_are_read(
    any_bank: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = pending(any_bank, accounts=3, each=14)
    monkeypatch.setattr(registry._credentials(any_bank.name, sorted(theirs)[1]), "broken", True)
    run = sweeping.run("test")
    assert run.pending == 28 and 3 <= run.errors <= 3 + reading._THREADS
    states = db.session.execute(
        select(Payment.account, Payment.state, func.count()).group_by(Payment.account, Payment.state)
    ).all()
    assert sorted(map(tuple, states)) == [(account, PaymentState.OPEN, 14) for account in sorted(theirs)]
    assert not db.session.scalars(select(Payment).where(Payment.leased_until.is_not(None))).all()


def test_what_waits_for_a_broken_account_is_not_forgotten(
    bank: PebbleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few are asked about in each sweep, each time others; of none it is said that nobody thinks of it."""
    pending(bank, accounts=2, each=20)
    monkeypatch.setattr(registry._credentials("pebble", "shop-3"), "broken", True)
    for _ in range(2):
        later(monkeypatch, 90)
        sweeping.run("test")
        assert invariants.look() == []
    waiting = select(Payment).where(Payment.account == "shop-3")
    asked_about = [payment for payment in db.session.scalars(waiting) if payment.poll_count]
    assert 2 * 3 <= len(asked_about) <= 2 * (3 + reading._THREADS)


def test_what_one_run_gives_back_while_another_ends_is_not_forgotten(
    app: Flask, bank: PebbleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is cut off when it has given back what it claimed; another that ended saw none of it."""
    pending(bank, accounts=1, each=20)
    later(monkeypatch, 90)
    bank.trouble("timeout_before")
    give_back = lanes.give_back

    def cut_off(*what: Any) -> None:
        monkeypatch.setattr(lanes, "give_back", give_back)
        at_once(app, 1, lambda _: sweeping.run("beside"))
        pid = backend()
        event.listen(db.engine, "checkin", lambda *_: end_backend(pid), once=True)
        give_back(*what)

    monkeypatch.setattr(lanes, "give_back", cut_off)
    cut = sweeping.run("test")
    assert cut.error.startswith("The database ended the connection during: ")
    beside = db.session.scalars(select(SweepRun).where(SweepRun.trigger == "beside")).one()
    assert beside.finished_at is not None and beside.error == "" and invariants.look() == []


def test_a_silent_provider_is_left_alone(any_bank: Bench) -> None:
    pending(any_bank, accounts=3, each=10)
    any_bank.trouble("timeout_before")
    run = sweeping.run("test")
    assert run.pending == 0 and 10 <= run.errors <= 10 + reading._THREADS_IN_ALL
    assert db.session.scalars(select(Payment.state).distinct()).all() == [PaymentState.OPEN]


def test_two_sweeps_at_once_share_the_work(
    app: Flask, any_bank: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending(any_bank, accounts=4, each=6)
    before, adapter = any_bank.received(), type(any_bank.provider())
    fetch = adapter.fetch

    def slowly(self: Any, *what: Any, **more: Any) -> Any:
        time.sleep(0.02)
        return fetch(self, *what, **more)

    monkeypatch.setattr(adapter, "fetch", slowly)

    def one() -> None:
        with app.app_context():
            sweeping.run("test")

    both = [threading.Thread(target=one) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    runs = db.session.scalars(select(SweepRun).order_by(SweepRun.id)).all()
    assert sum(run.pending for run in runs) == 24 == any_bank.received() - before
    assert all(run.error == "" and run.errors == 0 for run in runs)


def test_at_the_deadline_all_of_them_are_closed_in_their_turn(
    any_bank: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_there = pending(any_bank, accounts=3, each=4)
    theirs = {account: [p.provider_id or "" for p in its] for account, its in opened_there.items()}
    late = next(iter(theirs.values()))[0]
    provider = any_bank.provider()
    adapter = type(provider)
    close = adapter.close

    def just_paid(self: Any, provider_id: str, *rest: Any, **more: Any) -> Any:
        if provider_id == late:
            any_bank.do(provider_id, "pay")
        return close(self, provider_id, *rest, **more)

    monkeypatch.setattr(adapter, "close", just_paid)
    later(monkeypatch, provider.open_minutes + 1)
    run = sweeping.run("test")
    assert (run.verified, run.failed, run.pending, run.errors) == (1, 11, 0, 0)
    for account, its in theirs.items():
        assert "open" not in {registry.get(any_bank.name, account).fetch(each).state for each in its}


def test_what_is_pending_for_long_is_told_once(bank: PebbleBench, monkeypatch: pytest.MonkeyPatch) -> None:
    config_minutes = config.get().stuck_minutes
    pending(bank, accounts=2, each=1)
    place(make_event("stripe", providers=["stripe"]))
    for _ in range(2):
        later(monkeypatch, config_minutes / 2 - 1)
        sweeping.run("test")
        assert not db.session.scalars(select(OutboxMail).where(OutboxMail.key.startswith("stuck:"))).all()
    for _ in range(2):
        later(monkeypatch, 3)
        sweeping.run("test")
    (digest,) = db.session.scalars(select(OutboxMail).where(OutboxMail.key.startswith("stuck:"))).all()
    assert "2 Orders Stuck in Processing" in digest.context["subject"]


def test_what_was_stopped_is_not_asked_about_until_its_end(
    bank: PebbleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (payment,) = pending(bank, accounts=1, each=1)["shop-2"]
    poll_schedule.stop_polling(payment.id, "They pay at the door.", None)
    seen = asked(bank, monkeypatch)
    later(monkeypatch, 5)
    sweeping.run("test")
    assert seen == []
    later(monkeypatch, 75)
    sweeping.run("test")
    assert len(seen) == 3
    assert db.session.scalars(select(Payment.state)).all() == [PaymentState.CANCELLED]


def test_older_payments_are_asked_about_ever_less_often(bank: PebbleBench) -> None:
    (payment,) = pending(bank, accounts=1, each=1)["shop-2"]
    lengths = []
    for hours in (0, 2, 4, 20, 30):
        now = payment.created_at + timedelta(hours=hours)
        moment = poll_schedule.next_check(payment, now)
        assert moment is not None
        lengths.append(moment - now)
    assert lengths == sorted(lengths) and lengths[0] == timedelta(0) and lengths[-1] == timedelta(minutes=30)


def test_the_command_shows_poll_data_and_needs_no_redis(
    app: Flask, bank: PebbleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    paid, waiting = pending(bank, accounts=1, each=2)["shop-2"]
    bank.do(paid.provider_id or "", "pay")
    monkeypatch.setattr(queue, "_redis", connect_redis("redis://127.0.0.1:1/0", timeout=1))
    later(monkeypatch, 12)
    said = app.test_cli_runner().invoke(payments_sweep, ["--verbose"])
    assert said.exit_code == 0, said.output
    assert "Found 2 pending orders to verify" in said.output
    assert f"Order {paid.order.code}: verified" in said.output
    told = f"Order {waiting.order.code}"
    line = next(line for line in said.output.splitlines() if line.startswith(told))
    for words in ("still_pending", "account shop-2", "1 poll,", waiting.reference):
        assert words in line, line
    # On a busy machine some seconds more have passed.
    assert re.search(r"12\.\d of 60 minutes", line), line
    assert clock.now() > waiting.created_at


def test_a_currency_that_the_provider_lacks_is_refused_when_the_event_is_set_up(bank: PebbleBench) -> None:
    now = clock.now()
    with pytest.raises(DomainError) as refused:
        events.create_event(
            title="Concert",
            starts_at=now + timedelta(days=3),
            ends_at=now + timedelta(days=3, hours=2),
            currency="KZT",
            providers=["pebble"],
        )
    assert refused.value.code == "currency"
