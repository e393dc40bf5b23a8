"""One call to SumUp: the right to make it, a place under the limit, bounded attempts, errors in words.

The SDK has no retries and waits for ever unless it is told otherwise; besides its own errors it lets those
of pydantic and JSON through. What leaves this module is what the SDK has read, or a `ProviderError`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from random import uniform
from time import sleep
from typing import Any, TypeVar

import pydantic
from sumup import Sumup
from sumup.errors import APIConnectionError, APIError, APITimeoutError, SumupError

from domain.providers import bulkhead
from domain.providers.contract import Credentials, Missing, ProviderError, before_asking
from domain.providers.throttle import Throttle, calls

API = "https://api.sumup.com"
T = TypeVar("T")
# What is asked: the SDK, and the headers that say for whom.
Ask = Callable[[Sumup, Mapping[str, str]], T]
# A read is tried so often where the caller can wait: payments.LEASE is for chains of such.
_ATTEMPTS = 2
# Waiting a second mends none of these.
_NOT_AGAIN = ("not_configured", "not_connected", "unauthorised", "forbidden", "throttled", bulkhead.NO_ROOM)
_UNREADABLE = (pydantic.ValidationError, ValueError, TypeError, KeyError, ArithmeticError, RecursionError)


class Conflict(ProviderError):
    """SumUp says 409: the thing is in another state than the call wants it in."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message, permanent=True, code=code)


class _Unauthorised(ProviderError):
    """401: the token is refused. It passes, because another one, or a new connection, mends it."""

    def __init__(self, told: str = "") -> None:
        words = f"SumUp refuses our access: {told}" if told else "SumUp refuses our access."
        super().__init__(words, permanent=False, code="unauthorised", undone=True)


class ApiKey:
    """The credentials of the platform's own account: a key in the settings, which nobody can renew."""

    def __init__(self, key: str) -> None:
        self._key = key

    def token(self) -> str:
        if not self._key:
            raise ProviderError("SumUp has no API key.", permanent=False, code="not_configured")
        return self._key

    def renewed(self, rejected: str) -> str:
        raise _Unauthorised


class Line:
    """Calls for one account, at most `rate` a second."""

    def __init__(self, base_url: str, account: str, credentials: Credentials, rate: int) -> None:
        self._base_url = base_url or API
        self._account = account
        self._credentials = credentials
        self._throttle = Throttle(rate, f"sumup:{account}")

    def read(self, ask: Ask[T], *, patient: bool) -> T:
        """Ask what may be asked twice: one attempt of 5 seconds, or a few where the caller can wait."""
        for left in reversed(range(_ATTEMPTS if patient else 1)):
            try:
                return self._authorised(ask, patient, writes=False)
            except ProviderError as error:
                if error.permanent or not left or error.code in _NOT_AGAIN:
                    raise
            # Those who stumbled together do not come back together.
            sleep(uniform(0.3, 1.2))
        raise AssertionError("The last attempt returns or raises.")

    def write(self, ask: Ask[T], *, patient: bool) -> T:
        """Ask for what happens each time that it is asked: once, even where the caller can wait."""
        return self._authorised(ask, patient, writes=True)

    def _authorised(self, ask: Ask[T], patient: bool, *, writes: bool) -> T:
        with bulkhead.place("sumup", self._account):
            return self._with_token(ask, patient, writes=writes)

    def _with_token(self, ask: Ask[T], patient: bool, *, writes: bool) -> T:
        with before_asking():
            token = self._credentials.token()
        try:
            return self._once(ask, token, patient, writes=writes)
        except _Unauthorised as refused:
            # Refused, so nothing was done: the same call may be made again with another token, once.
            try:
                with before_asking():
                    token = self._credentials.renewed(token)
            except _Unauthorised:
                # There is no other. What SumUp said to the first is why.
                raise refused from None
        return self._once(ask, token, patient, writes=writes)

    def _once(self, ask: Ask[T], token: str, patient: bool, *, writes: bool) -> T:
        with before_asking():
            self._throttle.wait(60 if patient else 3)
        calls.add()
        with answered(writes=writes):
            return ask(client(self._base_url, patient, os.getpid()), {"Authorization": f"Bearer {token}"})


@lru_cache(maxsize=8)
def client(base_url: str, patient: bool, process: int) -> Sumup:
    """The SDK with its pool of connections, one for all accounts: each call says for whom it speaks.

    So the sockets of a process are bounded however many organisers there are, and a sweep over fifty accounts
    makes few TLS handshakes. A forked worker makes its own, for two processes must not share a socket.
    """
    sdk = Sumup("unset", base_url, timeout=(3, 7, 7, 7) if patient else (2, 5, 5, 2))
    # A cookie that one account was given must not come with the calls of another.
    sdk._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return sdk


@contextmanager
def answered(*, writes: bool = False) -> Iterator[None]:
    """Turn whatever the SDK raises, and whatever cannot be read, into a ProviderError."""
    try:
        yield
    except SumupError as error:
        raise provider_error(error, writes=writes) from error
    except _UNREADABLE as error:
        # The text of such an error may quote the answer, with a buyer's name in it.
        words = str(error) if type(error) is ValueError else type(error).__name__
        raise ProviderError(
            f"SumUp's answer is unreadable: {words}", permanent=False, code="unreadable"
        ) from error


def provider_error(error: SumupError, *, writes: bool = False) -> ProviderError:
    """What an error of the SDK means for the caller. `writes`: the call was to change something."""
    if isinstance(error, APITimeoutError):
        return ProviderError("SumUp did not answer in time.", permanent=False, code="timeout", silent=True)
    if isinstance(error, APIConnectionError):
        return ProviderError("SumUp cannot be reached.", permanent=False, code="unreachable", silent=True)
    status = error.status if isinstance(error, APIError) else None
    told, code = _told(_body(error))
    if status == 401:
        return _Unauthorised(told)
    words = f"SumUp answered {status}: {told}" if told else f"SumUp answered {status}."
    code = code or f"http_{status}"
    if status is None or status < 400:
        # Only the declared status is a success; with another it is not known what was done.
        return ProviderError(f"{words} That is not expected.", permanent=False, code="unreadable")
    if status == 404:
        return Missing(words)
    if status == 409:
        return Conflict(words, code)
    if status == 403:
        # What may not be written was not written. What may not be read may still be true.
        return ProviderError(words, permanent=writes, code="forbidden")
    passing = status in (408, 425, 429) or status >= 500
    return ProviderError(words, permanent=not passing, code=code, undone=status == 429)


def _body(error: SumupError) -> object:
    """What SumUp answered, as it was sent.

    The SDK reads an error as the form that its call declares, and drops what another form says.
    """
    if not isinstance(error, APIError):
        return None
    try:
        return error.response.json() if error.response is not None else error.body
    except (ValueError, RecursionError):
        return error.body


def _told(body: object) -> tuple[str, str]:
    """The words and the code in an error's body, in any of the forms that SumUp sends."""
    parts = [_fields(part) for part in (body if isinstance(body, list) else [body])]
    # One form wraps the others.
    parts += [_fields(part["errors"]) for part in parts if isinstance(part.get("errors"), Mapping)]
    words = "; ".join(text for part in parts if (text := _words(part)))
    codes = (part.get(name) for part in parts for name in ("error_code", "error", "type"))
    code = next((code for code in codes if isinstance(code, str) and code), "")
    # The type of a problem+json is an address, whose end is the word.
    return words[:200], code.rstrip("/").rsplit("/", 1)[-1][:60]


def _fields(part: object) -> Mapping[str, Any]:
    if isinstance(part, pydantic.BaseModel):
        return part.model_dump()
    return part if isinstance(part, Mapping) else {}


def _text(value: object) -> str:
    """A sentence, or several in a list; "" for anything else."""
    several = value if isinstance(value, list) else [value]
    return "; ".join(text for text in several if isinstance(text, str) and text)


def _words(part: Mapping[str, Any]) -> str:
    names = ("detail", "details", "message", "error_message", "error_description", "title")
    words = next((text for name in names if (text := _text(part.get(name)))), "")
    param = part.get("param")
    return f"{words} ({param})" if words and isinstance(param, str) and param else words
