"""Mail owed: rows written in the transaction of their cause, delivered later, at least once.

`stage()` and `alert()` only add a row; above a budget (`domain/post/budgets.py`) it waits for others, and
leaves with them. `deliver_due()` claims rows one at a time with a lease, so any number of processes share the
work, and talks to the mail server outside of any transaction. A process that dies after the server took a
letter and before that was committed leaves the row due: its second copy carries the same Message-ID.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from time import monotonic
from typing import Any

import structlog
from sqlalchemy import (
    ColumnElement,
    Connection,
    Interval,
    Text,
    Update,
    bindparam,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP

import config
from domain import addresses, clock, epochs
from domain.errors import DomainError, NotFound
from domain.post import alerts, budgets, joining, mail_kinds, mail_requests, rows, transport
from domain.post.transport import Letter, MailError
from extensions import db, own_session
from models import MailState, Order, OutboxMail, User

logger = structlog.get_logger(__name__)

# After the n-th attempt the next one waits this many minutes; after the last, nearly three days on, it fails.
BACK_OFF_MINUTES = (1, 5, 15, 60, 180, 360, 720, 720, 720, 720, 720)
MOST_ATTEMPTS = len(BACK_OFF_MINUTES) + 1
# Longer than five waits of mailing.TIMEOUT_SECONDS, which is what handing over one letter can take.
LEASE = timedelta(seconds=120)
# A claim that is older than this when the connection stands is renewed before the letter goes.
_RENEW_AFTER_SECONDS = 15
# Mails that were due when a backup was made that is restored: each waits for a person, who sends or drops it.
FROM_BACKUP = "backup"
NEVER = datetime(2999, 1, 1, tzinfo=UTC)
_NUMBERS = re.compile(r"[0-9]+ *")
# A mail that failed this often, or a fault of the mail server that lasts this long, is told to a person.
_ALERT_ATTEMPTS = 3
_ALERT_AFTER = timedelta(minutes=10)


@dataclass
class Delivery:
    """What a run of `deliver_due()` did: mails that left, failed for good, or will be tried again."""

    sent: int = 0
    failed: int = 0
    retried: int = 0

    @property
    def tried(self) -> int:
        return self.sent + self.failed + self.retried


class _Outcome(Enum):
    SENT = "sent"
    FAILED = "failed"
    RETRIED = "retried"
    STOP = "stop"


@dataclass(frozen=True)
class _Claim:
    """A row that is ours until `until`; `since` is this process's monotonic time.

    `mail` is the row as it was then, of no session, so that a commit does not make it be read once more.
    """

    mail: OutboxMail
    until: datetime
    since: float

    @property
    def mail_id(self) -> int:
        return self.mail.id


# --- Owing ----------------------------------------------------------------------------------------------


def stage(
    kind: str,
    *,
    key: str,
    to: str,
    order: Order | None = None,
    user: User | None = None,
    context: dict[str, Any] | None = None,
    unproven: bool = False,
    budget: str = budgets.MAIL,
) -> None:
    """Owe somebody a mail of a `kind` of letters.KINDS. Does nothing when `key` was staged before. No commit.

    `context` is what the kind's templates need besides the order and the user; it must be JSON. What somebody
    `unproven` asked for counts against its recipient's budget, and waits for the others when that is spent:
    `budget` is which of them.
    """
    row = _row(kind, key, to, order, user, context or {})
    if unproven and config.get().limits:
        row["unproven"] = True
        _hold_back(row, budgets.mail(row["to"], budget), budget)
    rows.add(db.session, row)


def stage_by(
    connection: Connection, kind: str, *, key: str, to: str, user_id: int, context: dict[str, Any]
) -> None:
    """The same in a transaction of the caller's own, for who has no session."""
    rows.add(connection, rows.due(kind, key, to, None, user_id, context))


def _hold_back(row: dict[str, Any], counted: budgets.Count, group: str) -> None:
    """Let a mail above its budget wait until the budget's hour is over, and leave with its group then."""
    if counted.is_above:
        row["held_with"], row["next_attempt_at"] = group, counted.ends


def _row(
    kind: str, key: str, to: str, order: Order | None, user: User | None, context: dict[str, Any]
) -> dict[str, Any]:
    if (order is not None and order.id is None) or (user is not None and user.id is None):
        db.session.flush()
    order_id, user_id = order.id if order is not None else None, user.id if user is not None else None
    return rows.due(kind, key, to, order_id, user_id, context)


def alert(subject: str, text: str, *, key: str, critical: bool = False) -> None:
    """Owe the operators an alert at PAYMENT_ALERT_EMAIL, once for each `key`. No commit.

    The first of its kind in an hour leaves at once; the others are told together when the hour is over.
    """
    if not rows.is_known(db.session, key):
        _add_alert(db.session.connection(), subject, text, key, critical)


def alert_by(connection: Connection, subject: str, text: str, *, key: str, critical: bool = False) -> None:
    """The same in a transaction of the caller's own, for who has no session."""
    if not rows.is_known(connection, key):
        _add_alert(connection, subject, text, key, critical)


def _add_alert(connection: Connection, subject: str, text: str, key: str, critical: bool) -> None:
    context = _alert_context(subject, text, critical)
    row = rows.due("alert", key, config.get().alert_email, None, None, context)
    group = f"alert:{_kind_of_alert(subject, key)}"
    _hold_back(row, budgets.count(group, row["to"], connection), group)
    if rows.add(connection, row):
        _log_alert(subject, key, critical)


def _kind_of_alert(subject: str, key: str) -> str:
    """What an alert is about without what it is about this time: orders, addresses and numbers differ."""
    # A digest begins with how many it tells of, and one is another word than two.
    words = "" if subject[:1].isdigit() else _NUMBERS.sub("", subject.partition(" - ")[0]).strip()
    return f"{key.partition(':')[0]}:{words}"[:100]


def _log_alert(subject: str, key: str, critical: bool) -> None:
    """The cause by its kind and what it is about: under the name `key` the log would hide it as a secret."""
    kind, _, about = key.partition(":")
    logger.warning("alert", kind=kind, about=about, subject=subject, critical=critical)


def _alert_context(subject: str, text: str, critical: bool = False) -> dict[str, Any]:
    prefix = f"[{config.get().site_name} {'CRITICAL' if critical else 'Alert'}]"
    return {"subject": f"{prefix} {subject}", "text": text}


# --- Delivering -----------------------------------------------------------------------------------------


def deliver_due(*, budget_seconds: float = 60, limit: int | None = None, only: str | None = None) -> Delivery:
    """Send what is due, oldest first, until nothing is, `limit` mails were tried, or the budget has passed.

    `only` is the key of the one mail to send, for a process that must not take on the others' work. Commits
    what its caller has begun, and for each mail. Without mail settings everything stays due. A
    mail server that cannot be reached ends the run; a single bad mail does not.
    """
    done = Delivery()
    if not config.get().mail_ready:
        return done
    ends = monotonic() + budget_seconds
    with own_session(), transport.transport() as way:
        if epochs.is_closed():
            # A restored shop mails nobody before a person has opened it.
            return done
        if only is None:
            mail_requests.answer_due()
            joining.join_due()
        while (limit is None or done.tried < limit) and monotonic() < ends:
            claim = _claim(only)
            if claim is None:
                break
            outcome = _deliver(claim, way)
            done.sent += outcome is _Outcome.SENT
            done.failed += outcome is _Outcome.FAILED
            done.retried += outcome in (_Outcome.RETRIED, _Outcome.STOP)
            if outcome is _Outcome.STOP:
                break
    return done


def _claiming(*conditions: ColumnElement[bool]) -> Update:
    """Take the mail that has waited longest and meets `conditions`: count the attempt, set the next one."""
    now = bindparam("now", type_=TIMESTAMP(timezone=True))
    first = (
        select(OutboxMail.id)
        .where(OutboxMail.state == MailState.DUE, OutboxMail.next_attempt_at <= now, *conditions)
        .where(OutboxMail.held_with.is_(None))
        .where(or_(OutboxMail.leased_until.is_(None), OutboxMail.leased_until < now))
        .order_by(OutboxMail.next_attempt_at, OutboxMail.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    # PostgreSQL counts an array from 1, as attempts are counted.
    minutes = f"(ARRAY{list(BACK_OFF_MINUTES)})[least(outbox.attempts + 1, {len(BACK_OFF_MINUTES)})]"
    return (
        update(OutboxMail)
        .where(OutboxMail.id == first.scalar_subquery())
        .values(
            attempts=OutboxMail.attempts + 1,
            leased_until=bindparam("until", type_=TIMESTAMP(timezone=True)),
            next_attempt_at=now + literal_column(f"{minutes} * interval '1 minute'", Interval),
        )
        .returning(OutboxMail)
        .execution_options(synchronize_session=False, populate_existing=True)
    )


_CLAIM = _claiming()


def _claim(only: str | None) -> _Claim | None:
    """Take the mail that has waited longest, for LEASE. Commits.

    The attempt is counted and the next one set before anything is tried, so that a letter that kills its
    process is not tried for ever.
    """
    now = clock.now()
    values = {"now": now, "until": now + LEASE}
    mail = db.session.scalar(_CLAIM if only is None else _claiming(OutboxMail.key == only), values)
    if mail is None:
        db.session.rollback()
        return None
    db.session.expunge(mail)
    db.session.commit()
    return _Claim(mail, now + LEASE, monotonic())


def _deliver(claim: _Claim, way: transport.Transport) -> _Outcome:
    if claim.mail.attempts > MOST_ATTEMPTS:
        return _not_sent(claim, MailError("Whatever tried to send it died.", permanent=True))
    try:
        letter = _compose(claim)
        way.ready()
        if not _still_ours(claim):
            return _Outcome.RETRIED
        way.send(letter)
    except MailError as error:
        return _not_sent(claim, error)
    return _sent(claim)


def _compose(claim: _Claim) -> Letter:
    """The letter of a claimed row, with no transaction left open. MailError when it cannot be written."""
    try:
        return mail_kinds.compose(claim.mail)
    except Exception as error:
        # Whatever a template or a document stumbles over concerns this mail only: the others must go on.
        logger.exception("mail_not_composed", mail_id=claim.mail_id)
        raise MailError(f"It could not be written: {type(error).__name__}: {error}") from error
    finally:
        db.session.rollback()


def _still_ours(claim: _Claim) -> bool:
    """Renew a claim that connecting has made old; False when another process has taken the row meanwhile."""
    if monotonic() - claim.since < _RENEW_AFTER_SECONDS:
        return True
    renewed = db.session.scalar(
        update(OutboxMail)
        .where(OutboxMail.id == claim.mail_id, OutboxMail.leased_until == claim.until)
        .values(leased_until=clock.now() + LEASE)
        .returning(OutboxMail.id)
        .execution_options(synchronize_session=False)
    )
    db.session.commit()
    return renewed is not None


_SENT = (
    update(OutboxMail)
    .where(OutboxMail.id == bindparam("mail_id"))
    .values(
        state=MailState.SENT,
        sent_at=bindparam("now", type_=TIMESTAMP(timezone=True)),
        leased_until=None,
        last_error="",
        # Secret links have reached their reader, and need not lie in the database any longer.
        context=OutboxMail.context.op("-", return_type=JSONB)(literal(["link", "links"], ARRAY(Text))),
    )
    .execution_options(synchronize_session=False)
)


def _sent(claim: _Claim) -> _Outcome:
    mail = claim.mail
    db.session.execute(_SENT, {"mail_id": mail.id, "now": clock.now()})
    logger.info("mail_sent", kind=mail.kind, mail_id=mail.id, order_id=mail.order_id, attempt=mail.attempts)
    db.session.commit()
    return _Outcome.SENT


def _not_sent(claim: _Claim, error: MailError) -> _Outcome:
    """Write down why, fail what cannot succeed, and tell a person where that is due. Commits."""
    mail = _locked(claim.mail_id)
    mail.last_error = str(error)[:500]
    mail.leased_until = None
    given_up = error.permanent or mail.attempts >= MOST_ATTEMPTS
    if given_up:
        mail.state = MailState.FAILED
        mail.next_attempt_at = None
    log = logger.error if given_up else logger.warning
    log("mail_not_sent", kind=mail.kind, mail_id=mail.id, attempt=mail.attempts, error=mail.last_error)
    _tell(mail, error)
    db.session.commit()
    if given_up:
        return _Outcome.FAILED
    return _Outcome.STOP if error.everyone else _Outcome.RETRIED


def _locked(mail_id: int) -> OutboxMail:
    return db.session.get_one(OutboxMail, mail_id, with_for_update=True, populate_existing=True)


# --- Telling somebody -----------------------------------------------------------------------------------


def _tell(mail: OutboxMail, error: MailError) -> None:
    """Alert a person where that is due: once for an outage, once or twice for a mail that fails alone.

    An alert that cannot be sent makes no further ones.
    """
    given_up = mail.state is MailState.FAILED
    if not error.permanent and (error.everyone or _nothing_leaves(mail)):
        _tell_of_outage(mail)
    elif mail.kind != "alert" and (given_up or mail.attempts >= _ALERT_ATTEMPTS):
        words = alerts.mail_failed(mail.kind, mail.to, mail.last_error, order=mail.order, given_up=given_up)
        alert(*words, key=f"mail:{mail.id}:{'failed' if given_up else 'failing'}")


def _nothing_leaves(mail: OutboxMail) -> bool:
    """Whether the fault seems not to be this mail's: others fail too, and none has left since it was owed."""
    left = select(OutboxMail.id).where(OutboxMail.sent_at > mail.created_at)
    failing = select(OutboxMail.id).where(
        OutboxMail.state == MailState.DUE, OutboxMail.last_error != "", OutboxMail.id != mail.id
    )
    return db.session.scalar(left.limit(1)) is None and db.session.scalar(failing.limit(1)) is not None


def _tell_of_outage(mail: OutboxMail) -> None:
    """One alert for each outage, which is what lies between two mails that left."""
    waiting, oldest = db.session.execute(
        select(func.count(), func.min(OutboxMail.created_at)).where(OutboxMail.state == MailState.DUE)
    ).one()
    if oldest is None or (clock.now() - oldest < _ALERT_AFTER and mail.attempts < _ALERT_ATTEMPTS):
        return
    last_sent = db.session.scalar(select(func.max(OutboxMail.sent_at)))
    since = last_sent.isoformat() if last_sent is not None else "ever"
    alert(*alerts.mail_failing(waiting, oldest, mail.last_error), key=f"mail-failing:{since}")


# --- By hand --------------------------------------------------------------------------------------------


def retry(mail_id: int) -> None:
    """Make a mail due at once, or when its lease ends, with all its attempts before it. Commits.

    DomainError when it has left already.
    """
    mail = db.session.get(OutboxMail, mail_id, with_for_update=True, populate_existing=True)
    if mail is None:
        raise NotFound("no_mail", "There is no such mail.")
    if mail.state is MailState.SENT:
        db.session.rollback()
        raise DomainError("already_sent", "This mail has been sent. Send the order's tickets again instead.")
    mail.state = MailState.DUE
    mail.attempts = 0
    mail.held_with = None
    mail.next_attempt_at = clock.now()
    db.session.commit()


def drop(mail_id: int) -> None:
    """Never send a mail that was due when a restored backup was made. Commits; DomainError for any other."""
    mail = db.session.get(OutboxMail, mail_id, with_for_update=True, populate_existing=True)
    if mail is None or mail.state is not MailState.DUE or mail.held_with != FROM_BACKUP:
        db.session.rollback()
        raise DomainError("not_waiting", "This mail does not wait for a decision any more.")
    mail.state, mail.next_attempt_at = MailState.FAILED, None
    mail.last_error = "Not sent: it was due before the backup, and a person dropped it."
    db.session.commit()


def send_test(address: str) -> str:
    """Send a test mail to `address` now, past the outbox. A sentence of what happened, or DomainError.

    The operators' own address gets a test alert, in the form of every alert.
    """
    settings = config.get()
    if not settings.mail_ready:
        raise DomainError("mail_not_set", "Mail is not set up. Set MAIL_SERVER, or MAIL_API_KEY for Resend.")
    row = OutboxMail(
        kind="test", to=transport.one_line(addresses.settled(address), addresses.LONGEST), context={}
    )
    row.message_id, row.created_at = rows.new_message_id(), clock.now()
    if row.to == settings.alert_email:
        row.kind, row.context = "alert", _alert_context(*alerts.test())
    try:
        with transport.transport() as way:
            way.ready()
            way.send(mail_kinds.compose(row))
    except MailError as error:
        raise DomainError("mail_failed", f"The test mail to {address} was not accepted. {error}") from error
    taken = f"{transport.describe()} accepted a test mail to {address}."
    return f"{taken} Look in its inbox, and in its spam folder."
