"""Money going back: refunds that a person asks for here, those made at the provider, and disputes.

A refund is an intent row, committed before the provider is called, with a key of its own, so that a crash
or a lost answer can be followed up without sending money twice. Refunds belong to payments: giving back a
duplicate payment leaves the order's tickets alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from sqlalchemy import or_, select, true, update

from domain import clock, epochs, locks, money, timeline
from domain.errors import DomainError
from domain.ledger import transfers
from domain.payments import (
    incidents,
    ledger_accounts,
    refund_matching,
    refund_outcomes,
    refunds_by_hand,
)
from domain.payments.refund_matching import keeps_keys
from domain.payments.refund_outcomes import AGAIN, AGAIN_LATER
from domain.payments.refundable import COUNTED as COUNTED
from domain.payments.refundable import UNRESOLVED, keep_sum, own_tickets, undecided_minor
from domain.payments.refundable import refundable_minor as refundable_minor
from domain.providers import registry
from domain.providers.contract import Provider, ProviderError, RefundReport, Report
from extensions import db, queue
from models import Order, Payment, Refund, RefundState

# After how many unanswered calls a person is told of one.
_UNCLEAR_AFTER = 12
_LEASE = timedelta(seconds=160)
_WENT = (RefundState.PENDING, RefundState.SUCCEEDED)
# Where the provider keeps no keys, a refund is called for once. If the answer is lost, it is waited for:
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
    after: int | None = None,
    bound: Callable[[Order, int], None] | None = None,
) -> Refund:
    """Send money back for a paid payment. Commits the intent, calls the provider once, settles its answer.

    `door` is where it was asked for, as the timeline tells it: 'admin' for a person, else 'command'.
    `after` is how many refunds there were when a person was shown what this one does, so that a form that is
    sent twice at once sends nothing twice. `bound` is asked, once all is locked, whether whoever asks may
    send so much back of this order, and raises a DomainError where they may not.

    Raises DomainError when the amount is more than is left, when another refund is under way, or when a
    wallet that was topped up no longer has the money. An unanswered call leaves the refund `created`: the
    sweep follows it up. So does one that no call makes: a person does (refunds_by_hand.py).
    """
    epochs.refuse_if_closed()
    ids = sorted(set(void_ticket_ids))
    noted = _noted_before(payment_id)
    refund_id = locks.in_one_transaction(
        lambda: _intend(payment_id, amount_minor, actor_id, reason.strip(), ids, door, noted, after, bound)
    )
    follow_up(refund_id, patient=False)
    return db.session.get_one(Refund, refund_id, populate_existing=True)


def _noted_before(payment_id: int) -> int | None:
    """What went back before, by the provider's word, where only the sum will tell what became of a refund.

    That is where it keeps no keys, and for what was paid before a restore: the backup may have lost some.
    """
    payment = db.session.get(Payment, payment_id)
    if payment is None or payment.provider_id is None or payment.received_minor is None:
        return None
    provider, provider_id = registry.get(payment.provider, payment.account), payment.provider_id
    of_this_life = payment.reference.endswith(epochs.mark())
    if not provider.can.refund or (provider.keeps_refund_keys and of_this_life):
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
    after: int | None = None,
    bound: Callable[[Order, int], None] | None = None,
) -> int:
    payment, order = locks.payment_and_order(payment_id)
    ledger_accounts.lock(order, payment)
    if after is not None and len(payment.refunds) != after:
        raise DomainError(
            "refunded_meanwhile",
            "Another refund of this payment was asked for meanwhile, so nothing more was sent. See what is "
            "left, then ask again.",
        )
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
    _check_not_sent_before(payment, amount_minor)
    if noted is not None and not _is_known(payment, noted):
        raise DomainError(
            "refunds_differ",
            "The provider has given back another sum than we know of. Ask it about this payment on the "
            "order's page, then try again.",
        )
    if bound is not None:
        bound(order, amount_minor)
    now = clock.now()
    number = len(payment.refunds) + 1
    refund = Refund(
        payment=payment,
        amount_minor=amount_minor,
        currency=payment.currency,
        idempotency_key=f"refund-{payment.reference}-{number}{epochs.mark()}",
        refunded_before_minor=payment.received_minor - left if noted is None else noted,
        reason=reason[:300],
        # What a bank has for now may come back: then there is something left that tickets were paid with.
        void_ticket_ids=own_tickets(
            order, payment, ticket_ids, everything=amount_minor == left and not undecided_minor(payment)
        ),
        actor_id=actor_id,
        at_desk=bound is not None,
        created_at=now,
        next_check_at=now + timedelta(minutes=1),
    )
    db.session.add(refund)
    keep_sum(payment, told=False)
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


def _check_not_sent_before(payment: Payment, amount_minor: int) -> None:
    """Whoever asks again for what a restored backup has forgotten sends nothing twice. DomainError."""
    same = [r for r in payment.refunds if r.made_at_provider and r.amount_minor == amount_minor]
    life = epochs.latest() if same else None
    if life is None:
        return
    until = life.opened_at or clock.now()
    # Heard of while the shop was closed, or later and under a key of ours.
    ours = f"refund-{payment.reference}-"
    if any(
        r.idempotency_key.startswith(ours) or life.began_at <= r.created_at <= until
        for r in same
        if r.state in _WENT
    ):
        raise DomainError(
            "refunded_before_restore",
            f"{money.show(amount_minor, payment.currency)} went back already, in the time that the restored "
            "backup does not hold: see the refunds on the order's page. To send the same sum once more, do "
            "it at the provider, or in two parts.",
        )


def _is_known(payment: Payment, noted: int) -> bool:
    """Whether the sum that went back is the sum of the refunds we know; what is in review may be in it."""
    sure, unsure = (RefundState.PENDING, RefundState.SUCCEEDED), (*UNRESOLVED, RefundState.REVIEW)
    least = sum(refund.amount_minor for refund in payment.refunds if refund.state in sure)
    most = sum(r.amount_minor for r in payment.refunds if r.state in (*sure, *unsure))
    return least <= noted <= most


def _take_from_wallet(order: Order, payment: Payment, refund: Refund) -> None:
    """Money in a wallet is taken from there at once, so that it cannot be spent while it goes back."""
    wallet = ledger_accounts.wallet_with(order, payment)
    if wallet is not None:
        transfers.post(
            key=f"refund:{refund.id}:taken",
            debit=wallet,
            credit=transfers.SUSPENSE,
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
    provider = registry.get(payment.provider, payment.account)
    if not provider.can.refund:
        refunds_by_hand.wait(refund_id)
        return
    if not provider.keeps_refund_keys:
        _follow_up_by_list(refund, provider, patient=patient)
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


def _follow_up_by_list(refund: Refund, provider: Provider, *, patient: bool) -> None:
    """The same where the provider keeps no keys. Each call would be another refund, and what went back may be
    slow to show in its list, so a call is made once; when its answer is lost, we only go on reading."""
    refund_id, key, amount = refund.id, refund.idempotency_key, refund.amount_minor
    provider_id, before = refund.payment.provider_id or "", refund.refunded_before_minor
    unasked = refund.state is RefundState.CREATED and refund.asked_at is None
    # What went back was read a moment ago, as the intent was written.
    fresh = unasked and not patient and refund.check_count == 0
    db.session.rollback()
    answer: RefundReport | None = None
    failure: ProviderError | None = None
    told: Report | None = None
    try:
        if not fresh:
            told = _read(provider, provider_id, patient)
        if unasked and (told is None or told.back_minor == before):
            if not _take_turn(refund_id):
                return
            try:
                answer = provider.refund(provider_id, amount, key, patient=patient)
            except ProviderError as error:
                failure = error
                if not (error.permanent or error.undone):
                    told = _read(provider, provider_id, patient)
    except ProviderError as error:
        unheard = failure or error
        locks.in_one_transaction(lambda: _unanswered(refund_id, unheard, refused=False))
        return
    locks.in_one_transaction(lambda: _judge(refund_id, answer, told, failure))
    queue.soon("deliver_mail")


def _read(provider: Provider, provider_id: str, patient: bool) -> Report:
    return provider.fetch(provider_id, patient=patient, thorough=True)


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


def _judge(
    refund_id: int,
    answer: RefundReport | None,
    told: Report | None,
    failure: ProviderError | None,
) -> None:
    """What became of a refund: by the provider's answer, or, where that was lost, by what it tells since."""
    refund, payment, order = _locked(refund_id)
    if refund.state not in UNRESOLVED:
        return
    seen = refund_matching.told_by(payment, told) if told is not None else ()
    found = (said for said, ours in refund_matching.assign(payment, seen) if ours is refund)
    shown = answer or next(found, None)
    unasked = refund.asked_at is None
    if shown is not None:
        refund_outcomes.apply(refund, payment, order, shown, door="refund")
    elif refund.state is RefundState.PENDING:
        _not_found(refund_id)
    elif failure is not None and failure.permanent:
        refund_outcomes.failed(refund, payment, order, str(failure), door="refund")
    elif failure is not None and failure.undone:
        # Nothing was done, so that it may be asked for as if for the first time.
        refund.asked_at = None
        _unanswered(refund_id, failure, refused=False)
    elif not unasked and not _waited(refund, _DECIDED_AFTER):
        _wait_for_the_list(refund, payment, order, failure)
    else:
        refund.state = RefundState.REVIEW
        refund.leased_until = refund.next_check_at = None
        incidents.refund_ambiguous(order, payment, refund, told.back_minor if told is not None else 0)


def _waited(refund: Refund, long: timedelta) -> bool:
    return refund.asked_at is not None and clock.now() - refund.asked_at >= long


def _wait_for_the_list(refund: Refund, payment: Payment, order: Order, failure: ProviderError | None) -> None:
    """It was asked for, and does not show: it is read again, not asked for; in an hour somebody is told."""
    refund.check_count += 1
    refund.leased_until = None
    told = _waited(refund, _TOLD_AFTER)
    refund.next_check_at = clock.now() + (AGAIN if not told else _TOLD_AFTER)
    if failure is not None:
        timeline.note(order, "refund_unanswered", str(failure)[:300], door="refund", payment=payment)
    if told:
        incidents.refund_unclear(order, refund)


def conclude_by_hand(refund: Refund, payment: Payment, order: Order, *, made: bool, why: str) -> None:
    """A person has looked up what became of a refund in review. Rows locked by the caller; no commit."""
    if refund.state is not RefundState.REVIEW:
        return
    if made:
        report = RefundReport("", refund.amount_minor, refund.currency, "succeeded")
        refund_outcomes.apply(refund, payment, order, report, door="admin")
    else:
        refund_outcomes.failed(refund, payment, order, why, door="admin", before=RefundState.REVIEW)


def _locked(refund_id: int) -> tuple[Refund, Payment, Order]:
    payment_id = db.session.scalars(select(Refund.payment_id).where(Refund.id == refund_id)).one()
    payment, order = locks.payment_and_order(payment_id)
    ledger_accounts.lock(order, payment)
    return db.session.get_one(Refund, refund_id, populate_existing=True), payment, order


def _unanswered(refund_id: int, error: ProviderError, *, refused: bool) -> None:
    """A refusal ends the intent; silence is asked about again under the same key, and then by a person."""
    refund, payment, order = _locked(refund_id)
    refund.check_count += 1
    refund.leased_until = None
    now = clock.now()
    if refund.state is RefundState.CREATED and refused:
        refund_outcomes.failed(refund, payment, order, str(error), door="refund")
    else:
        # The next sweep asks again; an intent that nobody has seen must not wait. Asking never ends, because
        # only the provider knows whether the money went; after an hour of silence a person is told.
        soon = refund.state is RefundState.CREATED and keeps_keys(payment)
        refund.next_check_at = now if soon else now + AGAIN
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
    refund.next_check_at = clock.now() + AGAIN_LATER if pending else None


def _settle(refund_id: int, report: RefundReport, *, door: str) -> None:
    refund, payment, order = _locked(refund_id)
    refund_outcomes.apply(refund, payment, order, report, door=door)


def due(now: datetime, limit: int) -> list[int]:
    """Claim refunds that want following up, oldest first, under a lease. Commits."""
    rows = (
        select(Refund.id)
        .where(Refund.next_check_at <= now, or_(Refund.leased_until.is_(None), Refund.leased_until <= now))
        # What was asked for before the backup is sent when the shop is opened, if it was not sent since.
        .where(Refund.state != RefundState.CREATED if epochs.is_closed() else true())
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
