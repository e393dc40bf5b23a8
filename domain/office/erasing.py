"""What is taken out of orders and accounts; what stays has nobody in it, or is for the books.

Nothing here decides whether it may be done: that is `erasures.py` for who asks, and `thinning.py` for age.
Each function works in its caller's transaction, on rows that nobody will pay or be paid by any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, cast, delete, func, literal, or_, select, text, update
from sqlalchemy.dialects.postgresql import JSONB

from domain import addresses, clock, search_words
from extensions import db
from models import (
    PAYMENT_ACTIVE,
    ApiKey,
    ApiRequest,
    ApiSession,
    Athlete,
    AuditEntry,
    CheckIn,
    Connection,
    Consent,
    DeskGrant,
    Device,
    Dispute,
    DisputeState,
    Incident,
    LinePlace,
    Login,
    LoginCode,
    MailBudget,
    MailRequest,
    MailState,
    OneTimeLink,
    Order,
    OrderLine,
    OrderState,
    Organiser,
    OutboxMail,
    Participant,
    Payment,
    PaymentState,
    RecoveryCode,
    Refund,
    RefundState,
    Role,
    SecondFactor,
    Ticket,
    TimelineEntry,
    User,
)

# What stands where a name or an address stood in a sentence.
BLANK = "…"
# The day of birth of nobody: the column must have one.
_NO_DAY = date(1900, 1, 1)
# What is typed about a buyer, or repeats their address; of other entries only the name and address go.
_TYPED = ("noted", "resent", "address_corrected")
_UNRESOLVED = (RefundState.CREATED, RefundState.PENDING, RefundState.REVIEW)
_WAITING = (OrderState.PENDING, OrderState.PENDING_VERIFICATION, OrderState.REVIEW)


def is_open() -> ColumnElement[bool]:
    """Whether money of an order is still on its way, or somebody has to decide about it."""
    of_order = Payment.order_id == Order.id
    refunds = select(Refund.id).join(Payment, Payment.id == Refund.payment_id).where(of_order)
    disputes = select(Dispute.id).join(Payment, Payment.id == Dispute.payment_id).where(of_order)
    return or_(
        Order.state.in_(_WAITING),
        select(Payment.id)
        .where(of_order, Payment.state.in_((*PAYMENT_ACTIVE, PaymentState.REVIEW)))
        .correlate(Order)
        .exists(),
        refunds.where(Refund.state.in_(_UNRESOLVED)).correlate(Order).exists(),
        disputes.where(Dispute.state == DisputeState.OPEN).correlate(Order).exists(),
        select(Incident.id)
        .where(Incident.order_id == Order.id, Incident.resolved_at.is_(None))
        .correlate(Order)
        .exists(),
    )


# --- Orders ---------------------------------------------------------------------------------------------


def contacts(orders: Sequence[Order]) -> None:
    """Take out of orders by whom they are reached, and who came with them; the buyer's name stays."""
    for order in orders:
        _sentences(order)
    ids = [order.id for order in orders]
    for order in orders:
        order.email, order.client_address, order.network = addresses.GONE, "", None
    db.session.execute(delete(LinePlace).where(LinePlace.order_id.in_(ids)))
    _update(OrderLine, OrderLine.order_id.in_(ids), OrderLine.holder != "", holder="")
    _update(Ticket, Ticket.order_id.in_(ids), Ticket.holder != "", holder="")
    tickets = select(Ticket.id).where(Ticket.order_id.in_(ids))
    nobody = literal({"holder": ""}, JSONB)
    _update(CheckIn, CheckIn.ticket_id.in_(tickets), detail=CheckIn.detail.op("||")(nobody))
    _update(Participant, Participant.order_id.in_(ids), club="", weight_g=None)
    _letters(OutboxMail.order_id.in_(ids))
    _update(
        Payment,
        Payment.order_id.in_(ids),
        Payment.state.not_in(PAYMENT_ACTIVE),
        params={},
        url=None,
        return_url="",
        last_error="",
    )
    # Of what a provider said about strange money, the sums stay in columns of their own.
    _update(Incident, Incident.order_id.in_(ids), evidence={})
    db.session.flush()
    search_words.renew(db.session.connection(), ids)


def names(orders: Sequence[Order]) -> None:
    """Take the buyers' names out, where the books need them no more. After `contacts`."""
    for order in orders:
        _sentences(order)
        order.name = ""


def _sentences(order: Order) -> None:
    """Take the buyer's name and address out of what was written about the order."""
    entries = TimelineEntry.order_id == order.id
    _update(TimelineEntry, entries, TimelineEntry.what.in_(_TYPED), text=BLANK)
    for said in sorted({order.email, addresses.shown(order.email), order.name} - {"", addresses.GONE}):
        for column, of in (
            (TimelineEntry.text, entries),
            (Refund.reason, Refund.payment_id.in_(select(Payment.id).where(Payment.order_id == order.id))),
        ):
            _update(
                column.class_,
                of,
                column.contains(said, autoescape=True),
                **{column.key: func.replace(column, said, BLANK)},
            )
        _update(
            TimelineEntry, entries, cast(TimelineEntry.data, Text).contains(said, autoescape=True), data={}
        )


def _letters(which: ColumnElement[bool]) -> None:
    """Mails that have left keep when, and of which kind; what has not left does not leave any more."""
    _update(OutboxMail, which, to=addresses.GONE, context={}, last_error="", held_with=None)
    _update(
        OutboxMail,
        which,
        OutboxMail.state == MailState.DUE,
        state=MailState.FAILED,
        next_attempt_at=None,
        last_error=addresses.GONE_WORDS,
    )


def staff_of_event(event_id: int) -> None:
    """Forget who stood at the door of an event: what they typed as their name."""
    scans = literal({"by": ""}, JSONB)
    _update(CheckIn, CheckIn.event_id == event_id, by="", undone_by="", detail=CheckIn.detail.op("||")(scans))
    _update(Ticket, Ticket.event_id == event_id, Ticket.checked_in_by != "", checked_in_by="")


# --- Accounts -------------------------------------------------------------------------------------------


def account(user: User) -> None:
    """Empty a member's account: nobody can log in, and nobody is in it. What leads to it leads to no one."""
    for model in (Login, Device, LoginCode, SecondFactor, RecoveryCode, OneTimeLink, ApiSession, ApiKey):
        db.session.execute(delete(model).where(model.user_id == user.id))
    db.session.execute(delete(ApiRequest).where(ApiRequest.caller == f"user:{user.id}"))
    athletes(db.session.scalars(select(Athlete).where(Athlete.user_id == user.id)))
    profile = db.session.scalar(select(Organiser).where(Organiser.user_id == user.id))
    if profile is not None:
        profile.description = profile.website = profile.phone = profile.contact_email = ""
        profile.state_reason = ""
    for row in db.session.scalars(select(Connection).where(Connection.user_id == user.id)):
        row.account_name = row.access_token = row.refresh_token = ""
    _letters(OutboxMail.user_id == user.id)
    user.email, user.name, user.password_hash = f"account-{user.id}-{addresses.GONE}", "", ""
    user.role, user.confirmed_at = Role.BUYER, None
    user.disabled_at = user.disabled_at or clock.now()
    user.login_epoch += 1
    user.second_factor_at = user.second_factor_due = None
    db.session.flush()
    # After the flush, which notes what this has changed.
    about = AuditEntry.about_id == user.id
    empty = {"label": "", "changes": [], "words": func.to_tsvector(text("'simple'"), literal(""))}
    _update(AuditEntry, about, AuditEntry.subject.not_in(("user", "erasure")), **empty)


def address(spellings: Sequence[str]) -> None:
    """What is kept by an address alone: mails of no order, and desks that it was given."""
    _letters(func.lower(OutboxMail.to).in_(spellings))
    # Some are of the address from one network, which is named behind it.
    db.session.execute(delete(MailBudget).where(func.split_part(MailBudget.who, " ", 1).in_(spellings)))
    db.session.execute(delete(LinePlace).where(func.lower(LinePlace.email).in_(spellings)))
    db.session.execute(delete(MailRequest).where(func.lower(MailRequest.address).in_(spellings)))
    grants = list(db.session.scalars(select(DeskGrant).where(func.lower(DeskGrant.email).in_(spellings))))
    for grant in grants:
        grant.revoked_at, grant.email = grant.revoked_at or clock.now(), addresses.GONE
    db.session.flush()
    empty = {"label": "", "changes": [], "words": func.to_tsvector(text("'simple'"), literal(""))}
    ids = [str(grant.id) for grant in grants]
    _update(AuditEntry, AuditEntry.subject == "desk", AuditEntry.subject_id.in_(ids), **empty)


def said_of_erasure(erasure_id: int, said: Iterable[str]) -> None:
    """Take a person out of the reason that an admin typed when they were to be forgotten."""
    entries = AuditEntry.subject == "erasure", AuditEntry.subject_id == str(erasure_id)
    for entry in db.session.scalars(select(AuditEntry).where(*entries)):
        changes = [list(change) for change in entry.changes]
        for word in sorted(set(said) - {""}, key=len, reverse=True):
            changes = [
                [part.replace(word, BLANK) if isinstance(part, str) else part for part in change]
                for change in changes
            ]
        if changes != entry.changes:
            entry.changes = changes
            entry.words = func.to_tsvector(text("'simple'"), literal("erasure"))


def athletes(rows: Iterable[Athlete]) -> None:
    """Forget athletes. One who was entered leaves an entry with nobody's name; others leave nothing."""
    for row in rows:
        entered = select(Participant.id).where(Participant.athlete_id == row.id).limit(1)
        if db.session.scalar(entered) is None:
            db.session.execute(delete(Consent).where(Consent.athlete_id == row.id))
            db.session.delete(row)
            continue
        row.name, row.birth_date, row.sex, row.club = "", _NO_DAY, None, ""
        row.weight_g = row.weight_at = row.grade = None
        row.removed_at = row.removed_at or clock.now()


def removed_athletes_of(event_id: int, still: ColumnElement[bool]) -> None:
    """Forget athletes of a past tournament whom their member has removed, unless `still` needs them."""
    entered = select(Participant.athlete_id).join(Order, Order.id == Participant.order_id)
    rows = select(Athlete).where(
        and_(Athlete.removed_at.is_not(None), Athlete.name != ""),
        Athlete.id.in_(entered.where(Order.event_id == event_id)),
        Athlete.id.not_in(entered.where(still)),
    )
    athletes(list(db.session.scalars(rows)))


def _update(model: Any, *where: ColumnElement[bool], **values: object) -> None:
    db.session.execute(
        update(model).where(*where).values(**values).execution_options(synchronize_session=False)
    )
