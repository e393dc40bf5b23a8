"""Mails held back above a budget, joined into one for each recipient when the budget's hour is over.

A single one leaves as it is. What has been overtaken meanwhile, such as the link of an order that is paid by
now and whose tickets have left, is not told again; and a link that ends has its whole time before it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from domain import addresses, clock, urls
from domain.post import budgets, mail_kinds, rows
from domain.security import one_time_links
from extensions import db
from models import MailState, Order, OrderState, OutboxMail

# Recipients in one run, and mails of one recipient; the next run, a minute later, takes the others.
_MOST_GROUPS, _MOST_MAILS = 200, 500
# What one joined mail shows in full.
_MOST_SHOWN = 100
# What each kind says of an order is of use while it is so: what could be paid is paid or over by now, what
# had ended is being paid again. And nobody is told of an order whose address was corrected to another one.
_TRUE_WHILE = {
    "order_received": (OrderState.PENDING, OrderState.PENDING_VERIFICATION),
    "payment_failed": (OrderState.FAILED,),
    "order_expired": (OrderState.EXPIRED,),
    "order_cancelled": (OrderState.CANCELLED,),
}


def join_due() -> int:
    """Let what was held back until now leave as one for each recipient; how many that were. Commits."""
    now = clock.now()
    waiting = (OutboxMail.state == MailState.DUE, OutboxMail.held_with.is_not(None))
    groups = db.session.execute(
        select(OutboxMail.to, OutboxMail.held_with)
        .where(*waiting, OutboxMail.next_attempt_at <= now)
        .distinct()
        .limit(_MOST_GROUPS)
    ).all()
    db.session.commit()
    joined = 0
    for to, group in groups:
        of_it = (*waiting, OutboxMail.to == to, OutboxMail.held_with == group)
        held = db.session.scalars(
            select(OutboxMail)
            .where(*of_it)
            .order_by(OutboxMail.id)
            .limit(_MOST_MAILS)
            .with_for_update(skip_locked=True)
        ).all()
        joined += _join(list(held), str(group))
        db.session.commit()
    return joined


def _join(held: list[OutboxMail], group: str) -> int:
    """One mail for all of these, in the transaction that says of each that it has left."""
    told = [mail for mail in held if not _is_overtaken(mail)]
    for mail in held:
        if mail not in told:
            _leaves_with_others(mail)
    if not told:
        return 0
    alerts = group.startswith("alert:")
    counted = budgets.count(group, told[0].to) if alerts else budgets.mail(told[0].to, group)
    if counted.is_above:
        # New ones have filled the next hour already: these go with them.
        for mail in told:
            mail.next_attempt_at = counted.ends
        return 0
    if len(told) == 1:
        told[0].held_with, told[0].next_attempt_at = None, clock.now()
        return 1
    first = told[0]
    key = f"joined:{first.id}-{told[-1].id}"
    kind, context = ("alert", _alerts(told)) if alerts else ("held_back", _links(told))
    row = rows.due(kind, key, first.to, None, None, context)
    row["unproven"] = first.unproven
    rows.add(db.session, row)
    for mail in told:
        _leaves_with_others(mail)
    return 1


def _is_overtaken(mail: OutboxMail) -> bool:
    order: Order | None = mail.order
    if order is not None and mail.kind in _TRUE_WHILE:
        moved = addresses.settled(order.email) != mail.to
        return moved or order.state not in _TRUE_WHILE[mail.kind]
    return "link" in mail.context and not one_time_links.begin_again(str(mail.context["link"]))


def _leaves_with_others(mail: OutboxMail) -> None:
    mail.state, mail.sent_at, mail.held_with = MailState.SENT, clock.now(), None
    # Its secret links are in the joined mail now.
    mail.context = {name: value for name, value in mail.context.items() if name not in ("link", "links")}


def _alerts(held: list[OutboxMail]) -> dict[str, Any]:
    """The held alerts of one kind as one: how many, and each with its own words."""
    shown = held[-_MOST_SHOWN:]
    first = str(held[0].context["subject"])
    parts = [
        f"{mail.created_at:%H:%M} UTC: {mail.context['subject']}\n\n{mail.context['text']}" for mail in shown
    ]
    left_out = (
        f"\n\nThe first {len(held) - len(shown)} are not repeated here." if len(held) > len(shown) else ""
    )
    head = (
        f"In the hour since the last alert of this kind there were {len(held)} more. "
        f"They are told together, so that others are not overlooked.{left_out}"
    )
    return {
        "subject": f"{first} (and {len(held) - 1} more)",
        "text": f"\n\n{'-' * 40}\n\n".join([head, *parts]),
    }


def _links(held: list[OutboxMail]) -> dict[str, Any]:
    """What each of the held mails is about, and where it leads; a page that several lead to once."""
    entries: dict[str, dict[str, str]] = {}
    for mail in held:
        for entry in _entries(mail):
            # The newest words of an order's page are the ones that are still true.
            entries.pop(entry["url"], None)
            entries[entry["url"]] = entry
    return {
        "count": len(held),
        "links": list(entries.values())[-_MOST_SHOWN:],
        "shown_to": addresses.shown(held[0].to),
    }


def _entries(mail: OutboxMail) -> list[dict[str, str]]:
    if "links" in mail.context:
        return [
            {"title": f"{link['title']} ({link['code']})", "url": link["url"]}
            for link in mail.context["links"]
        ]
    url = mail.context.get("link") or (urls.order(mail.order) if mail.order is not None else "")
    return [{"title": mail_kinds.about(mail), "url": url}] if url else []
