"""Money of a lost time at a provider that does not tell what happened: a person writes down what came.

Where the provider can be asked about one payment, it is, and its word is what counts; where it cannot, what a
person has read at the bank waits in the money inbox, and is told as by hand when its order is made anew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select

import config
from domain import clock, money
from domain.errors import DomainError
from domain.payments import adopting, incidents, lookup, told_reports
from domain.providers import registry
from domain.providers.contract import Confirmed, Provider, ProviderError, Report
from extensions import db
from models import Event, Incident, Payment

MOST_LINES = 200
_REFERENCE = re.compile(r"ORD-[2-9A-HJKMNP-Z]{8}-[0-9]{1,3}(-E[0-9]{1,3})?")


@dataclass(frozen=True)
class Written:
    """What became of each line, in words: money that is known now, and what was refused."""

    taken: Sequence[str]
    refused: Sequence[str]


def silent() -> list[Provider]:
    """The providers that take money and do not tell what happened at their account."""
    now = clock.now()
    own = (registry.get(name) for name in registry.names())
    return [one for one in own if one.ready and not one.immediate and one.happened(now, now) is None]


def write_down(name: str, lines: str, *, actor_id: int) -> Written:
    """Take in money by its name at the provider, one a line: `12800000005 ORD-7KQ2MPXA-1 2500`. Commits each.

    Behind the name stand what is known besides: our reference, which the buyer has, and the sum. DomainError
    where there is no such provider, or there are too many lines.
    """
    adapter = next((one for one in silent() if one.name == name), None)
    wanted = [line.split() for line in lines.splitlines() if line.strip()]
    if adapter is None:
        raise DomainError("provider", "Choose a provider that cannot tell by itself.")
    if not wanted or len(wanted) > MOST_LINES:
        raise DomainError("lines", f"Write one payment a line, at most {MOST_LINES} at once.")
    currency = _currency(adapter)
    taken, refused = [], []
    for parts in wanted:
        try:
            taken.append(f"{parts[0]}: {_write_down(adapter, parts, currency, actor_id)}")
        except DomainError as error:
            db.session.rollback()
            refused.append(f"{parts[0][:60]}: {error.message}")
    return Written(taken, refused)


def _currency(adapter: Provider) -> str:
    """In which the sums are: the first that it takes of the house's and those that are sold in here."""
    sold = db.session.scalars(select(Event.currency).distinct().order_by(Event.currency)).all()
    house = config.get().currency
    return next((currency for currency in (house, *sold) if adapter.supports(currency)), house)


def _write_down(adapter: Provider, parts: Sequence[str], currency: str, actor_id: int) -> str:
    reference = next((part.upper() for part in parts[1:] if _REFERENCE.fullmatch(part.upper())), "")
    rest = [part for part in parts[1:] if part.upper() != reference]
    amount = money.parse(" ".join(rest), currency) if rest else None
    known = db.session.scalar(select(Payment).filter_by(reference=reference)) if reference else None
    if known is not None and known.provider_id is not None:
        raise DomainError("known", f"{reference} is here: look at its order.")
    db.session.rollback()
    report = _asked(adapter, parts[0]) if adapter.can.ask else _read(adapter, parts[0], currency, amount)
    if report.state != "paid":
        raise DomainError("not_paid", f"The provider says that it is {report.state}.")
    if amount is not None and "amount" not in report.untold and amount != report.amount_minor:
        shown = money.show(report.amount_minor, report.currency)
        raise DomainError("another_sum", f"The provider says that it is {shown}.")
    if "amount" in report.untold:
        if amount is None:
            raise DomainError("amount_needed", "The provider does not tell the sum: write it behind it.")
        report = replace(report, amount_minor=amount)
    report = replace(
        report, reference=reference or report.reference, raw={**report.raw, "written_down_by": actor_id}
    )
    if lookup.on_record(report) or _waits(report):
        return "is known here already"
    if adapter.can.ask:
        adopting.take_in(report, door="admin")
    else:
        incidents.open_unknown(report)
        db.session.commit()
    return "waits in the money inbox" if _waits(report) else "is settled for its order"


def _waits(report: Report) -> bool:
    found = select(Incident.id).where(
        Incident.kind == "unknown_payment",
        Incident.provider == report.provider,
        Incident.charge_id == report.charge_id,
    )
    return db.session.scalar(found.limit(1)) is not None


def _asked(adapter: Provider, name: str) -> Report:
    try:
        return adapter.fetch(name, thorough=True)
    except ProviderError as error:
        raise DomainError("provider_silent", f"The provider says: {error}") from error


def _read(adapter: Provider, name: str, currency: str, amount: int | None) -> Report:
    """What a person has read at the bank. DomainError where it is no reference of the bank, or was used."""
    found = adapter.bank_reference(name) if isinstance(adapter, Confirmed) else ""
    if not found:
        raise DomainError("reference_form", "This does not look like a reference of the bank.")
    if told_reports.by_reference(adapter.name, found) is not None:
        raise DomainError("reference_used", "This reference was confirmed before.")
    if amount is None:
        raise DomainError("amount_needed", "Write the sum that came behind it.")
    return Report(
        provider=adapter.name,
        provider_id=f"told-{found}",
        state="paid",
        amount_minor=amount,
        currency=currency,
        reference="",
        account=adapter.account,
        livemode=adapter.livemode,
        charge_id=found,
    )
