"""Which account an order pays to, and so through which providers an event can be paid for at this moment."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import select

import config
from domain.catalogue.house_account import serves, serves_organiser
from domain.providers import connecting, registry
from domain.providers.contract import Provider
from extensions import db
from models import Connection, ConnectionState, Event


@dataclass(frozen=True)
class Account:
    """An account that is connected and works. `currency` is the only one that it takes; "": not known."""

    name: str
    currency: str = ""

    def takes(self, currency: str) -> bool:
        return self.currency in ("", currency)


# (organiser's user id, provider) -> the account that is connected and works; None: it is broken.
Accounts = Mapping[tuple[int, str], Account | None]


def accounts_of(organiser_ids: Collection[int]) -> Accounts:
    """The accounts in use of these organisers, in one query; in none, where none of them can matter."""
    if not organiser_ids or not any(registry.get(name).connects for name in registry.names()):
        return {}
    query = select(
        Connection.user_id, Connection.provider, Connection.account, Connection.currency, Connection.state
    ).where(Connection.user_id.in_(organiser_ids), Connection.state != ConnectionState.DISCONNECTED)
    return {
        (user_id, provider): Account(account, currency) if state is ConnectionState.CONNECTED else None
        for user_id, provider, account, currency, state in db.session.execute(query)
    }


def receiver(
    provider_name: str,
    organiser_id: int | None,
    accounts: Accounts | None = None,
    *,
    house: bool | None = None,
) -> str | None:
    """The account that sales of this organiser (None: the house) are paid to; None where there is none.

    The house is paid into the provider's own account; so are organisers who have connected none, where the
    operator lets them (`house`; None: it is looked up). A broken connection is no account: its organiser's
    money goes nowhere else meanwhile.
    """
    own = registry.get(provider_name)
    if organiser_id is None:
        return own.account
    if not own.connects:
        return own.account if _served(organiser_id, house) else None
    known = accounts_of([organiser_id]) if accounts is None else accounts
    if (organiser_id, provider_name) in known:
        connected = known[organiser_id, provider_name]
        return connected.name if connected is not None else None
    serves = provider_name in connecting.names() and connecting.get(provider_name).house_account
    return own.account if serves and own.ready and _served(organiser_id, house) else None


def _served(organiser_id: int, known: bool | None) -> bool:
    return serves_organiser(organiser_id) if known is None else known


def offered(event: Event | None, accounts: Accounts | None = None, *, currency: str = "") -> list[Provider]:
    """The outside providers that `event` can be paid through now, in its order; None: what the house sells.

    An organiser's own accounts come before the house's. Each speaks for the account that receives the money,
    is ready, and takes `currency` ("": the event's).
    """
    currency = currency or (event.currency if event is not None else "")
    organiser_id = event.organiser_id if event is not None else None
    names = event.providers if event is not None and event.providers is not None else registry.names()
    owns = [registry.get(name) for name in names if not registry.get(name).immediate]
    if accounts is None and organiser_id is not None and any(own.connects for own in owns):
        accounts = accounts_of([organiser_id])
    known = accounts or {}
    if event is not None:
        owns = [own for own in owns if another_currency(event, own.name, known, currency=currency) is None]
    house = event is None or serves(event)
    found = (_bound(own.name, organiser_id, known, house) for own in owns)
    able = [p for p in found if p is not None and (event is None or p.supports(currency))]
    return sorted(able, key=_is_house) if organiser_id is not None else able


def _is_house(provider: Provider) -> bool:
    """Whether an adapter speaks for the house's own account."""
    return provider.account == registry.get(provider.name).account


def another_currency(
    event: Event, provider_name: str, accounts: Accounts | None = None, *, currency: str = ""
) -> Account | None:
    """The account that its organiser has connected, where it does not take `currency` ("": the event's)."""
    if event.organiser_id is None:
        return None
    known = accounts_of([event.organiser_id]) if accounts is None else accounts
    account = known.get((event.organiser_id, provider_name))
    return account if account is not None and not account.takes(currency or event.currency) else None


def _bound(name: str, organiser_id: int | None, accounts: Accounts, house: bool) -> Provider | None:
    """The adapter of the account that receives the money, where there is one and it is ready."""
    account = receiver(name, organiser_id, accounts, house=house)
    provider = registry.get(name, account) if account is not None else None
    return provider if provider is not None and provider.ready else None


def lacks_a_way(event: Event) -> bool:
    """Whether it has tickets with a price that nobody could pay for at this moment."""
    wanted = {kind.currency for kind in event.ticket_types if kind.price_minor}
    return not all(payable(event, currency=currency or "") for currency in wanted)


def payable(event: Event, accounts: Accounts | None = None, *, currency: str = "") -> bool:
    """Whether what has a price in `currency` ("": the event's) can be paid for at this moment.

    Asks the database only where an account that must be connected is the only way, and `accounts` is None.
    """
    if not config.get().sales_open:
        return False
    names = event.providers if event.providers is not None else registry.names()
    owns = [registry.get(name) for name in names if not registry.get(name).immediate]
    plain = (own for own in owns if event.organiser_id is None or (not own.connects and serves(event)))
    wanted = currency or event.currency
    return any(own.ready and own.supports(wanted) for own in plain) or bool(
        offered(event, accounts, currency=wanted)
    )
