"""Which account of the ledger a payment's money is in: a wallet, whom it was sold for, or suspense."""

from __future__ import annotations

from sqlalchemy import select

from domain.ledger import transfers
from domain.payments import fulfilment
from domain.providers import registry
from extensions import db
from models import LineKind, Order, Payment, Transfer


def wallet_with(order: Order, payment: Payment) -> str | None:
    """The account of the wallet that has the payment's money: by a top-up, or by a person's decision."""
    if payment.fulfilled:
        return fulfilment.account_for(order, LineKind.TOP_UP, payment) if _is_top_up(order) else None
    return db.session.scalar(
        select(Transfer.credit).where(Transfer.payment_id == payment.id, Transfer.kind == "decision").limit(1)
    )


def money_of(order: Order, payment: Payment) -> str:
    """The account that has the payment's money: a wallet, whom it was sold for, or suspense."""
    elsewhere = wallet_with(order, payment)
    if elsewhere is not None:
        return elsewhere
    if not payment.fulfilled:
        return transfers.SUSPENSE
    return fulfilment.account_for(order, order.lines[0].kind, payment)


def _is_top_up(order: Order) -> bool:
    return any(line.kind is LineKind.TOP_UP for line in order.lines)


def provider_side(payment: Payment) -> str:
    """The account that a payment's money came from, and goes back to."""
    if registry.get(payment.provider, payment.account).immediate:
        return payment.account
    return transfers.provider_account(payment.provider, payment.account)


def lock(order: Order, payment: Payment) -> None:
    """Lock the wallets that the payment's money is in or came from, before anybody's stock is touched.

    Whoever buys from a wallet locks it first and the stock last, so that whoever gives back must do the same.
    """
    names = {wallet_with(order, payment), provider_side(payment)}
    for name in sorted(name for name in names if name is not None and name.startswith("wallet:")):
        transfers.wallet_of(int(name.removeprefix("wallet:")), payment.currency, lock=True)
