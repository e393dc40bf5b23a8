"""The ways by which a payment is looked at, each as its edge calls the domain: parse, one call, respond.

Everything here takes and gives plain values, because each step is a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import func, select

from domain.orders import managing, top_ups
from domain.payments import lookup, reconciling, webhooks
from domain.sweep import sweeping
from extensions import db
from models import Order, Payment, User

# Every door that reconciles; the checkout's is the one that opens the payment.
DOORS = (
    "checkout",
    "success",
    "wallet_success",
    "order_page",
    "cancel",
    "webhook",
    "sweep",
    "recheck",
    "verify",
)


def success(code: str, secret: str, session_id: str) -> None:
    """The provider sends the buyer back."""
    order = managing.find(code, secret)
    reconciling.returned(order, session_id)
    managing.find(code, secret)


def wallet_success(user_id: int, session_id: str) -> None:
    """The provider sends a member back who tops up."""
    top_ups.confirm_top_up(db.session.get_one(User, user_id), session_id)


def order_page(code: str, secret: str) -> None:
    """The order page is loaded, or its JSON: it asks as it loads, and shows what it has learnt."""
    reconciling.refresh(managing.find(code, secret), door="order_page")
    managing.find(code, secret)


def cancel_page(code: str, secret: str) -> None:
    """The buyer goes back to the shop without paying."""
    reconciling.refresh(managing.find(code, secret), door="cancel")


def told_on_return(session: str) -> str:
    """What the provider has in the address that it sends the buyer back to: its own id, or our reference."""
    if provider_of(session) == "stripe":
        return session
    return db.session.scalar(select(Payment.reference).where(Payment.provider_id == session)) or ""


def provider_of(session: str) -> str:
    """Whose an id of a payment is."""
    return "stripe" if session.startswith(("cs_", "pi_")) else "sumup"


def recheck(payment_id: int, actor_id: int) -> str:
    """An admin presses the button. What went wrong in the asking, or ""."""
    error = reconciling.reconcile(payment_id, door="recheck", actor_id=actor_id).error
    return "" if error is None else error.code


def verify(code: str) -> None:
    """An operator types the command."""
    payment = lookup.by_code(code)
    if payment is not None:
        reconciling.reconcile(payment.id, door="command", patient=True)


def run_sweep(*, everything: bool = False) -> None:
    """The clock strikes, or cron does."""
    sweeping.run("simulation", everything=everything)


def ring(provider: str, body: str, headers: dict[str, str]) -> int:
    """The provider rings, or somebody else does; the status that is answered."""
    return webhooks.ring(provider, body.encode(), headers, address="192.0.2.8")


def payment_of(order_id: int) -> tuple[int, str] | None:
    """The newest payment of an order and its id at the provider, which may be ''."""
    row = db.session.execute(
        select(Payment.id, Payment.provider_id)
        .where(Payment.order_id == order_id)
        .order_by(Payment.attempt.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else (row[0], row[1] or "")


def any_payment(choose: Callable[[int], int]) -> tuple[int, str, str] | None:
    """Some payment: its id, its provider id and its order's code. `choose(n)` gives a number below n."""
    count = db.session.scalars(select(func.count()).select_from(Payment)).one()
    if not count:
        return None
    row = db.session.execute(
        select(Payment.id, Payment.provider_id, Order.code)
        .join(Order)
        .order_by(Payment.id)
        .offset(choose(count))
        .limit(1)
    ).one()
    return row[0], row[1] or "", row[2]
