"""What happened at the accounts since they were last asked: the last duty of a sweep, so that nothing depends
on webhooks, or on our memory.

A refund or a dispute that was made long after a sale, and money that no row knows, as after a restored
backup, are found by what an account lists. How far it was read is kept for each account, and moves on only
when what was read is done. What is somebody else's in the same account is neither kept nor shown: an adapter
tells nothing of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import func, or_, select, union, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import selectinload

import config
from domain import clock
from domain.payments import adopting, lookup, poll_schedule, reconciling, settling
from domain.post import alerts, outbox
from domain.providers import registry
from domain.providers.contract import Anothers, Happening, ProviderError, Told
from domain.sweep import lanes
from domain.sweep.lanes import Lane, Work
from extensions import db
from models import (
    AccountCursor,
    Connection,
    ConnectionState,
    Order,
    OutboxMail,
    Payment,
    PaymentState,
    RefundState,
)

log = structlog.get_logger(__name__)

# Lists may be slow to show what has just happened, and two clocks differ: so much is read again.
OVERLAP = timedelta(minutes=10)
# How far back an account is asked that was never asked before, and how often one that an organiser connected.
FIRST = timedelta(days=30)
_CONNECTED_EVERY = timedelta(hours=1)
# An account of which so long nothing could be heard is told of.
_BEHIND = timedelta(hours=6)
# For so long one payment that cannot be read keeps what else happened at its account waiting.
_GIVEN_UP = timedelta(days=1)
_NOT_REACHED = "the sweeps’ time, or the calls left unanswered, did not let it be asked to the end"
_ARRIVED = (PaymentState.PAID, PaymentState.REVIEW)
_GONE = (RefundState.PENDING, RefundState.SUCCEEDED)


def ask_accounts(work: Work) -> None:
    """Ask our own accounts, and organisers' that were not asked for an hour, within the run's budget.

    A person hears of each that is behind, whatever the cause.
    """
    whys: dict[tuple[str, str], str] = {}
    for lane in [*_own(), *_connected()]:
        key = lane.provider, lane.adapter.account
        whys[key] = _NOT_REACHED
        if not work.in_budget or not work.speaks(lane):
            continue
        try:
            whys[key] = _ask(work, lane)
        except Exception as error:
            # What one account tells that nobody has foreseen keeps none of the others waiting.
            db.session.rollback()
            log.exception("account_not_read", lane=lane.key)
            work.failed_duties += 1
            whys[key] = f"what it tells could not be read ({type(error).__name__}); the log has more"
    _tell_behind(whys)


def _own() -> list[Lane]:
    """Our accounts that can tell what happened there: no call is made to find that out."""
    adapters, now = (registry.get(name) for name in registry.names()), clock.now()
    return [
        lanes.lane(adapter.name, adapter.account)
        for adapter in adapters
        if adapter.ready and not adapter.immediate and adapter.happened(now, now) is not None
    ]


def _connected() -> list[Lane]:
    """Accounts of organisers, those first that were not asked for longest."""
    same = (AccountCursor.provider == Connection.provider) & (AccountCursor.account == Connection.account)
    # Never asked, or not since a backup was restored.
    due = or_(AccountCursor.asked_at.is_(None), AccountCursor.asked_at <= clock.now() - _CONNECTED_EVERY)
    query = (
        select(Connection.provider, Connection.account)
        .outerjoin(AccountCursor, same)
        .where(Connection.state == ConnectionState.CONNECTED, due)
        .order_by(AccountCursor.asked_at.nulls_first(), Connection.id)
    )
    found = [lanes.lane(name, account) for name, account in db.session.execute(query).all()]
    db.session.commit()
    return [lane for lane in found if lane.provider in registry.names()]


# --- One account ----------------------------------------------------------------------------------------


@dataclass
class _Reading:
    """One look at an account: `why` it was not read to its end, and whether a person has known for long."""

    lane: Lane
    known_for_long: bool
    why: str = ""


def _ask(work: Work, lane: Lane) -> str:
    """Take in page after page of what happened at an account, and write down how far it was read.

    Why that is not as far as it goes, in words; "" where it is.
    """
    adapter, now = lane.adapter, clock.now()
    known = _claim(lane, now)
    if known is None:
        # Another sweep is at it.
        return ""
    cursor_id, since = known
    reading = _Reading(lane, _is_known_for_long(cursor_id, since))
    try:
        pages = adapter.happened(since - OVERLAP, now)
        _read(work, reading, cursor_id, pages or ())
        work.answered(lane)
    except ProviderError as error:
        db.session.rollback()
        work.unanswered(lane, error)
        log.warning("account_not_told", lane=lane.key, code=error.code)
        if error.code == "forbidden":
            cursor = db.session.get_one(AccountCursor, cursor_id, populate_existing=True)
            _alert(cursor, str(error), forbidden=True)
            db.session.commit()
        reading.why = str(error)
    except Exception:
        db.session.rollback()
        _let_go(cursor_id)
        raise
    _let_go(cursor_id)
    return reading.why


def _read(work: Work, reading: _Reading, cursor_id: int, pages: Iterable[Told]) -> None:
    done = True
    for page in pages:
        done = _take_in(work, reading, page.happenings) and done
        if done and page.through is not None:
            _move(cursor_id, page.through)
        work.give_way()
        if not _goes_on(work, reading.lane):
            reading.why = reading.why or _NOT_REACHED
            return


def _goes_on(work: Work, lane: Lane) -> bool:
    return work.in_budget and work.speaks(lane)


def _claim(lane: Lane, now: datetime) -> tuple[int, datetime] | None:
    """Lease an account's cursor, which is made where there is none yet. None where another sweep has it."""
    account = lane.adapter.account
    fresh = {"provider": lane.provider, "account": account, "since": now - FIRST, "moved_at": now}
    db.session.execute(insert(AccountCursor).values(**fresh).on_conflict_do_nothing())
    # No sweep lasts longer than its budget, but for the call that it is at.
    lease = timedelta(seconds=config.get().sweep_budget) + reconciling.LEASE
    row = db.session.execute(
        update(AccountCursor)
        .where(AccountCursor.provider == lane.provider, AccountCursor.account == account)
        .where(or_(AccountCursor.leased_until.is_(None), AccountCursor.leased_until <= now))
        .values(leased_until=now + lease, asked_at=now)
        .returning(AccountCursor.id, AccountCursor.since)
    ).one_or_none()
    db.session.commit()
    return None if row is None else (row[0], row[1])


def _move(cursor_id: int, through: datetime) -> None:
    """All that happened until `through` is in our rows."""
    db.session.execute(
        update(AccountCursor)
        .where(AccountCursor.id == cursor_id)
        .values(since=func.greatest(AccountCursor.since, through), moved_at=clock.now())
    )
    db.session.commit()


def _let_go(cursor_id: int) -> None:
    db.session.execute(update(AccountCursor).where(AccountCursor.id == cursor_id).values(leased_until=None))
    db.session.commit()


def _alert(cursor: AccountCursor, why: str, *, forbidden: bool) -> None:
    """A person hears once that we may not ask, or have not got on for hours. No commit."""
    label = registry.title(cursor.provider)
    told = alerts.account_not_told(label, cursor.account, cursor.since, why, forbidden=forbidden)
    outbox.alert(*told, key=_key(cursor.id, cursor.since))


def _key(cursor_id: int, since: datetime) -> str:
    return f"not_told:{cursor_id}:{since.isoformat()}"


def behind() -> list[AccountCursor]:
    """The accounts that are asked, and of which all is known until hours ago only, the oldest first."""
    query = select(AccountCursor).where(AccountCursor.moved_at < clock.now() - _BEHIND)
    found = db.session.scalars(query.order_by(AccountCursor.moved_at)).all()
    return [cursor for cursor in found if is_asked(cursor)]


def is_asked(cursor: AccountCursor) -> bool:
    """Whether it is one of ours, or an organiser's that is connected."""
    if (cursor.provider, cursor.account) in [(lane.provider, lane.adapter.account) for lane in _own()]:
        return True
    connected = select(Connection.id).filter_by(provider=cursor.provider, account=cursor.account)
    return db.session.scalar(connected.where(Connection.state == ConnectionState.CONNECTED)) is not None


def _tell_behind(whys: dict[tuple[str, str], str]) -> None:
    for cursor in behind():
        why = whys.get((cursor.provider, cursor.account))
        if why:
            _alert(cursor, why, forbidden=False)
    db.session.commit()


def _is_known_for_long(cursor_id: int, since: datetime) -> bool:
    """Whether a person heard so long ago that the account is behind that one payment stops it no more."""
    heard = select(OutboxMail.created_at).where(OutboxMail.key == _key(cursor_id, since))
    at = db.session.scalar(heard)
    db.session.rollback()
    return at is not None and clock.now() - at >= _GIVEN_UP - _BEHIND


# --- One page -------------------------------------------------------------------------------------------


def _take_in(work: Work, reading: _Reading, happenings: Iterable[Happening]) -> bool:
    """Look at every payment of which a page tells something new. False where one of them is to be looked at
    again, so that the account is asked once more what happened."""
    done, lane = True, reading.lane
    for happening, ids in _new(lane, list(happenings)):
        if not _goes_on(work, lane):
            reading.why = reading.why or _NOT_REACHED
            return False
        outcomes = [outcome for payment_id in ids if (outcome := _looked(work, reading, payment_id))]
        if len(outcomes) < len(ids):
            # Somebody holds the rows of one: the account is asked again, and the others go on.
            done = False
            continue
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        told = [_is_told(reading, outcome) for outcome in outcomes]
        done = all(told) and done
        if happening.paid and not errors and not _is_on_record(lane, happening):
            _find_whose(lane, happening)
    return done


def _looked(work: Work, reading: _Reading, payment_id: int) -> settling.Outcome | None:
    """What a payment came to; None where its rows are held, or where it cannot be settled."""
    what = "its rows are held by another transaction"
    try:
        outcome = lanes.unless_held(work, payment_id, partial(_look, payment_id))
    except Exception as error:
        db.session.rollback()
        log.exception("payment_not_settled", payment=payment_id)
        work.counts["error"] += 1
        outcome, what = None, type(error).__name__
    if outcome is None:
        reading.why = f"payment {_name(payment_id)} could not be looked at: {what}"
    else:
        lanes.tell(work, reading.lane, outcome)
    return outcome


def _is_told(reading: _Reading, outcome: settling.Outcome) -> bool:
    """Whether nothing more is to be learnt of a payment here, or was told to somebody who learns it."""
    error = outcome.error
    # What stays wrong, and what is another's, was told to somebody already.
    if error is None or error.permanent or isinstance(error, Anothers):
        return True
    name = _name(outcome.payment_id)
    if not reading.known_for_long:
        reading.why = f"payment {name} could not be read there: {error}"
        return False
    log.error("payment_left_unread", payment=outcome.payment_id, error=str(error))
    payment = db.session.get_one(Payment, outcome.payment_id)
    payment.next_check_at = payment.next_check_at or clock.now() + poll_schedule.STOPPED
    told = alerts.left_unread(payment.order, payment, str(error))
    outbox.alert(*told, key=f"left_unread:{payment.id}:{clock.now():%Y-%m-%d}", critical=True)
    db.session.commit()
    return True


def _name(payment_id: int) -> str:
    name = db.session.get_one(Payment, payment_id).reference
    db.session.rollback()
    return name


def _look(payment_id: int) -> settling.Outcome:
    return reconciling.reconcile(payment_id, door="sweep", patient=True, thorough=True)


def _new(lane: Lane, happenings: list[Happening]) -> list[tuple[Happening, list[int]]]:
    """What the rows do not say already, each with the payments that it may be about."""
    known = _payments(lane, happenings)
    found = []
    for happening in happenings:
        by_charge = [payment for name in happening.charges for payment in known[name]]
        candidates = by_charge or known[happening.name]
        if any(_is_known(payment, happening) for payment in candidates):
            continue
        ids = [p.id for p in dict.fromkeys(candidates) if by_charge or p.state is not PaymentState.PAID]
        # Of a refund or a dispute of money that is not on record, the money itself is what is told.
        if ids or happening.paid:
            found.append((happening, ids))
    db.session.rollback()
    return found


def _payments(lane: Lane, happenings: list[Happening]) -> defaultdict[str, list[Payment]]:
    """Our payments by the names that a page tells: charges, references and orders' codes."""
    charges = {name for happening in happenings for name in happening.charges}
    names = {happening.name for happening in happenings if happening.name}
    mine = [Payment.provider == lane.provider, Payment.account == lane.adapter.account]
    # Each by its own index.
    ids = union(
        select(Payment.id).where(*mine, Payment.charge_id.in_(charges)),
        select(Payment.id).where(*mine, Payment.reference.in_(names)),
        select(Payment.id).join(Order, Order.id == Payment.order_id).where(*mine, Order.code.in_(names)),
    )
    known: defaultdict[str, list[Payment]] = defaultdict(list)
    if not charges:
        return known
    query = (
        select(Payment, Order.code)
        .join(Order, Order.id == Payment.order_id)
        .where(Payment.id.in_(ids))
        .options(selectinload(Payment.refunds), selectinload(Payment.disputes))
        .order_by(Payment.id)
    )
    for payment, code in db.session.execute(query).all():
        for name in (payment.charge_id, payment.reference, code):
            if name is not None:
                known[name].append(payment)
    return known


def _is_known(payment: Payment, happening: Happening) -> bool:
    """Whether our rows say of a payment what the account's list tells."""
    if happening.unclear or payment.charge_id not in happening.charges:
        return False
    refund, dispute, gone = happening.refund, happening.dispute, happening.refunded_minor
    if refund is not None:
        same = (r for r in payment.refunds if r.provider_id == refund.provider_id)
        return any(r.state.value == refund.state for r in same)
    if dispute is not None:
        told = [(d.provider_id, d.provider_status) for d in payment.disputes]
        return (dispute.provider_id, dispute.status) in told
    returned = sum(r.amount_minor for r in payment.refunds if r.state in _GONE)
    return payment.state in _ARRIVED and gone in (None, returned)


def _is_on_record(lane: Lane, happening: Happening) -> bool:
    """Whether a payment of ours has taken in the charge."""
    has_it = Payment.provider == lane.provider, Payment.charge_id.in_(happening.charges)
    found = db.session.scalar(select(Payment.id).where(*has_it).limit(1))
    db.session.rollback()
    return found is not None


def _find_whose(lane: Lane, happening: Happening) -> None:
    """Money that no row knows is its order's, or waits in the money inbox. Commits."""
    report = lane.adapter.behind(happening)
    if report is None or report.state != "paid" or lookup.on_record(report):
        return
    adopting.take_in(report, door="sweep")
