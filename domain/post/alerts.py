"""What operators are told, in words: each function gives an alert's subject and its text.

`outbox.alert()` stages them, with the subject's prefix and the key that keeps one cause to one alert. Every
text says what happened, to whom, and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import config
from domain import addresses, money, names
from domain.providers import registry
from models import Event, Order, Payment, TicketType, WebhookEvent

Alert = tuple[str, str]
MOST_LINES = 100


# --- Digests --------------------------------------------------------------------------------------------


def stuck(orders: Sequence[Order]) -> Alert:
    """One digest of orders whose payment has no final word for longer than STUCK_MINUTES."""
    one = len(orders) == 1
    minutes = config.get().stuck_minutes
    return (
        f"{len(orders)} {'Order' if one else 'Orders'} Stuck in Processing",
        f"{len(orders)} {'order has' if one else 'orders have'} been in 'pending_verification' "
        f"for >{minutes} minutes:\n\n"
        f"{_lines(orders)}\n\n"
        "These may be legitimate slow payments, but check for patterns.\n\n"
        f"Admin panel: {_admin('orders')}",
    )


def expired(orders: Sequence[Order], number: int) -> Alert:
    """One digest of so many orders that nobody paid until their payment page closed; the first of them."""
    one = number == 1
    return (
        f"{number} {'Order' if one else 'Orders'} Expired",
        f"{number} {'order was' if one else 'orders were'} not paid in time, and the payment provider "
        "has confirmed that no money came:\n\n"
        f"{_lines(orders, number)}\n\n"
        "What they held is on sale again, and the buyers have been told. Money that arrives late is still "
        "found.\n\n"
        f"Admin panel: {_admin('orders')}",
    )


def dead_rings(events: Sequence[WebhookEvent]) -> Alert:
    """One digest of rings that a provider was not thanked for, as what they told of could not be read."""
    one = len(events) == 1
    lines = [
        f"- {registry.title(event.provider)} {event.type}, about {event.object_id or 'nothing named'}, "
        f"came {event.received_at:%Y-%m-%d %H:%M}: {event.outcome or 'ended in an error, see the log'}"
        for event in events[:MOST_LINES]
    ]
    if len(events) > MOST_LINES:
        lines.append(f"- and {len(events) - MOST_LINES} more")
    return (
        f"{len(events)} {'Ring' if one else 'Rings'} Not Acted On",
        f"For an hour {'a ring' if one else 'rings'} of a payment provider's doorbell "
        f"{'has' if one else 'have'} ended in an error:\n\n" + "\n".join(lines) + "\n\n"
        "No payment is lost by it: the sweep asks the provider all the same. But what they told may be known "
        "late, and the provider stops ringing after some days.\n\n"
        "See what was in the way, and press “Look again” there once it is mended.\n\n"
        f"Rings: {_admin('rings')}",
    )


def no_backup(last: datetime | None, error: str) -> Alert:
    """Nothing that was lost since the last backup could be brought back."""
    since = f"since {last:%Y-%m-%d %H:%M} UTC" if last is not None else "yet"
    why = f"The last try ended so:\n\n{error}\n\n" if error else ""
    return (
        "No Backup for Two Days",
        f"No backup has been taken {since}.\n\n{why}"
        "Run `flask backup` and see what it says. Until one is taken, a lost database takes along what was "
        "sold.",
    )


def _lines(orders: Sequence[Order], number: int | None = None) -> str:
    """A line for each; `number` is how many there are in all, where not all of them are given."""
    number = len(orders) if number is None else number
    lines = [
        f"- Order {order.code}: {money.show(order.total_minor, order.currency)}, "
        f"created {order.created_at:%Y-%m-%d %H:%M}, email {addresses.shown(order.email)}"
        for order in orders[:MOST_LINES]
    ]
    if number > len(lines):
        lines.append(f"- and {number - len(lines)} more")
    return "\n".join(lines)


# --- Payments that do not add up ------------------------------------------------------------------------


def amount_mismatch(
    order: Order, payment: Payment, received_minor: int | None, currency: str, what: str = ""
) -> Alert:
    """A provider's report that is not about our payment. `what` names what differs, such as `currency`.

    `received_minor` is in `currency`, which may not be the order's; None where the report names no amount.
    """
    received = "none named" if received_minor is None else _amount(received_minor, currency)
    amount = what in ("", "amount")
    kind = "Amount" if amount else "Payment"
    differs = "" if amount else f"What differs: {what}\n"
    return (
        f"{kind} Mismatch - Order {order.code}",
        "CRITICAL PAYMENT ISSUE\n\n"
        f"Order: {order.code}\n"
        f"Expected Amount: {_amount(payment.amount_minor, payment.currency)}\n"
        f"Received Amount: {received}\n"
        f"{differs}{_customer(order)}\n\n"
        "This order requires IMMEDIATE manual review.\n\n"
        "Do NOT issue tickets until verified.\n\n"
        f"{_view(order)}",
    )


def missing_record(order: Order, payment: Payment) -> Alert:
    """The provider does not know a payment that we have its id of."""
    return (
        f"Missing Payment Record - Order {order.code}",
        "CRITICAL PAYMENT ISSUE\n\n"
        f"Order: {order.code}\n"
        f"Expected Amount: {_amount(payment.amount_minor, payment.currency)}\n"
        f"Payment: {payment.reference} at {payment.provider}, account {payment.account}\n"
        f"Provider's id: {payment.provider_id or 'not known'}\n"
        f"{_customer(order)}\n\n"
        f"{registry.title(payment.provider)} says that it has no such payment. Usually the keys belong to "
        "another account, or to test mode instead of live. Nothing was closed, and it is asked again.\n\n"
        "Compare the account above with the one of your keys, and look the payment up in the provider's "
        "dashboard.\n\n"
        f"{_view(order)}",
    )


def wrong_answer(order: Order, payment: Payment, why: str) -> Alert:
    """The provider, or what stands before it, answered about another payment than the one asked about."""
    return (
        f"Wrong Answer - Order {order.code}",
        "CRITICAL PAYMENT ISSUE\n\n"
        f"Order: {order.code}\n"
        f"Expected Amount: {_amount(payment.amount_minor, payment.currency)}\n"
        f"Payment: {payment.reference} at {payment.provider}, account {payment.account}\n"
        f"Provider's id: {payment.provider_id or 'not known'}\n"
        f"What was wrong: {why}\n"
        f"{_customer(order)}\n\n"
        f"{registry.title(payment.provider)} was asked about this payment, and what came back is not about "
        "it. Nothing of that answer was kept, no payment was changed by it, and it is asked again.\n\n"
        "If it goes on, look the payment up in the provider's dashboard, and find out whether a proxy or a "
        "cache stands between this server and the provider.\n\n"
        f"{_view(order)}",
    )


def left_unread(order: Order, payment: Payment, why: str) -> Alert:
    """Something happened to a payment at its provider, and for a day it could not be read what."""
    return (
        f"Left Unread - Order {order.code}",
        "CRITICAL PAYMENT ISSUE\n\n"
        f"Order: {order.code}\n"
        f"Payment: {payment.reference} at {payment.provider}, account {payment.account}\n"
        f"Provider's id: {payment.provider_id or 'not known'}\n"
        f"Answer: {why}\n"
        f"{_customer(order)}\n\n"
        f"{registry.title(payment.provider)} lists something new about this payment, such as a refund or a "
        "dispute, and for a day the payment itself could not be read. What else happened at the account is "
        "taken in now; this one is asked about once more, and then left to you.\n\n"
        "Look it up in the provider's dashboard. “Ask the provider now” on the order's page reads it.\n\n"
        f"{_view(order)}",
    )


def put_back() -> Alert:
    """The database is older than what was known of it."""
    return (
        "Database Put Back - Shop Closed",
        "The database is behind what this shop knew: it was put back to an earlier moment, as by your host's "
        "own backups.\n\n"
        "The shop is closed, as after a restore of Kassa's own: nothing is sold, sent back or mailed, and "
        "sweeps ask every account what happened since. Look at what came back, and open it:\n\n"
        f"{_admin('restored')}",
    )


def unknown_payment(
    reference: str, provider_id: str, amount_minor: int, currency: str, back_minor: int
) -> Alert:
    """Money arrived for a payment that the database does not have, and so much of it is still here."""
    back = f" ({_amount(back_minor, currency)} more was sent back already)" if back_minor else ""
    return (
        f"Missing Record - Payment {reference}",
        "CRITICAL PAYMENT ISSUE\n\n"
        f"Reference: {reference}\n"
        f"Received Amount: {_amount(amount_minor, currency)}{back}\n"
        f"Provider's record: {provider_id}\n\n"
        "The provider has this paid payment, and the database has not. Usually a backup was restored.\n\n"
        "Attach it to a new order in the money inbox, or send it back there. Where your host has put the "
        "database back by its own tools, and the shop is open all the same, run `flask restored` first.\n\n"
        f"Money inbox: {_admin('incidents')}",
    )


def incident(order: Order, words: str, amount_minor: int, currency: str) -> Alert:
    """Money that waits in the money inbox; `words` say what kind of incident it is."""
    return (
        f"Money Needs a Decision - Order {order.code}",
        f"{words}\n\n"
        f"Order: {order.code}\n"
        f"Amount: {_amount(amount_minor, currency)}\n"
        f"{_customer(order)}\n\n"
        "Nothing more happens to it until somebody decides: issue the goods, refund, credit the wallet or "
        "dismiss.\n\n"
        f"Money inbox: {_admin('incidents')}\n"
        f"{_view(order)}",
    )


def refund_failed(order: Order, amount_minor: int, currency: str, why: str) -> Alert:
    """A refund that the provider did not carry out."""
    return (
        f"Refund Failed - Order {order.code}",
        f"The refund of {_amount(amount_minor, currency)} did not go through.\n\n"
        f"Reason: {why or 'not given'}\n"
        f"Order: {order.code}\n"
        f"{_customer(order)}\n\n"
        "The buyer does not have the money. Try the refund again from the order's page, or pay it back "
        "another way and tell the buyer.\n\n"
        f"{_view(order)}",
    )


def refund_by_hand(order: Order, amount_minor: int, currency: str, since: datetime) -> Alert:
    """A refund that no call makes, asked for at `since` (UTC): somebody has to make it at the bank."""
    return (
        f"Refund To Make By Hand - Order {order.code}",
        f"{_amount(amount_minor, currency)} is to go back, and no call of ours sends it.\n\n"
        f"Order: {order.code}\n"
        f"Asked for: {since:%Y-%m-%d %H:%M} UTC\n"
        f"{_customer(order)}\n\n"
        "Make the refund in the bank's or the provider's app. Then write its reference down on the order's "
        "page, or say there that it cannot be made. Until then the buyer reads that it waits for a person; "
        "you hear of it once a day.\n\n"
        f"{_view(order)}",
    )


def not_paid_back(event: Event, orders: Sequence[Order], why: str) -> Alert:
    """Money of a cancelled event that is to go back, and cannot."""
    one = len(orders) == 1
    return (
        f"Refunds Not Made - {event.title}",
        f"“{event.title}” was cancelled, and all that was paid for it is to go back. "
        f"{len(orders)} {'order was' if one else 'orders were'} not paid back:\n\n"
        f"{_lines(orders)}\n\n"
        f"Reason: {why}\n\n"
        "It is tried again with every sweep, for a month. You hear of it once a day while it lasts.\n\n"
        f"Admin panel: {_admin('orders')}",
    )


def dispute(order: Order, amount_minor: int, currency: str, reason: str) -> Alert:
    """A buyer's bank that takes the money back, or tries to."""
    tickets = "Its tickets admit nobody while the dispute is open. " if order.sells_tickets else ""
    return (
        f"Payment Disputed - Order {order.code}",
        f"The buyer's bank disputes {_amount(amount_minor, currency)}.\n\n"
        f"Reason: {reason or 'not given'}\n"
        f"Order: {order.code}\n"
        f"{_customer(order)}\n\n"
        f"{tickets}Answer it in the provider's dashboard before the date shown there; what was sent and "
        "scanned is on the order's page.\n\n"
        f"{_view(order)}",
    )


def inquiry(order: Order, amount_minor: int, currency: str, reason: str) -> Alert:
    """A buyer's bank that asks about a payment, and has taken nothing so far."""
    return (
        f"Bank Asks About a Payment - Order {order.code}",
        f"The buyer's bank asks about {_amount(amount_minor, currency)}. No money has moved, and the "
        "order is as it was.\n\n"
        f"Reason: {reason or 'not given'}\n"
        f"Order: {order.code}\n"
        f"{_customer(order)}\n\n"
        "Answer it in the provider's dashboard before the date shown there, or refund it: without an answer "
        "it becomes a dispute, and the bank takes the money.\n\n"
        f"{_view(order)}",
    )


def suspicious_pattern(where: str, count: int, order: Order) -> Alert:
    """Many failed payments at `where`: `order ORD-…` or `address 192.0.2.1`. `order` is the newest."""
    return (
        f"Suspicious Pattern - {count} Failed Payments, {where}",
        f"{count} payments failed within an hour: {where}.\n\n"
        f"Newest order: {order.code}\n"
        f"Amount: {_amount(order.total_minor, order.currency)}\n"
        f"{_customer(order)}\n\n"
        "This is what trying out stolen cards looks like; it may also be one unlucky buyer. Look at the "
        "orders, and at the fraud warnings in the provider's dashboard.\n\n"
        f"{_view(order)}",
    )


# --- Listing fees ---------------------------------------------------------------------------------------


def listing_review(order: Order, what: str) -> Alert:
    """An event that went off sale, because the fee for publishing it went back or may."""
    title = order.event.title if order.event is not None else order.code
    return (
        f"Event Off Sale - {title}",
        f"{what}\n\n"
        f"It is that of “{title}”, {_amount(order.total_minor, order.currency)}. The event is "
        "off sale until you decide: publish it again, or cancel it. Tickets that were sold stay valid.\n\n"
        f"Order: {order.code}\n"
        f"Organiser: {addresses.shown(order.email)}\n\n"
        f"Decide: {_admin('listings')}\n"
        f"{_view(order)}",
    )


def account_not_told(label: str, account: str, since: datetime, why: str, *, forbidden: bool) -> Alert:
    """An account does not tell what happened there; what happened until `since` (UTC) is known."""
    what = "does not let us ask" if forbidden else "has not told all for hours"
    right = (
        "Give the key the right to read charges, refunds, disputes, payment intents and checkout sessions; "
        "for an organiser's account, have it connected again and everything allowed."
        if forbidden
        else "Look at the provider's status page, and run `flask doctor`."
    )
    return (
        f"{label} Does Not Tell What Happened - {account}",
        f"{label} {what} what happened in account {account} since {since:%Y-%m-%d %H:%M} UTC.\n\n"
        f"Answer: {why}\n\n"
        "Sales go on, and buyers get their tickets. But refunds and disputes made there later, and money of "
        "which the database knows nothing, are not noticed until the account can be asked.\n\n"
        f"{right} It is asked again by itself, from where it was read to.",
    )


# --- Connected accounts ---------------------------------------------------------------------------------


def connection_broken(label: str, account: str, email: str, why: str, waiting: int) -> Alert:
    """An organiser's account that cannot be asked any more; `waiting` payments have no final word."""
    return (
        f"{label} Connection Broken - {account}",
        f"{label} does not let {config.get().site_name} speak for account {account} any more.\n\n"
        f"Reason: {why}\n"
        f"Organiser: {addresses.shown(email)}\n"
        f"Payments without a final word: {waiting}\n\n"
        "Nothing was marked failed: these payments wait, and keep their tickets, until the account can be "
        "asked again. The organiser was asked to connect it again; their events are not sold through it "
        "until then.\n\n"
        f"Connections: {_admin('connections')}",
    )


def connector_refused(label: str, why: str) -> Alert:
    """The provider does not take us for the app that organisers connected their accounts to."""
    return (
        f"{label} Refuses This App",
        f"{label} does not accept this Kassa's app credentials, so no organiser's account can be renewed.\n\n"
        f"Answer: {why}\n\n"
        "Check the client id and secret in the settings against those in the provider's dashboard. Nothing "
        "is lost meanwhile: payments wait, and `flask doctor` says when all is well again.\n\n"
        f"Connections: {_admin('connections')}",
    )


def line_on(event: Event, kind: TicketType) -> Alert:
    """An event's waiting line was switched on by itself, for what is held unpaid of one of its types."""
    return (
        f"Waiting Line On - {event.title}",
        f"{kind.held} of {kind.capacity} tickets '{kind.name}' of {event.title} are in orders that nobody "
        "has paid yet, so its waiting line was switched on: from now on tickets are bought in turn, one "
        "place for each confirmed address, and what is not paid for goes back within minutes.\n\n"
        "A rush of honest buyers looks the same, and loses little: their turn comes within seconds. Look at "
        "the orders, and switch the line off when it is over.\n\n"
        f"Event: {config.get().public_url}/organiser/events/{event.slug}\nOrders: {_admin('orders')}",
    )


# --- Mail -----------------------------------------------------------------------------------------------


def mail_failing(waiting: int, oldest: datetime, error: str) -> Alert:
    """Mail as a whole does not leave: `waiting` mails are due, the oldest since `oldest` (UTC)."""
    return (
        f"Email Delivery Failing - {waiting} Waiting",
        f"Email delivery failing: {waiting} {'mail is' if waiting == 1 else 'mails are'} waiting, the oldest "
        f"since {oldest:%Y-%m-%d %H:%M} UTC. Buyers do not get their tickets by mail.\n\n"
        f"Last error: {error}\n\n"
        "1. Check MAIL_SERVER, MAIL_PORT, MAIL_USERNAME and MAIL_PASSWORD, or MAIL_API_KEY.\n"
        "2. Run `flask mail test ADDRESS`: it says what the mail server answers.\n"
        "3. Nothing is lost: every mail is tried again for three days, and buyers see their tickets on their "
        "order's page.\n\n"
        f"Mail: {_admin('mail')}",
    )


def mail_failed(kind: str, to: str, error: str, *, order: Order | None, given_up: bool) -> Alert:
    """One mail that does not get through. `given_up`: it will not be tried again by itself."""
    next_step = (
        "It is not tried again by itself. Find out the right address, and send it once more."
        if given_up
        else "It is tried again for three days."
    )
    return (
        "Email Delivery Failing" + (f" - Order {order.code}" if order is not None else ""),
        f"Email delivery failing: the mail '{kind}' to {addresses.shown(to)} does not get through.\n\n"
        f"Last error: {error}\n\n"
        f"{next_step}\n\n"
        f"Mail: {_admin('mail')}" + (f"\n{_view(order)}" if order is not None else ""),
    )


def test() -> Alert:
    """What is sent when somebody tries out whether alerts arrive."""
    return (
        "Test Alert",
        f"This is a test alert from {config.get().site_name}. Nothing is wrong: "
        "alerts reach this address.\n\n"
        f"Admin panel: {_admin()}",
    )


# --- Words ----------------------------------------------------------------------------------------------


def _customer(order: Order) -> str:
    name = names.unlinked(order.name) or "not given"
    return f"Customer: {addresses.shown(order.email)}\nCustomer Name: {name}"


def _view(order: Order) -> str:
    return f"View order: {_admin('orders', order.code)}"


def _amount(minor: int, currency: str) -> str:
    """An amount in a currency that may be none: a provider's report can say anything."""
    try:
        return money.show(minor, money.check_currency(currency))
    except money.MoneyError:
        return f"{minor} minor units of {currency!r}"


def _admin(*path: str) -> str:
    return "/".join((config.get().public_url, "admin", *path))
