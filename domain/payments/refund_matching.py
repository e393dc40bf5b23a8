"""Which of our refunds a provider speaks of, when it tells of those it made."""

from __future__ import annotations

from collections.abc import Sequence

from domain.payments.refundable import GONE
from domain.providers import registry
from domain.providers.contract import RefundReport, Report
from models import Payment, Refund, RefundState

_OVER = (RefundState.FAILED, RefundState.CANCELLED)


def keeps_keys(payment: Payment) -> bool:
    """Whether a refund of this payment is found by our key at its provider."""
    return registry.get(payment.provider, payment.account).keeps_refund_keys


def told_by(payment: Payment, report: Report) -> Sequence[RefundReport]:
    """The refunds that a report tells. Where it tells their sum only: the one by which that has grown.

    A sum below what we know is slow to show it, for what was made is not taken back.
    """
    if report.refunded_minor is None:
        return report.refunds
    known = sum(refund.amount_minor for refund in payment.refunds if refund.state in GONE)
    more = report.refunded_minor - known
    # Sums only grow, so each names the refund that made it.
    name = f"{report.provider_id}:{report.refunded_minor}"
    return (RefundReport(name, more, report.currency, "succeeded"),) if more > 0 else ()


def assign(payment: Payment, told: Sequence[RefundReport]) -> list[tuple[RefundReport, Refund | None]]:
    """Each refund of the provider's list with our row of it; None for one that was made there.

    A row is known by the provider's id or by our key. Where the provider keeps no keys, what is left of the
    list is given to those of ours that lack an id still, by the amount: first to what it has accepted, then
    to what was asked for and not answered. What was accepted is looked for first among what stands in the
    list; only what finds nothing there has failed since. The sum alone would not tell them apart: a refund
    that fails lowers it, and one made in the dashboard raises it, so that it can come out as if ours had been
    made.
    """
    ours = [_named(payment, said) for said in told]
    if keeps_keys(payment):
        return list(zip(told, ours, strict=True))
    lacking = [refund for refund in _nameless(payment) if refund not in ours]
    accepted = [refund for refund in lacking if refund.state in GONE]
    _give(told, ours, accepted, only=GONE)
    _give(told, ours, [refund for refund in lacking if refund not in ours], only=tuple(RefundState))
    return list(zip(told, ours, strict=True))


def _give(
    told: Sequence[RefundReport],
    ours: list[Refund | None],
    lacking: list[Refund],
    *,
    only: Sequence[RefundState],
) -> None:
    """Give what is told in one of these states, and has no row yet, to the first of its amount."""
    for place, said in enumerate(told):
        fits = (refund for refund in lacking if refund.amount_minor == said.amount_minor)
        if ours[place] is None and said.state in only and (found := next(fits, None)) is not None:
            ours[place] = found
            lacking.remove(found)


def _named(payment: Payment, said: RefundReport) -> Refund | None:
    for refund in payment.refunds:
        same_id = bool(said.provider_id) and said.provider_id == refund.provider_id
        if same_id or said.our_key == refund.idempotency_key:
            return refund
    return None


def _nameless(payment: Payment) -> list[Refund]:
    """Ours that may be in the list under an id that we have not heard: made, or asked for in vain.

    Where a person makes them, nobody tells us when: the list may be the first to.
    """
    by_hand = not registry.get(payment.provider, payment.account).can.refund
    lacking = [
        refund
        for refund in payment.refunds
        if refund.provider_id is None
        and refund.state not in _OVER
        and (by_hand or refund.state is not RefundState.CREATED or refund.asked_at is not None)
    ]
    return sorted(lacking, key=lambda refund: (refund.state not in GONE, refund.id))
