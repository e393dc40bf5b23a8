"""What a sweep works on: whose payments are due, and which of them this run has claimed.

An account each, where a provider connects several, so that none keeps another one waiting. Rows are claimed
with SKIP LOCKED and a lease: any number of sweeps on any number of machines share the work.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic

import structlog
from sqlalchemy import ColumnElement, Select, func, or_, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import joinedload

from domain import clock
from domain.payments import reconciling, settling
from domain.post import outbox
from domain.providers import registry
from domain.providers.contract import Provider, ProviderError
from domain.row_by_row import BLOCKED, BRIEFLY
from extensions import db, limited
from models import PAYMENT_ACTIVE, Payment

log = structlog.get_logger(__name__)

# A sweep lets waiting mail leave this often (seconds), for so long: one worker does both.
_GIVE_WAY = 10.0
_GIVE_WAY_FOR = 5
# A provider that left this many calls in a row unanswered is left alone until the next sweep, and so is one
# of several accounts.
_SILENT = 10
_SILENT_ACCOUNT = 3


@dataclass
class Lane:
    """The due payments of one account, claimed a few at a time: no account keeps another one waiting."""

    provider: str
    # "" is every account of a provider that connects none.
    account: str
    patience: int
    claimed: deque[Payment] = field(default_factory=deque)
    under_way: int = 0
    done: bool = False

    @property
    def key(self) -> str:
        return f"{self.provider} {self.account}".strip()

    @property
    def adapter(self) -> Provider:
        return registry.get(self.provider, self.account)

    @property
    def its(self) -> list[ColumnElement[bool]]:
        """The conditions of its payments."""
        mine = [Payment.provider == self.provider]
        return [*mine, Payment.account == self.account] if self.account else mine


@dataclass
class Work:
    """One run: its clock, its counts, and where its lines go."""

    run_id: int
    started_at: datetime
    ends: float
    tell: Callable[[str], None]
    verbose: bool
    everything: bool
    cap: int
    counts: Counter[str] = field(default_factory=Counter)
    failed_duties: int = 0
    # Duties in which the database ended the connection, so that they left something undone.
    cut_off: list[str] = field(default_factory=list)
    # Payments whose rows somebody else would not let go of.
    blocked: int = 0
    # Unanswered calls in a row, of a lane and of a provider.
    silent: Counter[str] = field(default_factory=Counter)
    mails: int = 0
    # When mail may leave next (monotonic); for ever, once it could not.
    gives_way_at: float = field(default_factory=lambda: monotonic() + _GIVE_WAY)

    @property
    def in_budget(self) -> bool:
        return monotonic() < self.ends

    @property
    def has_time(self) -> bool:
        return self.in_budget and (not self.cap or sum(self.counts.values()) < self.cap)

    def speaks(self, lane: Lane) -> bool:
        """Whether neither account nor provider was silent too often in this run."""
        return self.silent[lane.provider] < _SILENT and self.silent[lane.key] < lane.patience

    def may_ask(self, lane: Lane) -> bool:
        return self.has_time and self.speaks(lane)

    def answered(self, lane: Lane) -> None:
        self.silent.pop(lane.provider, None)
        self.silent.pop(lane.key, None)

    def unanswered(self, lane: Lane, error: ProviderError) -> None:
        self.silent[lane.key] += 1
        # A connection that is broken says nothing about the provider.
        if error.code != "not_connected":
            self.silent[lane.provider] += 1

    def give_way(self) -> None:
        """Let mail leave that became due meanwhile. Outside of any transaction."""
        if monotonic() < self.gives_way_at:
            return
        delivered = outbox.deliver_due(budget_seconds=_GIVE_WAY_FOR)
        self.mails += delivered.sent
        # A mail server that does not answer is waited for at the end, and not between the payments.
        self.gives_way_at = float("inf") if delivered.retried else monotonic() + _GIVE_WAY

    def count(self, order_code: str, verdict: str, detail: str) -> None:
        self.counts[verdict] += 1
        self.tell(f"Order {order_code}: {verdict}" + (f" ({detail})" if self.verbose else ""))


def due(work: Work) -> list[ColumnElement[bool]]:
    """The conditions of a payment that this run should look at."""
    free = or_(Payment.leased_until.is_(None), Payment.leased_until <= clock.now())
    if work.everything:
        unread = or_(Payment.last_polled_at.is_(None), Payment.last_polled_at < work.started_at)
        return [Payment.state.in_(PAYMENT_ACTIVE), unread, free]
    return [Payment.next_check_at <= work.started_at, free]


def count_due(work: Work) -> int:
    """How many payments without a final word are due."""
    active = Payment.state.in_(PAYMENT_ACTIVE)
    return db.session.scalars(select(func.count()).select_from(Payment).where(*due(work), active)).one()


def find(work: Work) -> list[Lane]:
    """Whose payments are due: an account each, where a provider connects several."""
    whose = select(Payment.provider, Payment.account).where(*due(work)).distinct()
    known: dict[str, Lane] = {}
    for name, account in db.session.execute(whose.order_by(Payment.provider, Payment.account)):
        if name not in registry.names():
            log.error("provider_gone", provider=name)
            continue
        found = lane(name, account)
        known.setdefault(found.key, found)
    db.session.commit()
    return list(known.values())


def lane(name: str, account: str) -> Lane:
    """The lane of an account, or of all accounts of a provider that connects none."""
    several = registry.get(name).connects
    return Lane(name, account if several else "", _SILENT_ACCOUNT if several else _SILENT)


def claim(ids: Select[int]) -> list[Payment]:
    """Lease the rows that `ids` selects, skipping what another sweep has, and read them with their orders."""
    claimed = list(
        db.session.scalars(
            update(Payment)
            .where(Payment.id.in_(ids.with_for_update(skip_locked=True)))
            .values(leased_until=clock.now() + reconciling.LEASE)
            .returning(Payment.id)
            .execution_options(synchronize_session=False)
        )
    )
    db.session.commit()
    if not claimed:
        return []
    return list(
        db.session.scalars(
            select(Payment)
            .where(Payment.id.in_(claimed))
            .options(joinedload(Payment.order))
            .execution_options(populate_existing=True)
        )
    )


def give_back(work: Work, lane: Lane) -> None:
    """End the leases of what this run will not get to.

    Where nobody answers for the account, the rest of what is due was thought of: it is first in the next run.
    That is written down with the leases' end, or another run that ends meanwhile finds it forgotten.
    """
    if lane.claimed:
        mine = [payment.id for payment in lane.claimed]
        db.session.execute(update(Payment).where(Payment.id.in_(mine)).values(leased_until=None))
        lane.claimed.clear()
    if not work.speaks(lane):
        rest = select(Payment.id).where(*due(work), *lane.its, Payment.next_check_at < work.started_at)
        rows = Payment.id.in_(rest.with_for_update(skip_locked=True))
        later = update(Payment).where(rows).values(next_check_at=work.started_at)
        db.session.execute(later.execution_options(synchronize_session=False))
    db.session.commit()


def unless_held(work: Work, payment_id: int, act: Callable[[], settling.Outcome]) -> settling.Outcome | None:
    """What `act` came to; None where somebody holds the payment's rows, and would not let go of them.

    Nothing of it was done then, and to note that would wait for the same rows. A lease ends by itself.
    """
    try:
        with limited(BRIEFLY) if work.blocked >= BLOCKED else nullcontext():
            return act()
    except OperationalError as error:
        db.session.rollback()
        log.warning("payment_blocked", payment=payment_id, error=type(error.orig).__name__)
        work.blocked += 1
        work.counts["error"] += 1
        return None


def tell(work: Work, lane: Lane, outcome: settling.Outcome) -> None:
    """Count an outcome and print its order's line."""
    if outcome.error is not None and not outcome.error.permanent:
        work.unanswered(lane, outcome.error)
    else:
        work.answered(lane)
    payment = db.session.get_one(Payment, outcome.payment_id)
    if outcome.state in PAYMENT_ACTIVE or outcome.changed or outcome.error is not None:
        words = poll_data(payment, payment.poll_count, payment.last_error)
        work.count(payment.order.code, outcome.verdict, words)
    db.session.rollback()
    db.session.expunge_all()


def poll_data(payment: Payment, polls: int, last_error: str = "") -> str:
    """What is told of a payment with --verbose: its account, its polls, for how long, and what went wrong."""
    now = clock.now()
    words = [
        f"{payment.reference} {payment.state} at {payment.provider}",
        f"account {payment.account}",
        f"{polls} {'poll' if polls == 1 else 'polls'}",
        f"{payment.polling_elapsed_minutes(now):.1f} of {payment.max_poll_duration_minutes} minutes",
    ]
    if not payment.should_poll:
        words.append("polling stopped")
    if last_error:
        words.append(f"last error {last_error}")
    return ", ".join(words)
