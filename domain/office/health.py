"""How Kassa is: what /healthz and `flask doctor` say about the parts that must keep running, and the alarm
that the web process raises when nobody sweeps any more.

Grades are ok, starting (it is early), degraded (somebody should look) and down (the database is gone).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from threading import Lock
from time import monotonic
from typing import Any

import structlog
from redis.exceptions import RedisError
from sqlalchemy import and_, func, or_, select, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

import config
from domain import blocking, clock, epochs
from domain.backups import taking
from domain.connections import linked_accounts
from domain.payments import dead_rings
from domain.post import outbox
from domain.providers import registry
from domain.sweep import account_history
from extensions import Limits, db, limited, queue
from models import CheckRun, Heartbeat, Incident, MailState, OutboxMail, SweepRun

OK, STARTING, DEGRADED, DOWN = "ok", "starting", "degraded", "down"
# A sweep, or a heartbeat, is missed when it is this many intervals late.
INTERVALS = 3
HEARTBEAT_LATE = {"clock": timedelta(minutes=5), "worker": timedelta(minutes=10)}
CHECKS_LATE = timedelta(minutes=35)
MAIL_LATE = timedelta(minutes=15)
MAIL_FAILED_FOR = timedelta(days=1)
# So many mails that strangers asked for, all refused and nothing accepted meanwhile, are no odd addresses.
_STRANGE = 5
INCIDENT_OLD = timedelta(days=1)
# Whoever asks how Kassa is waits for no lock: that there is one to wait for is the answer.
_LOOKING = Limits(lock=0.3, statement=5, idle=10)


@dataclass(frozen=True)
class Check:
    """One part: its grade, and the words for a person."""

    state: str
    words: str


@dataclass(frozen=True)
class Health:
    """The whole, graded as its worst part, where `starting` counts as less than `degraded`."""

    status: str
    checks: dict[str, Check]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class _Process:
    """When this process began, so that an instance before its first sweep is starting and not failed."""

    began: datetime | None = None


def process_began() -> None:
    """Remember that this process starts now."""
    _Process.began = clock.now()


def alive() -> bool:
    """Whether the database answers."""
    try:
        db.session.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        structlog.get_logger(__name__).error("database_down", error=type(error).__name__)
        return False
    finally:
        db.session.rollback()
    return True


def report(*, grace: bool = True) -> Health:
    """Grade every part. Never raises for a part that is down.

    With `grace` a process that began lately gives the others time to show themselves; without it, for a
    command, only what has never been seen at all is taken to be starting.
    """
    if not alive():
        return Health(DOWN, {"database": Check(DOWN, "The database does not answer.")})
    parts: dict[str, Callable[[], Check]] = {
        "transactions": _transactions,
        "redis": _redis,
        "worker": lambda: _heartbeat("worker", grace),
        "clock": lambda: _heartbeat("clock", grace),
        "sweep": lambda: sweep(grace=grace),
        "outbox": _outbox,
        "incidents": _incidents,
        "rings": _rings,
        "connections": _connections,
        "accounts": _accounts,
        "invariants": _invariants,
        "backup": _backup,
    }
    checks = {"database": Check(OK, "The database answers.")}
    with limited(_LOOKING):
        checks |= {name: _readable(look) for name, look in parts.items()}
    states = {check.state for check in checks.values()}
    status = DEGRADED if DEGRADED in states else STARTING if STARTING in states else OK
    return Health(status, checks)


def _readable(look: Callable[[], Check]) -> Check:
    try:
        return look()
    except OperationalError as error:
        db.session.rollback()
        kind = type(error.orig).__name__
        return Check(DEGRADED, f"This cannot be read just now ({kind}): see `flask doctor`.")


def _transactions() -> Check:
    """Whether somebody's transaction is in the way. Whose it is is said to anybody, but not what it did."""
    hung = blocking.hung()
    if not hung:
        return Check(OK, "No transaction hangs.")
    first = hung[0]
    others = f", and {first.waiting} wait for it" if first.waiting else ""
    words = f"{first.words}{others}. This ends it: `{first.command}`."
    return Check(DEGRADED, words if len(hung) == 1 else f"{words} {len(hung) - 1} more: see `flask doctor`.")


def _redis() -> Check:
    try:
        queue.redis.ping()
    except RedisError as error:
        return Check(DEGRADED, f"Redis does not answer ({type(error).__name__}); buying goes on, jobs wait.")
    return Check(OK, "Redis answers.")


def _starting(last: datetime | None, patience: timedelta, grace: bool) -> bool:
    """Whether it is too early to miss something that was `last` seen then."""
    if not grace:
        return last is None
    began = _Process.began
    young = began is not None and clock.now() - began < patience
    return young and (last is None or began is None or last < began)


def _ago(moment: datetime) -> str:
    seconds = max(0, int((clock.now() - moment).total_seconds()))
    if seconds < 120:
        return f"{seconds} seconds ago"
    return f"{seconds // 60} minutes ago" if seconds < 7200 else f"{seconds // 3600} hours ago"


def _backup() -> Check:
    """Whether there is a backup of these days, where they are taken by us, and whether this shop is one's."""
    if epochs.is_closed():
        return Check(DEGRADED, "A backup was restored, and the shop is closed until an admin opens it.")
    good = taking.last_good()
    if not config.get().backup_to:
        return Check(OK, "Backups are not taken here: see that the host takes them, or set BACKUP_TO.")
    if good is None or good.ended_at is None:
        return Check(STARTING, "The first backup is still to come.")
    words = f"The last good backup was taken {_ago(good.ended_at)}, to {good.place}."
    if clock.now() - good.ended_at < taking.OLD:
        return Check(OK, words)
    return Check(DEGRADED, f"{words} See what `flask backup` says.")


def _heartbeat(name: str, grace: bool) -> Check:
    beat = db.session.get(Heartbeat, name, populate_existing=True)
    if beat is not None and clock.now() - beat.at < HEARTBEAT_LATE[name]:
        return Check(OK, f"The {name} was there {_ago(beat.at)}.")
    if _starting(beat.at if beat is not None else None, HEARTBEAT_LATE[name], grace):
        return Check(STARTING, f"The {name} has not reported yet.")
    since = "has never reported" if beat is None else f"last reported {_ago(beat.at)}"
    return Check(DEGRADED, f"The {name} {since}: start it again (`flask {name}`).")


def last_sweep() -> SweepRun | None:
    """The last sweep that came to its end without an error of its own."""
    query = select(SweepRun).where(SweepRun.finished_at.is_not(None), SweepRun.error == "")
    return db.session.scalar(query.order_by(SweepRun.started_at.desc()).limit(1))


def sweep(*, grace: bool = True) -> Check:
    """Whether sweeps go on: the backstop that credits those who paid and never came back."""
    patience = timedelta(seconds=config.get().sweep_interval) * INTERVALS
    last = last_sweep()
    if last is not None and clock.now() - last.started_at < patience:
        return Check(OK, f"The last sweep began {_ago(last.started_at)}.")
    if _starting(last.started_at if last is not None else None, patience, grace):
        return Check(STARTING, "The first sweep is still to come.")
    since = (
        "has ever finished" if last is None else f"has finished since one that began {_ago(last.started_at)}"
    )
    return Check(
        DEGRADED, f"No sweep {since}: see whether clock and worker run, then `flask payments sweep`."
    )


def _outbox() -> Check:
    now = clock.now()
    late_for, lately = now - MAIL_LATE, OutboxMail.created_at > now - MAIL_FAILED_FOR
    leaves = (OutboxMail.state == MailState.DUE, OutboxMail.held_with.is_(None))
    # One that was held back is late from when it may leave; one that was tried, from when it was owed.
    untried = and_(OutboxMail.attempts == 0, OutboxMail.next_attempt_at < late_for)
    tried = and_(OutboxMail.attempts > 0, OutboxMail.created_at < late_for)
    gone = (OutboxMail.state == MailState.FAILED, lately)
    odd = (or_(and_(*gone), and_(*leaves, tried)), OutboxMail.unproven)
    due, late, failed, strange, first = db.session.execute(
        select(
            func.count().filter(OutboxMail.state == MailState.DUE),
            func.count().filter(*leaves, or_(untried, and_(tried, OutboxMail.unproven.is_(False)))),
            func.count().filter(*gone, OutboxMail.unproven.is_(False)),
            func.count().filter(*odd),
            func.min(OutboxMail.created_at).filter(*odd),
        ).where(OutboxMail.state.in_((MailState.DUE, MailState.FAILED)))
    ).one()
    # Anybody can type addresses that do not exist, or whose server puts us off for days: such failures are
    # ours only where nothing else arrives.
    if strange >= _STRANGE and not failed:
        sent = select(OutboxMail.id).where(OutboxMail.sent_at > first).limit(1)
        failed = strange if db.session.scalar(sent) is None else 0
    if failed:
        return Check(DEGRADED, f"{failed} mails of the last day do not get through: see /admin/mail.")
    if late:
        minutes = int(MAIL_LATE.total_seconds()) // 60
        return Check(DEGRADED, f"{late} mails have waited for more than {minutes} minutes: see /admin/mail.")
    return Check(OK, f"{due} mails are waiting to be sent.")


def _incidents() -> Check:
    count, oldest = db.session.execute(
        select(func.count(), func.min(Incident.created_at)).where(Incident.resolved_at.is_(None))
    ).one()
    if not count:
        return Check(OK, "The money inbox is empty.")
    many = "1 incident waits" if count == 1 else f"{count} incidents wait"
    words = f"{many} in the money inbox, the oldest came {_ago(oldest)}: see /admin/incidents."
    return Check(DEGRADED if clock.now() - oldest > INCIDENT_OLD else OK, words)


def _rings() -> Check:
    """Whether what the providers rang about was acted on."""
    count, oldest = dead_rings.count()
    if oldest is None:
        return Check(OK, "Every ring was acted on.")
    many = "1 ring was" if count == 1 else f"{count} rings were"
    words = f"{many} not acted on within an hour, the oldest came {_ago(oldest)}: see /admin/rings."
    return Check(DEGRADED, words)


def _connections() -> Check:
    """An organiser's account that cannot be asked is theirs to mend, unless buyers wait for it."""
    seen = linked_accounts.summary()
    if not seen.broken and not seen.unreadable:
        return Check(OK, f"{seen.in_use} connected accounts can be asked.")
    words = f"{len(seen.broken)} connected accounts are broken, {seen.waiting} payments wait for them"
    words += f"; {len(seen.unreadable)} have unreadable tokens" if seen.unreadable else ""
    degraded = seen.waiting or seen.unreadable
    return Check(DEGRADED if degraded else OK, f"{words}: see /admin/connections.")


def _accounts() -> Check:
    """Whether what happens at the accounts is known: refunds, disputes and money that no row knows."""
    late = account_history.behind()
    if not late:
        return Check(OK, "What happened at the accounts is known.")
    first = late[0]
    label = registry.title(first.provider)
    words = f"What happened at {label} account {first.account} was last known {_ago(first.moved_at)}"
    more = f"; others are behind, too ({len(late) - 1})" if len(late) > 1 else ""
    return Check(DEGRADED, f"{words}{more}: see the alert in /admin/mail.")


def _invariants() -> Check:
    last = db.session.scalar(select(CheckRun).order_by(CheckRun.at.desc()).limit(1))
    if last is not None and last.violations:
        broken = ", ".join(violation["code"] for violation in last.violations)
        return Check(DEGRADED, f"Violated {_ago(last.at)}: {broken}. Run `flask doctor`.")
    if last is not None and clock.now() - last.at < CHECKS_LATE:
        late = f" Not asked in time: {', '.join(last.unchecked)}." if last.unchecked else ""
        return Check(OK, f"{'All others' if late else 'All'} held {_ago(last.at)}.{late}")
    if _starting(last.at if last is not None else None, CHECKS_LATE, True):
        return Check(STARTING, "They have not been checked yet.")
    return Check(DEGRADED, "They have not been checked lately: see whether clock and worker run.")


# --- The dead man's switch ------------------------------------------------------------------------------


class SweepAlarm:
    """Raises one alert for each time that sweeps stop. The worker cannot: it may be what is dead.

    `due()` says whether it is time to look again (at most once a minute in a process, cheap enough for every
    request), `look()` looks, and `deliver()` sends that one alert from here. A late sweep counts only when
    two looks in a row, some real time apart, saw it late: a clock that jumps is not a stopped sweep.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._next = 0.0
        self._late: tuple[int, float] | None = None

    def due(self) -> bool:
        """Whether this caller should look now; True for one caller only."""
        interval = min(60, config.get().sweep_interval)
        with self._lock:
            if monotonic() < self._next:
                return False
            self._next = monotonic() + interval
            return True

    def look(self) -> str | None:
        """Stage the alert when sweeps have stopped. The key of an alert still to be sent, else None."""
        check, last = sweep(), last_sweep()
        if check.state != DEGRADED:
            self._late = None
            db.session.rollback()
            return None
        which = last.id if last is not None else 0
        if self._late is None or self._late[0] != which:
            self._late = (which, monotonic())
        confirmed = monotonic() - self._late[1] >= min(60, config.get().sweep_interval) * 0.9
        db.session.rollback()
        return _raise_alarm(which, check.words) if confirmed else None


def _raise_alarm(which: int, words: str) -> str | None:
    key = f"sweep-stopped:{which}"
    settings = config.get()
    outbox.alert(
        "Payments are not being checked",
        f"{words}\n\nBuyers who return from the payment page are still served. Those who closed it are not, "
        "until a sweep runs, and mail may be waiting too.\n\n"
        "1. Look whether the processes `clock` and `worker` run, and start them.\n"
        "2. Run `flask payments sweep --verbose` once.\n"
        "3. `flask doctor` says what is still wrong.\n\n"
        f"{settings.public_url}/admin/sweeps",
        key=key,
        critical=True,
    )
    db.session.commit()
    waiting = db.session.scalar(
        select(OutboxMail.id).where(OutboxMail.key == key, OutboxMail.state == MailState.DUE)
    )
    db.session.rollback()
    return key if waiting is not None else None


alarm = SweepAlarm()
