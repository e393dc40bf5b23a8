"""A world of payments at providers that can do less: some are asked and nothing else, some are told.

Quartz can be asked, and is neither closed, searched nor refunded by a call, as Kaspi's QR API (r1): creates
lose their answers, readings fail, codes end, and people scan them late. Kaspi itself is told, by hand or by
its calls: references are wrong, used before, in the wrong sum; people disagree, take back and look again;
calls come twice, late, and for the wrong order. Processes die at every call and commit. After each step the
eight invariants are asked, and at the end, when all has come to rest, the bank's own books.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from random import Random
from types import TracebackType
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select

import config
from domain import clock
from domain.errors import DomainError
from domain.ledger import transfers
from domain.orders import event_cancellation, managing, placing
from domain.payments import (
    calls,
    incident_decisions,
    reconciling,
    refundable,
    refunds,
    refunds_by_hand,
    starting,
    telling,
)
from domain.providers import registry
from domain.providers.calling import Caller
from domain.providers.contract import ProviderError, Report
from domain.sweep import sweeping
from domain.tickets import documents
from extensions import db, queue
from models import (
    PAYMENT_ACTIVE,
    Event,
    Incident,
    Order,
    OrderState,
    Payment,
    PaymentState,
    Refund,
    RefundState,
    Role,
    Ticket,
    TicketState,
    ToldReport,
    Transfer,
    User,
)
from tests.simulation.deaths import Death, Deaths
from tests.simulation.story import Broken, Story
from tests.simulation.what_holds import HOLDS_OUTLIVE_SESSIONS, WhatHolds
from tests.support import kaspi_told, quartz
from tests.support.shop import make_event

_TROUBLES = ("", "", "", "before", "after", "refused")
_WAYS = ("quartz", "kaspi")
# So long after its end a code is scanned at most: then a closed payment is read again.
_SCANNED_LATE = timedelta(minutes=50)
_CALLED_FROM = {"address": kaspi_told.KASPI}


class Kaspi(Story):
    """One seed's world. Use it as a context manager."""

    def __init__(self, app: Flask, seed: int) -> None:
        super().__init__(app, seed)
        self.rng = Random(f"kaspi {seed}")
        self.deaths = Deaths(Random(f"kaspi deaths {seed}"), 4)
        self.used: Counter[str] = Counter()
        self.silent = 0
        # Whether mail has had its chance to leave since time has passed.
        self.mailed = True
        self.people: list[int] = []
        self.events: list[int] = []
        # The bank's names for money that came by hand or by calls, and the sums, as told first.
        self.named = 0
        self.calls: list[dict[str, str]] = []
        self.answers: dict[str, str] = {}
        self.what_holds = WhatHolds(HOLDS_OUTLIVE_SESSIONS)
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Kaspi:
        logging.disable(logging.CRITICAL)
        self.bank = quartz.use(self._patch)
        told = kaspi_told.use_manual if self.seed % 2 else kaspi_told.use_biller
        told(kaspi_two_people_above_minor=500_000, kaspi_biller_believed_minor=500_000)
        # Nobody pays by card here, so that sweeps have nobody to ask what happened there.
        alone = replace(config.get(), stripe_secret_key="", stripe_publishable_key="", sumup_api_key="")
        config.use(replace(alone, sumup_client_id="", late_money="person"))
        self._patch.setattr(queue, "soon", lambda *args: True)
        self._patch.setattr(documents, "tickets_pdf", lambda order: b"%PDF-1.7")
        self._patch.setattr(documents, "qr_png", lambda *args, **kwargs: b"\x89PNG")
        self._patch.setattr(clock, "_offset", lambda path: timedelta(seconds=self._offset))
        self._patch.setattr(
            db.session, "commit", self.deaths._around_commit(db.session.commit), raising=False
        )
        for name in ("create", "fetch"):
            around = self.deaths._around(f"quartz {name}", self._moody(getattr(quartz.Quartz, name)))
            self._patch.setattr(quartz.Quartz, name, around)
        self.deaths.between, self.deaths.drops = self._meanwhile, 0.0
        with self.app.app_context():
            now = clock.now()
            people = [
                User(email=f"boss{n}@example.org", name="Boss", role=Role.ADMIN, created_at=now)
                for n in range(3)
            ]
            db.session.add_all(people)
            db.session.commit()
            self.people = [person.id for person in people]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patch.undo()
        db.session.remove()
        logging.disable(logging.NOTSET)

    def _moody(self, call: Callable[..., Report]) -> Callable[..., Report]:
        """Now and then the provider says nothing, of what is only read."""

        def maybe(own: Any, *args: Any, **kwargs: Any) -> Report:
            if call.__name__ == "fetch" and self.silent > 0:
                self.silent -= 1
                raise ProviderError("It did not answer.", permanent=False, code="timeout", silent=True)
            try:
                return call(own, *args, **kwargs)
            except ProviderError as error:
                self.used[f"{call.__name__}: {error.code}"] += 1
                raise

        return maybe

    def _meanwhile(self, point: str, provider_id: str) -> None:
        """While a process waits for the provider, the buyer goes on."""
        if provider_id in self.bank.payments and self.rng.random() < 0.1:
            self._scan(provider_id, self.rng.choice(("processing", "paid", "failed")))

    # --- Steps ---

    def step(self, name: str, work: Callable[[], Any]) -> str:
        """A process of its own, which may die; then all that must hold is asked. How it ended."""
        self._offset += self.rng.uniform(2, 15)
        self.deaths.arm(soon=name == "sweep")
        came = "done"
        with self.app.app_context():
            try:
                work()
            except Death as death:
                came = f"died at {death}"
            except DomainError as error:
                came = error.code
            except Exception as error:
                raise self.broken(f"{name} raised {error!r}") from error
            finally:
                self.deaths.disarm()
                db.session.rollback()
        self.used[name] += 1
        self.used[f"{name}: {came.split(' at ')[0]}"] += 1
        self.tell(f"{name}: {came}")
        self._look(name)
        return came

    def _look(self, after: str) -> None:
        with self.app.app_context():
            told = self.what_holds.broken(mail_ran=self.mailed)
            if told:
                raise self.broken(f"After {after}: {told}")

    def live(self, steps: int) -> None:
        """So many things that somebody does, or that happen."""
        doings: tuple[tuple[Callable[[], None], int], ...] = (
            *((self._order, 16), (self._page, 14), (self._at_bank, 16), (self._tell, 14)),
            *((self._second_word, 10), (self._call, 12), (self._cancel, 5), (self._again, 8)),
            *((self._refund, 6), (self._by_hand, 5), (self._decide, 5), (self._weather, 8)),
            *((self._pass, 10), (self._sweep, 8), (self._call_off, 1)),
        )
        kinds, weights = [one for one, _ in doings], [weight for _, weight in doings]
        for _ in range(steps):
            self.rng.choices(kinds, weights)[0]()

    def _some(self, *conditions: Any) -> Payment | None:
        found = db.session.scalars(select(Payment).where(*conditions).order_by(Payment.id.desc()).limit(25))
        rows = list(found)
        return self.rng.choice(rows) if rows else None

    def _id(self, *conditions: Any) -> int:
        """Some payment's id; 0 where there is none."""
        with self.app.app_context():
            found = self._some(*conditions)
            return found.id if found is not None else 0

    def _order(self) -> None:
        if len(self.events) < 3:
            with self.app.app_context():
                made = make_event(
                    f"event{self.used['order']}-{len(self.trace)}",
                    capacity=self.rng.randint(1, 5),
                    price_minor=self.rng.choice((300_000, 700_000)),
                    currency="KZT",
                    providers=list(_WAYS),
                )
                self.events.append(made.id)
        event_id, way, token = self.rng.choice(self.events), self.rng.choice(_WAYS), f"form{len(self.trace)}"
        if self.rng.random() < 0.15:
            self.events.remove(event_id)

        def order() -> None:
            event = db.session.get_one(Event, event_id)
            made = placing.place(
                event,
                {event.ticket_types[0].id: 1},
                name="Bo Buyer",
                email=f"{token}@example.org",
                provider=way,
                form_token=token,
            )
            starting.open_at_provider(made)

        self.step(f"order by {way}", order)

    def _page(self) -> None:
        payment_id = self._id()

        def look() -> None:
            order = db.session.get_one(Payment, payment_id).order
            reconciling.refresh(managing.find(order.code, order.secret), door="order_page")

        if payment_id:
            self.step("page", look)

    def _at_bank(self) -> None:
        """Somebody scans, pays, or presses no, also soon after the code has ended."""
        able = [name for name, held in self.bank.payments.items() if self._may_be_scanned(held)]
        if able:
            states = ("processing", "paid", "paid", "failed", quartz.UNHEARD)
            self._scan(self.rng.choice(able), self.rng.choice(states))

    def _may_be_scanned(self, held: dict[str, Any]) -> bool:
        with self.app.app_context():
            in_time = clock.now() < held["until"] + _SCANNED_LATE
        begun = held["state"] in ("processing", quartz.UNHEARD)
        return bool(begun or (held["state"] == "open" and in_time))

    def _scan(self, name: str, state: str) -> None:
        held = self.bank.payments[name]
        if self._may_be_scanned(held):
            with self.app.app_context():
                late = held["state"] == "open" and clock.now() > held["until"]
            self.bank.be(name, state)
            self.used[f"at the bank: {state}"] += 1
            self.used[f"at the bank: {state} late"] += late
            self.tell(f"at the bank: {held['reference']} is {state}")

    def _weather(self) -> None:
        self.bank.trouble = self.rng.choice(_TROUBLES)
        self.silent = self.rng.choice((0, 0, 1, 3))
        self.tell(f"weather: {self.bank.trouble or 'clear'}, {self.silent} silent")

    def _pass(self) -> None:
        """Time passes; a sweep comes after it, which also lets the mail leave."""
        low, high = self.rng.choice(((30, 200), (200, 900), (900, 4000), (40_000, 100_000)))
        self._offset += self.rng.uniform(low, high)
        self.mailed = False
        self._sweep()

    def _sweep(self) -> None:
        everything = self.rng.random() < 0.1
        if self.step("sweep", lambda: self._run(everything=everything)) != "done":
            # The next one goes on.
            with self.app.app_context():
                self._run()

    def _run(self, *, everything: bool = False) -> None:
        sweeping.run("simulation", everything=everything)
        self.mailed = True

    def _cancel(self) -> None:
        payment_id = self._id()
        if payment_id:
            self.step(
                "cancel",
                lambda: managing.cancel(db.session.get_one(Payment, payment_id).order, door="order_page"),
            )

    def _again(self) -> None:
        payment_id, way = self._id(), self.rng.choice(_WAYS)
        if payment_id:
            self.step(
                f"pay again by {way}",
                lambda: managing.pay_again(
                    db.session.get_one(Payment, payment_id).order_id, way, payer_id=None
                ),
            )

    def _call_off(self) -> None:
        if not self.events or len(self.events) < 2:
            return
        event_id = self.events.pop(0)
        self.step(
            "cancel event",
            lambda: event_cancellation.cancel(
                db.session.get_one(Event, event_id), refund=True, actor_id=self.people[0]
            ),
        )

    # --- Told ---

    def _tell(self) -> None:
        """An admin writes down what came, rightly or not, or that nothing came."""
        payment_id, who = self._id(Payment.provider == "kaspi"), self.rng.choice(self.people)
        if not payment_id:
            return
        if self.rng.random() < 0.2:
            self.step(
                "tell unpaid",
                lambda: telling.tell_unpaid(payment_id, actor_id=who, note="Looked at the bank"),
            )
            return
        self.named += self.rng.random() < 0.85
        reference = self.rng.choices((f"QR{1_000_000 + self.named}", "no"), (9, 1))[0]
        off = self.rng.choices((0, -100, 5000), (8, 1, 1))[0]

        def tell() -> None:
            amount = db.session.get_one(Payment, payment_id).amount_minor + off
            telling.tell_paid(
                payment_id, reference=reference, amount_minor=amount, actor_id=who, note="In the statement"
            )

        self.step("tell paid", tell)

    def _second_word(self) -> None:
        with self.app.app_context():
            waiting = [row.id for row in db.session.scalars(select(ToldReport)) if row.is_waiting]
        if not waiting:
            return
        told_id, who = self.rng.choice(waiting), self.rng.choice(self.people)
        if self.rng.random() < 0.3:
            self.step("take back", lambda: telling.withdraw(told_id, actor_id=who, why="Another order's"))
        else:
            self.step("confirm", lambda: telling.confirm(told_id, actor_id=who, note="Seen, too"))

    def _call(self) -> None:
        """Kaspi calls: it asks, it tells, it tells again, in whatever sum."""
        if not isinstance(registry.get("kaspi"), Caller):
            return
        query: dict[str, str]
        if self.calls and self.rng.random() < 0.3:
            query = self.rng.choice(self.calls)
        else:
            with self.app.app_context():
                known = self._some(Payment.provider == "kaspi")
                if known is None:
                    return
                sums = (known.amount_minor, known.amount_minor, known.amount_minor, 123_456)
                minor = self.rng.choice(sums)
                query = {
                    "command": self.rng.choice(("check", "pay", "pay")),
                    "account": self.rng.choice((known.reference, known.order.code, "ORD-22222222")),
                    "txn_id": f"{100_000 + len(self.trace)}",
                    "sum": f"{minor / 100:.2f}",
                    "txn_date": f"{clock.now():%Y%m%d%H%M%S}",
                }
            self.calls.append(query)

        def call() -> None:
            told = calls.answer("kaspi", kaspi_told.PATH, query, **_CALLED_FROM)
            if told is None or query["command"] == "check":
                return
            kept = '"result": 4' not in told and '"result": 5' not in told
            before = self.answers.setdefault(query["txn_id"], told) if kept else told
            if before != told:
                raise self.broken(f"{query['txn_id']} was answered {before}, and then {told}")

        self.step(f"call {query['command']}", call)

    # --- Money back, and decisions ---

    def _refund(self) -> None:
        payment_id = self._id(Payment.received_minor.is_not(None))
        if not payment_id:
            return
        part = self.rng.random() < 0.4

        def ask() -> None:
            left = refundable.refundable_minor(db.session.get_one(Payment, payment_id))
            refunds.request(
                payment_id, max(1, left // 2) if part else left, actor_id=self.people[0], reason="Ill"
            )

        self.step("refund", ask)

    def _waiting_refunds(self) -> list[int]:
        with self.app.app_context():
            rows = db.session.scalars(select(Refund).order_by(Refund.id))
            return [refund.id for refund in rows if refunds_by_hand.is_by_hand(refund)]

    def _by_hand(self) -> None:
        waiting = self._waiting_refunds()
        if waiting:
            self._conclude(self.rng.choice(waiting), made=self.rng.random() < 0.8)

    def _conclude(self, refund_id: int, *, made: bool) -> None:
        if made:
            name = f"RB{2_000_000 + refund_id}"
            self.step(
                "refund made",
                lambda: refunds_by_hand.record(
                    refund_id, reference=name, note="In the app", actor_id=self.people[1]
                ),
            )
        else:
            self.step(
                "refund not made",
                lambda: refunds_by_hand.refuse(refund_id, why="No account", actor_id=self.people[1]),
            )

    def _inbox(self) -> list[int]:
        with self.app.app_context():
            open_ = select(Incident.id).where(Incident.resolved_at.is_(None)).order_by(Incident.id)
            return list(db.session.scalars(open_))

    def _decide(self) -> None:
        inbox = self._inbox()
        if inbox:
            self._resolve(self.rng.choice(inbox), self.rng.choice(("issue", "refund", "dismiss")))

    def _resolve(self, incident_id: int, how: str) -> str:
        return self.step(
            f"resolve by {how}",
            lambda: incident_decisions.resolve(
                incident_id, how=how, reason="Looked at it", actor_id=self.people[0]
            ),
        )

    # --- The end ---

    def heal(self) -> None:
        """Nobody dies, the provider answers, people do what waits for them, and sweeps go on."""
        self.deaths.end()
        self.bank.trouble, self.silent = "", 0
        for name, held in self.bank.payments.items():
            if held["state"] in ("processing", quartz.UNHEARD):
                self._scan(name, self.rng.choice(("paid", "failed")))
        for _ in range(12):
            self._offset += 100_000
            self.step("sweep", self._run)
            with self.app.app_context():
                waiting = [row.id for row in db.session.scalars(select(ToldReport)) if row.is_waiting]
            for told_id in waiting:
                for who in self.people[:2]:
                    self.step("confirm", partial(telling.confirm, told_id, actor_id=who, note="Seen"))
            for refund_id in self._waiting_refunds():
                self._conclude(refund_id, made=True)
            for incident_id in self._inbox():
                if self._resolve(incident_id, "refund") != "done":
                    self._resolve(incident_id, "dismiss")
            if not self._restless():
                return
        raise self.broken("It does not come to rest: " + "; ".join(self._restless()))

    def _restless(self) -> list[str]:
        with self.app.app_context():
            active = db.session.scalars(
                select(Payment).where(Payment.state.in_((*PAYMENT_ACTIVE, PaymentState.REVIEW)))
            )
            unmade = db.session.scalars(select(Refund).where(Refund.state == RefundState.CREATED))
            return [
                *(f"{p.reference} is {p.state}" for p in active),
                *(f"{r.idempotency_key} is {r.state}" for r in unmade),
                *(f"incident {one} waits" for one in self._inbox()),
            ]

    def judge(self) -> None:
        """Compare with the bank's own books, which Kassa did not write."""
        with self.app.app_context():
            wrong = [*self._made_once(), *self._placed(), *self._handed_over(), *self._ledger()]
        if wrong:
            raise self.broken("When all had come to rest:\n" + "\n".join(wrong))

    def _made_once(self) -> list[str]:
        made = Counter(held["reference"] for held in self.bank.payments.values())
        return [f"{name} was opened {times} times at the bank." for name, times in made.items() if times > 1]

    def _placed(self) -> list[str]:
        """Whatever the bank took is written down as received, once."""
        wrong = []
        for name, held in self.bank.payments.items():
            payment = db.session.scalar(select(Payment).filter_by(reference=held["reference"]))
            got = payment.received_minor if payment is not None else None
            paid = held["state"] == "paid"
            if payment is not None and payment.provider_id == name and (got is not None) is not paid:
                wrong.append(f"{held['reference']} is {held['state']} at the bank, and here got {got}.")
        return wrong

    def _handed_over(self) -> list[str]:
        wrong = []
        for order in db.session.scalars(select(Order)):
            bought = [payment for payment in order.payments if payment.fulfilled]
            issued = db.session.scalars(select(func.count()).where(Ticket.order_id == order.id)).one()
            live = sum(ticket.state is not TicketState.VOID for ticket in order.tickets)
            if len(bought) > 1 or issued != len(bought):
                wrong.append(f"{order.code} has {issued} tickets for {len(bought)} payments.")
            if order.state is OrderState.REFUNDED and live:
                wrong.append(f"{order.code} is refunded, and {live} of its tickets are valid.")
        return wrong

    def _ledger(self) -> list[str]:
        """What each provider's account moved is what came, less what was sent back by hand."""
        wrong = []
        for payment in db.session.scalars(select(Payment)):
            account = transfers.provider_account(payment.provider, payment.account)
            rows = db.session.scalars(select(Transfer).where(Transfer.payment_id == payment.id)).all()
            here = sum(r.amount_minor * ((r.debit == account) - (r.credit == account)) for r in rows)
            extra = sum(r.amount_minor for r in rows if r.kind == "told_twice")
            back = sum(r.amount_minor for r in payment.refunds if r.state is RefundState.SUCCEEDED)
            came = (payment.received_minor or 0) + extra - back
            if here != came:
                wrong.append(f"{payment.reference}: {came} came and stayed, and the ledger has {here}.")
        return wrong


def live(app: Flask, seed: int, steps: int) -> Counter[str]:
    """Run a seed; what it used. Raises Broken with the seed and its last steps."""
    with Kaspi(app, seed) as world:
        world.live(steps)
        world.heal()
        world.judge()
        return world.used


__all__ = ["Broken", "Kaspi", "live"]
