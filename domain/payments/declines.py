"""Refused attempts to pay: each is written on the order's timeline once, however often it is read or rung."""

from __future__ import annotations

from sqlalchemy import select

from domain import timeline
from domain.payments import suspicious_patterns
from domain.providers.contract import Decline, Report
from domain.providers.failure_reasons import Reason
from extensions import db
from models import Order, Payment, TimelineEntry

# The name of an attempt and the provider's words about it.
Known = tuple[str, str]
NONE: Known = ("", "")
# An attempt without a name that was seen by reading is called so, with our code, until an event tells of it.
_SEEN = "seen:"
_RUNG = "rung:"
# Where a provider tells no attempts but says why, we only know what it said.
_SAID = "said:"


def note(order: Order, payment: Payment, report: Report, *, door: str, rung: str = "") -> None:
    """Write down the attempts of a report that are not known yet. Rows locked by the caller; no commit.

    The payment stays as it is and may be tried again, but the buyer sees why, and who tries too often is told
    of. `rung` is the id of an event that speaks of an attempt without a name.
    """
    told = shown(report)
    if tells_nothing_new(report, known(payment)) and not rung:
        return
    noted, seen = _noted(payment), _SEEN if report.declines else _SAID
    new = [decline for decline in told if not _is_noted(decline, noted, rung)]
    for decline in new:
        name = decline.name or (f"{_RUNG}{rung}" if rung else f"{seen}{decline.code}")
        payment.reason, payment.reason_code = decline.words[:300], decline.code
        payment.last_decline = name[:255]
        # They are not waiting for a confirmation any more.
        payment.returned_at = None
        timeline.note(
            order,
            "declined",
            decline.words or "Refused.",
            door=door,
            payment=payment,
            data={suspicious_patterns.ATTEMPT: name, "code": decline.code},
        )
    if new:
        suspicious_patterns.look(order)


def shown(report: Report) -> tuple[Decline, ...]:
    """The refused attempts that a report shows; one without a name where it only says why."""
    if report.declines or report.state != "open" or not report.reason:
        return report.declines
    return (Decline("", report.reason_code or Reason.CARD_REFUSED, report.reason),)


def was_refused(payment: Payment) -> bool:
    """Whether somebody tried to pay it, and was refused."""
    return bool(payment.last_decline) and not payment.last_decline.startswith(_SAID)


def known(payment: Payment) -> Known:
    """The attempt that was written down last."""
    return payment.last_decline, payment.reason


def tells_nothing_new(report: Report, last: Known) -> bool:
    """Whether the newest attempt that a report shows, if any, is the one that is `known()`."""
    told, (name, words) = shown(report), last
    if not told:
        return True
    return told[-1].name == name if told[-1].name else bool(name) and told[-1].words[:300] == words


def _noted(payment: Payment) -> dict[str, TimelineEntry]:
    """What is on the timeline already, by the attempts' names."""
    entries = db.session.scalars(
        select(TimelineEntry).where(
            TimelineEntry.order_id == payment.order_id,
            TimelineEntry.payment_id == payment.id,
            TimelineEntry.what == "declined",
        )
    )
    return {str(entry.data.get(suspicious_patterns.ATTEMPT, "")): entry for entry in entries}


def _is_noted(decline: Decline, noted: dict[str, TimelineEntry], rung: str) -> bool:
    """Whether the attempt is on the timeline. One without a name: by its event, or its reason."""
    if decline.name:
        return decline.name in noted
    if not rung:
        return any(entry.data.get("code") == decline.code for name, entry in noted.items() if _nameless(name))
    if f"{_RUNG}{rung}" in noted:
        return True
    read = noted.get(f"{_SEEN}{decline.code}")
    if read is None:
        return False
    # It was read before it rang: from now on it has the event's name.
    read.data = {**read.data, suspicious_patterns.ATTEMPT: f"{_RUNG}{rung}"}
    return True


def _nameless(name: str) -> bool:
    return name.startswith((_SEEN, _RUNG, _SAID))
