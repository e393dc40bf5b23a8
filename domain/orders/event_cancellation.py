"""An event that does not take place: it stops selling, the pages are closed on which it could still be paid,
whoever holds a ticket is told, and all that was paid for it, or still arrives, can be sent back.

Whoever is to be told is found in the database, so that it does not matter by which page the event was
cancelled, nor how often anybody looks. The wish to refund is kept with the event, so that it outlives every
process: a job begins at once, the sweep goes on, and each payment gets its own intent in
`payments/refunds.py`, whose locks keep it from being paid back twice whoever else is at it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Select, String, and_, cast, func, or_, select, update

from domain import clock, epochs, row_by_row
from domain.catalogue import event_news, events, takings
from domain.errors import DomainError
from domain.kept_answers import KeptAnswers
from domain.payments import incident_decisions, own_end, reconciling, refundable, refunds, settling
from domain.post import alerts, outbox
from extensions import EXPORTS, db, limited, queue
from models import (
    PAYMENT_ACTIVE,
    Connection,
    ConnectionState,
    Dispute,
    Event,
    EventState,
    Incident,
    Order,
    OutboxMail,
    Payment,
    PaymentState,
    Refund,
    RefundState,
    Ticket,
    TicketState,
)

REASON = "The event was cancelled"
_BATCH = 50
# So many refunds in a row without an answer, and the account is left alone until the next run.
_SILENT = 3
# For so long after it was asked for; what is not through by then has failed, and a person knows of it.
_LOOKED_AFTER = timedelta(days=30)
# Money in the inbox that would have bought tickets: where all of an event is paid back, so is that.
_LATE = ("event_cancelled", "event_over", "late_money", "double_payment")
# What passes by itself: told only where it still stands in the way so long after the refunds were asked for.
_PASSING = ("provider_silent", "refund_under_way", "refunded_meanwhile", "refunds_differ")
_PATIENCE = timedelta(hours=6)
_ENDED_BADLY = (RefundState.FAILED, RefundState.CANCELLED)
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far the refunds of a cancelled event are, in payments."""

    paid: int
    done: int
    under_way: int
    failed: int
    # Of those that wait: into accounts that are not connected any more.
    unreachable: int = 0
    # Payments that may still be made, or are being confirmed by a bank.
    open: int = 0

    @property
    def waiting(self) -> int:
        return self.paid - self.done - self.under_way - self.failed


def cancel(event: Event, *, refund: bool, actor_id: int) -> None:
    """Stop selling for good, and tell who has a ticket; with `refund`, begin to pay them back. Commits."""
    if event.state is not EventState.CANCELLED:
        events.cancel_event(event)
    if refund:
        refund_everybody(event, actor_id=actor_id)
    queue.soon("cancelled_events")


def refund_everybody(event: Event, *, actor_id: int) -> None:
    """Send back all that was paid for a cancelled event, in the background. Commits.

    Asked for again, it tries those once more that have failed.
    """
    events.lock(event)
    if event.state is not EventState.CANCELLED:
        db.session.rollback()
        raise DomainError("not_cancelled", "Cancel the event first.")
    event.refunding_since, event.refunding_by_id = clock.now(), actor_id
    db.session.commit()
    queue.soon("cancelled_events")


def tell_holders() -> int:
    """Owe a mail to whoever holds tickets for a cancelled event that is not over, once an order; how many.

    Bought, free or from the guest list: all of them would come. Commits as it goes.
    """
    cancelled = and_(Event.state == EventState.CANCELLED, Event.ends_at > clock.now())
    told = event_news.tell(cancelled, _untold, _owe)
    if told:
        queue.soon("deliver_mail")
    return told


_TOLD = "event_cancelled:"


def _owe(order: Order) -> None:
    outbox.stage("event_cancelled", key=f"{_TOLD}{order.id}", to=order.email, order=order)


def _untold(which: ColumnElement[bool]) -> list[Order]:
    """Those of some orders with tickets of a cancelled event whose buyers were not told yet."""
    admits = select(Ticket.id).where(Ticket.order_id == Order.id, Ticket.state != TicketState.VOID)
    mailed = select(OutboxMail.id).where(OutboxMail.key == _TOLD + cast(Order.id, String))
    query = (
        select(Order)
        .where(which, admits.exists(), ~mailed.exists())
        .order_by(Order.id)
        # A row that somebody holds altogether is told of later, and keeps nobody's news waiting.
        .with_for_update(read=True, key_share=True, skip_locked=True, of=Order)
    )
    return list(db.session.scalars(query))


def look_after() -> None:
    """All that is owed to the buyers of cancelled events: the news first, then their money. Commits."""
    if epochs.is_closed():
        return
    row_by_row.each("cancelled_events", tell_holders, close_pages, refund_due)


# --- What could still be paid ---------------------------------------------------------------------------


def close_pages(*, budget_seconds: float = 60) -> int:
    """Close the payments of cancelled events at their providers, while nobody has paid; how many ended.

    Paid in between wins, as everywhere. Whoever could have paid is told by mail, as their payment ends. What
    a provider does not answer for is asked again by the next sweep. Commits for each.
    """
    ends, ended, one_by_one = monotonic() + budget_seconds, 0, row_by_row.Apart("payment")
    silent: Counter[tuple[str, str]] = Counter()
    for payment_id, provider, account in _payable():
        if monotonic() >= ends:
            queue.soon("cancelled_events")
            break
        if silent[provider, account] >= _SILENT:
            continue
        outcome = one_by_one.do(payment_id, partial(_close, payment_id))
        if outcome is None:
            continue
        silent[provider, account] = silent[provider, account] + 1 if outcome.error is not None else 0
        ended += outcome.verdict == "failed"
    return ended


def _close(payment_id: int) -> settling.Outcome:
    return reconciling.reconcile(payment_id, door="cancelled_event", closing=True, patient=True)


def _payable() -> list[tuple[int, str, str]]:
    """The payments that can still be made for tickets of a cancelled event: id, provider and account.

    What a bank is confirming cannot be closed by anybody.
    """
    query = (
        select(Payment.id, Payment.provider, Payment.account)
        .join(Order, Order.id == Payment.order_id)
        .join(Event, Event.id == Order.event_id)
        .where(Event.state == EventState.CANCELLED, takings.for_tickets())
        .where(Payment.state.in_((PaymentState.CREATED, PaymentState.OPEN)))
        .order_by(Payment.id)
    )
    found = [(payment_id, provider, account) for payment_id, provider, account in db.session.execute(query)]
    db.session.rollback()
    return found


# --- What was paid --------------------------------------------------------------------------------------


_kept: KeptAnswers[tuple[int, object], Progress] = KeptAnswers()


def progress(event: Event) -> Progress:
    """How far it is. Money that went back before counts as done. Of a large event it may be a minute old."""
    if not takings.is_large(event):
        return _progress(event)
    # Since it was asked for anew, all of it is to be counted anew.
    return _kept.get((event.id, event.refunding_since), partial(_progress, event))


def _progress(event: Event) -> Progress:
    unresolved = _has_refund(Refund.state.in_((*refundable.UNRESOLVED, RefundState.REVIEW)))
    left = _left() > 0
    failed = _failed_since(event)
    gone = select(Connection.id).where(
        Connection.provider == Payment.provider,
        Connection.account == Payment.account,
        Connection.state != ConnectionState.CONNECTED,
    )
    db.session.rollback()
    # Of a large event it takes longer than a page may else ask.
    with limited(EXPORTS):
        return _counted(event, left, unresolved, failed, gone)


def _counted(
    event: Event,
    left: ColumnElement[bool],
    unresolved: ColumnElement[bool],
    failed: ColumnElement[bool],
    gone: Select[Any],
) -> Progress:
    row = db.session.execute(
        select(
            func.count(),
            func.count().filter(~left, ~unresolved),
            func.count().filter(unresolved),
            func.count().filter(left, ~unresolved, failed),
            func.count().filter(left, ~unresolved, ~failed, gone.exists()),
        )
        .select_from(Payment)
        .join(Order, Order.id == Payment.order_id)
        .where(*_bought(event))
    ).one()
    open_ = select(func.count()).select_from(Payment).join(Order, Order.id == Payment.order_id)
    open_ = open_.where(Order.event_id == event.id, takings.for_tickets(), Payment.state.in_(PAYMENT_ACTIVE))
    return Progress(*row, open=db.session.scalars(open_).one())


@dataclass
class _Run:
    """One look at what is to be paid back: until when, what came of it, and who does not answer."""

    ends: float
    one_by_one: row_by_row.Apart = field(default_factory=lambda: row_by_row.Apart("payment"))
    asked: int = 0
    # Unanswered calls in a row, by provider and account.
    silent: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def has_time(self) -> bool:
        return monotonic() < self.ends


def refund_due(*, budget_seconds: float = 60) -> int:
    """Refund what is due of every cancelled event, until nothing is or the budget has passed; how many.

    Commits for each. What is not done is asked of a worker again, and of the next sweep; what cannot be done,
    a person hears of. An account that does not answer keeps no other one waiting.
    """
    run = _Run(monotonic() + budget_seconds)
    recent = Event.refunding_since > clock.now() - _LOOKED_AFTER
    wanted = select(Event).where(recent).order_by(Event.refunding_since)
    for event in db.session.scalars(wanted).all():
        _refund_event(run, event)
    if not run.has_time:
        queue.soon("cancelled_events")
    return run.asked


def _refund_event(run: _Run, event: Event) -> None:
    seen, actor_id, refused = 0, event.refunding_by_id, dict[int, DomainError]()
    while run.has_time and (batch := _claim(event, seen)):
        if len(batch) == _BATCH and not seen:
            # There is more than one worker's worth: whoever is idle takes a part of it.
            queue.soon("cancelled_events")
        for due in batch:
            if run.has_time and run.silent[due.where] < _SILENT:
                error = _refund(run, due, actor_id)
                if error is not None:
                    refused[due.payment_id] = error
        seen = batch[-1].payment_id
        _let_go([due.payment_id for due in batch])
    _tell_refused(event, refused)


def _refund(run: _Run, due: _Due, actor_id: int | None) -> DomainError | None:
    """Refund a payment, and count whether its account answers. What stands in the way, if anything does."""
    answered = run.one_by_one.do(
        due.payment_id, partial(_try_to_give_back, due.payment_id, due.left_minor, actor_id)
    )
    if isinstance(answered, DomainError):
        run.silent[due.where] += answered.code == "provider_silent"
        return answered
    if answered is not None:
        run.asked += 1
        run.silent[due.where] = 0 if answered else run.silent[due.where] + 1
    return None


def _tell_refused(event: Event, refused: dict[int, DomainError]) -> None:
    """Tell a person, once a day, what of an event's money does not go back, and why. Commits."""
    now = clock.now()
    patient = event.refunding_since is not None and now - event.refunding_since < _PATIENCE
    ids = [i for i, error in refused.items() if not (patient and error.code in _PASSING)]
    if not ids:
        return
    orders = db.session.scalars(
        select(Order)
        .join(Payment, Payment.order_id == Order.id)
        .where(Payment.id.in_(ids))
        .order_by(Order.id)
    ).all()
    why = " ".join(dict.fromkeys(refused[i].message for i in ids))
    outbox.alert(
        *alerts.not_paid_back(event, list(dict.fromkeys(orders)), why),
        key=f"not_paid_back:{event.id}:{now:%Y-%m-%d}",
    )
    db.session.commit()


def _try_to_give_back(payment_id: int, left_minor: int, actor_id: int | None) -> bool | DomainError:
    try:
        return _give_back(payment_id, left_minor, actor_id)
    except DomainError as error:
        # Somebody else refunds it at this moment; what is left then is due at the next run.
        db.session.rollback()
        log.info("refund_not_made", payment_id=payment_id, code=error.code)
        return error


def _give_back(payment_id: int, left_minor: int, actor_id: int | None) -> bool:
    """Send one payment back, and decide what waits in the inbox about it; whether the provider answered.

    Where a person makes it at the bank, nobody was asked who could be silent.
    """
    by_hand = not own_end.able(db.session.get_one(Payment, payment_id)).refund
    waiting = db.session.scalars(
        select(Incident.id).where(Incident.payment_id == payment_id, *_WAITS).order_by(Incident.id)
    ).all()
    if not waiting:
        made = refunds.request(
            payment_id, left_minor, actor_id=actor_id, reason=REASON, door="cancelled_event"
        )
        return made.state is not RefundState.CREATED or by_hand
    for incident_id in waiting:
        incident_decisions.resolve(incident_id, how="refund", reason=REASON, actor_id=actor_id)
    unanswered = select(Refund.id).filter_by(payment_id=payment_id, state=RefundState.CREATED)
    return by_hand or db.session.scalar(unanswered.limit(1)) is None


@dataclass(frozen=True)
class _Due:
    """A payment that is to go back, and what is left of it."""

    payment_id: int
    left_minor: int
    # Its provider and account.
    where: tuple[str, str]


def _claim(event: Event, after: int) -> list[_Due]:
    """The next payments to refund, by id, which no other worker has; they are this one's for a while."""
    now, left = clock.now(), _left()
    free = or_(Payment.leased_until.is_(None), Payment.leased_until <= now)
    first = (
        select(Payment.id)
        .join(Order, Order.id == Payment.order_id)
        .where(*_bought(event), Payment.id > after, left > 0, free)
        .where(~_has_refund(Refund.state.in_((*refundable.UNRESOLVED, RefundState.REVIEW))))
        .where(~_failed_since(event))
        .order_by(Payment.id)
        .limit(_BATCH)
        .with_for_update(skip_locked=True, key_share=True, of=Payment)
    )
    lease = update(Payment).where(Payment.id.in_(first)).values(leased_until=now + reconciling.LEASE)
    lease = lease.execution_options(synchronize_session=False)
    claimed = db.session.scalars(lease.returning(Payment.id)).all()
    db.session.commit()
    query = select(Payment.id, left, Payment.provider, Payment.account).where(Payment.id.in_(claimed))
    found = [
        _Due(payment_id, int(minor), (provider, account))
        for payment_id, minor, provider, account in db.session.execute(query.order_by(Payment.id))
    ]
    db.session.rollback()
    return found


def _let_go(ids: list[int]) -> None:
    """End the leases: what was not refunded is looked at again by the next run, whoever's it is. Commits."""
    mine = update(Payment).where(Payment.id.in_(ids)).values(leased_until=None)
    db.session.execute(mine.execution_options(synchronize_session=False))
    db.session.commit()


_WAITS = (Incident.kind.in_(_LATE), Incident.resolved_at.is_(None))


def _bought(event: Event) -> list[ColumnElement[bool]]:
    """The payments that bought tickets of the event, or would have, had they not come too late."""
    of_event, paid = Order.event_id == event.id, Payment.state == PaymentState.PAID
    back = or_(Incident.resolved_at.is_(None), Incident.resolution == "refund")
    late = select(Incident.id).where(Incident.payment_id == Payment.id, Incident.kind.in_(_LATE), back)
    return [of_event, or_(Payment.fulfilled.is_(True), late.exists()), paid, takings.for_tickets()]


def _has_refund(which: ColumnElement[bool]) -> ColumnElement[bool]:
    return select(Refund.id).where(Refund.payment_id == Payment.id, which).exists()


def _failed_since(event: Event) -> ColumnElement[bool]:
    """Whether a refund has ended badly since it was asked for: a person looks at it before the next try."""
    ended = Refund.state.in_(_ENDED_BADLY)
    since = event.refunding_since
    return _has_refund(and_(ended, Refund.created_at >= since) if since is not None else ended)


def _left() -> ColumnElement[int]:
    """What is left of a payment, as `refundable.refundable_minor` has it, for many at once."""
    given = (
        select(func.coalesce(func.sum(Refund.amount_minor), 0))
        .where(Refund.payment_id == Payment.id, Refund.state.in_(refundable.COUNTED))
        .scalar_subquery()
    )
    disputed = (
        select(func.coalesce(func.sum(Dispute.amount_minor), 0))
        .where(Dispute.payment_id == Payment.id, *takings.counted_disputes())
        .scalar_subquery()
    )
    return func.coalesce(Payment.received_minor, Payment.amount_minor) - given - disputed
