"""Everything that is made once and bound to the application in `app.py`."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from ipaddress import IPv6Address, ip_address, ip_network
from threading import local
from time import monotonic
from typing import Any

import psycopg
import structlog
from flask import current_app, g, has_request_context, request
from flask_bootstrap import Bootstrap5
from flask_limiter import Limiter
from flask_login import LoginManager, decode_cookie, encode_cookie
from flask_mail import Mail
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect
from itsdangerous import Serializer, Signer
from psycopg import Error as DatabaseError
from psycopg import errors
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.job import Job
from sqlalchemy import Engine, MetaData, event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import ConnectionPoolEntry, Pool

import config


class Base(DeclarativeBase):
    """The base of every table; names constraints so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class JobText:
    """How a job is written down: as JSON, so that who can write to Redis cannot have a worker run anything.

    Jobs that the version before has queued are pickles. Of those only plain values are read: a name, numbers
    and texts, as every job of ours has; anything that would have to be imported is refused.
    """

    @staticmethod
    def dumps(value: Any) -> bytes:
        return json.dumps(value).encode()

    @staticmethod
    def loads(text: bytes) -> Any:
        if text[:1] != _PICKLED:
            return json.loads(text)
        return _PlainValues(BytesIO(text)).load()


_PICKLED = b"\x80"


class _PlainValues(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"A job may not name {module}.{name}.")


class PlainJob(Job):
    """A job that is written so, for rq-scheduler, which knows jobs by their class alone.

    RQ runs whatever a job names (`os.system`), and calls back whatever it names besides. So of what stands in
    Redis only a job of ours is run: a function of worker.py that is marked as one.
    """

    _OURS = re.compile(r"worker\.[a-z_]+")
    success_callback = failure_callback = stopped_callback = None

    def __init__(
        self, id: str | None = None, connection: Redis | None = None, serializer: Any = None
    ) -> None:
        super().__init__(id, connection, serializer or JobText)

    @property
    def func(self) -> Any:
        """What it runs. ValueError for anything that is no job of ours."""
        if self.instance is not None or not self._OURS.fullmatch(self.func_name or ""):
            raise ValueError(f"{self.func_name!r} is no job.")
        found = super().func
        if not getattr(found, "is_job", False):
            raise ValueError(f"{self.func_name} is no job.")
        return found


class JobQueue:
    """The RQ queue. Enqueueing only makes things sooner, so a Redis that is down is logged, not raised."""

    name = "kassa"
    # A job that was lost on its way keeps others of its name out for so long.
    _WAITING_SECONDS = 10

    def __init__(self) -> None:
        self._redis: Redis | None = None

    def bind(self, redis_url: str) -> None:
        """Use this Redis from now on; connections are made when first needed, with short timeouts."""
        self._redis = connect_redis(redis_url, timeout=1)

    @property
    def redis(self) -> Redis:
        if self._redis is None:
            raise RuntimeError("The queue is not bound: call bind() first.")
        return self._redis

    def soon(self, function: str, *args: object) -> bool:
        """Ask a worker to run `worker.<function>(*args)`; False when Redis cannot be asked.

        Of a job without arguments one is enough that has not begun yet: what is owed when it begins, it does.
        """
        try:
            if not args and not self.redis.set(self._waiting(function), 1, nx=True, ex=self._WAITING_SECONDS):
                return True
            self.jobs().enqueue(f"worker.{function}", *args, result_ttl=600)
        except RedisError as error:
            structlog.get_logger(__name__).warning("enqueue_failed", job=function, error=type(error).__name__)
            return False
        return True

    def jobs(self, connection: Redis | None = None) -> Queue:
        """RQ's own queue, which reads and writes jobs as we do."""
        return Queue(self.name, connection=connection or self.redis, job_class=PlainJob, serializer=JobText)

    def begins(self, function: str) -> None:
        """A worker begins a job: from now on `soon()` enqueues another one."""
        try:
            self.redis.delete(self._waiting(function))
        except RedisError as error:
            structlog.get_logger(__name__).warning("queue_away", job=function, error=type(error).__name__)

    def _waiting(self, function: str) -> str:
        return f"kassa:waiting:{function}"


def connect_redis(url: str, timeout: float | None) -> Redis:
    """A client for `url`; a certificate is verified unless REDIS_TLS_VERIFY says otherwise."""
    tls = config.get().redis_tls(url)
    return Redis.from_url(url, socket_connect_timeout=timeout or 5, socket_timeout=timeout, **tls)


# Some fronts tell the port, too: 192.0.2.1:4711, [2001:db8::1]:4711.
_WITH_PORT = re.compile(r"\[([^\]]+)\](?::[0-9]+)?|([0-9.]+):[0-9]+")


def network(client_address: str) -> str:
    """What counts as one place: an IPv4 address, or the /64 that one subscriber of IPv6 has."""
    told = client_address.strip()
    with_port = _WITH_PORT.fullmatch(told)
    try:
        address = ip_address((with_port[1] or with_port[2]) if with_port is not None else told)
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        # A socket of both kinds writes IPv4 in IPv6: all of those would be one network.
        return str(address.ipv4_mapped or ip_network((int(address), 64), strict=False))
    return str(address)


class _Networks:
    """By what a limit for each network counts. The application gives it what knows better."""

    counted: Callable[[str], str] = staticmethod(str)


def count_networks_by(counted: Callable[[str], str]) -> None:
    """Count by what `counted` makes of a network: see domain/security/fronts.py."""
    _Networks.counted = staticmethod(counted)


def network_key() -> str:
    """What a limit for each network counts this request by."""
    return _Networks.counted(network(request.remote_addr or ""))


# Forms' tokens and a door's cookie are signed with SHA-256; the library's own choice is SHA-1, by which open
# forms and cookies of before are still read.
Signer.default_digest_method = staticmethod(hashlib.sha256)
OF_BEFORE = {"digest_method": hashlib.sha1}
Serializer.default_fallback_signers = [OF_BEFORE]


class FormGuard(CSRFProtect):
    """The token in each form, and the browser's own word that the form was ours.

    Flask-WTF asks for a Referer instead, which our pages forbid (order links are secrets), and which some
    browsers and company networks never send. Sec-Fetch-Site cannot be forged by a page, and comes from every
    browser of today over https. Older ones say Origin; who says neither is judged by the token alone.
    """

    FOREIGN = "The form came from another site."
    # Flask-WTF's words for a token in the form and none in the session.
    NO_SESSION = "The CSRF session token is missing."

    def protect(self, apply_exemptions: bool = False) -> None:
        super().protect(apply_exemptions)
        # Only now it is known that the view is guarded, and that the method changes something.
        if g.get("csrf_valid") and not _from_here():
            self._error_response(self.FOREIGN)


def _from_here() -> bool:
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        # "none" is a person's own doing: a bookmark, or a page that is loaded again.
        return site in ("same-origin", "none")
    origin = request.headers.get("Origin", "null")
    # A page without a Referer sends its forms with the origin "null".
    return origin in ("null", config.get().public_url, request.host_url.rstrip("/"))


class Members(LoginManager):
    """Flask-Login, with the rotated keys, too, for the cookie by which a browser is remembered."""

    def _load_user_from_remember_cookie(self, cookie: str) -> Any:
        return super()._load_user_from_remember_cookie(as_remembered(cookie))


def as_remembered(cookie: str) -> str:
    """A remembering cookie as today's key would have signed it, where one of the rotated keys has."""
    for key in config.get().secret_keys_rotated:
        said = decode_cookie(cookie, key=key)
        if said is not None:
            return str(encode_cookie(said))
    return cookie


# The name in an address of a database (postgresql+psycopg://) means the dialect below from now on.
registry.register("postgresql.psycopg", __name__, "LimitedDialect")
db = SQLAlchemy(model_class=Base)
migrate = Migrate()
login = Members()
csrf = FormGuard()
limiter = Limiter(key_func=network_key)
mail = Mail()
bootstrap = Bootstrap5()
queue = JobQueue()


@contextmanager
def own_session() -> Iterator[None]:
    """A session of its own for work that empties it as it goes; the rows that its caller holds stay attached.

    What the caller has begun is committed first: nobody waits for a lock of his own, and all that the caller
    holds is read afresh afterwards.
    """
    db.session.commit()
    with current_app.app_context():
        yield


# --- Connections to the database ------------------------------------------------------------------------

# A connection that answered so recently needs no question whether it still does.
_TRUSTED_SECONDS = 1.0


@event.listens_for(Pool, "checkin")
def _note_return(connection: object, entry: ConnectionPoolEntry) -> None:
    entry.info["returned"] = monotonic()


@event.listens_for(Pool, "checkout")
def _ask_whether_alive(connection: Any, entry: ConnectionPoolEntry, proxy: object) -> None:
    """SQLAlchemy's `pool_pre_ping`, without the question between two requests that follow each other.

    The question costs as much as a small query. A connection that turns out dead is replaced.
    """
    returned = entry.info.get("returned")
    if returned is None or monotonic() - returned < _TRUSTED_SECONDS:
        return
    try:
        connection.execute("SELECT 1")
        connection.rollback()
    except DatabaseError as error:
        raise DisconnectionError("The connection was closed meanwhile.") from error


_thread = local()


@event.listens_for(Engine, "handle_error")
def _count_ended(context: ExceptionContext) -> None:
    if context.is_disconnect:
        _thread.ended = connections_ended() + 1


def connections_ended() -> int:
    """How many statements of this thread failed because the database had ended their connection."""
    return getattr(_thread, "ended", 0)


# --- Transactions ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """How long a transaction may wait for one lock, run one statement, and do nothing at all; in seconds.

    Zero is without a limit.
    """

    lock: float
    statement: float
    idle: float

    @cached_property
    def settings(self) -> bytes:
        """The statements that put them in force until the transaction's end."""
        names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
        values = (self.lock, self.statement, self.idle)
        return "; ".join(
            f"SET LOCAL {name} = {round(seconds * 1000)}" for name, seconds in zip(names, values, strict=True)
        ).encode()


# A buyer waits for the first; the second is for jobs and commands. An export reads a whole event while its
# organiser waits. A migration takes what time it needs, but not the shop's while it waits for a table.
WEB = Limits(lock=2, statement=5, idle=10)
JOBS = Limits(lock=10, statement=60, idle=60)
CHECKS = Limits(lock=2, statement=30, idle=60)
EXPORTS = Limits(lock=2, statement=30, idle=30)
MIGRATIONS = Limits(lock=2, statement=0, idle=0)
# Between two of them it lets everybody else go first, for as long as it waited itself.
MIGRATION_TRIES = 15
_named: ContextVar[Limits | None] = ContextVar("limits", default=None)


@contextmanager
def limited(limits: Limits) -> Iterator[None]:
    """Transactions that begin in here, in this thread, have these limits and not the edge's."""
    token = _named.set(limits)
    try:
        yield
    finally:
        _named.reset(token)


def limits_in_force() -> Limits:
    """The limits of a transaction that begins now: named ones, else a request's, else a job's."""
    return _named.get() or (WEB if has_request_context() else JOBS)


_ENDED = (
    *(errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow, errors.DatabaseDropped),
    *(errors.IdleSessionTimeout, errors.IdleInTransactionSessionTimeout, errors.ConnectionException),
)
# libpq's words for a connection whose last command was never read to its end.
_HALF_DONE = "another command is already in progress"


class LimitedDialect(PGDialect_psycopg):
    """SQLAlchemy's own, except that BEGIN brings the transaction's limits in its own round trip, and for
    what counts as the end of a connection.

    A limit that is set for a connection does not survive a pooler that hands connections on after each
    transaction: PgBouncer refuses it at the start, and leaks what is SET later to whoever comes next.
    """

    supports_statement_cache = True

    def do_begin(self, dbapi_connection: Any) -> None:
        connection: psycopg.Connection[Any] = dbapi_connection.driver_connection
        if connection.autocommit:
            return
        level = connection.isolation_level
        isolation = b" ISOLATION LEVEL " + level.name.replace("_", " ").encode() if level is not None else b""
        # Many statements in one go are one message there and one back. psycopg sees that a transaction has
        # begun, and begins none.
        result = connection.pgconn.exec_(b"BEGIN" + isolation + b"; " + limits_in_force().settings)
        if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
            raise psycopg.OperationalError(result.get_error_message())

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        """Also where the end has been told and not been noticed yet, or where a command was left half done.

        Such a connection is of no use to anybody, and must not be taken for one that only failed once.
        """
        ended = isinstance(e, _ENDED) or _HALF_DONE in str(e)
        return ended or bool(super().is_disconnect(e, connection, cursor))  # type: ignore[no-untyped-call]
