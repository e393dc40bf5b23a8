"""Buyers' lives: what they order, what they do at the provider, and which doors they open, in any order.

A life is a generator of acts. It knows what its buyer knows: the form, the link that the page showed, and the
order's address; after a death it does what a person does whose page did not load, and tries again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import select

from domain import agents, orders, payments, topups
from domain.errors import DomainError
from extensions import db
from models import Agent, Event, Order, OrderState, PaymentState, User
from tests.simulation import doors
from tests.simulation.world import Act, Life, Result, Wait, World

Steps = Generator[Act | Wait, Result, None]
_CARDS = ("4242424242424242", "4000000000007726", "4000000000005126", "4000000000000259")
_TOP_UPS = (1000, 5000, 10_000, 50_000)


@dataclass
class Case:
    """An order as its buyer has it. `session` is the id in the link to the provider's page, or ''."""

    order_id: int
    code: str
    secret: str
    user_id: int | None = None
    top_up: bool = False
    session: str = ""

    def __str__(self) -> str:
        return f"{self.code} {self.session[-6:]}"


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

    def send(self) -> Case:
        user = db.session.get_one(User, self.user_id) if self.user_id is not None else None
        order = orders.place(
            db.session.get_one(Event, self.event_id),
            {self.type_id: self.quantity},
            name="Bo Buyer",
            email=self.email,
            user=user,
            provider=self.provider,
            form_token=self.token,
            client_address="192.0.2.7",
        )
        return _onward(order, user_id=self.user_id)


def _onward(order: Order, *, user_id: int | None, top_up: bool = False) -> Case:
    """To the provider's page, as the order's page sends the buyer on."""
    case = Case(order.id, order.code, order.secret, user_id, top_up)
    if order.total_minor:
        try:
            payment = payments.open_at_provider(order)
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
        (lost_start, 4),
        (reviewed, 11),
    )
    kind = world.rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]
    world.coverage.note("life", kind.__name__)
    return kind(world, number)


# --- Kinds of lives -------------------------------------------------------------------------------------


def guest(world: World, number: int) -> Life:
    """Somebody without an account who buys tickets by card or bank debit, or takes free ones."""
    event_id, type_id = world.pick_event()
    email = f"guest{number}@example.org"
    form = Form(event_id, type_id, world.rng.randint(1, 3), email, f"form-{world.seed}-{number}")
    case = yield from _ordered(world, form.send)
    if case is not None:
        yield from _pay(world, case)
        yield from _afterwards(world, case)


def member(world: World, number: int) -> Life:
    """Somebody with a wallet, who pays from it, or by card where it has too little."""
    event_id, type_id = world.pick_event()
    user_id = world.rng.choice(world.member_ids)
    way = world.rng.choice(("wallet", "wallet", "stripe"))
    form = Form(
        event_id,
        type_id,
        world.rng.randint(1, 3),
        f"member{number}@example.org",
        f"form-{world.seed}-{number}",
        user_id,
        way,
    )
    case = yield from _ordered(world, form.send)
    if case is None:
        return
    if way == "stripe" and world.rng.random() < 0.5:
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
        return _onward(topups.start_top_up(user, amount, form_token=token), user_id=user_id, top_up=True)

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
    event_id, type_id = world.pick_event()
    form = Form(event_id, type_id, 1, f"lost{number}@example.org", f"form-{world.seed}-{number}")
    world.lose_the_next_start()
    sent = yield Act("order", form.send)
    case: Case | None = sent.value or (yield Act("look the order up", partial(_by_token, form))).value
    if case is None or case.session:
        return
    session = world.session_of(f"{case.code}-1")
    if session:
        do = world.rng.choice(("pay", "pay_later", "nothing", "tamper", "fail"))
        if do in ("pay_later", "fail"):
            world.at_provider(session, "pay_later")
        if do == "fail":
            world.at_provider(session, "fail_later")
        if do == "pay":
            world.at_provider(session, "pay")
        if do == "tamper":
            world.tamper(session)
    if world.rng.random() < 0.7:
        world.tell("a day passes without a sweep")
        world.advance(24 * 3600)
    yield from _doors(world, case, 2)


def reviewed(world: World, number: int) -> Life:
    """Somebody whose payment comes into review and out of it again, by a person who may be wrong.

    The combinations of what the person decides and what happens next are gone through one after the other.
    """
    event_id, type_id = world.pick_event()
    form = Form(event_id, type_id, 1, f"reviewed{number}@example.org", f"form-{world.seed}-{number}")
    case = yield from _ordered(world, form.send)
    if case is None or not case.session:
        return
    world.tamper(case.session)
    yield from _surely(world, case, "recheck")
    world.mend(case.session)
    state, then = _REVIEWS[(world.seed * 17 + world.coverage.used["life"]["reviewed"]) % len(_REVIEWS)]
    known = yield Act("look at the payment", partial(doors.payment_of, case.order_id))
    if known.value is not None:
        decision = partial(payments.decide, state=state, actor_id=world.admin_id, note="looked at it")
        for _ in range(3):
            decided = yield Act(f"decide {state}", lambda: decision(known.value[0]).state)
            if not decided.died:
                break
    if then == "cancel":
        yield Act("cancel", partial(_cancel, case))
    elif then != "nothing":
        world.at_provider(case.session, then)
    yield from _surely(world, case, "recheck")
    yield from _doors(world, case, 1)


def _surely(world: World, case: Case, door: str) -> Steps:
    """A door that is opened again when the process died in it, under a clear sky."""
    world.clear_sky()
    for _ in range(3):
        result = yield Act(door, partial(_open, world.admin_id, case, door))
        if not result.died:
            return


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


def _by_token(form: Form) -> Case | None:
    order = db.session.scalar(select(Order).filter_by(form_token=form.token))
    return None if order is None else Case(order.id, order.code, order.secret, form.user_id)


def _pay_again(case: Case, provider: str) -> str:
    payment = orders.pay_again(case.order_id, provider, payer_id=case.user_id)
    return payment.provider_id or "" if payment is not None and payment.state is PaymentState.OPEN else ""


# --- Paying ---------------------------------------------------------------------------------------------


def _pay(world: World, case: Case) -> Steps:
    """Pay, or not; up to three attempts."""
    for attempt in range(3):
        if not case.session:
            # The provider did not answer, or a process died: the order page finishes the start.
            yield from _doors(world, case, 1)
            case.session = (yield Act("find the link", partial(_link, case))).value or ""
        if case.session:
            yield from _script(world)(world, case)
        if attempt == 2 or world.rng.random() < 0.6:
            return
        again = yield Act("pay again", partial(_pay_again, case, "stripe"))
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


def _script(world: World) -> Callable[[World, Case], Steps]:
    """What this buyer does at the provider."""
    scripts = [script for script, _ in _SCRIPTS]
    weights = [weight * (20 if script.__name__ == world.habits.often else 1) for script, weight in _SCRIPTS]
    return world.rng.choices(scripts, weights)[0]


def _link(case: Case) -> str:
    """The link that the order page shows."""
    order = orders.find(case.code, case.secret)
    payment = payments.active(order)
    return payment.provider_id or "" if payment is not None and payment.state is PaymentState.OPEN else ""


def _pays(world: World, case: Case) -> Steps:
    if world.at_provider(case.session, "pay", card=world.rng.choices(_CARDS, (85, 6, 6, 3))[0]):
        yield from _doors(world, case, world.rng.randint(0, 4))


def _pays_twice_told(world: World, case: Case) -> Steps:
    """A refused card first."""
    world.at_provider(case.session, "decline")
    yield from _doors(world, case, world.rng.randint(0, 2))
    yield from _pays(world, case)


def _pays_later(world: World, case: Case) -> Steps:
    """A bank debit, whose word comes later, or never while we watch."""
    if not world.at_provider(case.session, "pay_later"):
        return
    yield from _doors(world, case, world.rng.randint(0, 3))
    yield Wait(world.rng.randint(1, 60))
    end = world.rng.choices(("complete_later", "fail_later", "cancel", "nothing"), (50, 25, 10, 15))[0]
    if end != "nothing":
        world.at_provider(case.session, end)
    yield from _doors(world, case, world.rng.randint(0, 3))


def _leaves(world: World, case: Case) -> Steps:
    """Closes the tab; the session ends by itself."""
    yield Wait(world.rng.randint(1, 60))
    if world.rng.random() < 0.15:
        world.tell("the session's time passes")
        world.advance(2500)
    yield from _doors(world, case, world.rng.randint(0, 2))


def _expires(world: World, case: Case) -> Steps:
    """The session is ended in the dashboard."""
    world.at_provider(case.session, "expire")
    yield from _doors(world, case, world.rng.randint(0, 3))


def _cancels(world: World, case: Case) -> Steps:
    """Presses the order page's button; sometimes the card went through at that moment."""
    if world.rng.random() < 0.2:
        world.at_provider(case.session, "pay")
    yield Act("cancel", partial(_cancel, case))
    yield from _doors(world, case, 1)


def _cancel(case: Case) -> OrderState:
    return orders.cancel(orders.find(case.code, case.secret), door="order_page").state


def _comes_back_unpaid(world: World, case: Case) -> Steps:
    world.coverage.note("door", "cancel")
    yield Act("cancel page", partial(doors.cancel_page, case.code, case.secret))
    yield from _pays(world, case)


def _pays_late(world: World, case: Case) -> Steps:
    """The money comes after the session was closed, here and there."""
    if world.rng.random() < 0.5:
        yield Act("cancel", partial(_cancel, case))
    else:
        world.at_provider(case.session, "expire")
    yield from _doors(world, case, 1)
    yield Wait(world.rng.randint(1, 40))
    world.at_provider(case.session, "pay", force=True)
    yield from _doors(world, case, world.rng.randint(0, 3))


def _is_tampered(world: World, case: Case) -> Steps:
    """What the provider says is not what we asked for, before or after the payment."""
    if world.rng.random() < 0.5:
        for do in world.rng.choice((("pay",), ("expire",), ("pay_later",), ("pay_later", "fail_later"))):
            world.at_provider(case.session, do)
        if world.rng.random() < 0.7:
            yield from _surely(world, case, "recheck")
    world.tamper(case.session)
    yield from _doors(world, case, world.rng.randint(1, 2))
    if world.rng.random() < 0.6:
        yield Wait(world.rng.randint(1, 30))
        world.mend(case.session)
        yield from _doors(world, case, 1)
        if world.rng.random() < 0.6:
            yield from _pays(world, case)


_SCRIPTS: tuple[tuple[Callable[[World, Case], Steps], int], ...] = (
    (_pays, 42),
    (_pays_twice_told, 9),
    (_pays_later, 12),
    (_leaves, 10),
    (_expires, 4),
    (_cancels, 8),
    (_comes_back_unpaid, 4),
    (_pays_late, 6),
    (_is_tampered, 5),
)


# --- Doors and what comes after -------------------------------------------------------------------------


def _doors(world: World, case: Case, times: int) -> Steps:
    """Doors that this buyer, the operator and the provider open, in any order and again."""
    for _ in range(times):
        door = world.rng.choices(
            ("success", "order_page", "webhook", "recheck", "verify"), (45, 25, 20, 5, 5)
        )[0]
        if door == "webhook":
            world.ring_one()
            continue
        if door == "success" and case.top_up:
            door = "wallet_success"
        world.coverage.note("door", door)
        yield Act(door, partial(_open, world.admin_id, case, door))


def _open(admin_id: int, case: Case, door: str) -> None:
    known = doors.payment_of(case.order_id)
    session = case.session or (known[1] if known is not None else "")
    calls: dict[str, Callable[[], Any]] = {
        "success": lambda: doors.success(case.code, case.secret, session),
        "wallet_success": lambda: doors.wallet_success(case.user_id or 0, session),
        "order_page": lambda: doors.order_page(case.code, case.secret),
        "recheck": lambda: doors.recheck(known[0], admin_id) if known is not None else None,
        "verify": lambda: doors.verify(case.code),
    }
    calls[door]()


def _afterwards(world: World, case: Case) -> Steps:
    """Small wishes of people who have ordered."""
    wish = world.rng.random()
    if wish < 0.06:
        yield Act("resend", lambda: orders.resend(orders.find(case.code, case.secret), door="order_page"))
    elif wish < 0.10:
        new = f"corrected{case.order_id}@example.org"
        yield Act("correct address", lambda: orders.correct_email(orders.find(case.code, case.secret), new))
    elif wish < 0.14:
        yield Act("cancel", partial(_cancel, case))
    elif wish < 0.18:
        yield Act("pay again", partial(_pay_again, case, "stripe"))
