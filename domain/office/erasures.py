"""To be forgotten: what would go, what must stay until when and why, asking for it, and doing it.

A member asks, after proving themselves again, and has a week to take it back; an admin asks for whoever
wrote to the shop, and it is done at once. It is refused in words while something is still to happen: a ticket
to come, money on its way, a wallet that is not empty. What is refused only on the day is tried again daily.

Afterwards a hash tells whose address it was, and no more. Where an older state of the data comes back, the
same is done `again()` by these lines, which are in the log, too, and printed by `flask users erasures`.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import ColumnElement, func, or_, select, union
from sqlalchemy.exc import IntegrityError

import config
from domain import addresses, audit, clock, rendering
from domain.errors import DomainError, NotFound
from domain.office import erasing, standing
from domain.people import accounts
from domain.post import outbox
from domain.security import one_time_links
from extensions import db, queue
from models import AuditArea, Deed, Erasure, ErasureState, MailState, Order, OutboxMail, Payment, User

log = structlog.get_logger(__name__)

THINK_AGAIN = timedelta(days=7)
_TRY_AGAIN = timedelta(days=1)
_BATCH = 100
_LONGEST_REASON = 300
# So that who has a list of the lines and a list of addresses still has some work to do.
_ROUNDS = 1000


@dataclass(frozen=True)
class Stays:
    """What is not forgotten with the rest: until when, and why."""

    what: str
    until: datetime | None
    why: str


@dataclass(frozen=True)
class Plan:
    """What forgetting an address would do now; `problems` are why it cannot be done yet, in words."""

    address: str
    user: User | None
    orders: int
    problems: tuple[str, ...]
    goes: tuple[str, ...]
    stays: tuple[Stays, ...]
    asked: Erasure | None

    @property
    def is_known(self) -> bool:
        return self.user is not None or self.orders > 0


# --- What it would do -----------------------------------------------------------------------------------


def plan(email: str) -> Plan:
    """What is known of an address, and what would become of it. Only reads. DomainError for no address."""
    address = addresses.normal(email)
    user = accounts.find(address)
    mine = _orders_of(address, user)
    number = db.session.scalar(select(func.count()).select_from(Order).where(mine)) or 0
    years = config.get().books_kept_years
    until = _kept_until(mine)
    paid = db.session.scalar(select(func.count()).select_from(Order).where(mine, _in_books())) or 0
    goes = []
    if user is not None:
        goes.append("The account: name, address, password, logins, keys, and all athletes with it.")
    if number:
        goes.append(
            f"Of {_many(number, 'order')}: e-mail and network address, ticket holders, what the mails said, "
            "and notes; and the name, where nothing was paid."
        )
    stays = []
    if until is not None:
        why = f"The law asks for books to be kept for {years} years: who paid how much, when and for what."
        stays.append(
            Stays(f"The name on {_many(paid, 'paid order')}, with its amounts and dates", until, why)
        )
    if number:
        why = "Sums and seats have to add up. No person is in them any more."
        stays.append(Stays("Order codes, amounts, dates and tickets, without a person", None, why))
    return Plan(
        address,
        user,
        number,
        tuple(standing.problems(mine, user)),
        tuple(goes),
        tuple(stays),
        waiting(address),
    )


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _orders_of(address: str, user: User | None) -> ColumnElement[bool]:
    """The orders of an address, however it is spelled, and of the account that it is of."""
    by_address = func.lower(Order.email).in_(addresses.spellings(address))
    return by_address if user is None else or_(by_address, Order.user_id == user.id)


def _in_books() -> ColumnElement[bool]:
    """Whether an order's buyer is still in the books: something was paid, and not too long ago."""
    since = clock.now() - timedelta(days=round(config.get().books_kept_years * 365.25))
    paid = func.coalesce(Payment.paid_at, Payment.created_at) >= since
    kept = select(Payment.id).where(Payment.order_id == Order.id, Payment.received_minor.is_not(None), paid)
    return kept.correlate(Order).exists()


def _kept_until(mine: ColumnElement[bool]) -> datetime | None:
    # The rows of the books alone: what is older has gone, or goes at once.
    orders = select(Order.id).where(mine, _in_books())
    last = db.session.scalar(
        select(func.max(func.coalesce(Payment.paid_at, Payment.created_at))).where(
            Payment.order_id.in_(orders), Payment.received_minor.is_not(None)
        )
    )
    return last and last + timedelta(days=round(config.get().books_kept_years * 365.25))


def waiting(address: str) -> Erasure | None:
    """The one that was asked for and is not done yet."""
    query = select(Erasure).where(
        func.lower(Erasure.address) == address.lower(), Erasure.state == ErasureState.ASKED
    )
    return db.session.scalar(query)


def listed() -> list[Erasure]:
    """The newest, for admins."""
    return list(db.session.scalars(select(Erasure).order_by(Erasure.id.desc()).limit(100)))


# --- Asking ---------------------------------------------------------------------------------------------


def ask(user: User, password: str, *, client_address: str = "", device: str = "") -> Erasure:
    """A member asks to be forgotten in a week. Commits, and mails them how to take it back.

    DomainError for a wrong password, and in words while something is in the way.
    """
    accounts.prove(user, password, client_address=client_address, device=device)
    found = _ask(user.email, by=None, due_at=clock.now() + THINK_AGAIN, reason="")
    context = {"link": f"{config.get().public_url}/account/data", "due": _day(found.due_at)}
    key = f"erasure:{found.id}:asked"
    outbox.stage("erasure_asked", key=key, to=user.email, user=user, context=context)
    _commit()
    return found


def ask_for(email: str, admin: User, reason: str) -> Erasure:
    """An admin asks for whoever wrote to the shop: it is done within minutes. Commits."""
    words = " ".join(reason.split())
    if not words:
        raise DomainError("reason_needed", "Say who asked for it, and how: it is kept in the audit log.")
    if len(words) > _LONGEST_REASON:
        raise DomainError("reason_too_long", f"That is too long: at most {_LONGEST_REASON} characters.")
    found = _ask(email, by=admin, due_at=clock.now(), reason=words)
    db.session.commit()
    queue.soon("forget")
    return found


def _ask(email: str, *, by: User | None, due_at: datetime, reason: str) -> Erasure:
    seen = plan(email)
    if not seen.is_known:
        raise NotFound("nobody", "Nothing is kept about this address.")
    if seen.problems:
        raise DomainError("not_yet", " ".join(seen.problems))
    if seen.user is not None:
        one_time_links.lock(seen.user.id)
    asked = waiting(seen.address)
    if asked is not None and by is None:
        raise DomainError("asked_already", f"You have asked already: it is done on {_day(asked.due_at)}.")
    if asked is None:
        asked = Erasure(address=seen.address, line="", waits_for="", asked_at=clock.now())
        db.session.add(asked)
    asked.user_id = seen.user.id if seen.user is not None else None
    asked.by_id, asked.due_at = by.id if by is not None else None, due_at
    try:
        db.session.flush()
    except IntegrityError as error:
        db.session.rollback()
        raise DomainError("asked_already", "Somebody has asked for it at this moment already.") from error
    changes = [("due_at", None, due_at), ("reason", None, reason)]
    _note(asked, Deed.MADE, changes)
    return asked


def _note(row: Erasure, deed: Deed, changes: Iterable[audit.Change] = ()) -> None:
    audit.note(AuditArea.PERSON, deed, "erasure", row.id, about_id=row.user_id, changes=changes)


def take_back(user: User) -> None:
    """A member wants to stay. Commits. NotFound where they have asked for nothing."""
    found = db.session.scalar(
        select(Erasure)
        .where(Erasure.user_id == user.id, Erasure.state == ErasureState.ASKED)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if found is None:
        raise NotFound("not_asked", "There is nothing to take back: you have not asked to be forgotten.")
    if found.due_at <= clock.now():
        # Half of it may be gone at this moment.
        raise DomainError("too_late", "The week is over, and it is being done: it cannot be taken back now.")
    found.state, found.address, found.ended_at = ErasureState.TAKEN_BACK, "", clock.now()
    found.waits_for = ""
    _note(found, Deed.REMOVED)
    db.session.commit()


def _day(moment: datetime) -> str:
    return rendering.when(moment, config.get().timezone, "d MMMM y")


def _commit() -> None:
    db.session.commit()
    queue.soon("deliver_mail")


# --- Doing it -------------------------------------------------------------------------------------------


def run_due() -> int:
    """Do what is due, and finish what the books no longer need; how many. Commits as it goes."""
    now, done = clock.now(), 0
    due = select(Erasure.id).where(Erasure.state == ErasureState.ASKED, Erasure.due_at <= now)
    for erasure_id in db.session.scalars(due.order_by(Erasure.due_at).limit(100)).all():
        done += _do(erasure_id)
    _forget_the_news()
    kept = select(Erasure).where(Erasure.kept_until <= now, Erasure.finished_at.is_(None)).limit(100)
    for row in db.session.scalars(kept).all():
        if row.user_id is not None:
            _each(Order.user_id == row.user_id, Order.name != "", last=True)
        row.finished_at = clock.now()
        db.session.commit()
        done += 1
    return done


def _do(erasure_id: int, line: str = "") -> bool:
    """Forget whoever an erasure is about, unless something is in the way now. Commits as it goes.

    `line` is the one by which they were known, where they were forgotten before.

    A process that dies in between leaves the erasure asked for, and the next one goes on.
    """
    row = _locked(erasure_id)
    if row is None:
        return False
    address, user = row.address, accounts.find(row.address)
    mine = _orders_of(address, user)
    found = list(standing.problems(mine, user))
    if found:
        row.waits_for, row.due_at = " ".join(found)[:500], clock.now() + _TRY_AGAIN
        db.session.commit()
        return False
    until = _kept_until(mine)
    db.session.commit()
    _each(mine, Order.email != addresses.GONE, last=False)
    row = _locked(erasure_id)
    if row is None:
        return False
    spelled, name = addresses.spellings(address), user.name if user is not None else ""
    if user is not None:
        erasing.account(one_time_links.lock(user.id))
    erasing.address(spelled)
    row.state, row.address, row.line = ErasureState.DONE, "", line or line_of(address, _salt())
    row.ended_at, row.kept_until, row.waits_for = clock.now(), until, ""
    row.finished_at = None if until is not None else clock.now()
    _note(row, Deed.CHANGED, [("state", "asked", "done")])
    erasing.said_of_erasure(row.id, {address, addresses.shown(address), name})
    if not line:
        # The last mail that this address gets; its row is emptied as soon as it has left.
        told = {"until": _day(until) if until is not None else ""}
        outbox.stage("erasure_done", key=f"erasure:{row.id}:done", to=address, context=told)
    line = row.line
    _commit()
    log.info("erased", erasure=erasure_id, line=line)
    return True


def _locked(erasure_id: int) -> Erasure | None:
    """One that is still asked for, locked; None where it was done, or taken back."""
    row = db.session.get(Erasure, erasure_id, with_for_update=True, populate_existing=True)
    if row is None or row.state is not ErasureState.ASKED:
        db.session.rollback()
        return None
    return row


def _each(*which: ColumnElement[bool], last: bool) -> None:
    """Go through orders in batches; `last`: their names go too, whatever was paid. Commits for each."""
    after = 0
    while True:
        orders = db.session.scalars(
            select(Order)
            .where(*which, Order.id > after)
            .order_by(Order.id)
            .limit(_BATCH)
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        ).all()
        if not orders:
            db.session.rollback()
            return
        after = orders[-1].id
        ids = [order.id for order in orders]
        in_books = select(Order.id).where(Order.id.in_(ids), _in_books())
        books = set() if last else set(db.session.scalars(in_books))
        free = [order for order in orders if order.id not in books]
        erasing.names(free)
        erasing.contacts(orders)
        db.session.commit()


def _forget_the_news() -> None:
    """The last mail to somebody who was forgotten has left: its row does not keep the address either."""
    lately = select(Erasure.id).where(
        Erasure.state == ErasureState.DONE, Erasure.ended_at > clock.now() - timedelta(days=30)
    )
    keys = [f"erasure:{row}:done" for row in db.session.scalars(lately)]
    rows = select(OutboxMail).where(
        OutboxMail.key.in_(keys), OutboxMail.state != MailState.DUE, OutboxMail.to != addresses.GONE
    )
    for mail in db.session.scalars(rows):
        mail.to, mail.context, mail.last_error = addresses.GONE, {}, ""
    db.session.commit()


# --- By hash, after a restore ---------------------------------------------------------------------------


def line_of(address: str, salt: str) -> str:
    """What is kept of an address that was forgotten: it is known again, and not read."""
    key = addresses.key(address).encode()
    return f"1:{salt}:{hashlib.pbkdf2_hmac('sha256', key, salt.encode(), _ROUNDS).hex()}"


def _salt() -> str:
    """One for all lines of a shop, so that a restored shop's addresses are hashed once and not for each."""
    known = db.session.scalar(select(Erasure.line).where(Erasure.line != "").order_by(Erasure.id).limit(1))
    return known.split(":")[1] if known else secrets.token_hex(16)


def lines() -> list[str]:
    """All that was forgotten here, a line each: what to keep beside backups."""
    return list(db.session.scalars(select(Erasure.line).where(Erasure.line != "").order_by(Erasure.id)))


@dataclass(frozen=True)
class Again:
    """What `again` did: how many people of the lines are here, and are forgotten once more or wait for it."""

    found: int
    done: int
    waiting: int


def again(told: Iterable[str]) -> Again:
    """Forget once more, in data that was restored, whoever these lines are about. Commits.

    What is in the way of it is waited for, as on any other day. Lines of no known form are passed over.
    """
    wanted: dict[str, set[str]] = {}
    for text in told:
        parts = text.strip().split(":")
        if len(parts) == 3 and parts[0] == "1":
            wanted.setdefault(parts[1], set()).add(text.strip())
    found = {
        address: line
        for address in _everybody()
        for salt, known in wanted.items()
        if (line := line_of(address, salt)) in known
    }
    for address in found:
        if waiting(addresses.settled(address)) is None:
            user = accounts.find(address)
            db.session.add(
                Erasure(
                    address=addresses.settled(address),
                    user_id=user.id if user is not None else None,
                    line="",
                    waits_for="",
                    asked_at=clock.now(),
                    due_at=clock.now(),
                )
            )
        db.session.commit()
    done = 0
    for address, line in found.items():
        row = waiting(addresses.settled(address))
        done += row is not None and _do(row.id, line)
    return Again(len(found), done, len(found) - done)


def _everybody() -> Iterator[str]:
    """Each address that somebody is known by here, once."""
    query = union(select(func.lower(User.email).label("address")), select(func.lower(Order.email)).distinct())
    yield from (one for one in db.session.scalars(query).all() if not one.endswith(addresses.GONE))
