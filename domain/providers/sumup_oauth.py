"""Connecting an organiser's SumUp account: OAuth's authorization code, by HTTP, for the SDK has none.

SumUp's tokens live about an hour. Its refresh token may change with each use, and then the old one is
worthless, so whoever calls `refresh` must keep the answer. No message here quotes a token or a code.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlencode

import httpx
from sumup import Sumup

from config import Settings
from domain.providers import bulkhead
from domain.providers.connecting import Owner, Refused, Tokens
from domain.providers.contract import ProviderError
from domain.providers.sumup_line import API, answered, client
from domain.providers.throttle import calls

T = TypeVar("T")
# One attempt of five seconds: a person waits, or a lease runs.
_TIMEOUT = httpx.Timeout(5, connect=2)
# What the app itself did wrong. Nobody but the operator can mend it.
_OURS = ("invalid_client", "unauthorized_client")


def build(settings: Settings) -> SumUpConnector:
    """The connector of the app that is registered in `settings`."""
    return SumUpConnector(settings)


class SumUpConnector:
    """See `domain.providers.connecting.Connector`."""

    label = "SumUp"

    def __init__(self, settings: Settings) -> None:
        self.ready = settings.sumup_connects
        self.house_account = settings.sumup_house_account
        self._base = settings.sumup_api_base or API
        self._client_id = settings.sumup_client_id
        self._client_secret = settings.sumup_client_secret
        self._scopes = settings.sumup_scopes

    def authorize_url(self, state: str, redirect_uri: str) -> str:
        wanted = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect_uri,
            "scope": self._scopes,
            "state": state,
        }
        return f"{self._base}/authorize?{urlencode(wanted)}"

    def exchange(self, code: str, redirect_uri: str) -> Tokens:
        return self._tokens({"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri})

    def refresh(self, refresh_token: str) -> Tokens:
        return self._tokens({"grant_type": "refresh_token", "refresh_token": refresh_token})

    def owner(self, access_token: str) -> Owner:
        """The merchant that the token's user belongs to. Whoever belongs to several is asked for one."""

        def memberships(sdk: Sumup, headers: Mapping[str, str]) -> Any:
            return sdk.memberships.list(kind="merchant", status="accepted", limit=25, headers=headers).items

        found = {
            member.resource_id: member.resource.name
            for member in self._ask(access_token, memberships)
            if member.type == "merchant" and member.status == "accepted"
        }
        if len(found) != 1:
            raise ProviderError(
                "That SumUp login belongs to several accounts. Connect with the login of one of them."
                if found
                else "That SumUp login belongs to no account that can take payments.",
                permanent=True,
                code="several_accounts" if found else "no_account",
            )
        ((account, name),) = found.items()
        return Owner(
            account=str(account), name=str(name or ""), currency=self._currency(access_token, account)
        )

    def _currency(self, access_token: str, account: str) -> str:
        """The account's currency; "" where it is not told, for that keeps nobody from connecting."""
        try:
            merchant = self._ask(
                access_token, lambda sdk, headers: sdk.merchants.get(account, headers=headers)
            )
        except ProviderError:
            return ""
        return str(merchant.default_currency or "").upper()

    def _ask(self, access_token: str, ask: Callable[[Sumup, Mapping[str, str]], T]) -> T:
        calls.add()
        with bulkhead.place("sumup", "connecting"), answered():
            return ask(client(self._base, False, os.getpid()), {"Authorization": f"Bearer {access_token}"})

    def _tokens(self, form: Mapping[str, str]) -> Tokens:
        if not self.ready:
            raise ProviderError("SumUp has no app to connect to.", permanent=False, code="not_configured")
        calls.add()
        secret = {"client_id": self._client_id, "client_secret": self._client_secret}
        with bulkhead.place("sumup", "connecting"):
            try:
                answer = httpx.post(
                    f"{self._base}/token", data={**form, **secret}, timeout=_TIMEOUT, verify=_trusted()
                )
            except httpx.HTTPError as error:
                code = "timeout" if isinstance(error, httpx.TimeoutException) else "unreachable"
                raise ProviderError(
                    "SumUp gave no answer.", permanent=False, code=code, silent=True
                ) from None
            return _read(answer)


@cache
def _trusted() -> ssl.SSLContext:
    """Whom to believe who they are; to read that list costs more than all the rest of a call."""
    return httpx.create_ssl_context()


def _read(answer: httpx.Response) -> Tokens:
    """The tokens of an answer. Errors do not carry what caused them: it might quote a token."""
    try:
        body = answer.json()
    except (ValueError, RecursionError):
        body = None
    told = body if isinstance(body, dict) else {}
    if answer.status_code != 200:
        raise _refusal(answer.status_code, str(told.get("error") or told.get("error_code") or "")[:60])
    access, refresh, lives = told.get("access_token"), told.get("refresh_token"), told.get("expires_in")
    scope = told.get("scope")
    right = isinstance(access, str) and access and isinstance(lives, int | float) and 0 < lives < 10**8
    if not right or not isinstance(refresh, str | None):
        raise ProviderError("SumUp's answer has no token.", permanent=False, code="unreadable")
    return Tokens(
        access=str(access),
        refresh=refresh or "",
        lives=timedelta(seconds=float(lives or 0)),
        scope=scope if isinstance(scope, str) else "",
    )


def _refusal(status: int, code: str) -> ProviderError:
    if code == "invalid_grant" and status < 500:
        return Refused("SumUp says that this connection is worth nothing any more.")
    words = f"SumUp answered {status}{f': {code}' if code else '.'}"
    if code in _OURS:
        words = "SumUp does not know this app: check SUMUP_CLIENT_ID and SUMUP_CLIENT_SECRET."
        return ProviderError(words, permanent=True, code="invalid_client")
    passing = status < 400 or status in (401, 403, 404, 408, 425, 429) or status >= 500
    return ProviderError(words, permanent=not passing, code=code or f"http_{status}")
