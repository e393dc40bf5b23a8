"""What a person decides about money in the inbox: hand over the goods, refund, credit a wallet, or dismiss.

Every decision needs a reason, is written on the order's timeline with who made it, and happens once.
"""

from __future__ import annotations

import structlog
from sqlalchemy import select

import config
from domain import addresses, clock, epochs, locks, timeline
from domain.catalogue import house_account
from domain.errors import DomainError, NotFound
from domain.ledger import transfers
from domain.payments import fulfilment, incidents, refundable, refunds, settling
from domain.people import accounts
from domain.post import outbox
from extensions import db, queue
from models import Incident, LineKind, Order, OrderState, Payment, PaymentState, Refund

log = structlog.get_logger(__name__)

RESOLUTIONS = ("issue", "refund", "wallet", "dismiss")
# What money that went back already can come to: somebody has looked at it, or says whether it went.
_RESOLUTIONS_OF = {
    "given_back_too_much": ("dismiss",),
    "won_beside_refund": ("refund", "dismiss"),
    "kept_without_goods": ("refund", "dismiss"),
    "refund_ambiguous": ("refund", "dismiss"),
    "unknown_payment": ("dismiss",),
    "lost_create": ("issue", "dismiss"),
    "end_unknown": ("issue", "dismiss"),
    "told_twice": ("dismiss",),
}


def resolutions(incident: Incident) -> tuple[str, ...]:
    """How this incident can be decided."""
    able = _RESOLUTIONS_OF.get(incident.kind, RESOLUTIONS)
    return able if _is_in_the_house(incident) else tuple(one for one in able if one != "wallet")


def _is_in_the_house(incident: Incident) -> bool:
    """Whether its money came into the house's own account, by our record and by the provider's."""
    payment = incident.payment
    if payment is None:
        return True
    theirs = incident.evidence.get("theirs", {}).get("account", payment.account)
    return bool(theirs == payment.account) and house_account.holds(payment)


def resolve(incident_id: int, *, how: str, reason: str, actor_id: int | None) -> Incident:
    """Decide an incident. Commits; raises DomainError with the words for whoever decides."""
    if how not in RESOLUTIONS:
        raise DomainError("unknown_decision", f"Choose one of {', '.join(RESOLUTIONS)}.")
    if not reason.strip():
        raise DomainError("reason_needed", "Say why: the reason is kept on the order's timeline.")
    if how == "refund":
        _refund(incident_id, reason, actor_id)
    locks.in_one_transaction(lambda: _decide(incident_id, how, reason.strip(), actor_id))
    queue.soon("deliver_mail")
    return db.session.get_one(Incident, incident_id, populate_existing=True)


def approve(payment_id: int, *, note: str, actor_id: int | None) -> Incident:
    """Hand over the goods for a payment that waits for a decision. Commits.

    The same as deciding its one incident with "issue"; DomainError where it has none, or several.
    """
    waiting = db.session.scalars(
        select(Incident.id).where(Incident.payment_id == payment_id, Incident.resolved_at.is_(None))
    ).all()
    if not waiting:
        raise DomainError("not_in_review", "Nothing of this payment waits to be approved.")
    if len(waiting) > 1:
        raise DomainError(
            "several", "More than one thing about this payment waits: decide each in the money inbox."
        )
    return resolve(waiting[0], how="issue", reason=note, actor_id=actor_id)


def open_one(incident_id: int) -> Incident:
    """An incident that waits, locked. DomainError where it was decided before."""
    incident = db.session.scalar(
        select(Incident)
        .where(Incident.id == incident_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    if incident is None:
        raise NotFound("no_incident", "There is no such incident.")
    if incident.resolved_at is not None:
        raise DomainError("already_decided", f"This was decided before: {incident.resolution}.")
    return incident


# The decisions by which money leaves.
PAY_OUT = frozenset({"refund", "wallet"})


def sums_of(incident: Incident) -> list[tuple[int, str]]:
    """What may leave by a decision, with its currency: the incident's own sum, and what its payment has.

    A refund sends back all that is left of the payment, whatever the incident is about.
    """
    sums = [(incident.amount_minor, incident.currency)]
    payment = incident.payment
    if payment is not None and payment.received_minor is not None:
        left = max(refundable.refundable_minor(payment), 0)
        sums.append((refundable.in_all_minor(payment, left), payment.currency))
    return sums


def _refund(incident_id: int, reason: str, actor_id: int | None) -> None:
    """Send back all that is left of the incident's payment; a refused refund leaves the incident open."""
    incident = db.session.get(Incident, incident_id, populate_existing=True)
    if incident is None or incident.resolved_at is not None or incident.payment_id is None:
        return
    if incident.kind == "refund_ambiguous":
        # It says that the money went back already.
        return
    _check_possible(incident, "refund")
    payment = db.session.get_one(Payment, incident.payment_id)
    if payment.received_minor is None:
        words = "No money arrived, so there is nothing to give back. Dismiss it instead."
        if incident.currency != payment.currency:
            words = (
                f"It is in {incident.currency}: give it back in the provider's dashboard, then dismiss it."
            )
        raise DomainError("not_paid", words)
    left = refundable.refundable_minor(payment)
    if left <= 0:
        return
    refund = refunds.request(incident.payment_id, left, actor_id=actor_id, reason=reason)
    if refund.failure_reason:
        raise DomainError("refund_refused", f"The provider refused the refund: {refund.failure_reason}")


def _decide(incident_id: int, how: str, reason: str, actor_id: int | None) -> None:
    payment_id = db.session.scalars(
        select(Incident.payment_id).where(Incident.id == incident_id)
    ).one_or_none()
    if payment_id is None:
        payment, order = None, None
    else:
        payment, order = locks.payment_and_order(payment_id)
    incident = open_one(incident_id)
    if payment is None and how != "dismiss":
        raise DomainError(
            "no_order",
            "This money has no order here. Give it back in the provider's dashboard, then dismiss it.",
        )
    if payment is not None and order is not None:
        if incident.kind != "refund_ambiguous":
            _check_possible(incident, how)
        if incident.kind == "refund_ambiguous":
            _decide_refund(incident, payment, order, how, reason)
        elif how == "refund" and refundable.refundable_minor(payment) > 0:
            # It was asked for a moment ago, and the provider has told meanwhile that it failed.
            raise DomainError(
                "refund_refused",
                "The refund failed, so that this money is still here. Look, and decide again.",
            )
        elif how == "issue":
            _issue(incident, payment, order, actor_id)
        elif how == "wallet":
            _credit(incident, payment, order)
        timeline.note(order, "decided", f"{how}: {reason}", door="admin", payment=payment, actor_id=actor_id)
    incident.resolution = how
    incident.resolution_reason = reason
    incident.resolved_at = clock.now()
    incident.resolved_by_id = actor_id
    if payment is not None and order is not None and how != "issue":
        settling.leave_review(payment)
        _end(order, payment, how)
        if how == "dismiss":
            _tell_dismissed(incident, payment, order)


def _check_possible(incident: Incident, how: str) -> None:
    """Raise DomainError where money of this kind is not decided in that way: before anything is done."""
    if how in _RESOLUTIONS_OF.get(incident.kind, RESOLUTIONS):
        return
    raise DomainError(
        "unknown_decision",
        "What this is about went back or was used already, or nobody knows that it came, so that it can only "
        f"be settled in another way: choose {' or '.join(resolutions(incident))}.",
    )


def _decide_refund(incident: Incident, payment: Payment, order: Order, how: str, reason: str) -> None:
    """The person has looked up whether the money went back."""
    if how not in ("refund", "dismiss"):
        raise DomainError(
            "unknown_decision", "Choose refund if the money went back, or dismiss if it did not."
        )
    refund = db.session.get_one(Refund, incident.evidence["refund_id"])
    refunds.conclude_by_hand(refund, payment, order, made=how == "refund", why=reason)


def _issue(incident: Incident, payment: Payment, order: Order, actor_id: int | None) -> None:
    """Hand over the goods for what arrived; the order must still lack them."""
    if any(other.fulfilled for other in order.payments):
        raise DomainError(
            "already_issued", "This order has its goods already. Refund or credit the second payment."
        )
    if payment.received_minor is None and any(line.kind is LineKind.TOP_UP for line in order.lines):
        raise DomainError("not_paid", "No money arrived, so there is nothing to put into the wallet.")
    _check_still_here(payment)
    # The sum that arrived is what the goods were sold for, by this person's decision.
    _from_suspense(incident, payment, order, ledger_account=None)
    settling.accept(payment, order, actor_id=actor_id)


def _credit(incident: Incident, payment: Payment, order: Order) -> None:
    """Credit what arrived to the buyer's wallet, which holds the house's money and nobody else's."""
    if not _is_in_the_house(incident):
        raise DomainError(
            "not_in_the_house",
            "This money is not at the house's own account, so no wallet can be credited with it. Send it "
            "back, or hand over the goods.",
        )
    user = order.user or accounts.by_confirmed_email(order.email)
    if user is None:
        raise DomainError(
            "no_member",
            f"{addresses.shown(order.email)} has no confirmed account, so there is no wallet to credit.",
        )
    if payment.received_minor is None:
        raise DomainError("not_paid", "No money arrived, so there is nothing to credit.")
    if payment.fulfilled:
        raise DomainError("already_issued", "This payment bought the order's goods. Refund it, or dismiss.")
    _check_still_here(payment)
    _from_suspense(incident, payment, order, ledger_account=transfers.wallet_account(user.id))
    outbox.stage(
        "top_up",
        key=f"incident:{incident.id}:wallet",
        to=order.email,
        order=order,
        context={"amount_minor": incident.amount_minor, "currency": incident.currency},
    )


def _check_still_here(payment: Payment) -> None:
    """What arrived can be given to somebody only while nobody has sent it back."""
    if payment.received_minor is not None and refundable.is_gone(payment):
        raise DomainError(
            "given_back",
            "This money was given back or credited, or some of it. Refund what is left, or dismiss.",
        )


def _from_suspense(incident: Incident, payment: Payment, order: Order, ledger_account: str | None) -> None:
    """Move the incident's money out of suspense, where it arrived, to whom it belongs now."""
    if payment.received_minor is None:
        return
    transfers.post(
        key=f"incident:{incident.id}:decided",
        debit=transfers.SUSPENSE,
        credit=ledger_account or fulfilment.account_for(order, order.lines[0].kind, payment),
        amount_minor=incident.amount_minor,
        currency=incident.currency,
        kind="decision",
        description=f"{incident.kind} {order.code}",
        order_id=order.id,
        payment_id=payment.id,
    )


def _end(order: Order, payment: Payment, how: str) -> None:
    """An order that waited for this decision, and gets no goods, ends and gives its stock back."""
    if order.state is not OrderState.REVIEW or any(other.fulfilled for other in order.payments):
        return
    active = next((other for other in order.payments if other is not payment and other.is_active), None)
    if active is not None:
        # Its buyer is paying it anew meanwhile: what is decided here is about the other money only.
        opened = active.state is not PaymentState.CREATED
        order.state = OrderState.PENDING_VERIFICATION if opened else OrderState.PENDING
        return
    order.state = OrderState.CANCELLED if how == "dismiss" else OrderState.REFUNDED
    fulfilment.release(order)


def _tell_dismissed(incident: Incident, payment: Payment, order: Order) -> None:
    """How it ended, for who was told that their money came; or that an order has ended that nobody paid."""
    if incidents.was_told(incident):
        outbox.stage(
            "money_decided",
            key=f"incident:{incident.id}:decided",
            to=order.email,
            order=order,
            context={"amount_minor": incident.amount_minor, "currency": incident.currency},
        )
    elif order.state is OrderState.CANCELLED and payment.received_minor is None:
        outbox.stage("order_cancelled", key=f"payment:{payment.id}:cancelled", to=order.email, order=order)


def decide_late_money() -> None:
    """Where the setting LATE_MONEY says so, decide late money at once: refund it, or credit the wallet.

    What cannot be decided by rule (no member to credit, a refused refund) stays for a person.
    """
    how = config.get().late_money
    if how == "person" or epochs.is_closed():
        return
    # A refund that failed is not tried again by rule: each try would be another refund and another alert.
    tried = select(Refund.id).where(Refund.payment_id == Incident.payment_id).exists()
    waiting = select(Incident.id).where(Incident.kind == "late_money", Incident.resolved_at.is_(None))
    if how == "refund":
        waiting = waiting.where(~tried)
    # The newest first, so that old ones which no rule can decide keep none of them waiting.
    for incident_id in db.session.scalars(waiting.order_by(Incident.id.desc()).limit(50)).all():
        try:
            resolve(incident_id, how=how, reason=f"By the setting LATE_MONEY={how}.", actor_id=None)
        except DomainError as error:
            db.session.rollback()
            log.info("late_money_left", incident=incident_id, why=error.message)
