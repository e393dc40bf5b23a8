"""Who sells, and how it is paid for: the house, and organisers with accounts of their own at SumUp.

Organisers connect their accounts as in a browser, lose and revoke them, end them and come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import or_, select

from domain import clock
from domain.connections import linked_accounts
from extensions import db
from models import PAYMENT_ACTIVE, Connection, ConnectionState, Payment, Role, User
from tests.simulation import doors
from tests.support import merchants

if TYPE_CHECKING:
    from tests.simulation.world import World


@dataclass(frozen=True)
class Offer:
    """An event as it is sold. `organiser` is a number in the world's list; None is the house."""

    currency: str
    price_minor: int
    ways: tuple[str, ...] = ("stripe",)
    organiser: int | None = None

    @property
    def providers(self) -> tuple[str, ...]:
        """What the event says; nothing where it leaves the choice to the house."""
        return self.ways if self.organiser is not None else ()


BOTH = ("stripe", "sumup")
OFFERS = (
    Offer("EUR", 2500),
    Offer("AED", 4000),
    Offer("EUR", 1800, ("sumup",), 0),
    Offer("JPY", 1500),
    Offer("GBP", 3000, ("sumup",), 1),
    Offer("AED", 4000),
    Offer("EUR", 2400, BOTH, 0),
    Offer("EUR", 0),
    Offer("EUR", 2200, ("sumup",), 1),
    Offer("EUR", 2600, BOTH),
)
# The accounts that each organiser has at SumUp.
_ACCOUNTS = (("MHARBOUR", "MLANTERN"), ("MCLOCKTW", "MRIVERBK"))


@dataclass
class Organiser:
    """Somebody who sells. `using` is the one of the accounts that is connected, or was last."""

    user_id: int
    accounts: tuple[str, ...]
    using: int = 0

    @property
    def account(self) -> str:
        return self.accounts[self.using]


def begin(world: World) -> None:
    """The organisers register, and connect their first accounts."""
    with world.app.app_context():
        now = clock.now()
        people = [
            User(
                email=f"organiser{n}@example.org", name=f"Organiser {n}", role=Role.ORGANISER, created_at=now
            )
            for n in range(len(_ACCOUNTS))
        ]
        db.session.add_all(people)
        db.session.commit()
        world.organisers = [
            Organiser(person.id, accounts) for person, accounts in zip(people, _ACCOUNTS, strict=True)
        ]
        for organiser in world.organisers:
            _connect(organiser.user_id, organiser.account)


def seller(world: World, offer: Offer) -> int | None:
    """The organiser's user id; None for the house."""
    return None if offer.organiser is None else world.organisers[offer.organiser].user_id


def _connect(user_id: int, account: str) -> str:
    """Through SumUp's page and back."""
    user = db.session.get_one(User, user_id)
    url, state = linked_accounts.authorize_url(user, "sumup")
    told = merchants.allow(url, account)
    return linked_accounts.finish(
        user, "sumup", expected=state, state=told.get("state", ""), code=told.get("code", "")
    ).account


# --- What happens to accounts ---------------------------------------------------------------------------


def organise(world: World) -> None:
    """An organiser looks after the account, or something happens to it."""
    waiting = [o for o in world.organisers if _state(world, o) != ConnectionState.CONNECTED]
    if waiting and world.rng.random() < world.habits.reconnects:
        connect(world, world.rng.choice(waiting))
        return
    organiser = world.rng.choice(world.organisers)
    do = world.rng.choices(
        ("revoke_access", "revoke", "disconnect", "another", "options"), (35, 9, 6, 15, 35)
    )[0]
    world.coverage.note("organiser", do)
    world.tell(f"organiser: {do} {organiser.account}")
    if do == "disconnect":
        work = partial(linked_accounts.disconnect, organiser.user_id, "sumup")
        world.do("organiser", "disconnect", work)
    elif do == "another":
        organiser.using = (organiser.using + 1) % len(organiser.accounts)
        connect(world, organiser)
    elif do == "options":
        _choose(world)
    else:
        world.sandbox.post(f"merchants/{organiser.account}", {"do": do})


def connect(world: World, organiser: Organiser) -> None:
    """The organiser connects the account, for the first time or again."""
    world.coverage.note("organiser", "connect")
    work = partial(_connect, organiser.user_id, organiser.account)
    world.do("organiser", "connect", work)


def _state(world: World, organiser: Organiser) -> ConnectionState | None:
    with world.app.app_context():
        query = select(Connection.state).filter_by(provider="sumup", account=organiser.account)
        return db.session.scalar(query)


def _choose(world: World) -> None:
    """SumUp answers refunds in its older or its newer way, refuses some, and renews tokens in two ways."""
    outcome = world.rng.choices(("ok", "no_balance", "processor"), (70, 15, 15))[0]
    options = {
        "refund_status": world.rng.choice((201, 204)),
        "refund_outcome": outcome,
        "rotate_refresh": world.rng.random() < 0.7,
    }
    world.coverage.note("refunds at sumup", f"{options['refund_status']} {outcome}")
    world.sandbox.post("settings", {"sumup": options})


def connect_what_is_needed(world: World) -> None:
    """Every account that has money to tell of, and that nobody can speak for, is connected by its owner."""
    for organiser, number in _in_need(world):
        organiser.using = number
        connect(world, organiser)


def _in_need(world: World) -> list[tuple[Organiser, int]]:
    waits = select(Payment.id).where(
        Payment.provider == Connection.provider,
        Payment.account == Connection.account,
        or_(Payment.state.in_(PAYMENT_ACTIVE), Payment.next_check_at.is_not(None)),
    )
    dead = or_(Connection.state == ConnectionState.BROKEN, Connection.refresh_token == "")
    with world.app.app_context():
        accounts = db.session.scalars(select(Connection.account).where(dead, waits.exists())).all()
    return [
        (organiser, number)
        for organiser in world.organisers
        for number, account in enumerate(organiser.accounts)
        if account in accounts
    ]


# --- Who rings without a signature ----------------------------------------------------------------------


def stranger(world: World) -> None:
    """Somebody calls SumUp's doorbell: with words that mean nothing, or with a checkout of ours."""
    with world.app.app_context():
        ours = db.session.scalars(
            select(Payment.provider_id)
            .where(Payment.provider == "sumup", Payment.provider_id.is_not(None))
            .order_by(Payment.id.desc())
            .limit(20)
        ).all()
    forged = {
        "unknown checkout": '{"event_type": "CHECKOUT_STATUS_CHANGED", "id": "00000000-no-such"}',
        "unknown type": '{"event_type": "SOMETHING_ELSE", "id": "x"}',
        "no JSON": "<xml/>",
        "no object": "[1]",
    }
    if ours:
        known = world.rng.choice(ours)
        forged["nothing changed"] = f'{{"event_type": "CHECKOUT_STATUS_CHANGED", "id": "{known}"}}'
    what = world.rng.choice(list(forged))
    expected = {"nothing changed": (200, 429, 503), "no JSON": (400,), "no object": (400,)}.get(what, (200,))
    world.coverage.note("false ring", what)
    ring = partial(doors.ring, "sumup", forged[what], {})
    result = world.do("stranger", f"ring falsely: {what}", ring)
    if not result.died and result.value not in expected:
        raise world.broken(f"A false ring ({what}) was answered with {result.value or result.error}")
