"""A restored shop before it opens: what came back, what is still to be heard, and the deed that opens it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import joinedload

from domain import acting, clock, epochs
from domain.errors import DomainError
from domain.payments import lost_money
from domain.post.outbox import FROM_BACKUP
from domain.providers import registry
from domain.providers.contract import Provider
from domain.sweep import account_history
from extensions import db
from models import (
    AccountCursor,
    Dispute,
    Epoch,
    Incident,
    MailState,
    OutboxMail,
    Payment,
    PaymentState,
    Refund,
    RefundState,
)

# Of each list so many are shown; the rest are counted.
_SHOWN = 50


@dataclass(frozen=True)
class Restored:
    """A closed shop: since when, from when its backup is, and what its accounts have told since."""

    epoch: Epoch
    # Accounts that have not told all that happened since the backup.
    unheard: Sequence[str]
    # Providers that do not tell it at all: a person writes down what came.
    silent: Sequence[Provider]
    settled: int
    settled_last: Sequence[Payment]
    refunds: Sequence[Refund]
    disputes: int
    incidents: int
    # Refunds that were asked for before the backup, and are sent when the shop opens.
    unsent_refunds: int
    mails: Sequence[OutboxMail]
    mails_waiting: int
    # Mails of what was settled since, which leave when the shop opens.
    mails_new: int


def look() -> Restored | None:
    """What an admin reads before they open it; None where the shop is open."""
    epoch = epochs.latest()
    if epoch is None or epoch.opened_at is not None:
        return None
    paid = (Payment.state == PaymentState.PAID, Payment.state_since >= epoch.began_at)
    mirrored = (Refund.made_at_provider, Refund.created_at >= epoch.began_at)
    waiting = (OutboxMail.state == MailState.DUE, OutboxMail.held_with == FROM_BACKUP)
    mails = select(OutboxMail).where(*waiting).options(joinedload(OutboxMail.order))
    settled = select(Payment).where(*paid).options(joinedload(Payment.order))
    refunds = select(Refund).where(*mirrored).options(joinedload(Refund.payment).joinedload(Payment.order))
    return Restored(
        epoch=epoch,
        unheard=_unheard(epoch),
        silent=lost_money.silent(),
        settled=_count(Payment.id, *paid),
        settled_last=db.session.scalars(settled.order_by(Payment.id.desc()).limit(_SHOWN)).all(),
        refunds=db.session.scalars(refunds.order_by(Refund.id.desc()).limit(_SHOWN)).all(),
        disputes=_count(Dispute.id, Dispute.created_at >= epoch.began_at),
        incidents=_count(Incident.id, Incident.created_at >= epoch.began_at, Incident.resolved_at.is_(None)),
        unsent_refunds=_count(
            Refund.id, Refund.state == RefundState.CREATED, Refund.created_at < epoch.began_at
        ),
        mails=db.session.scalars(mails.order_by(OutboxMail.id.desc()).limit(_SHOWN)).all(),
        mails_waiting=_count(OutboxMail.id, *waiting),
        mails_new=_count(
            OutboxMail.id,
            OutboxMail.state == MailState.DUE,
            OutboxMail.held_with.is_distinct_from(FROM_BACKUP),
        ),
    )


def mails_waiting() -> int:
    """How many mails that were due at a restored backup wait for a person still."""
    return _count(OutboxMail.id, OutboxMail.state == MailState.DUE, OutboxMail.held_with == FROM_BACKUP)


def open_shop(*, anyway: bool) -> None:
    """Sell, send back and mail again from now on; the audit log has who opened it. Commits.

    DomainError while accounts have not told what happened since the backup, unless it is to be done `anyway`.
    """
    epoch = db.session.scalar(select(Epoch).order_by(Epoch.number.desc()).limit(1).with_for_update())
    if epoch is None or epoch.opened_at is not None:
        db.session.rollback()
        raise DomainError("open_already", "The shop is open.")
    unheard = _unheard(epoch)
    if unheard and not anyway:
        db.session.rollback()
        raise DomainError(
            "unheard",
            f"Not heard of yet since the backup: {', '.join(unheard)}. Wait for the next sweep, or tick that "
            "you open it all the same.",
        )
    epoch.opened_at, epoch.opened_by_id = clock.now(), acting.who().user_id
    db.session.commit()
    epochs.look_again()


def _unheard(epoch: Epoch) -> list[str]:
    """The accounts that can be asked, and have not told all that happened until the shop was restored."""
    cursors = db.session.scalars(
        select(AccountCursor).where(AccountCursor.since < epoch.began_at).order_by(AccountCursor.id)
    ).all()
    return [
        f"{registry.title(cursor.provider)} {cursor.account}"
        for cursor in cursors
        if account_history.is_asked(cursor)
    ]


def _count(column: Any, *which: ColumnElement[bool]) -> int:
    return int(db.session.scalar(select(func.count(column)).where(*which)) or 0)
