"""Buyers and a hoarder of one waiting line, all behind one address, in browsers without script.

Everybody follows the pages: the form, the mailed link, its button, and then the page that says when to look
again. The clock is moved from one look to the next, so twenty minutes take what the requests take.
"""

from __future__ import annotations

import heapq
import random
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html import unescape
from itertools import count

from flask.testing import FlaskClient
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from domain import clock
from domain.orders import line_turns
from domain.payments import settling
from domain.sweep import sweeping
from extensions import db
from models import Event, LineMode, LinePlace, Order, OrderState, Payment
from tests.support.shop import make_event, report_on

ADDRESS = "203.0.113.7"
SWEEP, LINES = 300, 60
# A page that nobody answers stops the sale after so long.
LONGEST = 45 * 60


# How the page says how many may be ordered.
_FEWER = re.compile(r"Choose (\d+), or|so (\d+) can be|at most (\d+)|only (\d+) left")


@dataclass
class Outcome:
    """Seconds by which each buyer was delayed, and until they had paid; and the most that lay unasked for."""

    delayed: dict[str, float] = field(default_factory=dict)
    had_tickets: dict[str, float] = field(default_factory=dict)
    most_not_gone_on: int = 0
    orders_of_hoarder: int = 0
    tickets_of_hoarder: int = 0
    looks: int = 0


@dataclass(frozen=True)
class Hoarder:
    """How somebody holds tickets that they never pay for."""

    # For how many tickets each of its orders asks, where it may.
    at_once: int = 1
    # Whether it goes on to the provider's page, and how long it waits before that: there a hold lives longer.
    goes_on_after: float | None = None


# One at a time until the five minutes are over; as many as an order may have; and those kept at the
# provider's page for as long as that lasts.
HOARDERS = {"sits": Hoarder(), "takes_ten": Hoarder(10), "goes_on": Hoarder(10, goes_on_after=2.0)}


class Sale:
    """One run. `new_browser` gives each person a browser; `set_clock` moves the time of everybody."""

    def __init__(
        self,
        new_browser: Callable[[], FlaskClient],
        set_clock: Callable[[datetime], None],
        *,
        tickets: int,
        buyers: int,
        hoarders: int,
        seed: int,
        rarely: int = 1,
        how: Hoarder | None = None,
    ) -> None:
        self._new_browser, self._set_clock = new_browser, set_clock
        self._chance = random.Random(seed)
        self._start, self._rarely, self._how = clock.now(), rarely, how or Hoarder()
        self._now = 0.0
        self._queue: list[tuple[float, int, Iterator[float]]] = []
        self._numbers = count()
        self.outcome = Outcome()
        event = make_event("hoarded", capacity=tickets, limit=10)
        event.line = LineMode.ON
        db.session.commit()
        self.event_id, self.kind_id, self.path = event.id, event.ticket_types[0].id, event.path
        self._buyers = [f"buyer{number}@example.org" for number in range(buyers)]
        self._hoarders = [f"hoard{number}@example.com" for number in range(hoarders)]

    def run(self) -> Outcome:
        """Until every buyer has tickets, or LONGEST has passed."""
        people = [self._buyer(email) for email in self._buyers] + [
            self._hoarder(email) for email in self._hoarders
        ]
        self._chance.shuffle(people)
        for place, person in enumerate(people):
            # At once: within two seconds, in an order that chance makes.
            self._next(person, 2.0 * place / len(people))
        self._next(self._every(SWEEP, lambda: sweeping.run("clock")), SWEEP)
        self._next(self._every(LINES, line_turns.look_after), LINES)
        while self._queue and len(self.outcome.had_tickets) < len(self._buyers):
            self._now, _, person = heapq.heappop(self._queue)
            if self._now > LONGEST:
                break
            self._set_clock(self._start + timedelta(seconds=self._now))
            pause = next(person, None)
            if pause is not None:
                self._next(person, self._now + pause)
        return self.outcome

    def _next(self, person: Iterator[float], at: float) -> None:
        heapq.heappush(self._queue, (at, next(self._numbers), person))

    # --- People: each step is a request or two, and yields the seconds until the next one -----------------

    def _buyer(self, email: str) -> Iterator[float]:
        """Fills in the form in their turn, goes on to pay, and has paid within three minutes."""
        began, browser, own_time = self._now, self._new_browser(), 0.0
        kept = None
        while kept is None:
            page = yield from self._until_turn(browser, email)
            own_time += (typing := self._chance.uniform(3, 30))
            yield typing
            made = self._order(browser, page, email)
            kept = self._kept(browser, made)
        self.outcome.delayed[email] = self._now - began - own_time
        yield self._chance.uniform(2, 10)
        assert self._press(browser, kept, kept.request.path + "/pay").status_code == 303
        yield self._chance.uniform(20, 140)
        self._pay(email)
        self.outcome.had_tickets[email] = self._now - began

    def _hoarder(self, email: str) -> Iterator[float]:
        """Takes as many tickets as it can, never pays, and comes again."""
        browser, wanted = self._new_browser(), self._how.at_once
        while True:
            page = yield from self._until_turn(browser, email)
            made = self._order(browser, page, email, wanted)
            kept = self._kept(browser, made)
            if kept is not None:
                self.outcome.orders_of_hoarder += 1
                self.outcome.tickets_of_hoarder += wanted
                wanted = self._how.at_once
                yield from self._hold(browser, kept)
            else:
                fewer = _FEWER.search(made.text)
                wanted = int(next(filter(None, fewer.groups()))) if fewer is not None else 1
            self._note_held()
            yield 1.0

    def _hold(self, browser: FlaskClient, kept: TestResponse) -> Iterator[float]:
        """Keeps what it ordered for as long as it can."""
        waits = self._how.goes_on_after
        if waits is None:
            yield 301.0
            return
        yield waits
        self._press(browser, kept, kept.request.path + "/pay")
        yield 601.0 - waits

    def _until_turn(self, browser: FlaskClient, email: str) -> Generator[float, None, TestResponse]:
        """Take a place, and look as often as its page says, until it shows the tickets. Gives that page."""
        self._press(browser, browser.get(self.path), f"{self.path}/line", email=email)
        link = self._link(email)
        yield 0.2
        self._press(browser, browser.get(link), link)
        while True:
            page = browser.get(link)
            self.outcome.looks += 1
            if "It is your turn" in page.text:
                return page
            wait = re.search(r'http-equiv="refresh" content="(\d+)"', page.text)
            if wait is None:
                # Used, lapsed, or an order of earlier that has ended since: from the beginning.
                yield 5.0
                self._press(browser, browser.get(self.path), f"{self.path}/line", email=email)
                link = self._link(email)
                self._press(browser, browser.get(link), link)
                continue
            yield float(wait[1]) * self._rarely

    def _link(self, email: str) -> str:
        """What the mail says, which the worker would have sent by now."""
        db.session.rollback()
        query = select(LinePlace).where(LinePlace.email == email).order_by(LinePlace.id.desc()).limit(1)
        return f"{self.path}/line/{db.session.scalars(query).one().secret}"

    def _order(self, browser: FlaskClient, page: TestResponse, email: str, wanted: int = 1) -> TestResponse:
        """The answer to the form."""
        fields = {f"quantity-{self.kind_id}": str(wanted), "name": "Somebody", "email": email}
        return self._press(browser, page, self.path, **fields)

    def _kept(self, browser: FlaskClient, made: TestResponse) -> TestResponse | None:
        """The page of the order that was made; None where others were faster and the place is kept."""
        return browser.get(made.headers["Location"]) if made.status_code == 303 else None

    def _press(self, browser: FlaskClient, page: TestResponse, path: str, **typed: str) -> TestResponse:
        """Send the page's form for `path` as a browser does, with what stands in it."""
        form = next((part for part in page.text.split("<form")[1:] if f'action="{path}"' in part), "")
        hidden = re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form.partition("</form>")[0])
        return browser.post(path, data={name: unescape(value) for name, value in hidden} | typed)

    def _pay(self, email: str) -> None:
        """The provider's word that the newest order of this address was paid."""
        db.session.rollback()
        query = select(Payment).join(Order).where(Order.email == email).order_by(Payment.id.desc()).limit(1)
        payment = db.session.scalars(query).one()
        settling.settle(payment.id, report_on(payment, "paid"), door="test")
        order = db.session.get_one(Order, payment.order_id, populate_existing=True)
        assert order.state is OrderState.COMPLETED, order.state

    def _every(self, seconds: float, job: Callable[[], object]) -> Iterator[float]:
        """What the worker does by itself."""
        while True:
            job()
            yield float(seconds)

    def _note_held(self) -> None:
        db.session.rollback()
        waiting = (
            select(func.count()).select_from(Payment).where(Payment.awaits_buyer, Payment.state == "created")
        )
        held = db.session.scalar(waiting) or 0
        self.outcome.most_not_gone_on = max(self.outcome.most_not_gone_on, held)

    def sold(self) -> int:
        db.session.rollback()
        event = db.session.get_one(Event, self.event_id, populate_existing=True)
        return event.ticket_types[0].sold


def browsers(new: Callable[[], FlaskClient]) -> Callable[[], FlaskClient]:
    """Browsers behind the one address."""

    def one() -> FlaskClient:
        browser = new()
        browser.environ_base["REMOTE_ADDR"] = ADDRESS
        return browser

    return one
