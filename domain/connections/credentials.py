"""The right to speak for an organiser's account: its token, renewed in time by exactly one of those who ask.

Whoever renews holds a lease in the connection's row, calls the provider outside any transaction, and commits
what it answered at once; the others wait for that and read again. A process that dies between the answer
and its commit costs a reconnect at most (the provider may take the old refresh token no more), and never a
payment, because nobody who cannot ask takes a payment for unpaid.

Adapters ask from any thread, without an application around them: so this reads and writes through the engine
that it was given, never through the session.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from time import monotonic, sleep
from typing import Any

import structlog
from sqlalchemy import Engine, Row, or_, select, update

from domain import audit, clock
from domain.post import alerts, outbox
from domain.providers import connecting, registry
from domain.providers.connecting import Refused, Tokens
from domain.providers.contract import ProviderError
from domain.security import keyring
from extensions import queue
from models import PAYMENT_ACTIVE, AuditArea, Connection, ConnectionState, Deed, Payment, User

log = structlog.get_logger(__name__)

# A token is renewed when it has less than this to live, and given out while it has more than a little.
EARLY = timedelta(minutes=5)
_A_LITTLE = timedelta(seconds=20)
# Longer than the call can take: its timeout bounds connecting, sending and each read by five seconds.
LEASE = timedelta(seconds=45)
# How long somebody waits for another one who renews, and how often they look.
_WAIT_SECONDS = 5.0
_LOOK_EVERY = 0.05
# After a provider that did not answer, nobody asks it again for so long.
_SILENCE = timedelta(seconds=5)
# For so long a token is given out again without a look into the database.
_KNOWN_SECONDS = 30.0

NOT_CONNECTED = "not_connected"

_table: Any = Connection.__table__


class _Engine:
    """The engine of the application that runs in this process."""

    current: Engine | None = None


def use(engine: Engine) -> None:
    """Read and write by `engine` from now on, and be whom adapters ask for the tokens of accounts."""
    _Engine.current = engine
    registry.credentials_by(AccountCredentials)


@dataclass
class _Known:
    """A token that was good at a look, and until when it may be given out."""

    token: str = field(default="", repr=False)
    generation: int = -1
    ends_at: datetime | None = None
    looked_at: float = 0.0


class AccountCredentials:
    """See `domain.providers.Credentials`: those of one account of one provider."""

    def __init__(self, provider: str, account: str) -> None:
        self.provider = provider
        self.account = account
        self._known = _Known()
        self._lock = Lock()
        # What the last look came to, for the threads that have waited for it.
        self._failed: ProviderError | None = None
        self._failed_at = 0.0

    def token(self) -> str:
        """A token with some time to live yet. Raises a passing ProviderError where none can be had."""
        known = self._known
        fresh = monotonic() - known.looked_at < _KNOWN_SECONDS
        if fresh and known.ends_at is not None and known.ends_at - clock.now() > EARLY:
            return known.token
        return self._get("")

    def renewed(self, rejected: str) -> str:
        """Another token than `rejected`, which the provider has just refused."""
        return self._get(rejected)

    def _get(self, rejected: str) -> str:
        # One thread of this process looks; the others of this account find its answer.
        with self._lock:
            if self._failed is not None and monotonic() - self._failed_at < _SILENCE.total_seconds():
                raise ProviderError(str(self._failed), permanent=False, code=self._failed.code)
            try:
                self._known, self._failed = _good_token(self.provider, self.account, rejected), None
            except ProviderError as error:
                # Who connects again is served at once; a provider that was silent has its moment of peace.
                self._failed = error if error.code != NOT_CONNECTED else None
                self._failed_at = monotonic()
                raise
            return self._known.token


# --- Looking and renewing -------------------------------------------------------------------------------


def _good_token(provider: str, account: str, rejected: str) -> _Known:
    """Read the account's token; renew it when it is old or was rejected, or wait for who does."""
    ends = monotonic() + _WAIT_SECONDS
    while True:
        row = _read(provider, account)
        access = _unsealed(row, row.access_token)
        left = (row.access_expires_at or clock.now()) - clock.now()
        usable = access not in ("", rejected)
        if usable and left > EARLY:
            return _known(row, access)
        if _take_lease(row):
            return _renew(row, access if usable and left > _A_LITTLE else "")
        if usable and left > _A_LITTLE:
            # Somebody else renews it; this one is good meanwhile.
            return _known(row, access)
        if monotonic() > ends:
            raise ProviderError(
                "The account's access is being renewed. Try again in a moment.",
                permanent=False,
                code="renewing",
            )
        sleep(_LOOK_EVERY)


def _known(row: Row[Any], access: str) -> _Known:
    return _Known(access, row.generation, row.access_expires_at, monotonic())


def _engine() -> Engine:
    if _Engine.current is None:
        raise RuntimeError("No engine was given: call credentials.use() first.")
    return _Engine.current


def _read(provider: str, account: str) -> Row[Any]:
    """The connection's row. A passing ProviderError `not_connected` where nobody can speak for it."""
    query = select(_table).where(_table.c.provider == provider, _table.c.account == account)
    with _engine().connect() as connection:
        row = connection.execute(query).one_or_none()
    # What is broken and has tokens yet could not be read; the ring may have been mended.
    if row is None or not row.refresh_token or (row.state == ConnectionState.BROKEN and not _mend(row)):
        raise _not_connected(provider, account)
    return row


def _not_connected(provider: str, account: str) -> ProviderError:
    return ProviderError(
        f"Account {account} is not connected to {provider}.", permanent=False, code=NOT_CONNECTED
    )


def _unsealed(row: Row[Any], sealed: str) -> str:
    """The token, or the connection is broken: a ring without its key is as good as a lost token."""
    try:
        return keyring.unseal(sealed)
    except keyring.Unreadable:
        _break(row, "Its tokens cannot be read: their key is not in TOKEN_KEYS any more.", worthless=False)
        raise _not_connected(row.provider, row.account) from None


def _take_lease(row: Row[Any]) -> bool:
    """Be the one who renews. False when somebody else is, or was since `row` was read."""
    now = clock.now()
    mine = (
        update(_table)
        .where(_table.c.id == row.id, _table.c.generation == row.generation)
        .where(or_(_table.c.leased_until.is_(None), _table.c.leased_until <= now))
        .values(leased_until=now + LEASE)
        .returning(_table.c.id)
    )
    with _engine().begin() as connection:
        return connection.execute(mine).one_or_none() is not None


def _renew(row: Row[Any], still_good: str) -> _Known:
    """Ask the provider for new tokens, outside any transaction, and commit its answer at once.

    Where it does not answer, `still_good` is the token that can be given out yet, or "".
    """
    try:
        tokens = connecting.get(row.provider).refresh(_unsealed(row, row.refresh_token))
    except Refused as error:
        _break(row, str(error), worthless=True)
        raise _not_connected(row.provider, row.account) from error
    except ProviderError as error:
        _silent(row, error)
        if still_good:
            return _known(row, still_good)
        raise ProviderError(str(error), permanent=False, code=error.code) from error
    return _keep(row, tokens)


def _keep(row: Row[Any], tokens: Tokens) -> _Known:
    """Commit new tokens, unless the organiser has connected anew meanwhile: then theirs are as good."""
    now = clock.now()
    values = {
        "access_token": keyring.seal(tokens.access),
        "access_expires_at": now + tokens.lives,
        "generation": row.generation + 1,
        "leased_until": None,
        "refreshed_at": now,
        "last_error": "",
    }
    if tokens.refresh:
        values["refresh_token"] = keyring.seal(tokens.refresh)
    if tokens.scope:
        values["scope"] = tokens.scope[:300]
    with _engine().begin() as connection:
        kept = connection.execute(_if_unchanged(row).values(values).returning(_table.c.id)).one_or_none()
    log.info("token_renewed", provider=row.provider, account=row.account, kept=kept is not None)
    return _Known(tokens.access, row.generation + 1, now + tokens.lives, monotonic())


def _if_unchanged(row: Row[Any]) -> Any:
    return update(_table).where(_table.c.id == row.id, _table.c.generation == row.generation)


# --- What goes wrong ------------------------------------------------------------------------------------


def _silent(row: Row[Any], error: ProviderError) -> None:
    """The provider did not answer: say so in the row, and give it a moment of peace."""
    now = clock.now()
    values = {"leased_until": now + _SILENCE, "last_error": f"{error.code}: {error}"[:300]}
    log.warning("token_not_renewed", provider=row.provider, account=row.account, code=error.code)
    with _engine().begin() as connection:
        connection.execute(_if_unchanged(row).values(values))
        if error.permanent:
            # Not this account's fault: the provider does not know us as the app that may ask.
            label = connecting.get(row.provider).label
            key = f"connector-refused:{row.provider}:{now:%Y-%m-%d}"
            outbox.alert_by(connection, *alerts.connector_refused(label, str(error)), key=key)


def look_again(provider: str, account: str) -> bool:
    """Whether an account can be spoken for; one whose tokens can be read again is in use from now on."""
    try:
        _read(provider, account)
    except ProviderError:
        return False
    return True


def _mend(row: Row[Any]) -> bool:
    try:
        for sealed in (row.access_token, row.refresh_token):
            keyring.unseal(sealed)
    except keyring.Unreadable:
        return False
    with _engine().begin() as connection:
        connection.execute(_if_unchanged(row).values(state=ConnectionState.CONNECTED, last_error=""))
        _note_state(connection, row, ConnectionState.CONNECTED)
    log.info("connection_mended", provider=row.provider, account=row.account)
    return True


def _break(row: Row[Any], why: str, *, worthless: bool) -> None:
    """Nobody can speak for the account any more: write that down once, tell its owner and the operators.

    `worthless` tokens are thrown away; unreadable ones are kept, as their key may be found again.
    """
    if row.state == ConnectionState.DISCONNECTED and row.last_error == why[:300]:
        # An ended connection does not become a broken one, so that only its error says that this was told.
        return
    values: dict[str, Any] = {"last_error": why[:300], "leased_until": None, "generation": row.generation + 1}
    if worthless:
        values |= {"access_token": "", "refresh_token": "", "access_expires_at": None}
    if row.state != ConnectionState.DISCONNECTED:
        values |= {"state": ConnectionState.BROKEN}
    with _engine().begin() as connection:
        broke = connection.execute(_if_unchanged(row).values(values).returning(_table.c.id)).one_or_none()
        if broke is None:
            return
        if "state" in values:
            _note_state(connection, row, ConnectionState.BROKEN)
        waiting = _count_waiting(connection, row)
        if row.state == ConnectionState.DISCONNECTED and not waiting:
            # Its owner has ended it here, and then there. What is left to be read was final.
            log.info("connection_gone", provider=row.provider, account=row.account)
            return
        email = connection.scalars(select(User.email).where(User.id == row.user_id)).one()
        label = connecting.get(row.provider).label
        key = f"connection-broken:{row.id}:{row.generation}"
        outbox.alert_by(
            connection, *alerts.connection_broken(label, row.account, email, why, waiting), key=key
        )
        context = {"label": label, "account": row.account, "provider": row.provider, "waiting": waiting}
        outbox.stage_by(
            connection,
            "connection_broken",
            key=f"{key}:owner",
            to=email,
            user_id=row.user_id,
            context=context,
        )
    log.warning("connection_broken", provider=row.provider, account=row.account, why=why)
    queue.soon("deliver_mail")


def _note_state(connection: Any, row: Row[Any], state: ConnectionState) -> None:
    label, changes = f"{row.provider} {row.account}", [("state", row.state, state)]
    area, deed, of = AuditArea.CONNECTION, Deed.CHANGED, row.user_id
    audit.note(
        area, deed, "connection", row.id, label=label, about_id=of, changes=changes, connection=connection
    )


def _count_waiting(connection: Any, row: Row[Any]) -> int:
    """How many payments into the account have no final word, and cannot get one for now."""
    query = select(Payment.id).where(
        Payment.provider == row.provider, Payment.account == row.account, Payment.state.in_(PAYMENT_ACTIVE)
    )
    return len(connection.execute(query.limit(1000)).all())
