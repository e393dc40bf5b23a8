"""One seed's world: its people, its weather, its clock, and the schedule that takes a step at a time.

Each step is a process of its own: an application context with its own session, which may die. After each the
invariants are asked. Steps of other processes come in between a step's provider calls and its transactions,
so that reports grow stale and two settle at once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from random import Random
from types import TracebackType
from typing import Any

import psycopg
import pytest
import stripe
from flask import Flask
from psycopg.errors import LockNotAvailable
from sqlalchemy import event, select, text
from sqlalchemy.exc import OperationalError

import config
import extensions
from domain import clock, locks
from domain.connections import credentials
from domain.errors import DomainError
from domain.ledger import agents
from domain.payments import lookup, settling
from domain.post import outbox
from domain.providers import sumup_line
from domain.sweep import reading
from domain.tickets import documents
from extensions import db, queue
from models import (
    Event,
    EventState,
    Payment,
    PaymentState,
    Role,
    TicketType,
    User,
    WebhookEvent,
)
from tests.simulation import doors, sellers
from tests.simulation.deaths import Death, Deaths
from tests.simulation.fate import Fate
from tests.simulation.network import Posted
from tests.simulation.sellers import Organiser
from tests.simulation.story import Broken
from tests.simulation.what_holds import HOLDS_OUTLIVE_SESSIONS, WhatHolds, wait_for_no_disk
from tests.support.sandbox import Sandbox

_MEMBERS = 6
_MAX_AT_ONCE = 10
# Sessions and intents of Stripe, and checkouts of SumUp.
_IDS = re.compile("cs_|pi_|[0-9a-f]{8}-")
_CLOSED = (PaymentState.FAILED, PaymentState.CANCELLED, PaymentState.EXPIRED)


@dataclass
class Act:
    """A step that somebody wants to take: a name for the trace, and the call, which gives plain values."""

    name: str
    work: Callable[[], Any]


@dataclass
class Wait:
    """Nothing for so many steps of the others."""

    steps: int


@dataclass
class Result:
    """What came of an act. `error` is a DomainError's code, `died` the point of death."""

    value: Any = None
    error: str = ""
    died: str = ""


Life = Generator[Act | Wait, Result, None]


class _Inline:
    """An executor without threads: a seed must do the same things in the same order."""

    def __init__(self, workers: int) -> None:
        pass

    def __enter__(self) -> _Inline:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(work(*args, **kwargs))
        except (Exception, Death) as error:  # noqa: BLE001 (whoever asks for the result gets it)
            done.set_exception(error)
        return done


@dataclass(frozen=True)
class Habits:
    """How often what: one in so many steps has a death in it; the chances of what comes in between."""

    dies_one_in: int = 4
    between: float = 0.10
    two_at_once: float = 0.04
    # The invariants are asked after every death and in every fault, and in quiet times after so many steps.
    look_every: int = 3
    # How many events are on sale, how many places each has, how often an old page is paid too, a script of
    # buyers.py and happenings of staff.py that are frequent.
    events: int = 6
    places: tuple[int, int] = (2, 12)
    two_tabs: float = 0.25
    # The chance of an event that takes place within hours.
    soon: float = 0.08
    # Whether the answer to each refund is lost where the provider keeps no key of it; else as the weather is.
    lost_refunds: bool = False
    # How soon an organiser whose account is lost connects it again.
    reconnects: float = 0.85
    often: str = ""
    busy: tuple[str, ...] = ()


class World(Fate):
    """Use it as a context manager: inside it the domain is wrapped, and outside it nothing stays changed."""

    def __init__(self, app: Flask, sandbox: Sandbox, seed: int, habits: Habits) -> None:
        super().__init__(app, sandbox, seed)
        self.habits = habits
        self.deaths = Deaths(Random(f"deaths {seed}"), habits.dies_one_in)
        self.member_ids: list[int] = []
        self.admin_id = 0
        # Events on sale, as (event id, ticket type id), and how many were made.
        self.on_sale: list[tuple[int, int]] = []
        self.events_made = 0
        # Tournaments that can be entered, as (event id, their categories' ids).
        self.tournaments: list[tuple[int, tuple[int, ...]]] = []
        # Events that were cancelled.
        self.cancelled: list[int] = []
        self.mail_ran_at: datetime | None = None
        # The organisers, and how an event can be paid for.
        self.organisers: list[Organiser] = []
        self.ways: dict[int, tuple[str, ...]] = {}
        self._slept = 0.0
        self._nested = False
        self._calm = True
        self._dropped = False
        self._since_look = 0
        # Which payments changed their states in this step: their provider, the state before, and after.
        self._entered: list[tuple[str, PaymentState, PaymentState]] = []
        self._closed: list[str] = []
        self._patch = pytest.MonkeyPatch()
        self._what_holds = WhatHolds(HOLDS_OUTLIVE_SESSIONS)

    # --- Wrapping, and what there is at first ---

    def __enter__(self) -> World:
        logging.disable(logging.CRITICAL)
        db.engine.dispose()
        event.listen(db.engine, "connect", wait_for_no_disk)
        # In a world of one thread nobody who waits for a lock would ever get it.
        self._patch.setattr(extensions, "JOBS", replace(extensions.JOBS, lock=0.03))
        settings = config.get()
        late_money = ("person", "refund", "wallet")[self.seed % 3]
        settings = replace(settings, stripe_rate_per_second=1_000_000, sumup_rate_per_second=1_000_000)
        config.use(replace(settings, late_money=late_money))
        self._patch.setattr(reading, "ThreadPoolExecutor", _Inline)
        self._patch.setattr(stripe.HTTPClient, "_sleep_time_seconds", lambda *args, **kwargs: 0)
        self._patch.setattr(sumup_line, "sleep", lambda seconds: None)
        # What credentials remember for seconds is forgotten by the world's clock; nobody waits in real time.
        self._patch.setattr(credentials, "monotonic", lambda: self._offset + self._slept)
        self._patch.setattr(credentials, "sleep", self._sleep)
        self.sandbox.post("settings", {"hold_webhooks": True})
        # A job only makes it sooner, and the picture of a ticket costs more than all the rest of a life.
        self._patch.setattr(queue, "soon", lambda *args: True)
        self._patch.setattr(documents, "tickets_pdf", lambda order: b"%PDF-1.7")
        self._patch.setattr(documents, "qr_png", lambda *args, **kwargs: b"\x89PNG")
        # What the clock's file says; it is looked at thousands of times.
        self._patch.setattr(clock, "_offset", lambda path: timedelta(seconds=self._shift))
        self._watch_states()
        self._watch_locks()
        self._people()
        sellers.begin(self)
        self.deaths.wrap(self._patch)
        self.deaths.between = self._between
        self.deaths.drop = self._drop_connections
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patch.undo()
        self.network.close()
        self.sandbox.faults()
        self.sandbox.post("settings", {"hold_webhooks": False})
        event.remove(db.engine, "connect", wait_for_no_disk)
        db.session.remove()
        db.engine.dispose()
        logging.disable(logging.NOTSET)

    def _drop_connections(self) -> None:
        """The database ends every connection of ours, as when it is restarted or moved."""
        with psycopg.connect(config.get().database_url.replace("+psycopg", ""), autocommit=True) as other:
            other.execute(_DROP)
        self._dropped = True
        self.tell("the database drops all connections")

    def _sleep(self, seconds: float) -> None:
        """Whoever waits for another process waits in vain here, so that looking seldom is enough."""
        self._slept += max(seconds, 1.0)

    def _people(self) -> None:
        with self.app.app_context():
            now = clock.now()
            people = [
                User(email=f"member{n}@example.org", name=f"Member {n}", created_at=now, confirmed_at=now)
                for n in range(_MEMBERS)
            ]
            admin = User(email="admin@example.org", name="Ada Admin", role=Role.ADMIN, created_at=now)
            db.session.add_all([*people, admin])
            db.session.commit()
            self.member_ids = [person.id for person in people]
            self.admin_id = admin.id
            agents.seed()

    def _watch_states(self) -> None:
        original = settling._enter

        def enter(payment: Payment, state: PaymentState) -> None:
            self._entered.append((payment.provider, payment.state, state))
            if state in _CLOSED and payment.provider_id is not None:
                self._closed.append(payment.provider_id)
            original(payment, state)

        self._patch.setattr(settling, "_enter", enter)

    def _watch_locks(self) -> None:
        """Now and then let another process look at a payment while its row is locked: it must wait."""
        original = locks.payment_and_order

        def payment_and_order(payment_id: int) -> Any:
            found = original(payment_id)
            if not self._nested and not self._calm and self.rng.random() < self.habits.two_at_once:
                self._meanwhile("two at once", lambda: doors.recheck(payment_id, self.admin_id))
            return found

        self._patch.setattr(locks, "payment_and_order", payment_and_order)

    # --- Steps ---

    def act(self, who: str, act: Act) -> Result:
        """Take a step as a process of its own, then ask what must hold."""
        self.advance(self.rng.uniform(3, 20))
        # What is done seldom has a death in it more often.
        self.deaths.arm(soon=who in ("clock", "admin", "organiser"))
        result = self._process(who, act)
        self.coverage.note("act", act.name)
        self._check_closed(act)
        self._since_look += 1
        if result.died or not self._calm_sky or self._since_look >= self.habits.look_every:
            self._since_look = 0
            self.look(f"{who}: {act.name}")
        return result

    def do(self, who: str, name: str, work: Callable[[], Any]) -> Result:
        """The same, said in one line."""
        return self.act(who, Act(name, work))

    def _check_closed(self, act: Act) -> None:
        """Nobody is told that a payment failed without the provider's last word; a person may say so."""
        closed, self._closed = self._closed, []
        for session in closed:
            # At SumUp a failed checkout can still be paid: nothing but its end is a last word.
            sumup = doors.provider_of(session) == "sumup"
            last_words = ("expired",) if sumup else ("failed", "cancelled", "expired")
            if act.name.startswith("decide ") or session in self.ever_tampered or session in self.reopened:
                continue
            said = self.sandbox.get(f"payments/{session}")["status"]
            if said not in last_words:
                raise self.broken(f"{act.name} closed {session}, which is {said} at the provider")

    def _process(self, who: str, act: Act) -> Result:
        self._entered.clear()
        with self.app.app_context():
            try:
                result = Result(act.work())
            except Death as death:
                result = Result(died=str(death))
            except DomainError as error:
                result = Result(error=error.code)
            except OperationalError as error:
                if error.connection_invalidated:
                    result = Result(died="the database's end")
                elif self._nested and isinstance(error.orig, LockNotAvailable):
                    result = Result(error="waits for a lock")
                else:
                    raise self.broken(f"{who}: {act.name} raised {error!r}") from error
            except Broken:
                raise
            except Exception as error:
                raise self.broken(f"{who}: {act.name} raised {error!r}") from error
            finally:
                db.session.rollback()
        if self._dropped:
            # Whoever comes next is another process, with connections of its own.
            self._dropped = False
            db.engine.dispose()
        if not self._nested:
            self.deaths.step_over()
        if not result.died and not result.error:
            for provider, before, after in self._entered:
                self.coverage.note("transition", f"{before} -> {after}")
                if provider == "sumup":
                    self.coverage.note("sumup transition", f"{before} -> {after}")
        came = f"died at {result.died}" if result.died else result.error or _short(result.value)
        self.tell(f"{'    ' if self._nested else ''}{who}: {act.name}{f' = {came}' if came else ''}")
        return result

    def _between(self, point: str, provider_id: str) -> None:
        """Other processes and the buyer go on while one waits for the provider."""
        planned = self.planned.pop((point, provider_id), "")
        if planned:
            self.at_provider(provider_id, planned)
        if self._nested or self._calm or self.rng.random() > self.habits.between:
            return
        kind = self.rng.choice(("pay", "pay", "door", "door", "ring", "ring", "sweep"))
        of = doors.provider_of(provider_id) if _IDS.match(provider_id) else ""
        if kind == "pay" and of:
            other = "pay_later" if of == "stripe" else "decline"
            self.at_provider(provider_id, self.rng.choice(("pay", "pay", "expire", other)))
        elif kind == "door" and of:
            self._meanwhile(f"recheck during {point}", lambda: self._recheck_session(provider_id))
        elif kind == "ring":
            self.ring_one(meanwhile=True)
        elif kind == "sweep":
            self._meanwhile(f"sweep during {point}", doors.run_sweep)

    def _recheck_session(self, provider_id: str) -> None:
        payment = lookup.by_provider_id(doors.provider_of(provider_id), provider_id)
        if payment is not None:
            doors.recheck(payment.id, self.admin_id)

    def _meanwhile(self, name: str, work: Callable[[], Any]) -> Result:
        """A step of another process inside this one's; nobody dies in it."""
        held, entered = self.deaths.hold(), list(self._entered)
        self._nested = True
        try:
            return self._process("meanwhile", Act(name, work))
        finally:
            self._nested = False
            self._entered[:] = entered
            self.deaths.resume(held)

    # --- What must hold ---

    def look(self, after: str) -> None:
        """Ask all invariants, in one question."""
        with self.app.app_context():
            told = self._what_holds.broken(mail_ran=self._mail_ran(clock.now()))
            if told:
                raise self.broken(f"After {after}: {told}")

    def _mail_ran(self, now: datetime) -> bool:
        """Whether mail was delivered lately: with no worker running, mail is overdue by rights."""
        return self.mail_ran_at is not None and now - self.mail_ran_at < timedelta(minutes=30)

    # --- Doors that open by themselves ---

    def run_sweep(self, *, everything: bool = False) -> None:
        self.coverage.note("door", "sweep")
        self.act("clock", Act("sweep", lambda: doors.run_sweep(everything=everything)))

    def deliver(self) -> None:
        """The worker delivers the outbox."""

        def work() -> bool:
            done = outbox.deliver_due()
            return not done.retried

        result = self.act("worker", Act("deliver", work))
        with self.app.app_context():
            self.mail_ran_at = clock.now() if result.value else None

    def ring_one(self, *, meanwhile: bool = False, may_lose: bool = True) -> bool:
        """A webhook arrives, or is lost. False when there is none."""
        if not meanwhile:
            self.network.collect()
        posted = self.network.take()
        if posted is None:
            return False
        if may_lose and not meanwhile and self.rng.random() < 0.15 and self._will_be_read(posted):
            self.tell(f"lost: {posted.kind} {posted.event_id[-6:]}")
            self.network.lose(posted)
            return True
        self.coverage.note("door", "webhook")
        act = Act(f"ring {posted.kind} {posted.event_id[-6:]}", lambda: self._ring(posted))
        result = self._meanwhile(act.name, act.work) if meanwhile else self._act_ring(act)
        if result.value == 200:
            self.network.arrived(posted)
        elif result.value not in (None, 503) and (posted.provider, result.value) != ("sumup", 429):
            raise self.broken(f"A genuine webhook was answered with {result.value}")
        else:
            self.network.not_heard(posted)
        # Another copy may have come meanwhile, and been heard.
        heard = posted.event_id in self.network.answered
        if result.value == 503 and not heard and self._is_done(posted.event_id):
            raise self.broken(f"{posted.kind} was answered with 503, and is marked done")
        return True

    def _is_done(self, event_id: str) -> bool:
        with self.app.app_context():
            done = select(WebhookEvent.done_at).where(WebhookEvent.event_id == event_id)
            return db.session.scalar(done) is not None

    def _act_ring(self, act: Act) -> Result:
        result = self.act("provider", act)
        self.coverage.used["act"][act.name] -= 1
        return result

    @staticmethod
    def _ring(posted: Posted) -> int:
        return doors.ring(posted.provider, posted.body, posted.headers)

    def _will_be_read(self, posted: Posted) -> bool:
        """Whether the sweep is going to look at the event's payment again, so that its ring may be lost."""
        about = self._payments_about(posted)
        return bool(about) and all(moment is not None for _, moment in about)

    def _payments_about(self, posted: Posted) -> list[tuple[int, datetime | None]]:
        """The payments that an event speaks of, each with its next check."""
        with self.app.app_context():
            names = ("reference", "charge_id", "provider_id")
            about = text(" OR ".join(f"position({name} in :body) > 0" for name in names))
            rows = db.session.execute(
                select(Payment.id, Payment.next_check_at).where(about).params(body=posted.body)
            )
            return [(row[0], row[1]) for row in rows]

    def read_what_was_lost(self) -> None:
        """Read the payments whose ring was lost, as sweeps will at last: hours and days need not go by."""
        lost, self.network.lost = self.network.lost, []
        about = {payment: posted for posted in lost for payment in self._payments_about(posted)}
        for (payment_id, moment), posted in about.items():
            if moment is None:
                continue
            read = self.act("clock", Act("read again", partial(doors.recheck, payment_id, self.admin_id)))
            if read.value:
                # Not answered: whoever owns the account has to connect it again first.
                self.network.lost.append(posted)

    # --- Events on sale ---

    def pick_event(self) -> tuple[int, int]:
        """An event on sale and its ticket type; there are always a few, and most are small."""
        while len(self.on_sale) < self.habits.events:
            self.on_sale.append(self._new_event())
        index = self.rng.randrange(len(self.on_sale))
        picked = self.on_sale[index]
        if self.rng.random() < 0.12:
            del self.on_sale[index]
        return picked

    def _new_event(self) -> tuple[int, int]:
        self.events_made += 1
        offer = sellers.OFFERS[self.events_made % len(sellers.OFFERS)]
        with self.app.app_context():
            now = clock.now()
            # Most are far away; some are over before what is paid for them late arrives.
            away = timedelta(hours=1) if self.rng.random() < self.habits.soon else timedelta(days=400)
            new = Event(
                slug=f"event-{self.events_made}",
                title=f"Event {self.events_made}",
                starts_at=now + away,
                ends_at=now + away * 2,
                currency=offer.currency,
                providers=list(offer.providers) if offer.providers else None,
                organiser_id=sellers.seller(self, offer),
                state=EventState.PUBLISHED,
                created_at=now,
                updated_at=now,
                ticket_types=[
                    TicketType(
                        name="Standard",
                        price_minor=offer.price_minor,
                        capacity=self.rng.randint(*self.habits.places),
                        per_order_limit=4,
                    )
                ],
            )
            db.session.add(new)
            db.session.commit()
            self.ways[new.id] = offer.ways
            return new.id, new.ticket_types[0].id

    # --- The schedule ---

    def run(self, lives: int, begin: Callable[[World, int], Life], others: Callable[[World], None]) -> None:
        """Live so many lives, ten or so at a time, with `others` going on around them."""
        self._calm = False
        living: list[tuple[int, int, Life, Result | None]] = []
        begun = step = 0
        while living or begun < lives:
            step += 1
            if len(living) < _MAX_AT_ONCE and begun < lives and (not living or self.rng.random() < 0.5):
                begun += 1
                living.append((begun, 0, begin(self, begun), None))
            awake = [n for n, life in enumerate(living) if life[1] <= step]
            if not awake or self.rng.random() < 0.30:
                others(self)
            if awake:
                self._live(living, self.rng.choice(awake), step)
        self._calm = True

    def _live(self, living: list[tuple[int, int, Life, Result | None]], index: int, step: int) -> None:
        number, _, life, result = living[index]
        try:
            wanted = next(life) if result is None else life.send(result)
        except StopIteration:
            del living[index]
            return
        if isinstance(wanted, Wait):
            living[index] = (number, step + wanted.steps, life, Result())
        else:
            living[index] = (number, 0, life, self.act(f"life {number}", wanted))


_DROP = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def _short(value: Any) -> str:
    return "" if value is None else str(value)[:100]
