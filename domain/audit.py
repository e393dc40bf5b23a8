"""The audit log: who changed which role, price, text, setting, event, connection or key, from what to what.

All of it goes through `note()`. Rows that are changed through the session are noted by themselves, in the
transaction of their change and whoever changes them, be it a page, Flask-Admin or a command: `WATCHED` says
of which tables and columns. What is written by a statement of its own is noted by whoever writes it; the
tests watch every statement, and fail where one of these columns is written and nothing is noted.

What is secret, or of a person's own, is named here and its values are not. No page changes an entry.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Text,
    bindparam,
    event,
    false,
    func,
    insert,
    inspect,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import REGCONFIG
from sqlalchemy.orm import Session, joinedload, noload
from sqlalchemy.sql.expression import cast

from domain import acting, clock, folding, money, paging
from extensions import db
from models import (
    Agent,
    ApiKey,
    AuditArea,
    AuditEntry,
    Category,
    Deed,
    DeskGrant,
    DoorPass,
    Epoch,
    Event,
    Organiser,
    Page,
    Role,
    TicketType,
    Tournament,
    User,
)
from models import Connection as Account

Change = tuple[str, Any, Any]
# What stands in place of a value that is not told.
HIDDEN = "…"
_MOST_SEARCHED_LETTERS = 5000
_LONGEST_VALUE = 60_000
# Among so many of the newest entries a word is looked for one by one.
_RECENT = 10_000


@dataclass(frozen=True)
class Watch:
    """What is noted of a table. A change of `prices` or `texts` is an entry of that area, all else of `area`.

    `hidden` columns are named, and their values are not; `besides` are no decision of anybody's.
    """

    subject: str
    area: AuditArea
    columns: tuple[str, ...] = ()
    prices: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    besides: tuple[str, ...] = ()
    # Whose it is: the column with the user's id.
    owner: str = ""
    key: str = "id"
    label: Callable[[Any], str] = str
    # Whether a new row is worth an entry.
    made: Callable[[Any], bool] = lambda row: True

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.columns, *self.prices, *self.texts, *self.hidden)

    def area_of(self, name: str) -> AuditArea:
        if name in self.prices:
            return AuditArea.PRICE
        return AuditArea.TEXT if name in self.texts else self.area


_WINDOW = ("sales_open_at", "sales_close_at")
WATCHED: dict[type[Any], Watch] = {
    User: Watch(
        "user",
        AuditArea.ROLE,
        ("role", "disabled_at", "second_factor_at"),
        besides=("id", "email", "name", "password_hash", "confirmed_at", "login_epoch")
        + ("created_at", "folded", "second_factor_due", "worked_as"),
        owner="id",
        # Whose account it is says the member's row, for as long as it says it.
        label=lambda row: "",
        made=lambda row: row.role is not Role.BUYER,
    ),
    Organiser: Watch(
        "organiser",
        AuditArea.ROLE,
        ("state", "state_reason", "house_account"),
        texts=("name", "description", "website"),
        hidden=("phone", "contact_email"),
        besides=("id", "user_id", "decided_by_id", "decided_at", "created_at", "updated_at"),
        owner="user_id",
    ),
    DeskGrant: Watch(
        "desk",
        AuditArea.ROLE,
        ("email", "organiser_id", "revoked_at"),
        besides=("id", "created_at"),
        owner="organiser_id",
    ),
    Event: Watch(
        "event",
        AuditArea.EVENT,
        ("slug", "kind", "starts_at", "ends_at", "timezone", *_WINDOW, "state", "providers")
        + ("picture_id", "organiser_id", "poll_minutes", "refunding_since", "line"),
        prices=("currency",),
        texts=("title", "description", "venue", "address"),
        besides=("id", "refunding_by_id", "calendar_sequence", "moved_at", "moved_from", "news_told_at")
        + ("line_since", "line_moved_at", "thinned", "thin_again_at", "created_at", "updated_at", "folded"),
    ),
    TicketType: Watch(
        "ticket type",
        AuditArea.EVENT,
        ("event_id", "capacity", "per_order_limit", *_WINDOW, "position"),
        prices=("price_minor", "currency"),
        texts=("name", "description"),
        besides=("id", "held", "sold", "folded"),
        label=lambda row: f"{row.name}, {_event_of(row)}".strip(", "),
    ),
    Tournament: Watch(
        "tournament",
        AuditArea.EVENT,
        ("withdraw_until", "withdrawal", "public_list"),
        texts=("rules",),
        besides=("event_id",),
        key="event_id",
        label=lambda row: str(db.session.get(Event, row.event_id) or ""),
    ),
    Category: Watch(
        "category",
        AuditArea.EVENT,
        ("min_age", "max_age", "min_weight_g", "max_weight_g", "sex", "min_grade", "max_grade"),
        besides=("ticket_type_id", "public_id"),
        key="ticket_type_id",
        label=lambda row: str(db.session.get(TicketType, row.ticket_type_id) or ""),
    ),
    Page: Watch(
        "page",
        AuditArea.TEXT,
        texts=("title", "body"),
        besides=("slug", "updated_at"),
        key="slug",
        label=lambda row: f"/{row.slug}",
    ),
    Agent: Watch(
        "agent",
        AuditArea.SETTING,
        ("slug", "service", "active"),
        prices=("price_minor", "currency"),
        texts=("name", "description"),
        besides=("id", "folded"),
    ),
    Account: Watch(
        "connection",
        AuditArea.CONNECTION,
        ("provider", "account", "currency", "state", "user_id"),
        texts=("account_name",),
        besides=("id", "access_token", "refresh_token", "access_expires_at", "scope", "generation")
        + ("leased_until", "last_error", "connected_at", "refreshed_at", "ended_at"),
        owner="user_id",
        label=lambda row: f"{row.provider} {row.account}",
    ),
    ApiKey: Watch(
        "key",
        AuditArea.KEY,
        ("name", "scopes", "expires_at", "revoked_at"),
        besides=("id", "public_id", "user_id", "prefix", "key_hash", "created_at", "last_used_at"),
        owner="user_id",
        label=lambda row: f"{row.name} ({row.prefix})",
    ),
    Epoch: Watch(
        "epoch",
        AuditArea.SETTING,
        ("opened_at",),
        besides=("number", "backup_at", "began_at", "opened_by_id"),
        key="number",
        label=lambda row: f"Restored, as of {row.backup_at:%Y-%m-%d %H:%M} UTC",
    ),
    DoorPass: Watch(
        "door pass",
        AuditArea.KEY,
        ("event_id", "label", "expires_at", "revoked_at"),
        besides=("id", "token", "pin_hash", "created_by_id", "created_at", "folded"),
        label=lambda row: f"{row.label}, {_event_of(row)}".strip(", "),
    ),
}


# --- Noting ---------------------------------------------------------------------------------------------


def note(
    area: AuditArea,
    deed: Deed,
    subject: str,
    subject_id: object,
    *,
    label: str = "",
    about_id: int | None = None,
    changes: Iterable[Change] = (),
    connection: Connection | None = None,
) -> None:
    """Note one change, with who acts at this moment. No commit: it is kept or lost with the change itself.

    `about_id` is the user whose it is. `connection` is a transaction of the caller's own, if they have one.
    """
    row = _row(acting.who(), area, deed, subject, subject_id, label, about_id, changes)
    (connection or db.session.connection()).execute(_ADD, [row])


_TSVECTOR = func.to_tsvector(cast("simple", REGCONFIG), bindparam("searched", type_=Text))
_ADD = insert(AuditEntry).values(words=_TSVECTOR)


def _row(
    actor: acting.Actor,
    area: AuditArea,
    deed: Deed,
    subject: str,
    subject_id: object,
    label: str,
    about_id: int | None,
    changes: Iterable[Change],
) -> dict[str, Any]:
    told = [[name, _plain(before), _plain(after)] for name, before, after in changes]
    texts = [area.value, deed.value, subject, label, actor.door, actor.name]
    texts += [str(part) for change in told for part in change if part is not None]
    return {
        "at": clock.now(),
        "by": actor.kind,
        "door": actor.door,
        "actor_id": actor.user_id,
        "actor_name": actor.name,
        "area": area,
        "deed": deed,
        "subject": subject,
        "subject_id": str(subject_id)[:100],
        "label": label[:300],
        "about_id": about_id,
        "changes": told,
        "searched": _searched(" ".join(texts)),
    }


def _searched(said: str) -> str:
    return " ".join(_words(said[:_MOST_SEARCHED_LETTERS]))


def _words(said: str) -> list[str]:
    return [word[:100] for word in re.split(r"[\W_]+", folding.fold(said)) if word]


def _plain(value: Any) -> Any:
    """A value as it is kept: as JSON has it."""
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC".replace(":00 UTC", " UTC")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        return value[:_LONGEST_VALUE]
    return value if value is None or isinstance(value, bool | int | list) else str(value)


# --- What is noted by itself ----------------------------------------------------------------------------


def _note_flushed(session: Session, context: object) -> None:
    rows = list(_flushed(session))
    if rows:
        session.connection().execute(_ADD, rows)


def _flushed(session: Session) -> Iterator[dict[str, Any]]:
    """An entry for each row that this flush makes or removes, and for each area of one that it changes."""
    kinds = ((session.new, Deed.MADE), (session.dirty, Deed.CHANGED), (session.deleted, Deed.REMOVED))
    for rows, deed in kinds:
        for row in rows:
            watch = WATCHED.get(type(row))
            if watch is None or (deed is Deed.MADE and not watch.made(row)):
                continue
            for area, changes in _of_row(row, watch, deed):
                about = getattr(row, watch.owner) if watch.owner else None
                key, label = getattr(row, watch.key), watch.label(row)
                yield _row(acting.who(), area, deed, watch.subject, key, label, about, changes)


def _of_row(row: Any, watch: Watch, deed: Deed) -> Iterator[tuple[AuditArea, list[Change]]]:
    found = [change for name in watch.all if (change := _change(row, watch, name, deed)) is not None]
    if deed is not Deed.CHANGED:
        yield watch.area, found
        return
    for area in dict.fromkeys(watch.area_of(name) for name, *_ in found):
        yield area, [change for change in found if watch.area_of(change[0]) is area]


def _change(row: Any, watch: Watch, name: str, deed: Deed) -> Change | None:
    history = inspect(row).attrs[name].history
    before: Any = history.deleted[0] if history.deleted else None
    after: Any = getattr(row, name)
    if deed is Deed.CHANGED and (not history.has_changes() or before == after):
        return None
    if deed is Deed.MADE:
        before = None
    elif deed is Deed.REMOVED:
        before, after = after, None
    if before in (None, "") and after in (None, ""):
        return None
    if name in watch.hidden:
        return name, HIDDEN if before else before, HIDDEN if after else after
    return name, _said(row, name, before), _said(row, name, after)


def _said(row: Any, name: str, value: Any) -> Any:
    """A price in its currency; all else as it is."""
    if name != "price_minor" or value is None:
        return value
    currency = row.currency or getattr(_event_row(row), "currency", None)
    return money.show(value, currency) if currency else value


def _event_row(row: Any) -> Event | None:
    """The event that a row is of. Whoever changes one has read it; of a new one it is at hand."""
    known: Event | None = row.__dict__.get("event")
    if known is None and getattr(row, "event_id", None) is not None:
        known = db.session.get(Event, row.event_id)
    return known


def _event_of(row: Any) -> str:
    found = _event_row(row)
    return found.title if found is not None else ""


def _keep_old(row: Any, value: Any, before: Any, initiator: Any) -> None:
    """Nothing is done here: that somebody listens makes SQLAlchemy read a column before it is overwritten."""


for _model, _watch in WATCHED.items():
    for _name in _watch.all:
        event.listen(getattr(_model, _name), "set", _keep_old, active_history=True)


def watch_session() -> None:
    """Note from now on what the session changes."""
    if not event.contains(db.session, "after_flush", _note_flushed):
        event.listen(db.session, "after_flush", _note_flushed)


# --- Reading --------------------------------------------------------------------------------------------


def entries(
    words: str = "", area: AuditArea | None = None, before: int | None = None
) -> paging.Rows[AuditEntry]:
    """Entries, the newest first: of one area, and with all the words that were typed, as they begin.

    A word finds what was changed, its values, the door and the key or command, and staff by their names; an
    e-mail address finds what its owner did, and what was changed of theirs.
    """
    query = select(AuditEntry).options(joinedload(AuditEntry.actor), joinedload(AuditEntry.about))
    if area is not None:
        query = query.where(AuditEntry.area == area)
    typed = [word for word in words.replace("\x00", " ").split()[: folding.MOST_WORDS] if _words(word)]
    if not typed:
        return paging.page(query, AuditEntry.id, before)
    query = query.where(*(or_(_holds(_words(word)), _is_of(word)) for word in typed))
    first = before if before is not None else (db.session.scalar(select(func.max(AuditEntry.id))) or 0) + 1
    # What is frequent is found among the newest; what is rare, by the index of its words. PostgreSQL does not
    # know which a word is, and would read a million entries for one that three of them have.
    recent = paging.page(query.where(AuditEntry.id >= first - _RECENT), AuditEntry.id, first)
    if recent.more is not None:
        return recent
    # Deferred columns and all that is joined are read for the few that are shown.
    older = query.with_only_columns(AuditEntry.id).options(noload("*")).where(AuditEntry.id < first)
    found = older.order_by(None).cte("found").prefix_with("MATERIALIZED")
    return paging.page(
        select(AuditEntry)
        .options(joinedload(AuditEntry.actor), joinedload(AuditEntry.about))
        .where(AuditEntry.id.in_(select(found.c.id).order_by(found.c.id.desc()).limit(paging.PAGE + 1))),
        AuditEntry.id,
        None,
    )


def _holds(parts: Sequence[str]) -> ColumnElement[bool]:
    wanted = " & ".join(f"'{part}':*" for part in parts)
    return AuditEntry.words.op("@@")(func.to_tsquery(cast("simple", REGCONFIG), wanted))


def _is_of(typed: str) -> ColumnElement[bool]:
    """Whether the person who did it, or whose it is, is the one of this address, or staff of this name.

    They are looked up first: with nobody in it the question is of words alone, which an index answers.
    """
    # As the indexes of staff and of former staff have it.
    staff = select(User.id).where(User.role != literal_column(f"'{Role.BUYER.value}'"))
    staff = staff.where(folding.matches(typed, folding.searchable(User)))
    worked = select(User.id).where(User.worked_as != literal_column("''"))
    worked = worked.where(func.lower(User.worked_as) == typed.lower())
    known = select(User.id).where(func.lower(User.email) == typed.lower())
    queries = (known, worked) if "@" in typed else (staff,)
    ids = [found for query in queries for found in db.session.scalars(query.limit(50))]
    return or_(AuditEntry.actor_id.in_(ids), AuditEntry.about_id.in_(ids)) if ids else false()
