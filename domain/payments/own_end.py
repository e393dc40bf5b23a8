"""When a payment ends by itself, where nothing can be closed at its provider, and what may be done before.

Closing is what ends an attempt elsewhere: read, close, read. Where there is nothing to close, the attempt has
an end of its own, after which nobody can begin to pay it; who had begun confirms it, and the provider is slow
to say so (`Abilities.lingers`). Then a last reading has the last word. Where not even that says anything
(`Abilities.tells`), a person does: see unknown_ends.py.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import config
from domain import clock, rendering
from domain.errors import DomainError
from domain.providers import registry
from domain.providers.contract import Abilities, Report
from models import Payment, PaymentState


def able(payment: Payment) -> Abilities:
    """What can be done about a payment at its provider."""
    return registry.get(payment.provider, payment.account).can


def last_word_at(payment: Payment, can: Abilities) -> datetime | None:
    """From when on a reading has the last word about it, though nothing was closed. None: never by itself."""
    end = payment.expires_at or payment.closes_at
    return None if end is None else end + can.lingers


def is_due(payment: Payment, can: Abilities) -> bool:
    """Whether an open payment is to end now: closed there, or, where that cannot be, by its own end."""
    end = payment.closes_at if can.close else last_word_at(payment, can)
    return end is not None and end <= clock.now()


def may_end(payment: Payment, can: Abilities) -> bool:
    """Whether it can be ended at a person's wish: it can be closed, or is over, or was never opened."""
    if payment.state is PaymentState.CREATED:
        return can.search or payment.asked_at is None
    return can.close or (can.tells and is_due(payment, can))


def check_may_end(payment: Payment) -> None:
    """Raise DomainError, in the buyer's words, where an attempt cannot be ended before its own end.

    What a bank is confirming is another matter: it is read, and that says so.
    """
    can = able(payment)
    if payment.state is PaymentState.PROCESSING or may_end(payment, can):
        return
    until = last_word_at(payment, can)
    if payment.state is PaymentState.CREATED or until is None:
        words = (
            "We are finding out whether this payment was opened, so it cannot be ended now. Wait a minute."
        )
    elif not can.tells:
        words = (
            "This order cannot be cancelled by itself: your money may be on its way already. Have you not "
            "sent any? Then you need do nothing, and it ends when its time is up."
        )
    else:
        words = (
            "It may still be paid, so it cannot be cancelled or paid in another way until "
            f"{_when(until, payment)}. If nobody pays it, it ends by itself then."
        )
    raise DomainError("not_closable", words)


def _when(moment: datetime, payment: Payment) -> str:
    event = payment.order.event
    zone = event.timezone if event is not None else config.get().timezone
    return f"{rendering.when(moment, zone, 'HH:mm:ss')} ({rendering.place_of(zone)} time)"


def ended(report: Report) -> Report:
    """What a reading after the last moment says of a payment that is open still: nobody has paid it."""
    return replace(report, state="expired", url=None)
