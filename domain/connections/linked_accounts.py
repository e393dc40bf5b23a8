"""Organisers' own accounts at payment providers: connecting them, ending that, and the keys of their tokens.

Speaking for a connected account, and renewing the right to, is `connections/credentials.py`; which account an
order pays to, `catalogue/payees.py`. Nothing here knows a provider by name: those whose accounts can be
connected are `connecting.names()`.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

import structlog
from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import joinedload

import config
from domain import audit, clock, locks
from domain.connections import credentials
from domain.errors import DomainError, NotFound
from domain.providers import connecting, registry
from domain.providers.connecting import Owner, Refused, Tokens
from domain.providers.contract import ProviderError
from domain.security import keyring, one_time_links
from extensions import db
from models import (
    PAYMENT_ACTIVE,
    AuditArea,
    Connection,
    ConnectionState,
    Deed,
    LinkPurpose,
    Organiser,
    OrganiserState,
    Payment,
    PaymentState,
    Refund,
    Role,
    User,
)

log = structlog.get_logger(__name__)

_TO_CONNECT = frozenset({LinkPurpose.CONNECT})


# --- Connecting -----------------------------------------------------------------------------------------


def redirect_uri(provider: str) -> str:
    """Where the provider sends people back to, exactly as the app is registered with it."""
    return f"{config.get().public_url}/organiser/connect/{provider}/done"


def authorize_url(user: User, provider: str) -> tuple[str, str]:
    """Where to send an organiser to let us speak for their account, and the state that comes back. Commits.

    The state is theirs, works once, and for half an hour. DomainError where they may not connect.
    """
    connector = _connector(provider)
    _check_organiser(user.id)
    state = one_time_links.token(user, LinkPurpose.CONNECT)
    db.session.commit()
    return connector.authorize_url(state, redirect_uri(provider)), state


def finish(
    user: User, provider: str, *, expected: str, state: str, code: str, refusal: str = ""
) -> Connection:
    """What happens when the provider sends an organiser back: connect, or say in words why not. Commits.

    `expected` is the state that this browser left with; `refusal` the provider's word that its owner said no.
    """
    label = _connector(provider).label
    if not expected or not hmac.compare_digest(expected.encode(), state.encode()):
        raise _stale()
    use_state(user, state)
    if refusal or not code:
        raise DomainError(
            "not_allowed",
            f"You did not let {config.get().site_name} use your {label} account, so nothing was connected. "
            "Begin again whenever you like.",
        )
    return connect(user.id, provider, code, redirect_uri(provider))


def use_state(user: User, state: str) -> None:
    """Use up the state that came back. DomainError unless this user was given it lately. Commits."""
    try:
        owner = one_time_links.use(state, _TO_CONNECT)
    except DomainError as error:
        db.session.rollback()
        raise _stale() from error
    if owner.id != user.id:
        db.session.rollback()
        raise _stale()
    db.session.commit()


def _stale() -> DomainError:
    return DomainError(
        "state_stale",
        "This page was opened too late, or a second time, so nothing was connected. Begin again.",
    )


def connect(user_id: int, provider: str, code: str, uri: str) -> Connection:
    """Take the code that the provider gave an organiser, and keep the account that it is for. Commits.

    An account that was disconnected is in use again; another account of theirs is disconnected. DomainError
    in words, when the code is used or too old, or the account is somebody else's here.
    """
    connector = _connector(provider)
    _check_organiser(user_id)
    db.session.rollback()
    try:
        tokens = connector.exchange(code, uri)
        owner = connector.owner(tokens.access)
    except Refused as error:
        raise DomainError(
            "code_refused",
            f"{connector.label} did not accept the code: it was used before, or is too old. Begin again.",
        ) from error
    except ProviderError as error:
        log.warning("not_connected", provider=provider, code=error.code)
        raise _not_connected(connector.label, error) from error
    if not tokens.refresh or not owner.account:
        raise DomainError(
            "no_lasting_access",
            f"{connector.label} gave no lasting access to the account, so nothing was connected. "
            f"Ask {config.get().support_email}.",
        )
    try:
        connection = locks.in_one_transaction(lambda: _keep(user_id, provider, tokens, owner))
    except IntegrityError as error:
        # Two connected one account at the same moment.
        raise _taken(connector.label) from error
    log.info("connected", provider=provider, account=connection.account, user=user_id)
    return connection


def _not_connected(label: str, error: ProviderError) -> DomainError:
    """What the provider said no to is told; that it was silent, or does not know us as an app, is ours."""
    if error.permanent and error.code != "invalid_client":
        return DomainError(error.code, f"{error} Nothing was connected.")
    return DomainError(
        "provider_silent",
        f"{label} did not answer as it should, so nothing was connected. Wait a minute, then begin again. "
        f"If that does not help, write to {config.get().support_email}.",
    )


def _keep(user_id: int, provider: str, tokens: Tokens, owner: Owner) -> Connection:
    one_time_links.lock(user_id)
    if owner.account == registry.get(provider).account:
        raise _taken(_connector(provider).label)
    row = db.session.scalar(
        select(Connection)
        .filter_by(provider=provider, account=owner.account)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if row is not None and row.user_id != user_id and row.state is not ConnectionState.DISCONNECTED:
        raise _taken(_connector(provider).label)
    now = clock.now()
    for other in _in_use(user_id, provider):
        if row is None or other.id != row.id:
            _end(other)
    db.session.flush()
    if row is None:
        row = Connection(provider=provider, account=owner.account, generation=-1, connected_at=now)
        db.session.add(row)
    if row.state is not ConnectionState.CONNECTED:
        row.connected_at = now
    row.user_id, row.state, row.ended_at, row.last_error = user_id, ConnectionState.CONNECTED, None, ""
    row.account_name, row.currency = owner.name[:200], owner.currency[:3]
    row.access_token, row.refresh_token = keyring.seal(tokens.access), keyring.seal(tokens.refresh)
    row.access_expires_at, row.refreshed_at = now + tokens.lives, now
    row.scope, row.leased_until = tokens.scope[:300], None
    # Whoever is renewing the old tokens at this moment must not write over these.
    row.generation += 1
    return row


def _taken(label: str) -> DomainError:
    return DomainError(
        "account_taken",
        f"This {label} account is connected here by somebody else already. Log in to {label} with another "
        f"account, or ask {config.get().support_email}.",
    )


def _connector(provider: str) -> connecting.Connector:
    connector = connecting.get(provider)
    if not connector.ready:
        raise DomainError(
            "connects_not",
            f"{connector.label} accounts cannot be connected here yet. Ask {config.get().support_email}.",
        )
    return connector


def _check_organiser(user_id: int) -> None:
    role, state = db.session.execute(
        select(User.role, Organiser.state)
        .outerjoin(Organiser, Organiser.user_id == User.id)
        .where(User.id == user_id)
    ).one()
    # Organisers from before there were profiles, and admins, may have none.
    if role not in (Role.ORGANISER, Role.ADMIN) or state not in (None, OrganiserState.APPROVED):
        raise DomainError(
            "not_an_organiser", "Only organisers who were approved connect accounts. Apply to be one first."
        )


# --- Ending ---------------------------------------------------------------------------------------------


def disconnect(user_id: int, provider: str) -> None:
    """End the organiser's connection: nothing new is sold through it. Commits. NotFound where there is none.

    Its tokens stay until the last payment through it is final, because only they can tell its outcome.
    """

    def work() -> None:
        one_time_links.lock(user_id)
        found = _in_use(user_id, provider)
        if not found:
            raise NotFound("no_connection", "There is no connected account to disconnect.")
        for row in found:
            _end(row)

    locks.in_one_transaction(work)
    log.info("disconnected", provider=provider, user=user_id)


def _in_use(user_id: int, provider: str) -> list[Connection]:
    return list(
        db.session.scalars(
            select(Connection)
            .where(
                Connection.user_id == user_id,
                Connection.provider == provider,
                Connection.state != ConnectionState.DISCONNECTED,
            )
            .with_for_update()
            .execution_options(populate_existing=True)
        )
    )


def _end(row: Connection) -> None:
    row.state, row.ended_at = ConnectionState.DISCONNECTED, clock.now()


def tend() -> None:
    """What sweeps do: forget what is not needed any more, and take up what can be read again. Commits."""
    forget_ended()
    broken = select(Connection).where(
        Connection.state == ConnectionState.BROKEN, Connection.refresh_token != ""
    )
    unread = [(row.provider, row.account) for row in db.session.scalars(broken) if _readable(row)]
    db.session.commit()
    for provider, account in unread:
        credentials.look_again(provider, account)


def forget_ended() -> int:
    """Throw away the tokens of ended connections that no payment or refund needs any more; how many. Commits.

    One that is only read again, for a refund or a dispute made at the provider, needs them too.
    """
    reads = select(Payment.id).where(
        Payment.provider == Connection.provider,
        Payment.account == Connection.account,
        or_(Payment.next_check_at.is_not(None), Payment.state == PaymentState.REVIEW),
    )
    refunded = (
        select(Refund.id)
        .join(Payment, Payment.id == Refund.payment_id)
        .where(
            Payment.provider == Connection.provider,
            Payment.account == Connection.account,
            Refund.next_check_at.is_not(None),
        )
    )
    forgotten = db.session.scalars(
        update(Connection)
        .where(Connection.state == ConnectionState.DISCONNECTED, Connection.refresh_token != "")
        .where(~reads.exists(), ~refunded.exists())
        .values(access_token="", refresh_token="", access_expires_at=None)
        .returning(Connection.id)
        .execution_options(synchronize_session=False)
    ).all()
    db.session.commit()
    return len(forgotten)


# --- Keys -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rotation:
    """What `rotate` did: how many have their tokens under the first key now, and which it could not read."""

    done: int
    unreadable: tuple[str, ...]


def rotate() -> Rotation:
    """Encrypt every token anew under the first key of the ring. Commits row by row; can be repeated.

    Tokens that cannot be read are left as they are, because their key may be found again.
    """
    done, unreadable = 0, []
    ids = db.session.scalars(select(Connection.id).where(Connection.refresh_token != "")).all()
    db.session.commit()
    for row_id in ids:
        row = db.session.get_one(Connection, row_id, with_for_update=True, populate_existing=True)
        try:
            row.access_token, row.refresh_token = (
                keyring.reseal(row.access_token),
                keyring.reseal(row.refresh_token),
            )
            done += 1
        except keyring.Unreadable:
            unreadable.append(f"{row.provider} {row.account}")
        db.session.commit()
    if done:
        changes = [("sealed under the first of TOKEN_KEYS", None, done)]
        audit.note(AuditArea.KEY, Deed.CHANGED, "stored tokens", "", changes=changes)
        db.session.commit()
    return Rotation(done, tuple(unreadable))


# --- Looking --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """A connection as its organiser or an admin sees it; `row` is None where nothing was ever connected."""

    provider: str
    label: str
    row: Connection | None
    # Payments into the account that have no final word yet.
    waiting: int = 0
    # Why the organiser cannot connect now, in words; "" where they can.
    problem: str = ""

    @property
    def state(self) -> str:
        return self.row.state.value if self.row is not None else "none"


def look(user: User, provider: str) -> Seen:
    """The user's own connection, and whether they could make one. NotFound for no such provider."""
    connector, row = connecting.get(provider), of(user.id, provider)
    problem = ""
    try:
        _connector(provider)
        _check_organiser(user.id)
    except DomainError as error:
        problem = error.message
    return Seen(provider, connector.label, row, waiting(row) if row is not None else 0, problem)


def for_admins() -> list[Seen]:
    """Every connection with what waits for it, the broken ones first."""
    waits = _all_waiting()
    return [
        Seen(row.provider, connecting.get(row.provider).label, row, waits.get((row.provider, row.account), 0))
        for row in everyone()
    ]


def _all_waiting() -> dict[tuple[str, str], int]:
    query = (
        select(Payment.provider, Payment.account, func.count())
        .where(Payment.state.in_(PAYMENT_ACTIVE))
        .group_by(Payment.provider, Payment.account)
    )
    return {(provider, account): count for provider, account, count in db.session.execute(query)}


def of(user_id: int, provider: str) -> Connection | None:
    """The organiser's connection in use, or the one they ended last."""
    return db.session.scalar(
        select(Connection)
        .filter_by(user_id=user_id, provider=provider)
        .order_by((Connection.state == ConnectionState.DISCONNECTED), Connection.ended_at.desc())
        .limit(1)
    )


_SHOWN = 500


def everyone() -> list[Connection]:
    """The connections with their organisers, the broken ones first; the newest of many."""
    query = select(Connection).options(joinedload(Connection.user))
    broken_first = (Connection.state != ConnectionState.BROKEN, Connection.id.desc())
    return list(db.session.scalars(query.order_by(*broken_first).limit(_SHOWN)))


@dataclass(frozen=True)
class Summary:
    """How the connections are: how many are in use, which are broken, and whose tokens no key opens."""

    in_use: int
    broken: tuple[str, ...]
    unreadable: tuple[str, ...]
    # Payments into broken accounts that have no final word.
    waiting: int


def summary() -> Summary:
    """For the doctor and the health page."""
    rows = list(db.session.scalars(select(Connection).where(Connection.refresh_token != "")))
    broken = db.session.scalars(select(Connection).where(Connection.state == ConnectionState.BROKEN)).all()
    waits = _all_waiting() if broken else {}
    return Summary(
        sum(1 for row in rows if row.state is ConnectionState.CONNECTED),
        tuple(f"{row.provider} {row.account}" for row in broken),
        tuple(f"{row.provider} {row.account}" for row in rows if not _readable(row)),
        sum(waits.get((row.provider, row.account), 0) for row in broken),
    )


def _readable(row: Connection) -> bool:
    try:
        keyring.unseal(row.access_token)
        keyring.unseal(row.refresh_token)
    except keyring.Unreadable:
        return False
    return True


def waiting(connection: Connection) -> int:
    """How many payments into the account have no final word yet."""
    query = select(func.count()).where(
        Payment.provider == connection.provider,
        Payment.account == connection.account,
        Payment.state.in_(PAYMENT_ACTIVE),
    )
    return db.session.scalar(query) or 0
