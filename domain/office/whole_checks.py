"""The invariants asked of everything, once a night, in a shop that is too large to be asked about at once.

A few seconds' worth each minute, by the numbers of the orders, so that whoever buys meanwhile does not feel
it. What is found is written down and told when all has been looked at.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from time import monotonic
from zoneinfo import ZoneInfo

from sqlalchemy import func, select

import config
from domain import clock
from domain.office import changes, invariants, tallies
from domain.office.invariants import Answers, Violation
from extensions import db
from models import Order, WholeCheck

# It begins at this hour, by the box office's clock; so many orders are asked about at a time.
BEGINS_AT = 3
_ORDERS = 20_000
# Seconds of work in each run of the job, which runs every minute.
BUDGET = 3.0
# These are not of single orders, and asked first.
_ONCE = ("wallets_match_the_ledger", "stock_adds_up", "nothing_is_forgotten")


def go_on(*, budget_seconds: float = BUDGET, now: bool = False) -> WholeCheck | None:
    """Do a part of tonight's check, where it is time; `now` begins one whatever the time is. Commits."""
    ends = monotonic() + budget_seconds
    check = _under_way() or _begin(now)
    if check is None:
        return None
    while check.upto_id < check.last_id and monotonic() < ends:
        upto = min(check.upto_id + _ORDERS, check.last_id)
        _note(check, invariants.ask_all(changes.between(check.upto_id + 1, upto), codes=_of_orders()), upto)
    if check.upto_id >= check.last_id:
        _finish(check)
    return check


def _of_orders() -> set[str]:
    return {invariant.code for invariant in invariants.INVARIANTS} - set(_ONCE)


def _under_way() -> WholeCheck | None:
    return db.session.scalar(select(WholeCheck).where(WholeCheck.finished_at.is_(None)).limit(1))


def _begin(now: bool) -> WholeCheck | None:
    """A new one, where none was begun today, and all that is asked once."""
    if not now and (not _is_time() or not changes.is_large()):
        db.session.rollback()
        return None
    last = db.session.scalar(select(func.max(Order.id))) or 0
    check = WholeCheck(began_at=clock.now(), last_id=last, upto_id=0, marks=changes.marks())
    check.violations, check.unchecked = [], []
    db.session.add(check)
    db.session.commit()
    _note(check, invariants.ask_all(codes=_ONCE), 0)
    return check


def _is_time() -> bool:
    here = clock.now().astimezone(ZoneInfo(config.get().timezone))
    opens = datetime(here.year, here.month, here.day, BEGINS_AT, tzinfo=here.tzinfo)
    if here < opens:
        return False
    begun = select(WholeCheck.id).where(WholeCheck.began_at >= opens).limit(1)
    return db.session.scalar(begun) is None


def _note(check: WholeCheck, answers: Answers, upto: int) -> None:
    """Keep what a part has found; a sample of each invariant is enough."""
    samples = {violation["code"]: violation for violation in check.violations}
    for violation in answers.violations:
        known = samples.setdefault(violation.code, asdict(violation) | {"sample": []})
        known["sample"] = [*known["sample"], *violation.sample][: invariants.SAMPLE]
    check.violations = list(samples.values())
    check.unchecked = sorted({*check.unchecked, *answers.unchecked})
    check.upto_id = upto
    db.session.commit()


def _finish(check: WholeCheck) -> None:
    found = [Violation(**violation) for violation in check.violations]
    check.finished_at = clock.now()
    tallies.renew()
    invariants.record(Answers(found, list(check.unchecked)), check.marks)
