"""The world heals, and is then compared with books that Kassa did not write.

The provider's charges, refunds and disputes are read from its own API, and the mail from the catcher. Each
function gives what is wrong in words; nothing when all is well.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_, select

from domain.ledger import transfers
from domain.office import invariants
from extensions import db
from models import (
    ADMISSIONS,
    PAYMENT_ACTIVE,
    Event,
    HoldState,
    Incident,
    LineKind,
    MailState,
    Order,
    OrderLine,
    OrderState,
    OutboxMail,
    Participant,
    ParticipantState,
    Payment,
    PaymentState,
    Refund,
    RefundState,
    StockState,
    Ticket,
    TicketState,
    TicketType,
    Transfer,
    Wallet,
    WalletHold,
    WebhookEvent,
)
from tests.simulation import sellers
from tests.simulation.world import World

# Seconds between the sweeps of a healing world: minutes, the end of sessions, the later readings, days.
_ROUNDS = (30, 300, 2700, 300, 4000, 300, 90_000, 300, 90_000, 300, 90_000, 90_000, 600, 600)
_MOST_RINGS = 5000
_OUTSIDE = ("stripe", "sumup")
_MONEY_BACK = (RefundState.SUCCEEDED,)


@dataclass
class Books:
    """What the provider has of one session, in minor units."""

    currency: str = ""
    charged: int = 0
    refunded: int = 0
    disputed: int = 0
    # How many refunds were ever made, where the provider keeps no keys of ours with them.
    refunds: int = 0

    @property
    def kept(self) -> int:
        return self.charged - self.refunded - self.disputed


def heal(world: World) -> None:
    """The sky clears, nobody dies, banks say their last word, and sweeps go on until nothing is left."""
    world.deaths.end()
    world.clear_sky()
    for payment in world.sandbox.get("payments", limit=10_000):
        if payment["status"] == "processing" and payment["id"] not in world.tampered:
            world.at_provider(payment["id"], world.rng.choice(("complete_later", "fail_later")))
    world.sandbox.post("settings", {"sumup": {"refund_outcome": "ok"}})
    for seconds in _ROUNDS:
        sellers.connect_what_is_needed(world)
        _ring_all(world)
        world.read_what_was_lost()
        world.run_sweep()
        world.deliver()
        if _quiet(world):
            return
        world.tell(f"healing: {seconds} seconds pass")
        world.advance(seconds)
    raise world.broken("The world does not come to rest: " + "; ".join(_restless(world)))


def _ring_all(world: World) -> None:
    """Every letter of the provider's that is still under way arrives."""
    for _ in range(_MOST_RINGS):
        if not world.ring_one(may_lose=False):
            return
    raise world.broken("The provider rings for ever: " + str(world.network.postbox[:3]))


def _quiet(world: World) -> bool:
    return not _restless(world)


def _restless(world: World) -> list[str]:
    """What is still not final, though the provider has said its last word."""
    with world.app.app_context():
        active = db.session.scalars(select(Payment).where(Payment.state.in_(PAYMENT_ACTIVE))).all()
        refunds = db.session.scalars(
            select(Refund).where(Refund.state.in_([RefundState.CREATED, RefundState.PENDING]))
        ).all()
        mails = db.session.scalars(select(OutboxMail).where(OutboxMail.state == MailState.DUE)).all()
        return [
            *(f"payment {p.reference} is {p.state}, {p.last_error}" for p in active),
            *(f"refund {r.idempotency_key} is {r.state}" for r in refunds),
            *(f"mail {m.key} is due, {m.last_error}" for m in mails),
            # Its account was found to be lost as it was asked; it is connected again in the next round.
            *(f"what {posted.kind} {posted.event_id} told was never read" for posted in world.network.lost),
        ]


def judge(world: World) -> None:
    """Compare. Raises Broken with everything that is wrong."""
    books = _books(world)
    with world.app.app_context():
        wrong = [f"{v.code}: {v.sample}" for v in invariants.look()]
        for question in (
            *(_money_is_placed, _goods_are_paid, _ledger_is_the_books, _money_is_goods, _refunds),
            _cancelled_is_refunded,
        ):
            wrong += question(world, books)
        for other in (_keys_are_ours, _tampered, _suspense, _wallets, _stock, _entries, _mail, _rings):
            wrong += other(world)
        db.session.rollback()
    if wrong:
        raise world.broken("When all had come to rest:\n" + "\n".join(wrong))


def _books(world: World) -> dict[str, Books]:
    """The provider's own books by the id of a payment: a session's, or an intent's that no session made."""
    made_by = {s["payment_intent"]: s["id"] for s in world.network.all_of("checkout/sessions")}
    intents = [i["id"] for i in world.network.all_of("payment_intents")]
    sessions = {intent: made_by.get(intent, intent) for intent in intents}
    books: dict[str, Books] = defaultdict(Books)
    for charge in world.network.all_of("charges"):
        if charge["status"] == "succeeded":
            of = books[sessions[charge["payment_intent"]]]
            of.charged += charge["amount"]
            of.currency = charge["currency"].upper()
    for refund in world.network.all_of("refunds"):
        if refund["status"] in ("pending", "succeeded"):
            books[sessions[refund["payment_intent"]]].refunded += refund["amount"]
    for dispute in world.network.all_of("disputes"):
        if dispute["status"] in ("needs_response", "lost"):
            books[sessions[dispute["payment_intent"]]].disputed += dispute["amount"]
    for checkout in _checkouts(world):
        books[checkout["id"]] = Books(
            checkout["currency"],
            checkout["amount_minor"] if checkout["transaction"] else 0,
            checkout["refunded_minor"],
            checkout["disputed_minor"],
            len(checkout["refunds"]),
        )
    return dict(books)


def _checkouts(world: World) -> list[dict[str, Any]]:
    """All that SumUp has, of every account, as its owners see it."""
    return [p for p in world.sandbox.get("payments", limit=10_000) if p["provider"] == "sumup"]


def _outside_payments() -> list[Payment]:
    """Those whose money is at a provider's, and not in a wallet."""
    query = select(Payment).where(Payment.provider.in_(_OUTSIDE))
    return list(db.session.scalars(query.order_by(Payment.id)))


# --- Money and goods ------------------------------------------------------------------------------------


def _money_is_placed(world: World, books: dict[str, Books]) -> Iterator[str]:
    """Every charge is known here, and is fulfilled, refunded, or was or is in the inbox."""
    known = {p.provider_id: p for p in _outside_payments() if p.provider_id is not None}
    incidents: dict[int | None, list[Incident]] = defaultdict(list)
    for incident in db.session.scalars(select(Incident)):
        incidents[incident.payment_id].append(incident)
    for session, of in books.items():
        if not of.charged:
            continue
        payment = known.get(session)
        if payment is None:
            yield f"The provider charged {of.charged} {of.currency} for {session}, which is not known here."
            continue
        if payment.state not in (PaymentState.PAID, PaymentState.REVIEW) and not incidents[payment.id]:
            yield f"{payment.reference} was charged, and is {payment.state} here."
        placed = payment.fulfilled or bool(incidents[payment.id]) or of.refunded >= of.charged
        if not placed:
            yield f"{payment.reference} was charged, and is neither fulfilled nor refunded nor in the inbox."
    by_person = _by_person()
    for payment in known.values():
        charged = books.get(payment.provider_id or "", Books()).charged
        if payment.state is PaymentState.PAID and not charged and payment.id not in by_person:
            yield f"{payment.reference} is paid here, and the provider never charged it."


def _by_person() -> set[int | None]:
    """The payments whose goods a person handed over."""
    return set(db.session.scalars(select(Incident.payment_id).where(Incident.resolution == "issue")))


def _goods_are_paid(world: World, books: dict[str, Books]) -> Iterator[str]:
    """Goods were handed over once, for money that is there, or by a person's decision."""
    issued: Counter[int] = Counter()
    valid: Counter[int] = Counter()
    for order_id, state, count in db.session.execute(
        select(Ticket.order_id, Ticket.state, func.count()).group_by(Ticket.order_id, Ticket.state)
    ):
        issued[order_id] += count
        valid[order_id] += count if state is TicketState.VALID else 0
    by_person = _by_person()
    for order in db.session.scalars(select(Order).order_by(Order.id)):
        bought = [payment for payment in order.payments if payment.fulfilled]
        has_goods = bool(issued[order.id]) or order.state in (
            OrderState.COMPLETED,
            OrderState.PARTIALLY_REFUNDED,
        )
        if len(bought) > 1:
            yield f"{order.code} has its goods for two payments."
        if has_goods and order.total_minor and not bought:
            yield f"{order.code} has goods, and no payment bought them."
        quantity = sum(line.quantity for line in order.lines if line.kind in ADMISSIONS)
        if issued[order.id] not in (0, quantity):
            yield f"{order.code} is of {quantity} tickets, and {issued[order.id]} were issued."
        if bought and quantity and issued[order.id] != quantity:
            yield f"{order.code} was fulfilled without tickets."
        for payment in bought:
            of = books.get(payment.provider_id or "", Books())
            honest = payment.provider_id not in world.ever_tampered and payment.id not in by_person
            outside = payment.provider in _OUTSIDE
            if outside and honest and of.charged != order.total_minor:
                yield f"{order.code} costs {order.total_minor}, and {of.charged} was charged for its goods."
            if outside and honest and valid[order.id] and not of.kept:
                yield f"{order.code} has valid tickets, and all its money went back."


def _ledger_is_the_books(world: World, books: dict[str, Books]) -> Iterator[str]:
    """For each payment that nobody tampered with, the ledger moved what the provider moved."""
    moved: Counter[tuple[str, int | None]] = Counter()
    for transfer in db.session.scalars(select(Transfer)):
        moved[transfer.debit, transfer.payment_id] += transfer.amount_minor
        moved[transfer.credit, transfer.payment_id] -= transfer.amount_minor
    total: Counter[tuple[str, str]] = Counter()
    for payment in _outside_payments():
        if payment.provider_id in world.ever_tampered:
            continue
        account = transfers.provider_account(payment.provider, payment.account)
        kept = books.get(payment.provider_id or "", Books()).kept
        here = moved[account, payment.id]
        total[account, payment.currency] += kept - here
        if here != kept:
            yield f"{payment.reference}: the provider keeps {kept}, and the ledger has {here}."
    for (account, currency), minor in total.items():
        if minor:
            yield f"All of {account} differs by {minor} {currency}."


def _money_is_goods(world: World, books: dict[str, Books]) -> Iterator[str]:
    """For each account at a provider: what it was paid is what its buyers got, waits here, or went back."""
    charged: Counter[tuple[str, str]] = Counter()
    placed: Counter[tuple[str, str]] = Counter()
    goods = _goods_minor()
    for payment in _outside_payments():
        if payment.provider_id in world.ever_tampered:
            continue
        key = transfers.provider_account(payment.provider, payment.account), payment.currency
        of = books.get(payment.provider_id or "", Books())
        charged[key] += of.charged
        # What bought nothing is in the inbox, or was decided there: it is all that was charged, or nothing.
        placed[key] += goods[payment.order_id] if payment.fulfilled else payment.received_minor or 0
    for key in charged.keys() | placed.keys():
        if charged[key] != placed[key]:
            account, currency = key
            yield f"{account} was paid {charged[key]} {currency}, for what is worth {placed[key]} here."


def _goods_minor() -> Counter[int]:
    """What was handed over, by order: tickets at the price of their types, top-ups and fees at theirs."""
    goods: Counter[int] = Counter()
    prices = select(Ticket.order_id, TicketType.price_minor).join(TicketType)
    for order_id, minor in db.session.execute(prices):
        goods[order_id] += minor
    for line in db.session.scalars(select(OrderLine).where(OrderLine.kind.not_in(ADMISSIONS))):
        goods[line.order_id] += line.quantity * line.unit_minor
    return goods


def _refunds(world: World, books: dict[str, Books]) -> Iterator[str]:
    """Where the provider keeps no keys: each refund that it made was asked for once, here or there."""
    for payment in _outside_payments():
        made = books.get(payment.provider_id or "", Books()).refunds
        asked = sum(1 for refund in payment.refunds if not refund.made_at_provider)
        there = world.refunded_there[payment.provider_id or ""]
        if made > asked + there:
            yield f"{payment.reference}: {made} refunds were made, {asked} asked for here, {there} there."


def _cancelled_is_refunded(world: World, books: dict[str, Books]) -> Iterator[str]:
    """Where everybody's money was to go back it did, or somebody has tried and a person was told."""
    refunding = select(Event.id).where(Event.refunding_since.is_not(None))
    told = set(db.session.scalars(select(Incident.payment_id)))
    alerts = select(OutboxMail.context["text"].astext).where(OutboxMail.key.startswith("not_paid_back:"))
    alerted = "\n".join(db.session.scalars(alerts))
    for order in db.session.scalars(select(Order).where(Order.event_id.in_(refunding)).order_by(Order.id)):
        for payment in order.payments:
            of = books.get(payment.provider_id or "", Books())
            tried = bool(payment.refunds) or bool(of.disputed) or payment.id in told or order.code in alerted
            if payment.provider_id not in world.ever_tampered and of.kept and not tried:
                yield f"{payment.reference}: the event was cancelled, and {of.kept} of it never went back."


def _keys_are_ours(world: World) -> Iterator[str]:
    """Each attempt has one payment at the provider, and each refund made by us has its intent here."""
    made = world.network.all_of("checkout/sessions")
    sessions = Counter(session["client_reference_id"] for session in made)
    of_sessions = {session["payment_intent"] for session in made}
    intents = [i for i in world.network.all_of("payment_intents") if i["id"] not in of_sessions]
    sessions += Counter(intent["metadata"]["reference"] for intent in intents)
    sessions += Counter(checkout["reference"] for checkout in _checkouts(world))
    for payment in _outside_payments():
        if sessions[payment.reference] > 1:
            yield f"{payment.reference} is at the provider {sessions[payment.reference]} times."
    ours = set(db.session.scalars(select(Refund.idempotency_key)))
    for refund in world.network.all_of("refunds"):
        key = refund["metadata"].get("refund")
        if key and key not in ours:
            yield f"The provider made the refund {key}, of which nothing is known here."


def _tampered(world: World) -> Iterator[str]:
    """What the provider says of another amount, currency, reference or mode buys nothing."""
    still = world.tampered_unpaid & set(world.tampered)
    by_person = _by_person()
    for payment in _outside_payments():
        if payment.provider_id in still and payment.fulfilled and payment.id not in by_person:
            yield f"{payment.reference} does not match the provider's record, and bought its goods."


def _suspense(world: World) -> Iterator[str]:
    """Nothing leaves suspense that did not arrive there, but what a bank took back after it was placed."""
    moved: Counter[int | None] = Counter()
    disputed: set[int | None] = set()
    for transfer in db.session.scalars(
        select(Transfer)
        .where(or_(Transfer.debit == transfers.SUSPENSE, Transfer.credit == transfers.SUSPENSE))
        .order_by(Transfer.id)
    ):
        sign = 1 if transfer.credit == transfers.SUSPENSE else -1
        moved[transfer.payment_id] += sign * transfer.amount_minor
        if transfer.kind == "dispute":
            disputed.add(transfer.payment_id)
    for payment_id, minor in moved.items():
        payment = db.session.get_one(Payment, payment_id)
        mirrored = any(refund.made_at_provider for refund in payment.refunds)
        changed = payment.provider_id in world.ever_tampered and payment.state is not PaymentState.REVIEW
        if minor < 0 and payment_id not in disputed and not mirrored and not changed:
            yield f"{payment.reference}: {-minor} more left suspense than came."


def _wallets(world: World) -> Iterator[str]:
    """Each wallet holds what was topped up and credited, less what was bought, used and taken back."""
    moved, from_goods = _moved_in_wallets(), _wallets_from_goods()
    for user_id, currency, code in sorted(moved.keys() | from_goods.keys()):
        key = user_id, currency, code
        if moved[key] != from_goods[key]:
            yield f"wallet:{user_id} got {moved[key]} {currency} by {code or 'uses'}, not {from_goods[key]}."
    for wallet in db.session.scalars(select(Wallet)):
        sum_minor = sum(n for key, n in moved.items() if key[:2] == (wallet.user_id, wallet.currency))
        if wallet.balance_minor != sum_minor:
            yield f"{wallet.account} holds {wallet.balance_minor} {wallet.currency}, not {sum_minor}."
        if wallet.held_minor:
            yield f"{wallet.account} still holds {wallet.held_minor} back."


# Whose wallet, in which currency, by which order ('' for uses of agents).
_Moves = Counter[tuple[int, str, str]]


def _moved_in_wallets() -> _Moves:
    """What the ledger's transfers moved."""
    moved: _Moves = Counter()
    codes: dict[int | None, str] = {
        row[0]: row[1] for row in db.session.execute(select(Order.id, Order.code))
    }
    for transfer in db.session.scalars(select(Transfer)):
        for account, sign in ((transfer.credit, 1), (transfer.debit, -1)):
            if account.startswith("wallet:"):
                user_id, code = int(account.removeprefix("wallet:")), codes.get(transfer.order_id, "")
                moved[user_id, transfer.currency, code] += sign * transfer.amount_minor
    return moved


def _wallets_from_goods() -> _Moves:
    """What they should have moved, from orders, refunds, disputes, decisions and holds."""
    sums: _Moves = Counter()
    # A person hands over, and credits, what arrived, which need not be what was asked for.
    decided = {
        i.payment_id: i for i in db.session.scalars(select(Incident).where(Incident.resolution == "issue"))
    }
    for payment in db.session.scalars(select(Payment).where(Payment.fulfilled)):
        order, key = payment.order, (payment.order.user_id or 0, payment.currency, payment.order.code)
        back = sum(r.amount_minor for r in payment.refunds if r.state in _MONEY_BACK)
        if any(line.kind is LineKind.TOP_UP for line in order.lines):
            issued = decided.get(payment.id)
            sums[key] += (issued.amount_minor if issued else order.total_minor) - back - _lost(payment)
        if payment.provider == "wallet":
            sums[key] -= payment.amount_minor - back
    for incident in db.session.scalars(select(Incident).where(Incident.resolution == "wallet")):
        credited = incident.payment
        if incident.order is not None and credited is not None:
            # What goes back or is disputed later comes out of the wallet again.
            back = sum(r.amount_minor for r in credited.refunds if r.state in _MONEY_BACK)
            key = incident.order.user_id or 0, incident.currency, incident.order.code
            sums[key] += incident.amount_minor - back - _lost(credited)
    for hold in db.session.scalars(select(WalletHold).where(WalletHold.state == HoldState.CAPTURED)):
        sums[hold.wallet.user_id, hold.wallet.currency, ""] -= hold.amount_minor
    return sums


def _lost(payment: Payment) -> int:
    """What a bank has taken back, and has not given again."""
    return sum(dispute.amount_minor for dispute in payment.disputes if dispute.has_money)


def _stock(world: World) -> Iterator[str]:
    """What is sold is what has tickets; what is held belongs to orders that wait for a person."""
    for kind in db.session.scalars(select(TicketType)):
        live = db.session.scalars(
            select(func.count()).where(
                Ticket.ticket_type_id == kind.id, Ticket.state.in_([TicketState.VALID, TicketState.SUSPENDED])
            )
        ).one()
        if (kind.sold, kind.sold + kind.held <= kind.capacity) != (live, True):
            yield f"Type {kind.id}: {kind.sold} sold, {kind.held} held of {kind.capacity}, {live} tickets."
    held = select(Order).where(Order.stock_state == StockState.HELD, Order.state != OrderState.REVIEW)
    for order in db.session.scalars(held):
        yield f"{order.code} is {order.state} and still holds stock."


def _entries(world: World) -> Iterator[str]:
    """Who is paid for has a place, nobody else has or holds one, and each place is the athlete's own."""
    for kind in db.session.scalars(select(TicketType).where(TicketType.category.has())):
        entered = db.session.scalars(select(Participant).where(Participant.ticket_type_id == kind.id)).all()
        paid = [one for one in entered if one.state is ParticipantState.PAID]
        if kind.sold != len(paid):
            yield f"Category {kind.id}: {kind.sold} places are sold, and {len(paid)} entries paid for."
        for one in entered:
            holds = one.order.stock_state is StockState.HELD and one.order.state is not OrderState.REVIEW
            if holds and one.state is ParticipantState.WITHDRAWN:
                yield f"{one.order.code} is withdrawn, and still holds its place."
            if any(ticket.holder != one.athlete.name for ticket in one.order.tickets):
                yield f"{one.order.code} is of {one.athlete.name}, and its ticket of somebody else."


# --- Mail and rings -------------------------------------------------------------------------------------


def _left_with_others(mail: OutboxMail, owed: Iterable[OutboxMail]) -> bool:
    """Whether it was held back and told in a joined mail to the same address; that one must arrive itself."""
    joined = [one for one in owed if one.to == mail.to and one.key.startswith("joined:")]
    ranges = [one.key.removeprefix("joined:").split("-") for one in joined]
    return mail.state is MailState.SENT and any(int(first) <= mail.id <= int(last) for first, last in ranges)


def _mail(world: World) -> Iterator[str]:
    """Every letter arrived; a second copy only where a sender could not know, under the same Message-ID."""
    caught: Counter[str] = Counter(mail["message_id"] for mail in world.sandbox.mail())
    addressed: dict[str, str] = {mail["message_id"]: mail["to"] for mail in world.sandbox.mail()}
    owed: dict[str, OutboxMail] = {mail.message_id: mail for mail in db.session.scalars(select(OutboxMail))}
    for message_id, mail in owed.items():
        if mail.state is MailState.FAILED:
            yield f"Mail {mail.key} failed: {mail.last_error}"
        elif not caught[message_id]:
            if not _left_with_others(mail, owed.values()):
                yield f"Mail {mail.key} is {mail.state} and never arrived."
        elif addressed[message_id] != mail.to:
            yield f"Mail {mail.key} to {mail.to} went to {addressed[message_id]}."
    for message_id, copies in caught.items():
        if message_id not in owed:
            yield f"A letter arrived that nobody owes: {message_id}."
        elif copies > 1 and message_id not in world.deaths.unclear_letters:
            yield f"Mail {owed[message_id].key} arrived {copies} times."
    with_goods = (OrderState.COMPLETED, OrderState.PARTIALLY_REFUNDED)
    told = {mail.order_id for mail in owed.values() if mail.kind in ("tickets", "top_up")}
    for order in db.session.scalars(select(Order).where(Order.state.in_(with_goods))):
        if order.id not in told:
            yield f"{order.code} is {order.state}, and its buyer was never told."


def _rings(world: World) -> Iterator[str]:
    """Every webhook that was answered with a 2xx is marked as done."""
    for event in db.session.scalars(select(WebhookEvent).where(WebhookEvent.done_at.is_(None))):
        if event.event_id in world.network.answered:
            yield f"Event {event.event_id} ({event.type}) was answered, and is not marked done."
