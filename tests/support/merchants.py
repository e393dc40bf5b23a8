"""SumUp of the sandbox in tests: a Kassa that uses it, and organisers who allow it to use their accounts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

import config
from domain.connections import linked_accounts
from models import Connection, Role, User
from tests.support.sandbox import Sandbox
from tests.support.shop import make_user


def variables(sandbox: Sandbox) -> dict[str, str]:
    """The environment of a Kassa that the sandbox's SumUp knows as an app, and with an account of its own."""
    told = sandbox.get("settings")["sumup"]
    return {
        "SUMUP_API_BASE": told["api_base"],
        "SUMUP_API_KEY": told["api_key"],
        "SUMUP_MERCHANT_CODE": told["merchant_code"],
        "SUMUP_CLIENT_ID": told["client_id"],
        "SUMUP_CLIENT_SECRET": told["client_secret"],
        "SUMUP_RATE_PER_SECOND": "1000",
    }


def use_sumup(environ: dict[str, str], sandbox: Sandbox, **more: Any) -> config.Settings:
    """Put such settings in force, with `more` of their fields changed."""
    settings = replace(config.load({**environ, **variables(sandbox)}), **more)
    config.use(settings)
    return settings


def allow(url: str, merchant: str) -> dict[str, str]:
    """Open a provider's authorize page as `merchant` and allow the app: what the app is called back with."""
    answer = requests.post(url, data={"merchant": merchant, "do": "allow"}, allow_redirects=False, timeout=10)
    assert answer.status_code == 302, answer.text
    return query(answer.headers["Location"])


def query(url: str) -> dict[str, str]:
    """The query of an address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def make_organiser(email: str = "olga@example.org") -> User:
    """Somebody who may connect accounts."""
    return make_user(email, Role.ORGANISER)


def connect(user: User, merchant: str = "MHARBOUR") -> Connection:
    """Connect the account of one of the sandbox's merchants, as far as the browser is not needed."""
    url, _ = linked_accounts.authorize_url(user, "sumup")
    told = allow(url, merchant)
    return linked_accounts.connect(user.id, "sumup", told["code"], linked_accounts.redirect_uri("sumup"))


def token_calls(sandbox: Sandbox, since: float = 0) -> int:
    """How often tokens were asked for."""
    return sum(1 for call in sandbox.calls(since) if call["path"].endswith("/token"))
