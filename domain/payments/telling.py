"""A person tells what the bank's statement says of a payment whose provider cannot be asked.

Each telling is a row (told_reports.py), written under the order's and the payment's locks and settled at
once, as any other report. Above the provider's threshold it takes two different people. A reference of the
bank buys once, by a constraint.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from domain import clock, locks, money, timeline
from domain.errors import DomainError, NotFound
from domain.payments import incidents, reconciling, settling, told_reports
from domain.providers import registry
from domain.providers.contract import Confirmed, Report
from extensions import db
from models import Awaits, Order, Payment, PaymentState, ToldReport, ToldState


def tell_paid(
    payment_id: int,
    *,
    reference: str,
    amount_minor: int,
    actor_id: int,
    note: str,
    paid_at: datetime | None = None,
    door: str = "admin",
) -> ToldReport:
    """Write down that `amount_minor` came for a payment under the bank's `reference`, and settle it. Commits.

    DomainError in words where the reference is none, or was used; the same once more changes nothing. Another
    sum than the payment's goes to a person, and above the threshold it waits for a second one.
    """

    def work() -> int:
        payment, order = locks.payment_and_order(payment_id)
        provider, name = _confirmable(payment, note), _reference(payment, reference)
        _check_day(payment, paid_at)
        known = told_reports.by_reference(payment.provider, name)
        if known is not None:
            return _again(known, payment, amount_minor).id
        _check_amount(payment, amount_minor)
        extra = _is_paid(payment)
        above = None if extra else provider.two_people_above_minor
        awaits = Awaits.PERSON if _is_large(payment, amount_minor, above) else Awaits.NOTHING
        row = _row(payment, ToldState.EXTRA if extra else ToldState.PAID, name, amount_minor)
        row.paid_at, row.awaits, row.by_id, row.note = paid_at, awaits, actor_id, note.strip()[:300]
        db.session.add(row)
        db.session.flush()
        shown = money.show(amount_minor, payment.currency)
        words = f"{shown} came, reference {name}: {note.strip()}"
        if row.is_waiting:
            most = money.show(above or 0, payment.currency)
            words = f"{words.rstrip('.')}. Above {most} a second person has to confirm it."
        timeline.note(
            order, "told_paid", words, door=door, payment=payment, actor_id=actor_id, data=_data(row)
        )
        if extra:
            incidents.told_twice(order, payment, _second(payment, row), door=door)
        _look_soon(payment)
        return row.id

    told_id = _once(work)
    reconciling.reconcile(payment_id, door=door, actor_id=actor_id)
    return db.session.get_one(ToldReport, told_id, populate_existing=True)


def confirm(told_id: int, *, actor_id: int, note: str, door: str = "admin") -> settling.Outcome:
    """Another person, or the bank's statement, confirms what was told; it is settled. Commits."""

    def work() -> int:
        row, payment, order = _waiting(told_id)
        if row.awaits is Awaits.PERSON and row.by_id == actor_id:
            raise DomainError(
                "same_person",
                "You wrote this down yourself. Somebody else has to look at the statement, and confirm it.",
            )
        row.confirmed_at, row.confirmed_by_id = clock.now(), actor_id
        if _is_paid(payment, row):
            # Other money has bought the goods meanwhile.
            row.state = ToldState.EXTRA
            incidents.told_twice(order, payment, _second(payment, row), door=door)
        shown = money.show(row.amount_minor, row.currency)
        words = f"{shown}, reference {row.reference}, is confirmed: {_said(note)}"
        timeline.note(
            order, "told_confirmed", words, door=door, payment=payment, actor_id=actor_id, data=_data(row)
        )
        _look_soon(payment)
        return payment.id

    payment_id = locks.in_one_transaction(work)
    return reconciling.reconcile(payment_id, door=door, actor_id=actor_id)


def withdraw(told_id: int, *, actor_id: int, why: str, door: str = "admin") -> settling.Outcome:
    """What was told, and nobody has confirmed yet, was wrong: its reference is free again. Commits."""

    def work() -> int:
        row, payment, order = _waiting(told_id)
        row.withdrawn_at, row.withdrawn_by_id = clock.now(), actor_id
        words = f"Reference {row.reference} is taken back: {_said(why)}"
        timeline.note(
            order, "told_withdrawn", words, door=door, payment=payment, actor_id=actor_id, data=_data(row)
        )
        _look_soon(payment)
        return payment.id

    payment_id = locks.in_one_transaction(work)
    return reconciling.reconcile(payment_id, door=door, actor_id=actor_id)


def tell_unpaid(payment_id: int, *, actor_id: int, note: str, door: str = "admin") -> settling.Outcome:
    """A person has looked, and nothing came: the payment ends. Money that comes later is found. Commits."""

    def work() -> None:
        payment, order = locks.payment_and_order(payment_id)
        _confirmable(payment, note)
        if payment.state not in (PaymentState.OPEN, PaymentState.REVIEW):
            raise DomainError("not_waiting", f"This payment is {payment.state}: nobody waits for its money.")
        row = _row(payment, ToldState.UNPAID, "", 0)
        row.by_id, row.note = actor_id, note.strip()[:300]
        db.session.add(row)
        words = f"Nothing came: {note.strip()}"
        timeline.note(order, "told_unpaid", words, door=door, payment=payment, actor_id=actor_id)
        _look_soon(payment)

    locks.in_one_transaction(work)
    return reconciling.reconcile(payment_id, door=door, actor_id=actor_id)


# --- What must be right ---------------------------------------------------------------------------------


def _confirmable(payment: Payment, note: str) -> Confirmed:
    """The adapter of a payment that people confirm. DomainError where it is another, or was never open."""
    provider = registry.get(payment.provider, payment.account)
    if provider.can.ask or not isinstance(provider, Confirmed):
        raise DomainError(
            "not_told", f"{provider.label} says itself whether this is paid: ask it, on the order's page."
        )
    if payment.provider_id is None:
        raise DomainError("never_opened", "This payment was never opened, so nobody can have paid it.")
    _said(note)
    return provider


def _is_paid(payment: Payment, besides: ToldReport | None = None) -> bool:
    """Whether other money has paid it, so that what comes now is more; settled by now, or about to be."""
    rows = (row for row in told_reports.stands(payment) if row.is_evidence and row is not besides)
    covered = sum(row.amount_minor for row in rows) >= payment.amount_minor
    return payment.state is PaymentState.PAID or payment.fulfilled or covered


def _said(note: str) -> str:
    if not note.strip():
        raise DomainError("note_needed", "Say how you know: the note is kept on the order's timeline.")
    return note.strip()


def _reference(payment: Payment, typed: str) -> str:
    provider = registry.get(payment.provider, payment.account)
    found = provider.bank_reference(typed) if isinstance(provider, Confirmed) else ""
    if found:
        return found
    words = f"“{typed.strip()[:40]}” does not look like a reference of the bank"
    if not typed.strip():
        words = "The bank's reference is missing"
    raise DomainError(
        "reference_form",
        f"{words}: it has six or more letters and digits, and is no code of ours. Copy it from the "
        "statement. Nothing was confirmed.",
    )


def _again(known: ToldReport, payment: Payment, amount_minor: int) -> ToldReport:
    """The same reference once more: on the same payment it is the same money; on another it is refused."""
    same = known.payment_id == payment.id and known.amount_minor == amount_minor
    if same:
        return known
    other = known.payment.reference
    raise DomainError(
        "reference_used",
        f"Reference {known.reference} was used before, for {money.show(known.amount_minor, known.currency)} "
        f"of payment {other}. The same money does not pay twice: look for this payment's own reference in "
        "the statement. Nothing was confirmed.",
    )


def _is_large(payment: Payment, amount_minor: int, above: int | None) -> bool:
    """Whether it takes a second person: for a large payment, and for one that comes in several parts."""
    told = sum(row.amount_minor for row in told_reports.stands(payment))
    return above is not None and max(payment.amount_minor, told + amount_minor) > above


def _check_day(payment: Payment, paid_at: datetime | None) -> None:
    if told_reports.may_be_paid_at(payment, paid_at):
        return
    words = "That day is before the order was made."
    if paid_at is not None and paid_at > clock.now():
        words = "That day has not come yet."
    raise DomainError("date", f"{words} Look at the date in the statement. Nothing was confirmed.")


def _check_amount(payment: Payment, amount_minor: int) -> None:
    if not 0 < amount_minor <= money.MAX_MINOR:
        most = money.show(money.MAX_MINOR, payment.currency)
        raise DomainError("amount", f"Type what came, as the statement says: above zero, and at most {most}.")


def _waiting(told_id: int) -> tuple[ToldReport, Payment, Order]:
    """A report that somebody has to confirm, with its payment and order, locked."""
    payment_id = db.session.scalar(select(ToldReport.payment_id).where(ToldReport.id == told_id))
    if payment_id is None:
        raise NotFound("no_report", "There is no such report.")
    payment, order = locks.payment_and_order(payment_id)
    row = db.session.get_one(ToldReport, told_id, populate_existing=True)
    if not row.is_waiting:
        raise DomainError("not_waiting", "This was confirmed or taken back before: nothing was changed.")
    return row, payment, order


# --- Writing it down ------------------------------------------------------------------------------------


def _once(work: Callable[[], int]) -> int:
    """Two who write down one reference at the same moment, for two payments: the second is refused."""
    try:
        return locks.in_one_transaction(work)
    except IntegrityError as error:
        if "told_reports_reference" not in str(error.orig):
            raise
        raise DomainError(
            "reference_used",
            "Somebody has just used this reference for another payment. Look at the statement. Nothing was "
            "confirmed.",
        ) from error


def _row(payment: Payment, state: ToldState, reference: str, amount_minor: int) -> ToldReport:
    return ToldReport(
        payment=payment,
        provider=payment.provider,
        state=state,
        amount_minor=amount_minor,
        currency=payment.currency,
        reference=reference,
        awaits=Awaits.NOTHING,
        created_at=clock.now(),
    )


def _look_soon(payment: Payment) -> None:
    """Should this process end before it settles, the next sweep does."""
    if payment.next_check_at is None or payment.next_check_at > clock.now():
        payment.next_check_at = clock.now()


def _data(row: ToldReport) -> dict[str, object]:
    return {"reference": row.reference, "amount_minor": row.amount_minor, "currency": row.currency}


def _second(payment: Payment, row: ToldReport) -> Report:
    """The second money as a report: its own sum, under its own name."""
    return Report(
        provider=payment.provider,
        provider_id=payment.provider_id or "",
        state="paid",
        amount_minor=row.amount_minor,
        currency=row.currency,
        reference=payment.reference,
        account=payment.account,
        livemode=payment.livemode,
        charge_id=row.reference,
        raw=_data(row),
    )
