"""Who may do what at SumUp: the platform's API key, OAuth tokens of merchants, and the app's options.

Every method must be called inside the books' `ready()`.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from typing import Any

from sandbox import ids, settings
from sandbox.clock import Clock
from sandbox.store import Store
from sandbox.sumup.merchants import FIXED
from sandbox.sumup.shapes import Field, Shape

Body = dict[str, Any]

SCOPES = (
    "payments",
    "transactions.history",
    "user.app-settings",
    "user.profile_readonly",
    "user.profile",
    "user.payout-settings",
    "user.subaccounts",
    "payment_instruments",
)
DEFAULT_SCOPES = "transactions.history user.app-settings user.profile_readonly"
ACCESS_SECONDS = 3599
CODE_SECONDS = 300
# What /control/settings may change, and what holds until it does.
OPTIONS: Body = {
    # The older API answers a refund 204 and its refusals in the legacy form; the newer 201, and problems.
    "refund_status": 201,
    # What the next refunds meet: ok, no_balance (409) or processor (422).
    "refund_outcome": "ok",
    # After how many seconds a refund shows in what is read of its payment.
    "refund_shows_after": 0,
    # Whether a refresh gives a new refresh token (and the old one is worth nothing), or none.
    "rotate_refresh": True,
    # Whether SumUp has approved the scope `payments` for the app.
    "payments_approved": True,
    # Where /authorize may send people to, exactly; none for anywhere.
    "redirect_uris": [],
}
OPTION_SHAPE: Shape = {
    "refund_status": Field("integer"),
    "refund_outcome": Field(words=("ok", "no_balance", "processor")),
    "refund_shows_after": Field("integer"),
    "rotate_refresh": Field("boolean"),
    "payments_approved": Field("boolean"),
    "redirect_uris": Field("list"),
}
SCHEMA = """
CREATE TABLE IF NOT EXISTS sumup_options (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sumup_tokens (
    token TEXT PRIMARY KEY, kind TEXT NOT NULL, merchant TEXT NOT NULL, scope TEXT NOT NULL,
    expires REAL, redirect_uri TEXT NOT NULL, spent INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS sumup_tokens_by_merchant ON sumup_tokens (merchant, kind);
"""


@dataclass(frozen=True)
class Identity:
    """Whom a bearer speaks for. `scopes` is None for an API key, which may do everything."""

    merchant: str
    scopes: frozenset[str] | None

    def may(self, *scopes: str) -> bool:
        """Whether it has one of these scopes."""
        return self.scopes is None or not self.scopes.isdisjoint(scopes)


class Worthless(Exception):
    """`invalid_grant`: a code or token that is unknown, used, too old, revoked or of another address."""


class Access:
    """Tokens and options."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        # An organiser who has connected an account goes on selling through it when the sandbox is emptied.
        lasting = ", ".join(f"'{code}'" for code in FIXED)
        store.define(SCHEMA, {"sumup_tokens": f"spent = 0 AND kind <> 'code' AND merchant IN ({lasting})"})

    def options(self) -> Body:
        rows = self._store.execute("SELECT name, value FROM sumup_options").fetchall()
        return OPTIONS | {row["name"]: json.loads(row["value"]) for row in rows}

    def choose(self, options: Body) -> None:
        """Change some of OPTIONS."""
        for name, value in options.items():
            self._store.execute(
                "INSERT OR REPLACE INTO sumup_options (name, value) VALUES (?,?)", (name, json.dumps(value))
            )

    def identity(self, bearer: str) -> Identity | None:
        """Whom a bearer speaks for; None for one that is unknown, too old or revoked."""
        if hmac.compare_digest(bearer.encode(), settings.SUMUP_API_KEY.encode()):
            return Identity(settings.SUMUP_MERCHANT, None)
        row = self._find(bearer, "access")
        return Identity(row["merchant"], frozenset(row["scope"].split())) if row else None

    def code(self, merchant: str, scope: str, redirect_uri: str) -> str:
        """A code for a merchant's permission, good for one exchange."""
        return self._keep("code", "ac", merchant, scope, CODE_SECONDS, redirect_uri)

    def exchange(self, code: str, redirect_uri: str) -> Body:
        """The tokens for a code. Raises Worthless."""
        row = self._find(code, "code")
        if row is None or row["redirect_uri"] != redirect_uri:
            raise Worthless
        self._spend(code)
        return self.issue(row["merchant"], row["scope"])

    def refresh(self, token: str) -> Body:
        """New tokens for a refresh token. Raises Worthless."""
        row = self._find(token, "refresh")
        if row is None:
            raise Worthless
        rotates = self.options()["rotate_refresh"]
        if rotates:
            self._spend(token)
        return self.issue(row["merchant"], row["scope"], with_refresh=rotates)

    def issue(self, merchant: str, scope: str, *, with_refresh: bool = True) -> Body:
        """Tokens as POST /token answers them."""
        body: Body = {
            "access_token": self._keep("access", "at", merchant, scope, ACCESS_SECONDS),
            "token_type": "Bearer",
            "expires_in": ACCESS_SECONDS,
            "scope": scope,
        }
        if with_refresh:
            body["refresh_token"] = self._keep("refresh", "rt", merchant, scope, None)
        return body

    def revoke(self, merchant: str, *kinds: str) -> int:
        """Make a merchant's tokens of these kinds worthless; how many that were."""
        marks = ",".join("?" * len(kinds))
        done = self._store.execute(
            f"UPDATE sumup_tokens SET spent = 1 WHERE merchant = ? AND spent = 0 AND kind IN ({marks})",
            (merchant, *kinds),
        )
        return done.rowcount

    def alive(self, merchant: str) -> int:
        """How many refresh tokens of a merchant are still worth something."""
        row = self._store.execute(
            "SELECT count(*) FROM sumup_tokens WHERE merchant = ? AND kind = 'refresh' AND spent = 0",
            (merchant,),
        ).fetchone()
        return int(row[0])

    def _keep(
        self,
        kind: str,
        prefix: str,
        merchant: str,
        scope: str,
        lives: float | None,
        redirect_uri: str = "",
    ) -> str:
        token = f"{prefix}_classic_{ids.text(40)}"
        expires = None if lives is None else self._clock.now() + lives
        self._store.execute(
            "INSERT INTO sumup_tokens (token, kind, merchant, scope, expires, redirect_uri) "
            "VALUES (?,?,?,?,?,?)",
            (token, kind, merchant, scope, expires, redirect_uri),
        )
        return token

    def _find(self, token: str, kind: str) -> Any:
        return self._store.execute(
            "SELECT * FROM sumup_tokens WHERE token = ? AND kind = ? AND spent = 0 "
            "AND (expires IS NULL OR expires > ?)",
            (token, kind, self._clock.now()),
        ).fetchone()

    def _spend(self, token: str) -> None:
        self._store.execute("UPDATE sumup_tokens SET spent = 1 WHERE token = ?", (token,))
