"""Step 1 of Start: whom an order pays, and a payment's row with the exact parameters of the opening call."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import ceil

import config
from domain import addresses, clock, epochs, money
from domain.catalogue.availability import check_minutes
from domain.catalogue.house_account import serves
from domain.catalogue.payees import accounts_of, another_currency, offered, receiver
from domain.errors import DomainError
from domain.ledger import transfers
from domain.payments import event_log
from domain.providers import registry
from domain.providers.contract import LineItem, Provider, Purchase, Steps, can_present
from extensions import db
from models import Event, EventState, LineKind, Order, Payment, PaymentState


def prepare(
    order: Order,
    provider_name: str | None,
    poll_minutes: int | None = None,
    *,
    method: str = "",
    return_url: str = "",
) -> Payment:
    """Step 1 of Start: the payment's row, with everything the provider call will need. Does not commit.

    None is the first provider that is offered and takes this order's money. The payment is kept and polled
    for `poll_minutes`; None is what its event says, else the provider's setting. `method` is one of the
    provider's; "" is its first. `return_url` is where the buyer is sent on to once they are back from paying;
    "" is our own page. Raises DomainError when the provider cannot take it.
    """
    epochs.refuse_if_closed()
    check_minutes(poll_minutes)
    provider = _chosen(order, provider_name)
    _check_acceptable(order, provider)
    if not can_present(provider, method):
        raise DomainError("method_not_set_up", "This way to pay is not set up here. Choose another one.")
    account = provider.account if not provider.immediate else transfers.wallet_account(order.user_id or 0)
    now = clock.now()
    event = _event_sold(order)
    minutes = poll_minutes or (event.poll_minutes if event is not None else None) or provider.open_minutes
    payment = _row(order, provider, account, now, now + timedelta(minutes=minutes), method)
    payment.return_url = return_url
    return payment


def prepare_anew(order: Order, old: Payment) -> Payment:
    """Another row in the place of `old`, which was never opened: fresh reference, fresh key, the same end.

    To the same account, for so long as the order is kept anyhow. Does not commit. Raises DomainError when the
    provider takes no payments any more.
    """
    epochs.refuse_if_closed()
    if order.event is not None and order.event.state is EventState.CANCELLED:
        raise DomainError("event_cancelled", "The event was cancelled.")
    provider = registry.get(old.provider, old.account)
    _check_acceptable(order, provider)
    now = clock.now()
    payment = _row(order, provider, old.account, now, old.closes_at or now, old.method)
    payment.return_url = old.return_url
    return payment


def _row(
    order: Order, provider: Provider, account: str, now: datetime, held_until: datetime, method: str
) -> Payment:
    method = method if method in provider.methods else provider.methods[0]
    attempt = 1 + max((payment.attempt for payment in order.payments), default=0)
    reference = f"{order.code}-{attempt}{epochs.mark()}"
    purchase = _purchase(order, provider.name, reference, held_until, account, method)
    payment = Payment(
        order=order,
        attempt=attempt,
        provider=provider.name,
        method=method,
        account=account,
        owed_to_id=owed_to(order, provider),
        livemode=provider.livemode,
        reference=reference,
        idempotency_key=f"pay-{reference}-{order.secret[:8]}",
        params=provider.params(purchase),
        amount_minor=order.total_minor,
        currency=order.currency,
        state=PaymentState.CREATED,
        created_at=now,
        state_since=now,
        closes_at=held_until,
        max_poll_duration_minutes=ceil((held_until - now).total_seconds() / 60),
        # The web process is about to make the call; the sweep finishes it if that process dies.
        next_check_at=now + timedelta(seconds=20),
    )
    db.session.add(payment)
    event_log.initiated(payment)
    return payment


def _event_sold(order: Order) -> Event | None:
    """The event whose tickets the order is for, and so whose organiser is paid. None: the house is paid."""
    return order.event if order.sells_tickets else None


def owed_to(order: Order, provider: Provider) -> int | None:
    """The organiser whom the house owes what it takes for this order into its own account, if any."""
    event = _event_sold(order)
    if event is None or event.organiser_id is None:
        return None
    return event.organiser_id if provider.account == registry.get(provider.name).account else None


def _chosen(order: Order, provider_name: str | None) -> Provider:
    event = _event_sold(order)
    if provider_name is None:
        usable = [p for p in offered(event, currency=order.currency) if p.supports(order.currency)]
        able = [p for p in usable if order.total_minor >= p.minimum_minor(order.currency)]
        if not usable:
            raise _closed()
        return (able or usable)[0]
    organiser_id = event.organiser_id if event is not None else None
    connects = registry.get(provider_name).connects
    known = accounts_of([organiser_id]) if organiser_id is not None and connects else {}
    house = event is None or serves(event)
    account = receiver(provider_name, organiser_id, known, house=house)
    others = another_currency(event, provider_name, known, currency=order.currency) if event else None
    if account is None or others is not None:
        raise DomainError(
            "not_connected",
            f"{registry.get(provider_name).label} is not set up for this event. Choose another way to pay.",
        )
    return registry.get(provider_name, account)


def _closed() -> DomainError:
    return DomainError(
        "sales_closed",
        f"Payments are not set up here yet. Ask {config.get().support_email} when they will be.",
    )


def _check_acceptable(order: Order, provider: Provider) -> None:
    event = _event_sold(order)
    named = event.providers if event is not None else None
    if named and provider.name not in named and not provider.immediate:
        raise DomainError(
            "provider_not_offered", "This event is not sold through that. Choose another way to pay."
        )
    if not provider.supports(order.currency):
        raise DomainError("currency_not_supported", f"{provider.label} cannot take {order.currency}.")
    if order.total_minor < provider.minimum_minor(order.currency):
        least = money.show(provider.minimum_minor(order.currency), order.currency)
        raise DomainError(
            "below_minimum",
            f"The amount is too small to be paid by {provider.label.lower()}: it takes {least} or more.",
        )
    step = provider.step_minor(order.currency) if isinstance(provider, Steps) else 1
    if order.total_minor % step:
        raise DomainError(
            "not_in_steps",
            f"{provider.label} takes amounts in steps of {money.show(step, order.currency)}, and this is "
            f"{money.show(order.total_minor, order.currency)}. Choose another way to pay.",
        )
    if order.total_minor > money.MAX_MINOR and not provider.immediate:
        most = money.show(money.MAX_MINOR, order.currency)
        raise DomainError(
            "above_maximum", f"That is more than can be paid at once: {most}. Choose fewer, and order again."
        )
    if provider.immediate and (order.user_id is None or any(x.kind is LineKind.TOP_UP for x in order.lines)):
        raise DomainError("wallet_needs_login", "Log in to pay from your wallet.")
    if not provider.immediate and not (provider.ready and config.get().sales_open):
        raise _closed()


def _purchase(
    order: Order, provider_name: str, reference: str, closes_at: datetime, account: str, method: str
) -> Purchase:
    base = config.get().public_url
    success = f"{base}/pay/success/{order.code}/{order.secret}"
    cancel = f"{base}/pay/cancel/{order.code}/{order.secret}"
    if any(line.kind is LineKind.TOP_UP for line in order.lines):
        success, cancel = f"{base}/wallet/top-up/success/", f"{base}/wallet/top-up/cancel/"
    return Purchase(
        reference=reference,
        order_code=order.code,
        amount_minor=order.total_minor,
        currency=order.currency,
        lines=tuple(LineItem(x.description, x.quantity, x.unit_minor) for x in order.lines if x.unit_minor),
        email=addresses.settled(order.email),
        success_url=success + "?session_id={CHECKOUT_SESSION_ID}",
        cancel_url=cancel,
        doorbell_url=f"{base}/{provider_name}/webhook/",
        closes_at=closes_at,
        account=account,
        method=method,
    )
