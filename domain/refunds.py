"""Money going back: refunds that a person asks for here, those made at the provider, and disputes.

A refund is an intent row, committed before the provider is called, with a key of its own, so that a crash
or a lost answer can be followed up without sending money twice. Refunds belong to payments: giving back a
duplicate payment leaves the order's tickets alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update

from domain import (
    alerts,
    clock,
    fulfilment,
    incidents,
    ledger,
    locks,
    money,
    outbox,
    pockets,
    providers,
    tickets,
    timeline,
)
from domain.errors import DomainError
from domain.providers import Provider, ProviderError, RefundReport
from extensions import db, queue
from models import (
    DisputeState,
    Order,
    OrderState,
    Payment,
    Refund,
    RefundState,
    TicketState,
)

# Intents whose outcome is not known yet, and money that is gone or going.
UNRESOLVED = (RefundState.CREATED, RefundState.PENDING)
COUNTED = (*UNRESOLVED, RefundState.SUCCEEDED, RefundState.REVIEW)
# Accepted by the provider.
_GONE = (RefundState.PENDING, RefundState.SUCCEEDED)
# How often a pending refund is looked at, and after how many unanswered calls a person is told of one.
_AGAIN = timedelta(minutes=5)
_AGAIN_LATER = timedelta(hours=6)
_UNCLEAR_AFTER = 12
_LEASE = timedelta(seconds=160)
# Why a ticket is void or waits, as the door says it.
_REFUNDED = "refunded"
DISPUTED = "disputed"
# Where the provider keeps no keys, a refund is called for once. If the answer is lost, its sum is waited for:
# so long before a person hears of it, and so long before a person has to decide.
_TOLD_AFTER = timedelta(hours=1)
_DECIDED_AFTER = timedelta(days=1)
# Providers remember an idempotency key for a day.
_KEY_LIFE = timedelta(hours=23)


# --- Asking for one -------------------------------------------------------------------------------------


def request(
    payment_id: int,
    amount_minor: int,
    *,
    actor_id: int | None,
    reason: str,
    void_ticket_ids: Iterable[int] = (),
    door: str = "",
) -> Refund:
    """Send money back for a paid payment. Commits the intent, calls the provider once, settles its answer.

    `door` is where it was asked for, as the timeline tells it: 'admin' for a person, else 'command'.

    Raises DomainError when the amount is more than is left, when another refund is under way, or when a
    wallet that was topped up no longer has the money. An unanswered call leaves the refund `created`: the
    sweep follows it up.
    """
    ids = sorted(set(void_ticket_ids))
    noted = _noted_before(payment_id)
    refund_id = locks.in_one_transaction(
        lambda: _intend(payment_id, amount_minor, actor_id, reason.strip(), ids, door, noted)
    )
    follow_up(refund_id, patient=False)
    return db.session.get_one(Refund, refund_id, populate_existing=True)


def _noted_before(payment_id: int) -> int | None:
    """What went back before, by the provider's word, where only the sum will tell what became of a refund."""
    payment = db.session.get(Payment, payment_id)
    if payment is None or payment.provider_id is None or payment.received_minor is None:
        return None
    provider, provider_id = providers.get(payment.provider, payment.account), payment.provider_id
    if provider.keeps_refund_keys:
        return None
    db.session.rollback()
    try:
        return provider.refunded_minor(provider_id)
    except ProviderError as error:
        if error.code == "not_connected":
            label = provider.label
            raise DomainError(
                "not_connected",
                f"The {label} account that took this money is not connected any more. Have it connected "
                f"again, or give the money back in {label}'s dashboard.",
            ) from error
        raise DomainError(
            "provider_silent", "We could not reach the payment provider. Wait a minute, then try again."
        ) from error


def _intend(
    payment_id: int,
    amount_minor: int,
    actor_id: int | None,
    reason: str,
    ticket_ids: list[int],
    door: str = "",
    noted: int | None = None,
) -> int:
    payment, order = locks.payment_and_order(payment_id)
    if not reason:
        raise DomainError("reason_needed", "Say why: the reason is kept with the refund.")
    if payment.received_minor is None:
        raise DomainError("not_paid", "This payment was not paid, so there is nothing to give back.")
    left = refundable_minor(payment)
    if not 0 < amount_minor <= left:
        raise DomainError("too_much", f"At most {money.show(left, payment.currency)} can be given back.")
    if any(refund.state in UNRESOLVED and not refund.made_at_provider for refund in payment.refunds):
        raise DomainError(
            "refund_under_way", "A refund of this payment is under way. Wait until it has ended."
        )
    if noted is not None and not _is_known(payment, noted):
        raise DomainError(
            "refunds_differ",
            "The provider has given back another sum than we know of. Ask it about this payment on the "
            "order's page, then try again.",
        )
    now = clock.now()
    number = len(payment.refunds) + 1
    refund = Refund(
        payment=payment,
        amount_minor=amount_minor,
        currency=payment.currency,
        idempotency_key=f"refund-{payment.reference}-{number}",
        refunded_before_minor=payment.received_minor - left if noted is None else noted,
        reason=reason[:300],
        void_ticket_ids=own_tickets(order, payment, ticket_ids, everything=amount_minor == left),
        actor_id=actor_id,
        created_at=now,
        next_check_at=now + timedelta(minutes=1),
    )
    db.session.add(refund)
    db.session.flush()
    _take_from_wallet(order, payment, refund)
    timeline.note(
        order,
        "refund_asked",
        f"Refund of {money.show(amount_minor, payment.currency)}: {reason}",
        door=door or ("admin" if actor_id is not None else "command"),
        payment=payment,
        actor_id=actor_id,
    )
    return refund.id


def refundable_minor(payment: Payment) -> int:
    """What is left of a payment, in minor units: without refunds that may yet succeed, and disputed money.

    An inquiry (`warning_…`) has taken nothing yet, and a refund is how it is answered.
    """
    taken = payment.amount_minor if payment.received_minor is None else payment.received_minor
    disputed = sum(
        dispute.amount_minor
        for dispute in payment.disputes
        if dispute.state is not DisputeState.WON and not dispute.provider_status.startswith("warning_")
    )
    return taken - disputed - sum(r.amount_minor for r in payment.refunds if r.state in COUNTED)


def _is_known(payment: Payment, noted: int) -> bool:
    """Whether the sum that went back is the sum of the refunds we know; what is in review may be in it."""
    sure, unsure = (RefundState.PENDING, RefundState.SUCCEEDED), (*UNRESOLVED, RefundState.REVIEW)
    least = sum(refund.amount_minor for refund in payment.refunds if refund.state in sure)
    most = sum(r.amount_minor for r in payment.refunds if r.state in (*sure, *unsure))
    return least <= noted <= most


def is_gone(payment: Payment) -> bool:
    """Whether some of the money of a payment without goods was sent back, taken by a bank, or credited."""
    disputed = any(dispute.state is not DisputeState.WON for dispute in payment.disputes)
    credited = pockets.wallet_with(payment.order, payment) is not None
    return disputed or credited or refundable_minor(payment) < (payment.received_minor or 0)


def own_tickets(order: Order, payment: Payment, ids: list[int], *, everything: bool) -> list[int]:
    """The tickets to void: those asked for, or all of them where nothing of their payment is left."""
    if not payment.fulfilled:
        return []
    own = {ticket.id for ticket in order.tickets if ticket.state is not TicketState.VOID}
    if set(ids) - own:
        raise DomainError("not_its_ticket", "One of these tickets is not of this order, or is void already.")
    return sorted(own) if everything else ids


def _take_from_wallet(order: Order, payment: Payment, refund: Refund) -> None:
    """Money in a wallet is taken from there at once, so that it cannot be spent while it goes back."""
    wallet = pockets.wallet_with(order, payment)
    if wallet is not None:
        ledger.post(
            key=f"refund:{refund.id}:taken",
            debit=wallet,
            credit=ledger.SUSPENSE,
            amount_minor=refund.amount_minor,
            currency=refund.currency,
            kind="refund",
            description=f"Refund of top-up {order.code}",
            order_id=order.id,
            payment_id=payment.id,
        )


# --- Following up ---------------------------------------------------------------------------------------


def follow_up(refund_id: int, *, patient: bool) -> None:
    """Call the provider for an intent, or look what became of it; settle what it answers. Commits."""
    refund = db.session.get_one(Refund, refund_id, populate_existing=True)
    payment = refund.payment
    provider = providers.get(payment.provider, payment.account)
    if not provider.keeps_refund_keys:
        _follow_up_by_sum(refund, provider, patient=patient)
        return
    provider_id, key, amount = payment.provider_id or "", refund.idempotency_key, refund.amount_minor
    unmade = refund.state is RefundState.CREATED
    # Once the provider may have forgotten our key, repeating the call could send the money twice; and an
    # unheard call may have gone through, so that what is then refused is only the repetition.
    unsure = refund.check_count > 0 or clock.now() - refund.created_at >= _KEY_LIFE
    db.session.rollback()
    asked = False
    try:
        report: RefundReport | None = None
        if unsure or not unmade:
            report = provider.find_refund(provider_id, key)
        if unmade and report is None:
            asked = True
            report = provider.refund(provider_id, amount, key, patient=patient)
    except ProviderError as error:
        failure, refused = error, asked and error.permanent
        locks.in_one_transaction(lambda: _unanswered(refund_id, failure, refused=refused))
        return
    if report is None:
        locks.in_one_transaction(lambda: _not_found(refund_id))
    else:
        locks.in_one_transaction(lambda: _settle(refund_id, report, door="refund"))
        queue.soon("deliver_mail")


def _follow_up_by_sum(refund: Refund, provider: Provider, *, patient: bool) -> None:
    """The same where the provider keeps no keys. Each call would be another refund, and what went back may be
    slow to show in the sum, so a call is made once; when its answer is lost, we only go on reading."""
    refund_id, key, amount = refund.id, refund.idempotency_key, refund.amount_minor
    provider_id, before = refund.payment.provider_id or "", refund.refunded_before_minor
    unasked = refund.state is RefundState.CREATED and refund.asked_at is None
    # The sum was read a moment ago, as the intent was written.
    fresh = unasked and not patient and refund.check_count == 0
    report = RefundReport("", amount, refund.currency, "succeeded")
    db.session.rollback()
    failure: ProviderError | None = None
    try:
        gone = before if fresh else provider.refunded_minor(provider_id, patient=patient)
        if unasked and gone == before:
            if not _take_turn(refund_id):
                return
            try:
                report = provider.refund(provider_id, amount, key, patient=patient)
                gone = before + amount
            except ProviderError as error:
                failure = error
                if not (error.permanent or error.undone):
                    gone = provider.refunded_minor(provider_id, patient=patient)
    except ProviderError as error:
        unheard = failure or error
        locks.in_one_transaction(lambda: _unanswered(refund_id, unheard, refused=False))
        return
    locks.in_one_transaction(lambda: _judge(refund_id, report, gone, failure))
    queue.soon("deliver_mail")


def _take_turn(refund_id: int) -> bool:
    """Write down that the call is about to be made. False when somebody else was first. Commits."""
    mine = db.session.scalar(
        update(Refund)
        .where(Refund.id == refund_id, Refund.asked_at.is_(None), Refund.state == RefundState.CREATED)
        .values(asked_at=clock.now())
        .returning(Refund.id)
    )
    db.session.commit()
    return mine is not None


def _judge(refund_id: int, report: RefundReport, gone_minor: int, failure: ProviderError | None) -> None:
    """What became of a refund, by the sum that went back until now."""
    refund, payment, order = _locked(refund_id)
    if refund.state not in UNRESOLVED:
        return
    before = refund.refunded_before_minor
    if gone_minor == before + refund.amount_minor:
        apply(refund, payment, order, report, door="refund")
    elif refund.state is RefundState.PENDING:
        _not_found(refund_id)
    elif gone_minor == before and failure is not None and failure.permanent:
        _failed(refund, payment, order, str(failure), door="refund")
    elif gone_minor == before and failure is not None and failure.undone:
        # Nothing was done, so that it may be asked for as if for the first time.
        refund.asked_at = None
        _unanswered(refund_id, failure, refused=False)
    elif gone_minor == before and not _waited(refund, _DECIDED_AFTER):
        _wait_for_the_sum(refund, payment, order, failure)
    else:
        refund.state = RefundState.REVIEW
        refund.leased_until = refund.next_check_at = None
        incidents.refund_ambiguous(order, payment, refund, gone_minor)


def _waited(refund: Refund, long: timedelta) -> bool:
    return refund.asked_at is not None and clock.now() - refund.asked_at >= long


def _wait_for_the_sum(refund: Refund, payment: Payment, order: Order, failure: ProviderError | None) -> None:
    """It was asked for, and does not show: it is read again, not asked for; in an hour somebody is told."""
    refund.check_count += 1
    refund.leased_until = None
    told = _waited(refund, _TOLD_AFTER)
    refund.next_check_at = clock.now() + (_AGAIN if not told else _TOLD_AFTER)
    if failure is not None:
        timeline.note(order, "refund_unanswered", str(failure)[:300], door="refund", payment=payment)
    if told:
        incidents.refund_unclear(order, refund)


def decide(refund: Refund, payment: Payment, order: Order, *, made: bool, why: str) -> None:
    """A person has looked up what became of a refund in review. Rows locked by the caller; no commit."""
    if refund.state is not RefundState.REVIEW:
        return
    if made:
        report = RefundReport("", refund.amount_minor, refund.currency, "succeeded")
        apply(refund, payment, order, report, door="admin")
    else:
        _failed(refund, payment, order, why, door="admin", before=RefundState.REVIEW)


def _locked(refund_id: int) -> tuple[Refund, Payment, Order]:
    payment_id = db.session.scalars(select(Refund.payment_id).where(Refund.id == refund_id)).one()
    payment, order = locks.payment_and_order(payment_id)
    return db.session.get_one(Refund, refund_id, populate_existing=True), payment, order


def _unanswered(refund_id: int, error: ProviderError, *, refused: bool) -> None:
    """A refusal ends the intent; silence is asked about again under the same key, and then by a person."""
    refund, payment, order = _locked(refund_id)
    refund.check_count += 1
    refund.leased_until = None
    now = clock.now()
    if refund.state is RefundState.CREATED and refused:
        _failed(refund, payment, order, str(error), door="refund")
    else:
        # The next sweep asks again; an intent that nobody has seen must not wait. Asking never ends, because
        # only the provider knows whether the money went; after an hour of silence a person is told.
        soon = refund.state is RefundState.CREATED and keeps_keys(payment)
        refund.next_check_at = now if soon else now + _AGAIN
        if refund.check_count == _UNCLEAR_AFTER and refund.state is RefundState.CREATED:
            incidents.refund_unclear(order, refund)
    if refund.check_count == 1:
        timeline.note(order, "refund_unanswered", str(error)[:300], door="refund", payment=payment)


def _not_found(refund_id: int) -> None:
    """The provider's list does not have it: a pending one is looked for again, rarely; no state changes."""
    refund, _, _ = _locked(refund_id)
    refund.check_count += 1
    refund.leased_until = None
    pending = refund.state is RefundState.PENDING
    refund.next_check_at = clock.now() + _AGAIN_LATER if pending else None


def _settle(refund_id: int, report: RefundReport, *, door: str) -> None:
    refund, payment, order = _locked(refund_id)
    apply(refund, payment, order, report, door=door)


def apply(refund: Refund, payment: Payment, order: Order, report: RefundReport, *, door: str) -> None:
    """Write what the provider says of a refund, and what follows. Rows locked by the caller; no commit."""
    refund.provider_id = report.provider_id or refund.provider_id
    refund.check_count += 1
    refund.leased_until = None
    before, after = refund.state, RefundState(report.state)
    refund.next_check_at = _next_check(refund, after)
    if after is before:
        return
    refund.state = after
    if after in _GONE and before not in _GONE:
        _accepted(refund, payment, order, door=door)
    if after is RefundState.SUCCEEDED:
        _succeeded(refund, payment, order, door=door)
    elif after in (RefundState.FAILED, RefundState.CANCELLED):
        _failed(refund, payment, order, report.reason or f"Refund {after}.", door=door, before=before)
    _order_state(order, payment)


def _next_check(refund: Refund, state: RefundState) -> datetime | None:
    """A pending refund is watched; one that succeeded may still fail, and is read once more after a day.

    One that has no key of ours there is read with its payment.
    """
    now = clock.now()
    if refund.made_at_provider:
        return None
    if state is RefundState.PENDING:
        return now + (_AGAIN if refund.check_count < 6 else _AGAIN_LATER)
    if not keeps_keys(refund.payment):
        return None
    if state is RefundState.SUCCEEDED and now - refund.created_at < timedelta(days=1):
        return now + timedelta(days=1)
    return None


def keeps_keys(payment: Payment) -> bool:
    """Whether a refund of this payment is found by our key at its provider."""
    return providers.get(payment.provider, payment.account).keeps_refund_keys


def _accepted(refund: Refund, payment: Payment, order: Order, *, door: str) -> None:
    """The money is on its way: the tickets it was paid for stop being valid now."""
    timeline.note(
        order,
        "refund",
        f"Refund of {money.show(refund.amount_minor, refund.currency)} accepted by the provider.",
        door=door,
        payment=payment,
        actor_id=refund.actor_id,
    )
    outbox.stage(
        "refund",
        key=f"refund:{refund.id}",
        to=order.email,
        order=order,
        context={
            "amount_minor": refund.amount_minor,
            "currency": refund.currency,
            "refund_id": refund.id,
            "full": refundable_minor(payment) == 0,
            "made_at_provider": refund.made_at_provider,
        },
    )
    chosen = [ticket for ticket in order.tickets if ticket.id in refund.void_ticket_ids]
    fulfilment.take_back(order, chosen, _REFUNDED)
    fulfilment.fee_taken_back(order, payment, "The listing fee was refunded.", door=door)


def _succeeded(refund: Refund, payment: Payment, order: Order, *, door: str) -> None:
    refund.resolved_at = clock.now()
    ledger.post(
        key=f"refund:{refund.id}",
        debit=_from_account(refund, payment, order),
        credit=pockets.provider_side(payment),
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        kind="refund",
        description=f"Refund {order.code}",
        order_id=order.id,
        payment_id=payment.id,
        provider_reference=refund.provider_id or "",
        may_overdraw=True,
    )


def _from_account(refund: Refund, payment: Payment, order: Order) -> str:
    """Where a refund's money comes from: ours was taken out of a wallet when it was asked for."""
    if not refund.made_at_provider and pockets.wallet_with(order, payment) is not None:
        return ledger.SUSPENSE
    return pockets.money_of(order, payment)


def _failed(
    refund: Refund,
    payment: Payment,
    order: Order,
    why: str,
    *,
    door: str,
    before: RefundState = RefundState.CREATED,
) -> None:
    """The money stays here: put everything back that the refund had changed, and tell the operator."""
    refund.state = RefundState.FAILED if refund.state is not RefundState.CANCELLED else refund.state
    refund.failure_reason = why[:300]
    refund.resolved_at = clock.now()
    refund.next_check_at = None
    if before is RefundState.SUCCEEDED:
        ledger.post(
            key=f"refund:{refund.id}:failed",
            debit=pockets.provider_side(payment),
            credit=_from_account(refund, payment, order),
            amount_minor=refund.amount_minor,
            currency=refund.currency,
            kind="refund_failed",
            description=f"Failed refund {order.code}",
            order_id=order.id,
            payment_id=payment.id,
        )
    wallet = pockets.wallet_with(order, payment)
    if wallet is not None and not refund.made_at_provider:
        ledger.post(
            key=f"refund:{refund.id}:returned",
            debit=ledger.SUSPENSE,
            credit=wallet,
            amount_minor=refund.amount_minor,
            currency=refund.currency,
            kind="refund_failed",
            description=f"Refund of top-up {order.code} failed",
            order_id=order.id,
            payment_id=payment.id,
        )
    timeline.note(order, "refund_failed", why, door=door, payment=payment)
    outbox.alert(
        *alerts.refund_failed(order, refund.amount_minor, refund.currency, why),
        key=f"refund_failed:{refund.id}",
    )
    if wallet is None and not payment.fulfilled:
        returned = (refund.amount_minor, refund.currency, why)
        incidents.money_returned("refund_returned", order, payment, *returned, door=door)
    if before in _GONE:
        _restore(refund, payment, order)
        fulfilment.fee_restored(order, payment, "The refund of the fee failed.", door=door)


def _restore(refund: Refund, payment: Payment, order: Order) -> None:
    """The tickets become valid again where their places are still free; otherwise a person is told.

    While a bank disputes the payment they only wait; where it has taken the money for good they stay void,
    and so do those that another refund has paid back.
    """
    others = [other for other in payment.refunds if other is not refund and other.state in _GONE]
    ours = set(refund.void_ticket_ids).difference(*(other.void_ticket_ids for other in others))
    void = [ticket for ticket in order.tickets if ticket.state is TicketState.VOID]
    voided = [ticket for ticket in void if ticket.id in ours and ticket.state_reason == _REFUNDED]
    disputes = {dispute.state for dispute in payment.disputes}
    if not voided or DisputeState.LOST in disputes:
        return
    try:
        with db.session.begin_nested():
            fulfilment.resell(voided)
            if DisputeState.OPEN in disputes:
                tickets.suspend(voided, DISPUTED)
            else:
                tickets.restore(voided)
    except fulfilment.SoldOut:
        subject, text = alerts.incident(
            order, incidents.KINDS["refund_failed"], refund.amount_minor, refund.currency
        )
        outbox.alert(subject, text, key=f"refund_unrestored:{refund.id}", critical=True)


def _order_state(order: Order, payment: Payment) -> None:
    """What the order's state says is derived from the refunds of the payment that bought its goods."""
    if not payment.fulfilled:
        return
    gone = sum(refund.amount_minor for refund in payment.refunds if refund.state in _GONE)
    # What a person accepted for the goods may have been less than they cost.
    taken = payment.amount_minor if payment.received_minor is None else payment.received_minor
    if gone >= taken:
        order.state = OrderState.REFUNDED
    elif gone:
        order.state = OrderState.PARTIALLY_REFUNDED
    else:
        order.state = OrderState.COMPLETED


def due(now: datetime, limit: int) -> list[int]:
    """Claim refunds that want following up, oldest first, under a lease. Commits."""
    rows = (
        select(Refund.id)
        .where(Refund.next_check_at <= now, or_(Refund.leased_until.is_(None), Refund.leased_until <= now))
        .order_by(Refund.next_check_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = list(
        db.session.scalars(
            update(Refund).where(Refund.id.in_(rows)).values(leased_until=now + _LEASE).returning(Refund.id)
        )
    )
    db.session.commit()
    return ids
