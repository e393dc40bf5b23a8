"""Mails that somebody asks for by an address alone: a new password, the links to one's orders.

Whether there is anything to send is not looked at while they wait: the request is written down alike for each
address, and whoever delivers mail sees what is behind it. So neither the answer nor its time tells a stranger
whether an address is known.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, select

import config
from domain import addresses, clock, urls
from domain.post import budgets, rows
from domain.security import one_time_links, whose
from extensions import db
from models import LinkPurpose, MailRequest, Order

RESET, LINKS = "reset_password", "order_links"
_MOST = 200
_ORDERS, _ORDERS_OF = 20, timedelta(days=400)


def ask(kind: str, typed: str) -> None:
    """Write down that somebody asked for a mail of `kind` to an address. No commit.

    DomainError for what is no address. Above its budget the request waits until the hour is over, and all of
    one address are answered by one mail then.
    """
    address, now = addresses.normal(typed), clock.now()
    due_at = now
    if config.get().limits:
        counted = budgets.mail(address, budgets.RESET if kind == RESET else budgets.MAIL)
        due_at = counted.ends if counted.is_above else now
    db.session.add(MailRequest(kind=kind, address=address, created_at=now, due_at=due_at))


def answer_due() -> int:
    """Owe the mails that were asked for; how many requests were due. Commits for each address."""
    due = select(MailRequest.kind, MailRequest.address).where(MailRequest.due_at <= clock.now())
    asked = db.session.execute(due.distinct().limit(_MOST)).all()
    db.session.commit()
    return sum(_answer(kind, address) for kind, address in asked)


def _answer(kind: str, address: str) -> int:
    """Answer what one address waits for, with one mail, in the transaction that forgets the requests."""
    found = select(MailRequest).where(MailRequest.kind == kind, MailRequest.address == address)
    requests = db.session.scalars(
        found.where(MailRequest.due_at <= clock.now()).with_for_update(skip_locked=True)
    ).all()
    if requests:
        key = f"asked:{requests[0].id}"
        if kind == RESET:
            _owe_reset(address, key)
        else:
            _owe_links(address, key)
    for request in requests:
        db.session.delete(request)
    db.session.commit()
    return len(requests)


def _owe_reset(address: str, key: str) -> None:
    found = whose.find(address)
    if found is None or not found.is_active:
        return
    user = one_time_links.lock(found.id)
    one_time_links.void(user, {LinkPurpose.RESET})
    link = one_time_links.make(user, LinkPurpose.RESET)
    rows.add(db.session, rows.due(RESET, key, user.email, None, user.id, {"link": link}) | {"unproven": True})


def _owe_links(address: str, key: str) -> None:
    """The links to the recent orders of an address, if there are any."""
    found = db.session.scalars(
        select(Order)
        .where(
            func.lower(Order.email).in_(addresses.spellings(address)),
            Order.created_at >= clock.now() - _ORDERS_OF,
        )
        .order_by(Order.id.desc())
        .limit(_ORDERS)
    ).all()
    if not found:
        return
    links = [
        {
            "code": order.code,
            "title": order.event.title
            if order.event is not None and order.sells_tickets
            else order.lines[0].description,
            "url": urls.order(order),
        }
        for order in found
    ]
    rows.add(db.session, rows.due(LINKS, key, address, None, None, {"links": links}) | {"unproven": True})
