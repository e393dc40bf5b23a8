"""Buyers' lives: what they order, what they do at the provider, and which doors they open, in any order.

A life is a generator of acts. It knows what its buyer knows: the form, the link that the page showed, and the
order's address; after a death it does what a person does whose page did not load, and tries again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

from sqlalchemy import select

from domain.errors import DomainError
from domain.ledger import agents
from domain.orders import entries, managing, placing, top_ups
from domain.payments import reconciling, settling, starting
from domain.people import athletes
from extensions import db
from models import Agent, Event, Order, PaymentState, TicketType, User
from tests.simulation import doors, tournaments
from tests.simulation.scripts import script
from tests.simulation.steps import Case, Steps, cancel, open_doors, surely
from tests.simulation.world import Act, Life, Result, Wait, World

_TOP_UPS = (1000, 5000, 10_000, 50_000)


@dataclass
class Form:
    """What somebody typed into an event's page. The token makes it one order, however often it is sent."""

    event_id: int
    type_id: int
    quantity: int
    email: str
    token: str
    user_id: int | None = None
    provider: str = "stripe"
    ways: tuple[str, ...] = ("stripe",)

    def send(self) -> Case:
        user = db.session.get_one(User, self.user_id) if self.user_id is not None else None
        order = placing.place(
            db.session.get_one(Event, self.event_id),
            {self.type_id: self.quantity},
            name="Bo Buyer",
            email=self.email,
            user=user,
            provider=self.provider,
            form_token=self.token,
            client_address="192.0.2.7",
        )
        return _onward(order, user_id=self.user_id, ways=self.ways)


def _onward(
    order: Order, *, user_id: int | None, top_up: bool = False, ways: tuple[str, ...] = ("stripe",)
) -> Case:
    """To the provider's page, as the order's page sends the buyer on."""
    case = Case(order.id, order.code, order.secret, user_id, top_up, ways=ways)
    if order.total_minor:
        try:
            payment = starting.open_at_provider(order)
        except DomainError:
            # The page says that the wallet has too little; the order stays, and can be paid otherwise.
            return case
        if payment is not None and payment.state is PaymentState.OPEN:
            case.session = payment.provider_id or ""
    return case


def begin(world: World, number: int) -> Life:
    """One buyer's life, of a kind that the seed decides."""
    kinds: tuple[tuple[Callable[[World, int], Life], int], ...] = (
        (guest, 60),
        (member, 12),
        (topper, 14),
        (agent_user, 10),
        (lost_start, 6),
        (reviewed, 14),
        (entrant, 16),
    )
    kind = world.rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]
    world.coverage.note("life", kind.__name__)
    return kind(world, number)


# --- Kinds of lives -------------------------------------------------------------------------------------


def guest(world: World, number: int) -> Life:
    """Somebody without an account who buys tickets by card or bank debit, or takes free ones."""
    form = _form(world, number, "guest", world.rng.randint(1, 3))
    case = yield from _ordered(world, form.send)
    if case is not None:
        if form.provider == "stripe" and (number % 3 == 1 or world.seed % 8 == 6):
            # By a wallet's button on our own page: the session is closed, and an intent takes its place.
            # In one world of a night's all do, so that an intent has seen everything.
            by_button = partial(_pay_again, case, "stripe", "apple_pay")
            case.session = (yield Act("pay by a wallet's button", by_button)).value or ""
        yield from _pay(world, case)
        yield from _afterwards(world, case)


def member(world: World, number: int) -> Life:
    """Somebody with a wallet, who pays from it, or by card where it has too little."""
    form = _form(world, number, "member", world.rng.randint(1, 3))
    form.user_id = world.rng.choice(world.member_ids)
    way = form.provider = world.rng.choice(("wallet", "wallet", form.provider))
    case = yield from _ordered(world, form.send)
    if case is None:
        return
    if way != "wallet" and world.rng.random() < 0.5:
        # In another tab, they change their mind: the card's session is closed before the wallet pays.
        yield Act("pay by wallet instead", partial(_pay_again, case, "wallet"))
    elif way == "wallet":
        yield Act("pay by wallet again", partial(_pay_again, case, "wallet"))
    yield from _pay(world, case)
    yield from _afterwards(world, case)


def topper(world: World, number: int) -> Life:
    """A member who tops up the wallet."""
    user_id, amount = world.rng.choice(world.member_ids), world.rng.choice(_TOP_UPS)
    token = f"top-up-{world.seed}-{number}"

    def send() -> Case:
        user = db.session.get_one(User, user_id)
        return _onward(top_ups.start_top_up(user, amount, form_token=token), user_id=user_id, top_up=True)

    case = yield from _ordered(world, send)
    if case is not None:
        yield from _pay(world, case)
        yield from _afterwards(world, case)


def agent_user(world: World, number: int) -> Life:
    """A member who uses a service that is paid from the wallet, sometimes by a form that is sent again."""
    user_id = world.rng.choice(world.member_ids)
    slug = world.rng.choice(("qr-code", "guest-list", "running-order"))
    said = {"qr-code": "hello", "guest-list": "ada@example.org", "running-order": "no time"}[slug]

    def use() -> bool:
        agent = db.session.scalars(select(Agent).filter_by(slug=slug)).one()
        return agents.use(db.session.get_one(User, user_id), agent, said, token=f"use-{number}").repeated

    for _ in range(world.rng.randint(1, 3)):
        yield Act(f"use {slug}", use)


def lost_start(world: World, number: int) -> Life:
    """The provider opened a session and its answer was lost, yet somebody goes there; recovery comes late.

    By then our idempotency key may be forgotten, so that recovery finds the payment further on than open.
    """
    form = _form(world, number, "lost", 1)
    world.lose_the_next_start(form.provider)
    sent = yield Act("order", form.send)
    case: Case | None = sent.value or (yield Act("look the order up", partial(_by_token, form))).value
    if case is None or case.session:
        return
    session = world.session_of(f"{case.code}-1")
    if session:
        do = world.rng.choice(_AFTER_A_LOST_START[form.provider])
        if do in ("pay_later", "fail"):
            world.at_provider(session, "pay_later")
        if do == "fail":
            world.at_provider(session, "fail_later")
        if do in ("pay", "decline", "expire"):
            world.at_provider(session, do)
        if do == "tamper":
            world.tamper(session)
    if world.rng.random() < 0.7:
        world.tell("a day passes without a sweep")
        world.advance(24 * 3600)
    yield from open_doors(world, case, 2)


def reviewed(world: World, number: int) -> Life:
    """Somebody whose payment comes into review and out of it again, by a person who may be wrong.

    The combinations of what the person decides and what happens next are gone through one after the other.
    """
    form = _form(world, number, "reviewed", 1)
    case = yield from _ordered(world, form.send)
    if case is None or not case.session:
        return
    world.tamper(case.session)
    yield from surely(world, case, "recheck")
    world.mend(case.session)
    at = doors.provider_of(case.session)
    world.coverage.note("reviewed at", at)
    state, then = _REVIEWS[(world.seed * 17 + world.coverage.used["reviewed at"][at]) % len(_REVIEWS)]
    if at == "sumup" and then == "pay_later":
        then = "decline"
    known = yield Act("look at the payment", partial(doors.payment_of, case.order_id))
    if known.value is not None:
        decision = partial(settling.override, state=state, actor_id=world.admin_id, note="looked at it")
        for _ in range(3):
            decided = yield Act(f"decide {state}", lambda: decision(known.value[0]).state)
            if not decided.died:
                break
    if then == "cancel":
        yield Act("cancel", partial(cancel, case))
    elif then != "nothing":
        world.at_provider(case.session, then)
    yield from surely(world, case, "recheck")
    yield from open_doors(world, case, 1)


# --- Entrants -------------------------------------------------------------------------------------------


@dataclass
class Entry:
    """What a member chose in a category's entry form. Sending it again is the same entry."""

    user_id: int
    type_id: int
    athlete: str
    provider: str
    ways: tuple[str, ...]
    token: str
    agrees: bool

    def send(self) -> Case:
        user = db.session.get_one(User, self.user_id)
        made = entries.enter(
            db.session.get_one(TicketType, self.type_id),
            athletes.find(user, self.athlete),
            user,
            provider=self.provider,
            consent=athletes.consent_hash() if self.agrees else None,
            form_token=self.token,
            client_address="192.0.2.7",
        )
        participant = made.public_id
        case = _onward(made.order, user_id=self.user_id, ways=self.ways)
        case.entry = participant
        return case


def entrant(world: World, number: int) -> Life:
    """A member who enters an athlete, pays or not, and may withdraw the entry, and enter anew."""
    event_id, kinds = tournaments.pick(world)
    user_id, ways = world.rng.choice(world.member_ids), world.ways[event_id]
    values = {
        "name": f"Athlete {number}",
        "birth_date": date(world.rng.choice((1990, 1990, 1990, 2019)), 3, 1),
        "weight_g": world.rng.randint(50, 110) * 1000,
    }
    kept: Result = Result(died="not yet")
    for _ in range(3):
        kept = yield Act("keep an athlete", partial(_keep, user_id, values))
        if kept.value:
            break
    if not kept.value:
        return
    type_id, agrees = world.rng.choices(kinds, (6, 2, 2))[0], world.rng.random() < 0.7
    for attempt in range(2):
        token = f"entry-{world.seed}-{number}-{attempt}"
        entry = Entry(user_id, type_id, kept.value, world.rng.choice(ways), ways, token, agrees)
        case = yield from _ordered(world, entry.send)
        if case is None:
            world.coverage.note("entry", "refused")
            return
        world.coverage.note("entry", "free" if type_id == kinds[-1] else "with a fee")
        if type_id != kinds[-1] and world.rng.random() < 0.85:
            yield from _pay(world, case)
        yield from _afterwards(world, case)
        if world.rng.random() < 0.6:
            return
        withdrawn = yield Act("withdraw the entry", partial(_withdraw, case))
        if withdrawn.value is None:
            return
        world.coverage.note("entry", f"withdrawn when {withdrawn.value}")


def _keep(user_id: int, values: dict[str, Any]) -> str:
    return athletes.add(db.session.get_one(User, user_id), values).public_id


def _withdraw(case: Case) -> str:
    """What the entry was before it was withdrawn."""
    found = entries.find(db.session.get_one(User, case.user_id or 0), case.entry)
    before = found.state.value
    entries.withdraw(found, actor_id=case.user_id or 0, door="order_page")
    return before


_AFTER_A_LOST_START = {
    "stripe": ("pay", "pay_later", "nothing", "tamper", "fail"),
    "sumup": ("pay", "pay", "nothing", "tamper", "decline", "expire"),
}
_REVIEWS = tuple(
    (state, then)
    for then in ("cancel", "pay_later", "expire", "pay", "nothing")
    for state in (
        PaymentState.PROCESSING,
        PaymentState.FAILED,
        PaymentState.CANCELLED,
        PaymentState.EXPIRED,
    )
)


# --- Ordering -------------------------------------------------------------------------------------------


def _ordered(world: World, send: Callable[[], Case]) -> Generator[Act | Wait, Result, Case | None]:
    """Send the form, once more when the page did not load, or by pressing twice. None: nothing was sold."""
    world.coverage.note("door", "checkout")
    result = yield Act("order", send)
    if result.error:
        return None
    for _ in range(3):
        if not result.died and world.rng.random() > 0.08:
            break
        result = yield Act("order again by the same form", send)
    case: Case | None = result.value
    return case


def _form(world: World, number: int, who: str, quantity: int) -> Form:
    """For some event, to be paid in one of the ways in which it can be."""
    event_id, type_id = world.pick_event()
    ways = world.ways[event_id]
    email, token = f"{who}{number}@example.org", f"form-{world.seed}-{number}"
    return Form(event_id, type_id, quantity, email, token, provider=world.rng.choice(ways), ways=ways)


def _by_token(form: Form) -> Case | None:
    order = db.session.scalar(select(Order).filter_by(form_token=form.token))
    return None if order is None else Case(order.id, order.code, order.secret, form.user_id, ways=form.ways)


def _pay_again(case: Case, provider: str, method: str = "") -> str:
    payment = managing.pay_again(case.order_id, provider, payer_id=case.user_id, method=method)
    return payment.provider_id or "" if payment is not None and payment.state is PaymentState.OPEN else ""


# --- Paying ---------------------------------------------------------------------------------------------


def _pay(world: World, case: Case) -> Steps:
    """Pay, or not; up to three attempts."""
    for attempt in range(3):
        if not case.session:
            # The provider did not answer, or a process died: the order page finishes the start.
            yield from open_doors(world, case, 1)
            case.session = (yield Act("find the link", partial(_link, case))).value or ""
        if case.session:
            yield from script(world, case)(world, case)
        if attempt == 2 or world.rng.random() < 0.6:
            return
        again = yield Act("pay again", partial(_pay_again, case, world.rng.choice(case.ways)))
        if (
            case.session
            and again.value not in (None, "", case.session)
            and world.rng.random() < world.habits.two_tabs
        ):
            # Two tabs: the old page is still there, and both are paid.
            world.at_provider(case.session, "pay", force=True)
        case.session = again.value or ""
        if again.error:
            return


def _link(case: Case) -> str:
    """The link that the order page shows."""
    order = managing.find(case.code, case.secret)
    payment = reconciling.active(order)
    return payment.provider_id or "" if payment is not None and payment.state is PaymentState.OPEN else ""


# --- Doors and what comes after -------------------------------------------------------------------------


def _afterwards(world: World, case: Case) -> Steps:
    """Small wishes of people who have ordered."""
    wish = world.rng.random()
    if wish < 0.06:
        yield Act("resend", lambda: managing.resend(managing.find(case.code, case.secret), door="order_page"))
    elif wish < 0.10:
        new = f"corrected{case.order_id}@example.org"
        yield Act(
            "correct address", lambda: managing.correct_email(managing.find(case.code, case.secret), new)
        )
    elif wish < 0.14:
        yield Act("cancel", partial(cancel, case))
    elif wish < 0.18:
        yield Act("pay again", partial(_pay_again, case, world.rng.choice(case.ways)))
