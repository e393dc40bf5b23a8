"""The wallet: what is added, taken and held, alone and side by side, each race with its negative control."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from threading import Barrier, BrokenBarrierError

import psycopg
import pytest
from flask import Flask
from sqlalchemy import event, func, select, update
from sqlalchemy.exc import IntegrityError

from domain import clock
from domain.errors import DomainError
from domain.ledger import transfers, wallet
from domain.ledger.transfers import InsufficientFunds
from domain.office import invariants
from extensions import db
from models import HoldState, Transfer, User, Wallet, WalletHold
from tests.support.shop import make_user
from tests.support.threads import at_once

# As many as the test's connection pool allows to be inside a transaction at once.
SIDE_BY_SIDE = 4


def rich(minor: int, email: str = "member@example.org") -> User:
    user = make_user(email)
    if minor:
        wallet.add_balance(user, minor, "A present", key=f"present:{user.id}")
    return user


def keep(user: User, minor: int, key: str = "one") -> WalletHold:
    return wallet.hold(user, minor, key=key, description="QR code", agent_slug="qr-code")


def purse(user_id: int, currency: str = "AED") -> tuple[int, int]:
    """Balance and held."""
    db.session.rollback()
    row = db.session.execute(
        select(Wallet.balance_minor, Wallet.held_minor).filter_by(user_id=user_id, currency=currency)
    ).one()
    return row.balance_minor, row.held_minor


def posted(kind: str) -> int:
    return db.session.scalars(select(func.count()).select_from(Transfer).filter_by(kind=kind)).one()


def assert_invariants() -> None:
    db.session.rollback()
    assert invariants.look() == []


# --- One after the other --------------------------------------------------------------------------------


def test_adding_and_deducting_move_money_and_leave_a_transfer(app: Flask) -> None:
    user = rich(0)
    assert wallet.add_balance(user, 5000, "Top-up by hand", "cs_test_1", key="a")
    assert wallet.deduct_balance(user, 1200, "QR code", "qr-code", key="b")
    assert purse(user.id) == (3800, 0)
    entries = wallet.history(user).entries
    assert [(e.kind, e.amount_minor, e.agent_slug, e.provider_reference) for e in entries] == [
        ("agent_usage", -1200, "qr-code", ""),
        ("top_up", 5000, "", "cs_test_1"),
    ]
    assert transfers.balance(transfers.PLATFORM, "AED") == -3800
    assert_invariants()


def test_the_same_key_moves_money_once(app: Flask) -> None:
    user = rich(0)
    assert [wallet.add_balance(user, 500, "x", key="k") for _ in range(3)] == [True, False, False]
    assert [wallet.deduct_balance(user, 200, "x", "a", key="k") for _ in range(3)] == [True, False, False]
    assert purse(user.id) == (300, 0)


@pytest.mark.parametrize("minor", [0, -1, -5000])
def test_an_amount_that_is_not_positive_is_refused(app: Flask, minor: int) -> None:
    user = rich(100)
    with pytest.raises(DomainError, match="more than zero"):
        wallet.add_balance(user, minor, "x", key="a")
    with pytest.raises(DomainError, match="more than zero"):
        wallet.deduct_balance(user, minor, "x", "a", key="b")
    with pytest.raises(DomainError, match="more than zero"):
        keep(user, minor)
    assert purse(user.id) == (100, 0)


def test_what_is_held_cannot_be_spent_twice(app: Flask) -> None:
    user = rich(100)
    keep(user, 70)
    assert purse(user.id) == (100, 70)
    with pytest.raises(InsufficientFunds, match="nothing was taken"):
        keep(user, 40, "two")
    with pytest.raises(InsufficientFunds, match="nothing was taken"):
        wallet.deduct_balance(user, 40, "x", "a", key="x")
    assert wallet.deduct_balance(user, 30, "x", "a", key="x")
    assert purse(user.id) == (70, 70)
    assert db.session.scalars(select(func.count()).select_from(WalletHold)).one() == 1
    assert_invariants()


def test_a_captured_hold_is_a_spending_once(app: Flask) -> None:
    user = rich(100)
    held = keep(user, 70)
    assert wallet.capture(held).state is HoldState.CAPTURED
    assert wallet.capture(held).state is HoldState.CAPTURED
    assert wallet.void(held).state is HoldState.CAPTURED
    assert purse(user.id) == (30, 0)
    newest = wallet.history(user).entries[0]
    assert (newest.kind, newest.agent_slug, newest.amount_minor) == ("agent_usage", "qr-code", -70)
    assert_invariants()


def test_a_voided_hold_gives_the_money_back_once(app: Flask) -> None:
    user = rich(100)
    held = keep(user, 70)
    assert wallet.void(held).state is HoldState.VOIDED
    assert wallet.void(held).state is HoldState.VOIDED
    assert wallet.capture(held).state is HoldState.VOIDED
    assert purse(user.id) == (100, 0)
    assert posted("agent_usage") == 0


def test_the_same_key_is_the_same_hold_and_no_other(app: Flask) -> None:
    user = rich(100)
    assert keep(user, 70).id == keep(user, 70).id
    assert purse(user.id) == (100, 70)
    with pytest.raises(DomainError, match="used for something else"):
        keep(user, 10)
    with pytest.raises(DomainError, match="used for something else"):
        keep(rich(100, "other@example.org"), 70)


def test_holds_that_nobody_ended_expire(app: Flask) -> None:
    user = rich(1000)
    old = [keep(user, 10, f"old{n}") for n in range(3)]
    wallet.capture(old[0])
    fresh = wallet.hold(user, 50, key="fresh", description="x", agent_slug="a", minutes=60)
    assert wallet.expire_holds(clock.now()) == 0
    assert wallet.expire_holds(clock.now() + timedelta(minutes=11)) == 2
    assert wallet.expire_holds(clock.now() + timedelta(minutes=11)) == 0
    db.session.expire_all()
    assert [hold.state for hold in (*old, fresh)] == ["captured", "expired", "expired", "held"]
    assert purse(user.id) == (990, 50)
    assert wallet.capture(db.session.get_one(WalletHold, old[1].id)).state is HoldState.EXPIRED
    assert purse(user.id) == (990, 50)
    assert_invariants()


def test_expiry_works_through_more_than_a_batch(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wallet, "_EXPIRE_BATCH", 4)
    user = rich(1000)
    for n in range(10):
        keep(user, 10, f"h{n}")
    assert wallet.expire_holds(clock.now() + timedelta(hours=1)) == 10
    assert purse(user.id) == (1000, 0)


def test_money_that_a_dispute_took_back_is_not_captured(app: Flask) -> None:
    """A held wallet may fall below its holds only by a dispute; then nothing more is taken from it."""
    user = rich(100)
    held = keep(user, 60)
    transfers.post(
        key="dispute:1",
        debit=transfers.wallet_account(user.id),
        credit=transfers.SUSPENSE,
        amount_minor=70,
        currency="AED",
        kind="dispute",
        may_overdraw=True,
    )
    db.session.commit()
    with pytest.raises(InsufficientFunds):
        wallet.capture(held)
    assert db.session.get_one(WalletHold, held.id, populate_existing=True).state is HoldState.HELD
    assert wallet.void(held).state is HoldState.VOIDED
    assert purse(user.id) == (30, 0)
    row = db.session.scalars(select(Wallet)).one()
    assert row.overdrawn is False
    assert_invariants()


def test_the_database_itself_refuses_more_held_than_there_is(app: Flask) -> None:
    user = rich(100)
    with pytest.raises(IntegrityError, match="wallets_not_below_zero"):
        db.session.execute(update(Wallet).where(Wallet.user_id == user.id).values(held_minor=101))
    db.session.rollback()
    with pytest.raises(IntegrityError, match="wallets_held"):
        db.session.execute(update(Wallet).where(Wallet.user_id == user.id).values(held_minor=-1))
    db.session.rollback()


def test_wallets_of_several_currencies_are_apart(app: Flask) -> None:
    user = rich(100)
    wallet.add_balance(user, 900, "Refund to wallet", key="eur", currency="EUR")
    with pytest.raises(InsufficientFunds):
        wallet.deduct_balance(user, 101, "x", "a", key="d")
    assert [(p.currency, p.balance_minor) for p in wallet.purses(user)] == [("AED", 100), ("EUR", 900)]
    assert {entry.currency for entry in wallet.history(user).entries} == {"AED", "EUR"}
    nobody = make_user("nobody@example.org")
    assert [(p.currency, p.balance_minor) for p in wallet.purses(nobody)] == [("AED", 0)]


def test_history_pages_by_id_and_its_queries_do_not_grow(app: Flask) -> None:
    user, other = rich(0), rich(500, "other@example.org")
    counts = []
    for n in range(30):
        wallet.add_balance(user, 100 + n, f"number {n}", key=f"h{n}")
        if n % 10 == 9:
            counts.append(_queries(lambda: wallet.history(user, limit=10)))
    assert counts == [counts[0]] * 3
    seen: list[str] = []
    before: int | None = None
    for _ in range(3):
        page = wallet.history(user, before_id=before, limit=10)
        seen += [entry.description for entry in page.entries]
        before = page.older_than
    assert seen == [f"number {n}" for n in reversed(range(30))]
    assert before is None
    assert len(wallet.history(other).entries) == 1


def _queries(work: object) -> int:
    assert callable(work)
    db.session.rollback()
    count = 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1

    event.listen(db.engine, "before_cursor_execute", counted)
    try:
        work()
    finally:
        event.remove(db.engine, "before_cursor_execute", counted)
    return count


def test_a_wallet_that_somebody_holds_keeps_no_other_hold_from_its_end(app: Flask, database_url: str) -> None:
    held, other = rich(1000, "held@example.org"), rich(1000, "other@example.org")
    keep(held, 300, "first")
    keep(other, 300, "second")
    later = clock.now() + timedelta(hours=1)
    with psycopg.connect(database_url) as stranger:
        stranger.execute("SELECT 1 FROM wallets WHERE user_id = %s FOR UPDATE", (held.id,))
        assert wallet.expire_holds(later) == 1
        assert (purse(held.id), purse(other.id)) == ((1000, 300), (1000, 0))
    assert wallet.expire_holds(later) == 1 and purse(held.id) == (1000, 0)


# --- Side by side ---------------------------------------------------------------------------------------


def test_fifty_spend_at_once_from_a_wallet_that_affords_ten(app: Flask) -> None:
    user_id = rich(1000).id

    def spend(number: int) -> HoldState:
        user = db.session.get_one(User, user_id)
        return wallet.capture(keep(user, 100, f"spend{number}")).state

    results = at_once(app, 50, spend)
    assert results.count(HoldState.CAPTURED) == 10
    assert sum(isinstance(r, InsufficientFunds) for r in results) == 40
    assert purse(user_id) == (0, 0)
    assert posted("agent_usage") == 10
    assert_invariants()


def test_fifty_deduct_at_once_from_a_wallet_that_affords_ten(app: Flask) -> None:
    user_id = rich(1000).id

    def spend(number: int) -> bool:
        return wallet.deduct_balance(db.session.get_one(User, user_id), 100, "x", "a", key=f"d{number}")

    results = at_once(app, 50, spend)
    assert results.count(True) == 10
    assert sum(isinstance(r, InsufficientFunds) for r in results) == 40
    assert purse(user_id) == (0, 0)
    assert_invariants()


def test_reading_before_writing_would_sell_the_same_money_to_all(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: holds that look first and write what they reckoned are all granted."""
    user_id = rich(100).id
    together = Barrier(SIDE_BY_SIDE)

    def read_then_write(mine: Wallet, amount_minor: int) -> None:
        row = db.session.execute(
            select(Wallet.balance_minor, Wallet.held_minor).where(Wallet.id == mine.id)
        ).one()
        together.wait(10)
        if row.balance_minor - row.held_minor < amount_minor:
            raise InsufficientFunds("insufficient_funds", "too little")
        db.session.execute(
            update(Wallet).where(Wallet.id == mine.id).values(held_minor=row.held_minor + amount_minor)
        )

    monkeypatch.setattr(wallet, "_raise_held", read_then_write)
    results = at_once(
        app, SIDE_BY_SIDE, lambda n: keep(db.session.get_one(User, user_id), 100, f"spend{n}").id
    )
    assert [r for r in results if isinstance(r, Exception)] == []
    held = db.session.scalars(select(func.sum(WalletHold.amount_minor))).one()
    assert held == 100 * SIDE_BY_SIDE
    assert [violation.code for violation in invariants.look()] == ["wallets_match_the_ledger"]


def test_the_same_forced_interleaving_with_the_real_hold_grants_one(app: Flask) -> None:
    user_id = rich(100).id
    together = Barrier(SIDE_BY_SIDE)

    def spend(number: int) -> int:
        user = db.session.get_one(User, user_id)
        assert wallet.available_minor(user, "AED") == 100
        together.wait(10)
        return keep(user, 100, f"spend{number}").id

    results = at_once(app, SIDE_BY_SIDE, spend)
    assert sum(isinstance(r, int) for r in results) == 1
    assert {type(r) for r in results if not isinstance(r, int)} == {InsufficientFunds}
    assert purse(user_id) == (100, 100)


def test_capture_void_and_expiry_at_once_end_a_hold_once(app: Flask) -> None:
    user = rich(1000)
    user_id = user.id
    keep(user, 30, "another")
    for turn in range(5):
        hold_id = wallet.hold(user, 20, key=f"h{turn}", description="x", agent_slug="a", minutes=1).id
        before = purse(user_id)
        at_once(app, SIDE_BY_SIDE, lambda n, hold_id=hold_id: _end_somehow(n, hold_id))  # type: ignore[misc]
        state = db.session.scalars(select(WalletHold.state).filter_by(id=hold_id)).one()
        spent = 20 if state is HoldState.CAPTURED else 0
        assert state is not HoldState.HELD
        assert purse(user_id) == (before[0] - spent, before[1] - 20)
    assert_invariants()


def test_ending_without_the_condition_would_give_money_back_twice(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: capture and void that look first both believe that the hold is theirs to end."""
    user = rich(1000)
    keep(user, 300, "another")
    hold_id = keep(user, 20, "this").id
    together = Barrier(2)

    def read_then_write(hold_id: int, state: HoldState) -> bool:
        found = db.session.get_one(WalletHold, hold_id, populate_existing=True)
        was_held = found.state is HoldState.HELD
        with suppress(BrokenBarrierError):
            together.wait(5)
        found.state, found.ended_at = state, clock.now()
        return was_held

    monkeypatch.setattr(wallet, "_end", read_then_write)
    at_once(app, 2, lambda n: _end_somehow(n, hold_id))
    assert [violation.code for violation in invariants.look()] == ["wallets_match_the_ledger"]


def _end_somehow(number: int, hold_id: int) -> object:
    if number % 3 == 2:
        return wallet.expire_holds(clock.now() + timedelta(minutes=5))
    return (wallet.capture, wallet.void)[number % 3](db.session.get_one(WalletHold, hold_id))


def test_the_same_key_at_the_same_moment_is_one_hold(app: Flask) -> None:
    user_id = rich(100).id
    results = at_once(app, SIDE_BY_SIDE, lambda n: keep(db.session.get_one(User, user_id), 60, "the same").id)
    assert len(set(results)) == 1 and isinstance(results[0], int)
    assert purse(user_id) == (100, 60)


def test_sweeps_side_by_side_share_the_expired_holds(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wallet, "_EXPIRE_BATCH", 3)
    users = [rich(1000, f"m{n}@example.org") for n in range(4)]
    for n in range(40):
        keep(users[n % 4], 10, f"h{n}")
    later = clock.now() + timedelta(hours=1)
    results = at_once(app, 4, lambda n: wallet.expire_holds(later))
    assert [r for r in results if isinstance(r, Exception)] == []
    # A sweep whose batch was short because others had the rest leaves it to them, or to the next sweep.
    assert sum(r for r in results if isinstance(r, int)) + wallet.expire_holds(later) == 40
    assert [purse(user.id) for user in users] == [(1000, 0)] * 4
