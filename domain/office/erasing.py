"""What is taken out of orders and accounts; what stays has nobody in it, or is for the books.

Nothing here decides whether it may be done: that is `erasures.py` for who asks, and `thinning.py` for age.
Each function works in its caller's transaction, on rows that nobody will pay or be paid by any more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Text,
    and_,
    case,
    cast,
    delete,
    func,
    literal,
    null,
    or_,
    select,
    update,
)
from sqlalchemy import text as sql_text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import InstrumentedAttribute

from domain import addresses, clock, search_words
from extensions import db
from models import (
    OF_OTHERS,
    PAYMENT_ACTIVE,
    ApiKey,
    ApiRequest,
    ApiSession,
    Athlete,
    AuditEntry,
    BillerAnswer,
    CheckIn,
    Connection,
    Consent,
    DeskGrant,
    Device,
    Dispute,
    DisputeState,
    DoorPass,
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
    ToldReport,
    Transfer,
    User,
    Wallet,
    WalletHold,
)

# What stands where a name or an address stood in a sentence.
BLANK = "…"
# A shorter part of a name is a word of many sentences.
_SHORTEST_NAME = 3
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


def is_payer(spellings: Sequence[str]) -> ColumnElement[bool]:
    """Whether money that has no order came from an address, by its provider's word."""
    payer = func.lower(Incident.evidence["payer"]["email"].astext)
    return and_(Incident.order_id.is_(None), payer.in_(spellings))


# --- Orders ---------------------------------------------------------------------------------------------


def contacts(orders: Sequence[Order]) -> None:
    """Take out of orders by whom they are reached, and who came with them; the buyer's name stays."""
    _sentences(orders)
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
    _update(Incident, Incident.order_id.in_(ids), evidence=_SUMS_ALONE)
    db.session.flush()
    search_words.renew(db.session.connection(), ids)


# What a provider said, and who paid, goes; by what it said an old report is known again stays.
_SUMS_ALONE = Incident.evidence.op("-", return_type=JSONB)(
    literal(["provider", "payer", "told"], ARRAY(Text))
)


def names(orders: Sequence[Order]) -> None:
    """Take the buyers' names out, where the books need them no more, and by what else they paid."""
    if not orders:
        return
    _sentences(orders)
    ids = [order.id for order in orders]
    for order in orders:
        order.name = order.failure_reason = ""
    payments = select(Payment.id).where(Payment.order_id.in_(ids))
    _update(Payment, Payment.order_id.in_(ids), last_four="", reason="")
    _update(Refund, Refund.payment_id.in_(payments), reason="", failure_reason="")
    _update(Incident, Incident.order_id.in_(ids), resolution_reason="")
    _update(Ticket, Ticket.order_id.in_(ids), Ticket.state_reason != "", state_reason="")
    told = ToldReport.payment_id.in_(payments)
    # A name of its own for each, for money is known by it.
    bare = literal("gone-").op("||")(cast(ToldReport.id, Text))
    _update(ToldReport, told, note="", reference=case((ToldReport.reference == "", ""), else_=bare))
    reports = select(ToldReport.id).where(told)
    _update(BillerAnswer, BillerAnswer.told_id.in_(reports), account="", answer="")
    _update(Transfer, Transfer.order_id.in_(ids), description="")


# Where somebody types, or a provider says, something of an order in words; and by which table it is found.
_WORDS: tuple[tuple[InstrumentedAttribute[str], InstrumentedAttribute[Any]], ...] = (
    (TimelineEntry.text, TimelineEntry.order_id),
    (Refund.reason, Payment.order_id),
    (Refund.failure_reason, Payment.order_id),
    (Incident.resolution_reason, Incident.order_id),
    (Payment.reason, Payment.order_id),
    (Order.failure_reason, Order.id),
    (Ticket.state_reason, Ticket.order_id),
    (Transfer.description, Transfer.order_id),
)


def _sentences(orders: Sequence[Order]) -> None:
    """Take each buyer's name and address out of what was written about their orders."""
    ids = [order.id for order in orders]
    entries = TimelineEntry.order_id.in_(ids)
    _update(TimelineEntry, entries, TimelineEntry.what.in_(_TYPED), text=BLANK)
    forgets = {order.id: Forgets((order.email, addresses.shown(order.email), order.name)) for order in orders}
    for column, of in _WORDS:
        model = column.class_
        query = select(model.id, of, column).where(of.in_(ids), column != "")
        if model is Refund:
            query = query.join(Payment, Payment.id == Refund.payment_id)
        for row_id, order_id, said in db.session.execute(query).all():
            forgets[order_id].out_of_row(column, row_id, said)
    rows = select(TimelineEntry.id, TimelineEntry.order_id, TimelineEntry.data)
    for row_id, order_id, data in db.session.execute(rows.where(entries, TimelineEntry.data != {})).all():
        if forgets[order_id].anybody_in(json.dumps(data, ensure_ascii=False)):
            _update(TimelineEntry, TimelineEntry.id == row_id, data={})


class Forgets:
    """Takes addresses and names out of sentences: a name whole, and each part of it that is a word there."""

    def __init__(self, said: Iterable[str]) -> None:
        whole = {word for word in said if word and not word.endswith(addresses.GONE)}
        parts = {part for word in whole if "@" not in word for part in word.split()}
        words = sorted(whole | {part for part in parts if len(part) >= _SHORTEST_NAME}, key=len, reverse=True)
        said_in = "|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in words)
        self._found = re.compile(said_in, re.IGNORECASE) if words else None

    def anybody_in(self, text: str) -> bool:
        return self._found is not None and self._found.search(text) is not None

    def out_of(self, text: str) -> str:
        """The sentence, with BLANK where somebody was named in it."""
        return self._found.sub(BLANK, text) if self._found is not None else text

    def out_of_row(self, column: InstrumentedAttribute[str], row_id: int, text: str) -> None:
        """Write a row's text anew where it names somebody. No commit."""
        if self.anybody_in(text):
            _update(column.class_, column.class_.id == row_id, **{column.key: self.out_of(text)})


def told_to_staff(said: Iterable[str], spellings: Sequence[str]) -> None:
    """Take a person out of the mails to staff that tell of them: those that name one of their addresses."""
    forgets = Forgets(said)
    telling = cast(OutboxMail.context, Text)
    named = or_(*(telling.icontains(_in_json(one), autoescape=True) for one in spellings))
    rows = select(OutboxMail.id, OutboxMail.key, OutboxMail.context).where(sql_text(OF_OTHERS), named)
    for row_id, key, context in db.session.execute(rows).all():
        told = {
            name: forgets.out_of(value) if isinstance(value, str) else value
            for name, value in context.items()
        }
        bare = f"erased:{row_id}" if forgets.anybody_in(key) else key
        _update(OutboxMail, OutboxMail.id == row_id, context=told, key=bare)


def _in_json(word: str) -> str:
    return json.dumps(word, ensure_ascii=False)[1:-1]


def _letters(which: ColumnElement[bool]) -> None:
    """Mails that have left keep when, and of which kind; what has not left does not leave any more."""
    due = OutboxMail.state == MailState.DUE
    # The version before named an address in some.
    bare = literal("erased:").op("||")(cast(OutboxMail.id, Text))
    _update(
        OutboxMail,
        which,
        to=addresses.GONE,
        context={},
        held_with=None,
        key=case((OutboxMail.key.contains("@"), bare), else_=OutboxMail.key),
        state=case((due, literal(MailState.FAILED, OutboxMail.state.type)), else_=OutboxMail.state),
        next_attempt_at=case((due, null()), else_=OutboxMail.next_attempt_at),
        last_error=case((due, addresses.GONE_WORDS), else_=""),
    )


def staff_of_event(event_id: int) -> None:
    """Forget who stood at the door of an event: what they typed as their name, and whose pass it was."""
    scans = literal({"by": ""}, JSONB)
    _update(CheckIn, CheckIn.event_id == event_id, by="", undone_by="", detail=CheckIn.detail.op("||")(scans))
    _update(Ticket, Ticket.event_id == event_id, Ticket.checked_in_by != "", checked_in_by="")
    passes = select(DoorPass).where(DoorPass.event_id == event_id, DoorPass.label != BLANK)
    for door_pass in db.session.scalars(passes):
        door_pass.label = BLANK
        db.session.flush()
        _unsaid(AuditEntry.subject == "door pass", AuditEntry.subject_id == str(door_pass.id))


# --- Accounts -------------------------------------------------------------------------------------------


def account(user: User) -> None:
    """Empty a member's account: nobody can log in, and nobody is in it. What leads to it leads to no one."""
    keys = db.session.scalars(select(ApiKey.id).where(ApiKey.user_id == user.id)).all()
    callers = [f"user:{user.id}", *(f"key:{key}" for key in keys)]
    for model in (Login, Device, LoginCode, SecondFactor, RecoveryCode, OneTimeLink, ApiSession, ApiKey):
        db.session.execute(delete(model).where(model.user_id == user.id))
    db.session.execute(delete(ApiRequest).where(ApiRequest.caller.in_(callers)))
    athletes(db.session.scalars(select(Athlete).where(Athlete.user_id == user.id)))
    profile = db.session.scalar(select(Organiser).where(Organiser.user_id == user.id))
    if profile is not None:
        profile.description = profile.website = profile.phone = profile.contact_email = ""
        profile.state_reason = ""
    for row in db.session.scalars(select(Connection).where(Connection.user_id == user.id)):
        row.account_name = row.access_token = row.refresh_token = ""
    # Who answered for them has nobody to answer for.
    _desks(DeskGrant.organiser_id == user.id)
    _letters(OutboxMail.user_id == user.id)
    if has_worked(user) is not None:
        user.worked_as = user.email
    user.email, user.name, user.password_hash = f"account-{user.id}-{addresses.GONE}", "", ""
    user.role, user.confirmed_at = Role.BUYER, None
    user.disabled_at = user.disabled_at or clock.now()
    user.login_epoch += 1
    user.second_factor_at = user.second_factor_due = None
    db.session.flush()
    # After the flush, which notes what this has changed.
    _unsaid(AuditEntry.about_id == user.id, AuditEntry.subject.not_in(("user", "erasure")))


def has_worked(user: User) -> datetime | None:
    """When somebody last changed or sent back what is others', or got or lost a role; None for a buyer."""
    entries, newest = select(AuditEntry.at), AuditEntry.id.desc()
    others = AuditEntry.about_id.is_distinct_from(user.id)
    role = AuditEntry.subject == "user", AuditEntry.changes.contains([["role"]])
    last = (
        # By their number, which is their order: of who did much, the newest is found at once.
        entries.where(AuditEntry.actor_id == user.id, others).order_by(newest),
        entries.where(AuditEntry.about_id == user.id, *role).order_by(newest),
        select(func.max(Refund.created_at)).where(Refund.at_desk, Refund.actor_id == user.id),
    )
    found = [db.session.scalar(query.limit(1)) for query in last]
    return max((at for at in found if at is not None), default=None)


def books_of(user: User) -> None:
    """What the books and the audit log kept of an account: it goes when they need it no more."""
    user.worked_as = ""
    wallet = f"wallet:{user.id}"
    theirs = or_(Transfer.debit == wallet, Transfer.credit == wallet)
    _update(Transfer, theirs, description="")
    wallets = select(Wallet.id).where(Wallet.user_id == user.id)
    _update(WalletHold, WalletHold.wallet_id.in_(wallets), description="")
    profile = db.session.scalar(select(Organiser).where(Organiser.user_id == user.id))
    if profile is not None:
        profile.name = BLANK
        db.session.flush()
        _unsaid(AuditEntry.about_id == user.id, AuditEntry.subject == "organiser")


def address(spellings: Sequence[str]) -> None:
    """What is kept by an address alone: mails of no order, and desks that it was given."""
    forgets = Forgets(spellings)
    # Orders that are somebody else's now, and were mailed here before their address was corrected.
    others = select(OutboxMail.order_id).where(
        func.lower(OutboxMail.to).in_(spellings), OutboxMail.order_id.is_not(None)
    )
    entries = select(TimelineEntry.id, TimelineEntry.text).where(TimelineEntry.order_id.in_(others))
    for row_id, said in db.session.execute(entries).all():
        forgets.out_of_row(TimelineEntry.text, row_id, said)
    # What was sent to a provider is sent again as it was while the payment is open, and no longer.
    over = Payment.order_id.in_(others), Payment.state.not_in(PAYMENT_ACTIVE)
    for payment in db.session.scalars(select(Payment).where(*over, Payment.params != {})):
        if forgets.anybody_in(json.dumps(payment.params, ensure_ascii=False)):
            payment.params = {}
    _letters(func.lower(OutboxMail.to).in_(spellings))
    # Some are of the address from one network, which is named behind it.
    db.session.execute(delete(MailBudget).where(func.split_part(MailBudget.who, " ", 1).in_(spellings)))
    db.session.execute(delete(LinePlace).where(func.lower(LinePlace.email).in_(spellings)))
    db.session.execute(delete(MailRequest).where(func.lower(MailRequest.address).in_(spellings)))
    _update(Incident, is_payer(spellings), Incident.resolved_at.is_not(None), evidence=_SUMS_ALONE)
    _desks(func.lower(DeskGrant.email).in_(spellings))


def _desks(which: ColumnElement[bool]) -> None:
    """End desks, and forget to whom they were given."""
    grants = list(db.session.scalars(select(DeskGrant).where(which, DeskGrant.email != addresses.GONE)))
    for grant in grants:
        grant.revoked_at, grant.email = grant.revoked_at or clock.now(), addresses.GONE
    db.session.flush()
    ids = [str(grant.id) for grant in grants]
    _unsaid(AuditEntry.subject == "desk", AuditEntry.subject_id.in_(ids))


def _unsaid(*which: ColumnElement[bool]) -> None:
    """Take the words and values out of entries of the audit log: who did what, when, to what stays."""
    empty = {"label": "", "changes": [], "words": func.to_tsvector(sql_text("'simple'"), literal(""))}
    _update(AuditEntry, *which, **empty)


def strange_money(before: datetime) -> int:
    """Forget who paid what had no order and was decided before a moment; of how much."""
    old = Incident.order_id.is_(None), Incident.resolved_at < before, Incident.evidence.has_key("payer")
    done = update(Incident).where(*old).values(evidence=_SUMS_ALONE)
    done = done.execution_options(synchronize_session=False)
    return len(db.session.scalars(done.returning(Incident.id)).all())


def said_of_erasure(erasure_id: int, said: Iterable[str]) -> None:
    """Take a person out of the reason that an admin typed when they were to be forgotten."""
    forgets = Forgets(said)
    entries = AuditEntry.subject == "erasure", AuditEntry.subject_id == str(erasure_id)
    for entry in db.session.scalars(select(AuditEntry).where(*entries)):
        changes = [
            [forgets.out_of(part) if isinstance(part, str) else part for part in change]
            for change in entry.changes
        ]
        if changes != entry.changes:
            entry.changes = changes
            entry.words = func.to_tsvector(sql_text("'simple'"), literal("erasure"))


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
        # Each asked by itself: all who are still needed are nearly everybody.
        ~entered.where(Participant.athlete_id == Athlete.id, still).correlate(Athlete).exists(),
    )
    athletes(list(db.session.scalars(rows)))


def _update(model: Any, *where: ColumnElement[bool], **values: object) -> None:
    db.session.execute(
        update(model).where(*where).values(**values).execution_options(synchronize_session=False)
    )
