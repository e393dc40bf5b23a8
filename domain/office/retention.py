"""What is not kept for ever.

An athlete's weight is forgotten some weeks after the tournament it was for; the answers of named requests
after a day; programs' logins when they are over; budgets of mail after a day.
"""

from __future__ import annotations

from datetime import timedelta

import structlog
from sqlalchemy import select, update

import config
from domain import clock, repeated_requests
from domain.post import budgets
from domain.security import api_tokens
from extensions import db
from models import Athlete, Event, Participant, TicketType

log = structlog.get_logger(__name__)


def forget() -> int:
    """Forget what is due; how many rows that changed. Commits."""
    return _weights() + repeated_requests.forget() + api_tokens.forget() + budgets.forget()


def _weights() -> int:
    before = clock.now() - timedelta(days=config.get().weight_kept_days)
    kinds = select(TicketType.id).join(Event, Event.id == TicketType.event_id)
    over = kinds.where(Event.ends_at < before)
    entered = db.session.scalars(
        update(Participant)
        .where(Participant.weight_g.is_not(None), Participant.ticket_type_id.in_(over))
        .values(weight_g=None)
        .returning(Participant.id)
        .execution_options(synchronize_session=False)
    ).all()
    still = select(Participant.athlete_id).where(
        Participant.ticket_type_id.in_(kinds.where(Event.ends_at >= before))
    )
    kept = db.session.scalars(
        update(Athlete)
        .where(Athlete.weight_g.is_not(None), Athlete.weight_at < before, Athlete.id.not_in(still))
        .values(weight_g=None, weight_at=None)
        .returning(Athlete.id)
        .execution_options(synchronize_session=False)
    ).all()
    db.session.commit()
    if entered or kept:
        log.info("weights_forgotten", entries=len(entered), athletes=len(kept))
    return len(entered) + len(kept)
