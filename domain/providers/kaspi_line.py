"""One call to Kaspi's QR API: key or certificate, a place under the limit, bounded attempts, errors in words.

What Kaspi refuses it answers with HTTP 200, too: the answer is an envelope {StatusCode, Message, Data}, and
everything but 0 is an error. What the codes mean is told by merchants' programs, not by a contract that is
public: a code that nobody has told of passes, because unknown is not unpaid.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from http.cookiejar import DefaultCookiePolicy
from random import uniform
from threading import Lock
from time import sleep
from typing import Any

import httpx

from config import Settings
from domain.providers import bulkhead, kaspi_certificate
from domain.providers.contract import Missing, ProviderError, before_asking
from domain.providers.throttle import Throttle, calls

API = "https://qrapi-cert-ip.kaspi.kz"
# A read is tried so often where the caller can wait.
_ATTEMPTS = 2
_QUICK = httpx.Timeout(5, connect=2, pool=2)
_PATIENT = httpx.Timeout(7, connect=3)
# Waiting a second mends none of these.
_NOT_AGAIN = ("not_configured", "certificate", "unauthorised", "throttled", bulkhead.NO_ROOM)
# "Purchase not found", by its number and by what a return names it.
_MISSING = frozenset({-1601, -99000001})
# An amount; a return that is too large, of what is not paid, or in part where only all may go back.
_REFUSED = frozenset({990000028, -990000028, -99000005, -99000011, -99000020})
# No certificate; the device, the trade point or its ways to pay are not there, or switched off. Nothing was
# done, and the operator, or Kaspi's support, mends it.
_NOT_SET_UP = frozenset(
    {-10000, -1501, -1502, -1503, -14000002, -99000002, -99000003}
    | {990000018, 990000026, 990000033, -990000018, -990000026, -990000033}
)
_UNREADABLE = (KeyError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)


class Line:
    """Calls for one account, at most `rate` a second."""

    def __init__(self, settings: Settings, account: str) -> None:
        self._account = account
        self._mode = settings.kaspi_mode
        self._base = f"{settings.kaspi_api_base or API}/{settings.kaspi_mode}"
        self._configured = settings.kaspi_speaks
        self._key = settings.kaspi_api_key if settings.kaspi_mode == "r1" else ""
        self._pfx = settings.kaspi_pfx if settings.kaspi_mode != "r1" else ""
        self._password, self._ca = settings.kaspi_pfx_password, settings.kaspi_ca
        self._proxy = settings.kaspi_proxy_url or None
        self._throttle = Throttle(settings.kaspi_rate_per_second, f"kaspi:{account}")
        # A forked worker makes its own: two processes must not share a socket.
        self._clients: dict[int, httpx.Client] = {}
        self._making = Lock()
        self._identity: kaspi_certificate.Identity | None = None

    def read(self, path: str, *, patient: bool, query: Mapping[str, str] | None = None) -> Any:
        """What is asked may be asked twice: one attempt of 5 seconds, or a few where the caller can wait."""
        for left in reversed(range(_ATTEMPTS if patient else 1)):
            try:
                return self._once("GET", path, query, None, patient)
            except ProviderError as error:
                if error.permanent or not left or error.code in _NOT_AGAIN:
                    raise
            # Those who stumbled together do not come back together.
            sleep(uniform(0.3, 1.2))
        raise AssertionError("The last attempt returns or raises.")

    def write(self, path: str, body: Mapping[str, Any], *, patient: bool) -> Any:
        """Ask for what happens each time that it is asked: once, even where the caller can wait."""
        return self._once("POST", path, None, body, patient)

    def identity(self) -> kaspi_certificate.Identity:
        """The certificate, opened once. Raises a passing ProviderError."""
        with self._making:
            if self._identity is None:
                self._identity = kaspi_certificate.identity(self._pfx, self._password, self._ca)
            return self._identity

    def _once(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        patient: bool,
    ) -> Any:
        with bulkhead.place("kaspi", self._account):
            with before_asking():
                client = self._client()
                self._throttle.wait(60 if patient else 3)
            calls.add()
            with _reached():
                response = client.request(
                    method,
                    f"{self._base}/{path}",
                    params=query,
                    json=body,
                    timeout=_PATIENT if patient else _QUICK,
                )
            return _data(response)

    def _client(self) -> httpx.Client:
        if not self._configured:
            raise ProviderError("Kaspi is not set up.", permanent=False, code="not_configured")
        process = os.getpid()
        client = self._clients.get(process)
        if client is None:
            identity = self.identity()
            with self._making:
                client = self._clients.get(process) or self._made(identity)
                self._clients[process] = client
        return client

    def _made(self, identity: kaspi_certificate.Identity) -> httpx.Client:
        client = httpx.Client(
            verify=identity.context,
            headers={"Api-Key": self._key} if self._key else {},
            proxy=self._proxy,
            # The way out is the one that the settings name, and no other.
            trust_env=False,
        )
        client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        return client


@contextmanager
def _reached() -> Iterator[None]:
    """Turn whatever happens on the way into a ProviderError. Where no connection stood, nothing was done."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
        raise ProviderError(
            f"Kaspi cannot be reached ({type(error).__name__}).",
            permanent=False,
            code="unreachable",
            undone=True,
            silent=True,
        ) from error
    except httpx.TimeoutException as error:
        raise ProviderError(
            "Kaspi did not answer in time.", permanent=False, code="timeout", silent=True
        ) from error
    except httpx.HTTPError as error:
        raise ProviderError(
            f"Kaspi did not answer ({type(error).__name__}).", permanent=False, code="broken_off", silent=True
        ) from error


@contextmanager
def answered() -> Iterator[None]:
    """Turn whatever cannot be read of an answer into a ProviderError."""
    try:
        yield
    except _UNREADABLE as error:
        # The text of such an error may quote the answer.
        words = str(error) if type(error) is ValueError else type(error).__name__
        raise ProviderError(
            f"Kaspi's answer is unreadable: {words}", permanent=False, code="unreadable"
        ) from error


def _data(response: httpx.Response) -> Any:
    """What an answer carries, amounts as exact decimals. Raises ProviderError for every refusal."""
    status = response.status_code
    if status != 200:
        # None of these is Kaspi's own word about a payment: a key, a gateway, an address in between.
        word = {401: "unauthorised", 403: "unauthorised"}.get(status, f"http_{status}")
        raise ProviderError(
            f"Kaspi answered HTTP {status}.", permanent=False, code=word, undone=status in (401, 403, 429)
        )
    with answered():
        envelope = json.loads(response.content, parse_float=Decimal)
        code = int(envelope["StatusCode"])
        message = str(envelope.get("Message") or "")
        data = envelope.get("Data")
    if code:
        raise refusal(code, message)
    return data


def refusal(code: int, message: str) -> ProviderError:
    """What a StatusCode means for the caller. Kaspi's own words are for staff, and may be in Russian."""
    words = f"Kaspi answered {code}: {message[:150]}" if message else f"Kaspi answered {code}."
    if code in _MISSING:
        return Missing(words)
    if code in _REFUSED:
        return ProviderError(words, permanent=True, code=str(code), undone=True)
    return ProviderError(words, permanent=False, code=str(code), undone=code in _NOT_SET_UP)
