"""To be forgotten: what would go, what must stay until when and why, asking for it, and doing it.

A member asks, after proving themselves again, and has a week to take it back; an admin asks for whoever
wrote to the shop, and it is done at once. It is refused in words while something is still to happen: a ticket
to come, money on its way, a wallet that is not empty. What is refused only on the day is tried again daily.

Afterwards a hash under a key of ours tells whose address it was, and no more: without the key nobody can try
addresses at it. Where an older state of the data comes back, the same is done `again()` by these lines, which
lie beside the backups, are in the log, and are printed by `flask users erasures`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.exc import IntegrityError

import config
from domain import addresses, audit, clock, rendering
from domain.backups import forgotten
from domain.errors import DomainError, NotFound
from domain.office import erasing, standing
from domain.people import accounts, organisers
from domain.post import outbox
from domain.security import one_time_links
from extensions import db, queue
from models import (
    AuditArea,
    Deed,
    DeskGrant,
    Erasure,
    ErasureState,
    Incident,
    LinePlace,
    MailRequest,
    MailState,
    Order,
    OutboxMail,
    Payment,
    Transfer,
    User,
)

log = structlog.get_logger(__name__)

THINK_AGAIN = timedelta(days=7)
_TRY_AGAIN = timedelta(days=1)
_BATCH = 100
_LONGEST_REASON = 300
# A log hides what could be a card's number, as some of these lines by chance: there their digits are letters.
_AS_LETTERS = str.maketrans("0123456789", "ghijklmnop")
_AS_DIGITS = str.maketrans("ghijklmnop", "0123456789")
# Of lines of an earlier version, which were made without a key.
_ROUNDS = 1000
# Addresses are read in parts, where everybody's is looked at.
_PART = 5_000


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

    # Whether anything else stands at the address: mails that went there, a place in a line, a desk.
    traces: bool = False

    @property
    def is_known(self) -> bool:
        return self.user is not None or self.orders > 0 or self.traces


# --- What it would do -----------------------------------------------------------------------------------


def plan(email: str) -> Plan:
    """What is known of an address, and what would become of it. Only reads. DomainError for no address."""
    address = addresses.normal(email)
    user, spelled = accounts.find(address), addresses.spellings(address)
    mine = _orders_of(address, user)
    number = db.session.scalar(select(func.count()).select_from(Order).where(mine)) or 0
    traces = _has_traces(spelled)
    return Plan(
        address,
        user,
        number,
        tuple(standing.problems(mine, user, spelled)),
        tuple(_goes(user, number, traces)),
        tuple(_stays(mine, user, number)),
        waiting(address),
        traces,
    )


def _has_traces(spelled: Sequence[str]) -> bool:
    """Whether something is kept by the address alone."""
    at = (
        (OutboxMail.id, OutboxMail.to),
        (DeskGrant.id, DeskGrant.email),
        (LinePlace.id, LinePlace.email),
        (MailRequest.id, MailRequest.address),
    )
    queries = [select(key).where(func.lower(column).in_(spelled)).limit(1) for key, column in at]
    queries.append(select(Incident.id).where(erasing.is_payer(spelled)).limit(1))
    return any(db.session.scalar(query) is not None for query in queries)


def _goes(user: User | None, number: int, traces: bool) -> Iterator[str]:
    if user is not None:
        yield "The account: name, address, password, logins, keys, and all athletes with it."
    if number:
        yield (
            f"Of {_many(number, 'order')}: e-mail and network address, ticket holders, what the mails said, "
            "and notes; and the name, where nothing was paid."
        )
    if traces:
        yield (
            "What stands at the address alone: mails that went there, places in waiting lines, desks, and "
            "who made payments that have no order."
        )


def _stays(mine: ColumnElement[bool], user: User | None, number: int) -> Iterator[Stays]:
    years = config.get().books_kept_years
    until, worked = _kept_until(mine, user), erasing.has_worked(user) if user is not None else None
    if until is not None:
        paid = db.session.scalar(select(func.count()).select_from(Order).where(mine, _in_books())) or 0
        why = f"The law asks for books to be kept for {years} years: who paid how much, when and for what."
        what = f"The name on {_many(paid, 'paid order')}, with its amounts and dates"
        if user is not None and _moved(user) is not None:
            what += ", and what moved in the wallet"
        yield Stays(f"{what}, the card’s last four digits and the reasons of refunds", until, why)
    if worked is not None:
        why = "Whoever changes something for others is answerable for it. It is in the audit log alone."
        yield Stays("The address, beside what was done here for others", worked + _books(), why)
        why = "It goes with the buyers of each event, by its age."
        yield Stays("The name, at doors where they let people in", None, why)
    if worked is not None and user is not None and organisers.of(user) is not None:
        why = "Buyers of their events have it on their tickets and in their books."
        yield Stays("The organiser’s name", worked + _books(), why)
    if number:
        why = "Sums and seats have to add up. No person is in them any more."
        yield Stays("Order codes, amounts, dates and tickets, without a person", None, why)
        why = "It is theirs: ask them, and your bank."
        yield Stays("What payment providers keep of payments", None, why)


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _orders_of(address: str, user: User | None) -> ColumnElement[bool]:
    """The orders of an address, however it is spelled, and of the account that it is of."""
    by_address = func.lower(Order.email).in_(addresses.spellings(address))
    return by_address if user is None else or_(by_address, Order.user_id == user.id)


def _books() -> timedelta:
    return timedelta(days=round(config.get().books_kept_years * 365.25))


def _in_books() -> ColumnElement[bool]:
    """Whether an order's buyer is still in the books: something was paid, and not too long ago."""
    paid = func.coalesce(Payment.paid_at, Payment.created_at) >= clock.now() - _books()
    kept = select(Payment.id).where(Payment.order_id == Order.id, Payment.received_minor.is_not(None), paid)
    return kept.correlate(Order).exists()


def _kept_until(mine: ColumnElement[bool], user: User | None) -> datetime | None:
    """Until when the books need something of theirs; None where they need nothing."""
    # The rows of the books alone: what is older has gone, or goes at once.
    orders = select(Order.id).where(mine, _in_books())
    last = db.session.scalar(
        select(func.max(func.coalesce(Payment.paid_at, Payment.created_at))).where(
            Payment.order_id.in_(orders), Payment.received_minor.is_not(None)
        )
    )
    moved = _moved(user) if user is not None else None
    found = [at + _books() for at in (last, moved) if at is not None]
    return max(found, default=None)


def _moved(user: User) -> datetime | None:
    """When something last moved in the wallet, as far as the books look back."""
    wallet = f"wallet:{user.id}"
    theirs = or_(Transfer.debit == wallet, Transfer.credit == wallet)
    at: datetime | None = db.session.scalar(select(func.max(Transfer.created_at)).where(theirs))
    return at if at is not None and at >= clock.now() - _books() else None


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
    asked = asked or Erasure(address=seen.address, line="", waits_for="", asked_at=clock.now())
    asked.user_id = seen.user.id if seen.user is not None else None
    asked.by_id, asked.due_at = by.id if by is not None else None, due_at
    db.session.add(asked)
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
    if done:
        # A backup of yesterday has them still: who restores it reads whom to forget again.
        forgotten.keep_if_it_can_be()
    _forget_the_news()
    kept = select(Erasure).where(Erasure.kept_until <= now, Erasure.finished_at.is_(None)).limit(100)
    for erasure_id in [row.id for row in db.session.scalars(kept)]:
        _finish(erasure_id)
        done += 1
    return done


def _finish(erasure_id: int) -> None:
    """The books need no more what they kept of somebody. Commits as it goes."""
    row = db.session.get_one(Erasure, erasure_id)
    theirs: ColumnElement[bool] = Order.id.in_(row.kept_orders)
    if row.user_id is not None:
        theirs = or_(theirs, Order.user_id == row.user_id)
    _each(None, theirs, Order.name != "")
    row = db.session.get_one(Erasure, erasure_id, with_for_update=True, populate_existing=True)
    if row.user_id is not None:
        erasing.books_of(one_time_links.lock(row.user_id))
    row.kept_orders, row.finished_at = [], clock.now()
    db.session.commit()


def _do(erasure_id: int, line: str = "") -> bool:
    """Forget whoever an erasure is about, unless something is in the way now. Commits as it goes.

    `line` is the one by which they were known, where they were forgotten before.

    A process that dies in between leaves the erasure asked for, and the next one goes on.
    """
    row = _locked(erasure_id)
    if row is None:
        return False
    address, user = row.address, accounts.find(row.address)
    mine, spelled = _orders_of(address, user), addresses.spellings(address)
    if _waits(row, mine, user, spelled):
        return False
    # A run that died on the way has noted what it kept, and has taken by whom it was known.
    until = _until(or_(mine, Order.id.in_(row.kept_orders)), user)
    name = user.name if user is not None else ""
    _each(erasure_id, mine, Order.email != addresses.GONE)
    row = _locked(erasure_id)
    if row is None:
        return False
    if user is not None:
        # Nobody orders for this account from here on; what was ordered since the look above is seen now.
        user = one_time_links.lock(user.id)
    if _waits(row, mine, user, spelled):
        return False
    erasing.told_to_staff({*spelled, name}, spelled)
    if user is not None:
        erasing.account(user)
    erasing.address(spelled)
    row.state, row.address, row.line = ErasureState.DONE, "", line or line_of(address)
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
    log.info("erased", erasure=erasure_id, line=line.translate(_AS_LETTERS))
    return True


def _waits(row: Erasure, mine: ColumnElement[bool], user: User | None, spelled: Sequence[str]) -> bool:
    """Whether something is in the way now: it is written down, and looked at again in a day. Commits then."""
    found = list(standing.problems(mine, user, spelled))
    if found:
        row.waits_for, row.due_at = " ".join(found)[:500], clock.now() + _TRY_AGAIN
        db.session.commit()
    return bool(found)


def _until(mine: ColumnElement[bool], user: User | None) -> datetime | None:
    """Until when anything stays that has the person in it."""
    worked = erasing.has_worked(user) if user is not None else None
    ends = (_kept_until(mine, user), worked + _books() if worked is not None else None)
    return max((at for at in ends if at is not None), default=None)


def _locked(erasure_id: int) -> Erasure | None:
    """One that is still asked for, locked; None where it was done, or taken back."""
    row = db.session.get(Erasure, erasure_id, with_for_update=True, populate_existing=True)
    if row is None or row.state is not ErasureState.ASKED:
        db.session.rollback()
        return None
    return row


def _each(erasure_id: int | None, *which: ColumnElement[bool]) -> None:
    """Go through orders in batches, and note at the erasure where names stay. Commits for each.

    Without an erasure their names go too, whatever was paid.
    """
    after = 0
    while True:
        # Before its orders, as everywhere.
        row = _locked(erasure_id) if erasure_id is not None else None
        orders = db.session.scalars(
            select(Order)
            .where(*which, Order.id > after)
            .order_by(Order.id)
            .limit(_BATCH)
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        ).all()
        if not orders or (row is None) != (erasure_id is None):
            db.session.rollback()
            return
        after = orders[-1].id
        ids = [order.id for order in orders]
        in_books = select(Order.id).where(Order.id.in_(ids), _in_books())
        books = set(db.session.scalars(in_books)) if row is not None else set()
        if row is not None:
            spelled = {one for order in orders for one in addresses.spellings(order.email)}
            said = {one for o in orders for one in (o.name, o.client_address, o.network or "")}
            erasing.told_to_staff(spelled | said, sorted(spelled))
            erasing.said_of_erasure(row.id, spelled | said)
            row.kept_orders = [*row.kept_orders, *sorted(books)]
        erasing.names([order for order in orders if order.id not in books])
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


def line_of(address: str, key: bytes | None = None) -> str:
    """What is kept of an address that was forgotten: it is known again by who has the key, and not read."""
    key = key or config.get().derived_key(_PURPOSE)
    said = hmac.new(key, addresses.key(address).encode(), hashlib.sha256).hexdigest()
    return f"2:{_mark(key)}:{said}"


_PURPOSE = "erasures"


def _mark(key: bytes) -> str:
    """By which a line says under which key it was made."""
    return hashlib.blake2b(key, digest_size=4).hexdigest()


def _keys() -> dict[str, bytes]:
    """Every key that a line may have been made under. Who has a revoked one can try addresses, no more."""
    settings = config.get()
    keys = (*settings.derived_keys(_PURPOSE), *settings.revoked_keys(_PURPOSE))
    return {_mark(key): key for key in keys}


def _line_without_key(address: str, salt: str) -> str:
    """A line as the version before made them."""
    key = addresses.key(address).encode()
    return f"1:{salt}:{hashlib.pbkdf2_hmac('sha256', key, salt.encode(), _ROUNDS).hex()}"


def lines() -> list[str]:
    """All that was forgotten here, a line each: what to keep beside backups."""
    return list(db.session.scalars(select(Erasure.line).where(Erasure.line != "").order_by(Erasure.id)))


@dataclass(frozen=True)
class Again:
    """What `again` did: how many people of the lines are here, and are forgotten once more or wait for it.

    `unreadable` lines were made under a SECRET_KEY that is not set here.
    """

    found: int
    done: int
    waiting: int
    unreadable: int = 0

    @property
    def words(self) -> str:
        said = f"{self.found} of them are here: {self.done} forgotten again, {self.waiting} wait."
        if self.unreadable:
            said += (
                f" {_many(self.unreadable, 'line')} cannot be read: put the SECRET_KEY of then into "
                "SECRET_KEY_ROTATED or SECRET_KEY_REVOKED, and do this again."
            )
        return said


def again(told: Iterable[str]) -> Again:
    """Forget once more, in data that was restored, whoever these lines are about. Commits.

    What is in the way of it is waited for, as on any other day. Lines of no known form are passed over.
    """
    wanted: dict[tuple[str, str], set[str]] = {}
    for text in told:
        line = text.strip().translate(_AS_DIGITS)
        parts = line.split(":")
        if len(parts) == 3 and parts[0] in ("1", "2"):
            wanted.setdefault((parts[0], parts[1]), set()).add(line)
    keys = _keys()
    unreadable = sum(len(known) for (form, by), known in wanted.items() if form == "2" and by not in keys)
    ways = [
        (partial(line_of, key=keys[by]) if form == "2" else partial(_line_without_key, salt=by), known)
        for (form, by), known in wanted.items()
        if form == "1" or by in keys
    ]
    found = {
        address: line for address in _everybody() for make, known in ways if (line := make(address)) in known
    }
    for address in found:
        _ask_again(addresses.settled(address))
    done = 0
    for address, line in found.items():
        row = waiting(addresses.settled(address))
        done += row is not None and _do(row.id, line)
    return Again(len(found), done, len(found) - done, unreadable)


def _ask_again(address: str) -> None:
    if waiting(address) is None:
        user, now = accounts.find(address), clock.now()
        row = Erasure(address=address, line="", waits_for="", asked_at=now, due_at=now)
        row.user_id = user.id if user is not None else None
        db.session.add(row)
    db.session.commit()


def _everybody() -> Iterator[str]:
    """Each address that somebody is known by here; some more than once."""
    payer = func.coalesce(Incident.evidence["payer"]["email"].astext, "")
    known = (User.id, User.email), (Order.id, Order.email), (OutboxMail.id, OutboxMail.to)
    for key, column in (*known, (Incident.id, payer)):
        last = 0
        while True:
            rows = db.session.execute(select(key, column).where(key > last).order_by(key).limit(_PART)).all()
            yield from {email.lower() for _, email in rows if not email.endswith(addresses.GONE)}
            if len(rows) < _PART:
                break
            last = rows[-1][0]
