"""The texts an operator edits (terms, privacy, contact, a guardian's consent), and our own until then."""

from __future__ import annotations

import config
from domain import clock
from domain.errors import DomainError, NotFound
from extensions import db
from models import Page

_TERMS = """\
{site} sells tickets in the name of the people who put on each event.

When your payment is confirmed, your order is complete, and your tickets are sent to the address you gave. \
A ticket admits one person, once. Keep its code to yourself: whoever shows it first is let in.

Prices are in the event's currency and include all taxes and fees. While you pay, your tickets are kept for \
you; what is not paid for in time goes back on sale.

If an event is cancelled, you get your money back by the way you paid. If you cannot come, write to \
{support}: whether a ticket can be returned is for the organiser to decide.

An entry in a tournament is for one athlete, in one category. It can be withdrawn until the time that is \
shown where one enters, and what goes back of the fee is shown there, too.

Money in a wallet can be spent here. Write to {support} to have it paid back the way it came."""

_PRIVACY = """\
To sell you a ticket, {site} keeps your name, your e-mail address, what you bought and when, and the network \
address you bought it from. They are used to deliver the tickets, to let you in, to answer your questions, \
and to keep the accounts that the law asks for. They are not sold, and not used for advertising.

For a tournament, an athlete's birth date, club, weight and grade are kept too, and a guardian's consent. \
Only whoever entered them, the tournament's organiser and our staff see those, and the weight is forgotten \
some weeks afterwards.

You pay on the payment provider's own page. Your card's number never reaches us: we only learn whether the \
payment arrived.

We set one cookie. It keeps you logged in and your forms safe. There is no tracking.

Write to {support} to see, correct or delete what we keep about you. What the law makes us keep, such as \
records of payments, stays for as long as it says."""

_CONTACT = """\
Write to {support}. Say your order's code if you have one: it is in every mail we sent you, and on your \
order's page.

Lost your tickets? “Find my tickets” at the top of this page mails you their links.

Paid, and no tickets yet? You do not need to pay again. Some banks take a while to confirm a payment, and we \
keep asking; your order's page says how far it is."""

_CONSENT = """\
I am a parent or guardian of this athlete and may decide for them. I have read the rules of the tournament. \
I agree that they take part, and that {site} and the tournament's organiser keep their name, birth date, \
club, weight and grade for it.

I know of nothing about their health that speaks against it, and I will tell the organiser if that changes. \
In an emergency they may get first aid before I can be asked.

I can take this back at any time by withdrawing the entry, or by writing to {support}."""

DEFAULTS = {
    "terms": ("Terms of sale", _TERMS),
    "privacy": ("Privacy", _PRIVACY),
    "contact": ("Contact", _CONTACT),
    "consent": ("A guardian's consent", _CONSENT),
}


def read(slug: str) -> Page:
    """The text at `slug`: the operator's, or our own. NotFound for any other slug."""
    found = db.session.get(Page, slug)
    return found if found is not None else _default(slug)


def write(slug: str, *, title: str, body: str) -> Page:
    """Put the operator's own text at `slug`. Commits; NotFound for any other slug, DomainError if empty."""
    page = read(slug)
    if not title.strip() or not body.strip():
        raise DomainError("body", "A page needs a title and a text.")
    page.title, page.body, page.updated_at = title.strip()[:200], body.strip(), clock.now()
    db.session.add(page)
    db.session.commit()
    return page


def ensure() -> None:
    """Put the texts that are missing into the database, where they can be edited. Does not commit."""
    for slug in DEFAULTS:
        if db.session.get(Page, slug) is None:
            db.session.add(_default(slug))


def keep_all() -> None:
    """Have every text in the database, for a list to show. Commits."""
    ensure()
    db.session.commit()


def _default(slug: str) -> Page:
    if slug not in DEFAULTS:
        raise NotFound("no_page", "There is no such page.")
    settings = config.get()
    title, body = DEFAULTS[slug]
    words = body.format(site=settings.site_name, support=settings.support_email)
    return Page(slug=slug, title=title, body=words, updated_at=clock.now())
