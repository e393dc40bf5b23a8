"""Budgets: how many mails strangers may have sent to one recipient, counted in the database before the work.

Anybody may type anybody's address into a form. So what somebody has asked for who has not proven that the
address is theirs counts against one budget of that recipient, in the address's normal form, whatever it was
asked by. Above it nothing is refused and nothing is lost: the mails are held back until the hour is over, and
leave as one (`domain/post/joining.py`). A new password has a budget of its own, which nothing else can spend,
and so has the link to a place in a waiting line: who fills a mailbox must not keep its owner out of a sale.

`vic+1@` and, at Gmail, `v.ic@` are other addresses than `vic@`, and the same mailbox: they are counted as
one, and never joined into one, as elsewhere they may be other people's.

The row of a budget stays locked until its transaction ends: of many at one moment each counts the others, and
what is undone was not counted. Whoever wants stock, too, counts first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, case, delete
from sqlalchemy.dialects.postgresql import TIMESTAMP, insert

import config
from domain import addresses, clock
from extensions import db, network
from models import MailBudget, Order

HOUR = timedelta(hours=1)
# Mails to one recipient in an hour that strangers have asked for, of them for a new password, and to a line.
MAIL, RESET, LINE = "mail", "reset", "line"
MAILS, RESETS, LINES = 10, 3, 3
_MOST = {MAIL: MAILS, RESET: RESETS, LINE: LINES}
# Orders of one address from one network in an hour: a stranger elsewhere spends nothing of it.
ORDERS = 20
# Alerts of one kind in an hour: the others of it are told together.
ALERTS = 1
_KEPT = timedelta(days=1)


@dataclass(frozen=True)
class Count:
    """The how manieth of its window this was, and when the window ends."""

    number: int
    ends: datetime
    most: int = 0

    @property
    def is_above(self) -> bool:
        return self.number > self.most


def mail(recipient: str, budget: str = MAIL) -> Count:
    """Count a mail that a stranger asks for, against one of a recipient's budgets. No commit."""
    counted = count(budget, addresses.mailbox_key(recipient))
    return replace(counted, most=_MOST[budget])


def order_is_within(recipient: str, client_address: str) -> bool:
    """Count an order of this address from this network; whether it is one of those that are allowed."""
    who = f"{addresses.key(recipient)} {network(client_address)}"
    return count("order", who).number <= ORDERS


def by_stranger(order: Order) -> bool:
    """Whether whoever made the order has not proven that its address is theirs."""
    if not config.get().limits:
        return False
    user = order.user if order.user_id is not None else None
    return user is None or user.confirmed_at is None or addresses.settled(user.email) != order.email


_COUNT = insert(MailBudget.__table__).values(  # type: ignore[arg-type]
    purpose=bindparam("purpose"),
    who=bindparam("who"),
    since=bindparam("now", type_=TIMESTAMP(timezone=True)),
    count=1,
)
_OVER = MailBudget.since <= bindparam("before", type_=TIMESTAMP(timezone=True))
_COUNTED = _COUNT.on_conflict_do_update(
    index_elements=["purpose", "who"],
    set_={
        "since": case((_OVER, _COUNT.excluded.since), else_=MailBudget.since),
        "count": case((_OVER, 1), else_=MailBudget.count + 1),
    },
).returning(MailBudget.__table__.c.count, MailBudget.__table__.c.since)


def count(purpose: str, who: str, connection: Connection | None = None) -> Count:
    """Count one for `purpose` and `who`, in the session's transaction or the caller's own. No commit."""
    now = clock.now()
    values = {"purpose": purpose[:120], "who": who[:320], "now": now, "before": now - HOUR}
    number, since = (connection or db.session).execute(_COUNTED, values).one()
    return Count(number, since + HOUR, ALERTS)


def forget() -> int:
    """Forget the budgets of yesterday; how many. Commits."""
    gone = db.session.execute(delete(MailBudget).where(MailBudget.since < clock.now() - _KEPT))
    db.session.commit()
    return int(gone.rowcount)  # type: ignore[attr-defined]
