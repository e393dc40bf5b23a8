"""What Kassa writes down as it works: a JSON object a line, with a request id, and never a secret or a card.

Everything goes to standard output, as hosts want it (commands write to standard error, where it does not mix
with what they print), and also to a rotating file where LOG_FILE is set. Python's own loggers (RQ, gunicorn,
SQLAlchemy) are written the same way. Redaction is the last step before a line is made, so no caller can
forget it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sys
import time
from collections.abc import Mapping, MutableMapping
from logging.handlers import RotatingFileHandler
from typing import Any, TextIO
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import click
import structlog
from flask import Flask, Response, g, request
from sqlalchemy import inspect

import config

FILE_BYTES = 10 * 1024 * 1024
FILE_COUNT = 5
HIDDEN = "***"
# Loggers that would repeat our access line, or write addresses of requests with what they carry.
_QUIET = ("werkzeug", "httpx", "httpcore", "stripe", "urllib3", "weasyprint", "fontTools", "PIL", "rq.worker")
_SECRET_NAME = re.compile(
    r"secret|token|password|passwd|authorization|cookie|card|cvc|signature|session|\bpin\b|(^|_)key$", re.I
)
_SECRET_TEXT = re.compile(
    # Keys of Stripe and SumUp, and the tokens that SumUp gives for its merchants' accounts.
    r"\b(?:(?:sup_|cc_)?sk|rk|whsec|[ar]t_classic)_[A-Za-z0-9_]{8,}"
    # ... and those by which programs call our own API.
    r"|\b(?:kassa_[a-z0-9]{8}|refresh)_[A-Za-z0-9_-]{20,}|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"
    # By which a browser pays a payment of Stripe's.
    r"|\b(?:pi|seti|cs_(?:test|live))_[A-Za-z0-9]+_secret_[A-Za-z0-9]+"
    r"|(?<=Bearer )\S+|(?<=Basic )\S+|(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"
)
_LINK = re.compile(
    r"(/(?:(?:o|pay/success|pay/cancel|pay/wallet)/[^/\s?\"']+|account/(?:reset|confirm)|[a-z]+/biller"
    r"|door(?!/events\b))/)[^/\s?\"'.]+"
)
# The server's and the framework's own lines about a request that failed.
_SERVED = re.compile(r"(?<= while serving )/\S*|(?<=^Exception on )/\S*")
# PostgreSQL tells of a refused row all that is in it.
_ROW = re.compile(
    r"(?<=Failing row contains \().*(?=\))|(?<=\)=\().*(?=\) (?:already exists|is not present|is still))"
)
_DIGITS = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.])")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
# A path segment of this many letters of both cases is one of our random links, not a word.
_RANDOM = re.compile(r"(?=[^/]*[A-Z])(?=[^/]*[a-z])[A-Za-z0-9_-]{20,}|[0-9a-f]{32,}")
_DEPTH = 6
_configured: config.Settings | None = None


def configure(settings: config.Settings) -> None:
    """Send structlog and Python's logging through one chain of processors, once for each settings."""
    global _configured
    if _configured is settings:
        return
    _configured = settings
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.stdlib.ExtraAdder(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared[:-1],
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            Redactor(settings),
            structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
        ],
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old, (_Output, SharedRotatingFile)):
            root.removeHandler(old)
            old.close()
    root.setLevel(settings.log_level)
    for handler in _handlers(settings):
        handler.setFormatter(formatter)
        root.addHandler(handler)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class _Output(logging.StreamHandler[TextIO]):
    """Standard output or error, found anew for each line, so that whoever replaces sys.stdout is followed."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = getattr(sys, self._name)
        super().emit(record)


def _handlers(settings: config.Settings) -> list[logging.Handler]:
    output = _Output("stderr" if _printing_command() else "stdout")
    if not settings.log_file:
        return [output]
    try:
        os.makedirs(os.path.dirname(os.path.abspath(settings.log_file)), exist_ok=True)
        return [output, SharedRotatingFile(settings.log_file)]
    except OSError as error:
        sys.stderr.write(f"LOG_FILE={settings.log_file} cannot be written ({error.strerror}): not used.\n")
        return [output]


def _printing_command() -> bool:
    """Whether this is a `flask` command whose standard output somebody reads (not run, worker or clock)."""
    context = click.get_current_context(silent=True)
    if context is None:
        return False
    return not {"run", "worker", "clock"} & {context.info_name or "", *sys.argv[1:2]}


class SharedRotatingFile(RotatingFileHandler):
    """A rotating file that several processes write: they rotate it one at a time, and follow each other."""

    def __init__(self, path: str) -> None:
        super().__init__(path, maxBytes=FILE_BYTES, backupCount=FILE_COUNT, encoding="utf-8", delay=True)

    def emit(self, record: logging.LogRecord) -> None:
        self._follow()
        super().emit(record)

    def doRollover(self) -> None:
        with open(f"{self.baseFilename}.lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Somebody else may have rotated while this process waited for its turn.
            self._follow()
            if (
                not os.path.exists(self.baseFilename)
                or os.path.getsize(self.baseFilename) >= self.maxBytes / 2
            ):
                super().doRollover()

    def _follow(self) -> None:
        """Open the file again when its name has come to mean another one."""
        if self.stream is None:
            return
        try:
            there = os.stat(self.baseFilename).st_ino
        except FileNotFoundError:
            there = 0
        if os.fstat(self.stream.fileno()).st_ino != there:
            self.stream.close()
            self.stream = self._open()


class Redactor:
    """A structlog processor that takes out keys, tokens, order links' secrets and card numbers."""

    def __init__(self, settings: config.Settings) -> None:
        values = (
            settings.secret_key,
            *settings.secret_keys_rotated,
            *settings.secret_keys_revoked,
            settings.stripe_secret_key,
            *settings.stripe_webhook_secrets,
            settings.sumup_api_key,
            settings.sumup_client_secret,
            settings.sumup_webhook_secret,
            settings.kaspi_api_key,
            settings.kaspi_pfx,
            settings.kaspi_ca,
            settings.kaspi_pfx_password,
            settings.kaspi_device_token,
            settings.kaspi_biller_path,
            settings.kaspi_proxy_url,
            *_password_of(settings.kaspi_proxy_url),
            *settings.token_keys,
            settings.mail_password,
            settings.mail_api_key,
            settings.backup_s3_key_id,
            settings.backup_s3_secret,
            settings.metrics_token,
        )
        # The longest first: one may begin with another.
        self._values = tuple(sorted((value for value in values if len(value) >= 8), key=len, reverse=True))

    def __call__(
        self, logger: object, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        return {name: self._named(str(name), value, 0) for name, value in event.items()}

    def _named(self, name: str, value: Any, depth: int) -> Any:
        if _SECRET_NAME.search(name) and not isinstance(value, (bool, int, float, type(None))):
            return HIDDEN
        return self._value(value, depth)

    def _value(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, (bool, float)):
            return value
        if isinstance(value, int):
            return value if abs(value) < 10**12 else self._text(str(value))
        if depth >= _DEPTH:
            return "..."
        if isinstance(value, Mapping):
            return {str(key): self._named(str(key), item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self._value(item, depth + 1) for item in value]
        return self._text(value if isinstance(value, str) else str(value))

    def _text(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, HIDDEN)
        text = _ROW.sub(HIDDEN, text)
        text = _SERVED.sub(lambda match: safe_path(match.group()), text)
        text = _LINK.sub(rf"\1{HIDDEN}", _SECRET_TEXT.sub(HIDDEN, text))
        return _DIGITS.sub(_hide_card, text)


def _password_of(url: str) -> tuple[str, ...]:
    """The password in an address, as it is written there and as it is meant; nothing where it has none."""
    password = urlsplit(url).password or ""
    return (password, unquote(password))


def _hide_card(match: re.Match[str]) -> str:
    digits = [int(digit) for digit in match.group() if digit.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return HIDDEN if (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 else match.group()


# --- Requests -------------------------------------------------------------------------------------------


def watch(app: Flask) -> None:
    """Give every request an id and an access line."""
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    g.began = time.monotonic()
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request=g.request_id)
    code = (request.view_args or {}).get("code")
    if code:
        structlog.contextvars.bind_contextvars(order=str(code)[:20])


def _end(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.get("request_id", "")
    line = structlog.get_logger("kassa.access")
    write = line.debug if (request.endpoint or "").endswith("static") else line.info
    write(
        "request",
        method=request.method,
        path=safe_path(request.path, request.view_args),
        status=response.status_code,
        ms=round((time.monotonic() - g.get("began", time.monotonic())) * 1000, 1),
        user=_user_id(),
        address=request.remote_addr,
    )
    return response


def safe_path(path: str, arguments: Mapping[str, Any] | None = None) -> str:
    """`path` with every part that opens something replaced: /o/K7-ABCD/***."""
    hidden = {str(value) for name, value in (arguments or {}).items() if _SECRET_NAME.search(name)}
    path = _LINK.sub(rf"\1{HIDDEN}", path)
    parts = (HIDDEN if part in hidden or _RANDOM.fullmatch(part) else part for part in path.split("/"))
    return "/".join(parts)[:300]


def _user_id() -> int | None:
    """Who is logged in, if anything in this request asked; asking here would cost a query."""
    user = g.get("_login_user")
    # `is_authenticated` would read the user's row once more after a commit.
    if user is None or getattr(user, "is_anonymous", True):
        return None
    identity = inspect(user).identity
    return int(identity[0]) if identity else None
