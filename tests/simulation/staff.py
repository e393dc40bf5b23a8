"""What goes on around the buyers: clock and worker, the post, admins, the provider's dashboard, fate."""

from __future__ import annotations

from functools import partial

from sqlalchemy import func, select

from domain.orders import event_cancellation
from domain.payments import incident_decisions, refundable, refunds, settling
from extensions import db
from models import Event, Incident, Payment, PaymentState, Refund, RefundState, Ticket, TicketState
from tests.simulation import doors, sellers
from tests.simulation.world import Act, World

_DASHBOARD = (
    *("refund", "refund", "refund_fail", "refund_fail", "dispute", "dispute", "tamper", "pay"),
    *("inquiry", "inquiry"),
)
_AT_SUMUP = ("refund", "refund_fail", "refund_fail", "dispute", "dispute", "tamper")
_DECISIONS = (
    PaymentState.OPEN,
    PaymentState.OPEN,
    PaymentState.PROCESSING,
    PaymentState.PROCESSING,
    PaymentState.FAILED,
    PaymentState.CANCELLED,
    PaymentState.EXPIRED,
    PaymentState.PAID,
)


_HAPPENINGS = {
    "sweep": 10,
    "deliver": 10,
    "ring": 22,
    "weather": 12,
    "jump": 8,
    "refund": 8,
    "decide": 7,
    "dashboard": 16,
    "catalogue": 1,
    "door": 4,
    "organiser": 9,
    "stranger": 3,
    "outage": 1,
}


def others(world: World) -> None:
    """One thing that somebody else does, or that happens."""
    weights = [weight * (5 if name in world.habits.busy else 1) for name, weight in _HAPPENINGS.items()]
    happening = world.rng.choices(list(_HAPPENINGS), weights)[0]
    if happening == "sweep":
        world.run_sweep(everything=world.rng.random() < 0.1)
    elif happening == "deliver":
        world.deliver()
    elif happening == "ring":
        world.ring_one()
    elif happening == "weather":
        world.weather()
    elif happening == "jump":
        world.jump()
    elif happening == "refund":
        _refund(world)
    elif happening == "decide":
        _decide(world)
    elif happening == "dashboard":
        _dashboard(world)
    elif happening == "door":
        _any_door(world)
    elif happening == "organiser":
        sellers.organise(world)
    elif happening == "stranger":
        sellers.stranger(world)
    elif happening == "outage":
        _outage(world)
    else:
        _cancel_event(world)


# --- Admins ---------------------------------------------------------------------------------------------


def _refund(world: World) -> None:
    """An admin or the organiser gives some or all of a payment back, sometimes naming tickets to be void."""
    with world.app.app_context():
        payment = db.session.scalars(
            select(Payment).where(Payment.received_minor.is_not(None)).order_by(Payment.id)
        ).all()
        if not payment:
            return
        newest = payment[-30:]
        if world.habits.lost_refunds:
            newest = [p for p in newest if p.provider == "sumup"] or newest
        chosen = world.rng.choice(newest)
        left, provider = refundable.refundable_minor(chosen), chosen.provider
        payment_id, order_id = chosen.id, chosen.order_id
        seller = chosen.order.event.organiser_id if chosen.order.event is not None else None
        tickets = db.session.scalars(
            select(Ticket.id)
            .where(Ticket.order_id == order_id, Ticket.state != TicketState.VOID)
            .order_by(Ticket.id)
        ).all()
    amount = left if world.rng.random() < 0.5 else max(1, left // 2)
    some = tickets[:1] if amount < left and world.rng.random() < 0.3 else []

    who, door = (seller, "organiser") if seller is not None else (world.admin_id, "admin")

    def ask() -> RefundState:
        return refunds.request(
            payment_id, amount, actor_id=who, reason="asked for", void_ticket_ids=some, door=door
        ).state

    if provider == "sumup" and world.habits.lost_refunds:
        world.lose_the_next_refund()
    world.coverage.note("refund", f"{provider} {'full' if amount == left else 'part'}")
    world.act(door, Act("refund", ask))


def _decide(world: World) -> None:
    """Decide something in the money inbox, or take a payment out of review."""
    with world.app.app_context():
        inbox = db.session.execute(
            select(Incident.id, Incident.kind).where(Incident.resolved_at.is_(None)).order_by(Incident.id)
        ).all()
        review = db.session.scalars(
            select(Payment.id).where(Payment.state == PaymentState.REVIEW).order_by(Payment.id)
        ).all()
    if review and world.rng.random() < 0.5:
        payment_id, state = world.rng.choice(review), world.rng.choice(_DECISIONS)
        world.act(
            "admin",
            Act(
                f"decide {state}",
                lambda: (
                    settling.override(
                        payment_id, state=state, actor_id=world.admin_id, note="looked at it"
                    ).state
                ),
            ),
        )
    elif inbox:
        incident_id, kind = world.rng.choice(inbox)
        how = world.rng.choice(incident_decisions.RESOLUTIONS)
        if kind == "refund_ambiguous":
            how = "refund" if _went_back(world, incident_id) else "dismiss"
        world.act(
            "admin",
            Act(
                f"resolve by {how}",
                lambda: (
                    incident_decisions.resolve(
                        incident_id, how=how, reason="looked at it", actor_id=world.admin_id
                    ).kind
                ),
            ),
        )


def _went_back(world: World, incident_id: int) -> bool:
    """Whether a refund of which Kassa does not know was made: whoever decides that looks it up first."""
    with world.app.app_context():
        incident = db.session.get_one(Incident, incident_id)
        refund = db.session.get_one(Refund, incident.evidence["refund_id"])
        payment, amount = refund.payment, refund.amount_minor
        known = [r for r in payment.refunds if r is not refund and r.state in refundable.COUNTED]
        made = world.sandbox.get(f"payments/{payment.provider_id}")["refunds"]
        mirrored = sum(1 for r in known if r.amount_minor == amount)
    world.coverage.note("refund", "looked up")
    return bool(made.count(amount) > mirrored)


def _any_door(world: World) -> None:
    """The recheck button or the command, on any payment at all."""
    with world.app.app_context():
        known = doors.any_payment(world.rng.randrange)
    if known is None:
        return
    payment_id, _, code = known
    door = world.rng.choice(("recheck", "verify"))
    world.coverage.note("door", door)
    work = (
        partial(doors.recheck, payment_id, world.admin_id)
        if door == "recheck"
        else partial(doors.verify, code)
    )
    world.act("admin", Act(door, work))


def _cancel_event(world: World) -> None:
    """An event is cancelled, mostly with everybody's money back; or that is asked for later, or again."""
    if world.cancelled and world.rng.random() < 0.4:
        event_id = world.rng.choice(world.cancelled)
        world.coverage.note("cancelled event", "refunded later")
        world.act("admin", Act("refund everybody", partial(_refund_everybody, event_id, world.admin_id)))
    elif world.on_sale:
        on_sale = world.tournaments if world.tournaments and world.rng.random() < 0.25 else world.on_sale
        event_id, _ = on_sale.pop(0)
        refund = world.rng.random() < 0.6
        world.cancelled.append(event_id)
        world.coverage.note("cancelled event", "with refunds" if refund else "without refunds")
        world.act("admin", Act("cancel event", partial(_cancel, event_id, refund, world.admin_id)))


def _cancel(event_id: int, refund: bool, admin_id: int) -> str:
    event = db.session.get_one(Event, event_id)
    event_cancellation.cancel(event, refund=refund, actor_id=admin_id)
    return f"{event.slug}{' with refunds' if refund else ''}"


def _refund_everybody(event_id: int, admin_id: int) -> str:
    event = db.session.get_one(Event, event_id)
    event_cancellation.refund_everybody(event, actor_id=admin_id)
    return event.slug


def _outage(world: World) -> None:
    """No provider answers for longer than a session lives, while buyers come and sweeps go on."""
    world.outage()
    for _ in range(3):
        world.run_sweep()
        world.deliver()
        world.advance(world.rng.uniform(2000, 3000))
    world.clear_sky()
    world.run_sweep()


# --- The provider's dashboard ---------------------------------------------------------------------------


def _dashboard(world: World) -> None:
    """Somebody changes a payment at the provider itself, or a buyer's bank does."""
    session = _at_sumup(world) if world.rng.random() < 0.3 else _at_stripe(world)
    if not session:
        return
    do = world.rng.choice(_DASHBOARD if doors.provider_of(session) == "stripe" else _AT_SUMUP)
    if world.disputed and world.rng.random() < 0.3:
        session, do = world.rng.choice(world.disputed), world.rng.choice(("dispute_won", "dispute_lost"))
    if do == "tamper":
        if world.rng.random() < 0.3:
            world.tamper(session)
    elif session in world.tampered:
        world.mend(session)
    elif do == "refund" and world.rng.random() < 0.5:
        world.at_provider(session, do, amount_minor=world.rng.choice((100, 500, 1000)))
    elif do == "pay":
        world.at_provider(session, do, force=True)
    elif do == "inquiry":
        _bank_asks(world, session)
    elif not world.at_provider(session, do) and do == "refund_fail":
        # None was made yet.
        world.at_provider(session, "refund", amount_minor=100)


def _bank_asks(world: World, session: str) -> None:
    """A bank asks about a charge; sometimes its question becomes a dispute under the same id."""
    if world.at_provider(session, "inquiry") and world.rng.random() < 0.5:
        world.at_provider(session, "dispute")


def _at_stripe(world: World) -> str:
    """One of the newest payments that is at Stripe; ""."""
    with world.app.app_context():
        count = db.session.scalars(select(func.count()).select_from(Payment)).one()
        known = (
            doors.any_payment(lambda n: max(0, count - 1 - world.rng.randrange(min(n, 40))))
            if count
            else None
        )
    return known[1] if known is not None and known[1].startswith(("cs_", "pi_")) else ""


def _at_sumup(world: World) -> str:
    """One of the newest that were paid and will be read again; "".

    SumUp tells nobody of what is done there, and Kassa looks for some time only.
    """
    with world.app.app_context():
        read = (Payment.state == PaymentState.PAID, Payment.next_check_at.is_not(None))
        paid = select(Payment.provider_id).where(Payment.provider == "sumup", *read)
        newest = db.session.scalars(paid.order_by(Payment.id.desc()).limit(10)).all()
    return (world.rng.choice(newest) or "") if newest else ""
