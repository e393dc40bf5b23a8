"""Who calls the API: a member's program with an access token, or a server with a key.

Only the Authorization header is read. A session's cookie is nobody here, which is why the API needs no token
against forged forms: a browser sends no Authorization by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from flask import g, request

from blueprints import proofs
from blueprints.api.errors import ApiProblem, Problem
from domain.people import factors
from domain.security import api_keys, api_tokens, scopes, second_factors
from domain.security.api_tokens import BadToken
from domain.security.scopes import Scope
from models import ApiKey, Role, User

_BEARER = re.compile(r"Bearer +([\x21-\x7e]+) *", re.IGNORECASE)
_CHALLENGE = 'Bearer realm="api"'
# What an account that should show a second factor is refused.
NEEDED = Problem(
    403,
    "second_factor_needed",
    "This needs the second factor from lately (for keys and large sums: from just now): log in again with "
    "its code, and repeat it at once with the new token. An API key cannot show one.",
    lasting=False,
)
UNSET = Problem(
    403,
    "second_factor_unset",
    "An admin of this shop needs a second factor. Log in on the website once, and set it up.",
    lasting=False,
)


@dataclass(frozen=True)
class Caller:
    """Whoever calls, and what they may do. `name`, such as `user:12`, is of all tokens of a member."""

    user: User
    name: str
    key: ApiKey | None = None
    # The login that an access token is of.
    session: str = ""

    @property
    def is_admin(self) -> bool:
        return self.user.role is Role.ADMIN

    @property
    def client_address(self) -> str:
        return request.remote_addr or ""

    def may(self, scope: Scope) -> bool:
        """Whether the member may do this now, and has let this key do it."""
        if self.key is not None:
            return api_keys.allows(self.key, scope)
        return scope in scopes.of_role(self.user.role)

    def check_proof(self) -> None:
        """Refuse what opens doors, or sends much money away, without the second factor from just now.

        A key is a server's, which shows none: whoever copied it would send everything back.
        """
        if not second_factors.counts_for(self.user):
            _refuse_overdue(self.user)
            return
        shown = self.key is None and second_factors.is_good(
            api_tokens.proved_at(self.session), second_factors.JUST_NOW
        )
        if not shown:
            raise ApiProblem(403, NEEDED.code, NEEDED.detail)

    def check_giving_back(self, amount_minor: int, currency: str) -> None:
        """The same, where that sum is above the operator's setting."""
        if proofs.is_much(amount_minor, currency):
            self.check_proof()


@dataclass(frozen=True)
class Credential:
    """What a request came with, before the database is asked. `counted` is what limits count it by."""

    counted: str
    find: Callable[[], Caller]


def caller() -> Caller:
    """Who calls, in an endpoint that is not open to everybody."""
    found: Caller = g.api_caller
    return found


def credential() -> Credential:
    """What the Authorization header has. ApiProblem 401 where it has nothing that could be ours."""
    found = _BEARER.fullmatch(request.headers.get("Authorization", ""))
    if found is None:
        raise unauthorized(
            "unauthorized",
            "Send an access token or an API key: Authorization: Bearer ...",
            challenge=_CHALLENGE,
        )
    said = found[1]
    if said.startswith(api_keys.LEADS):
        return Credential(f"key:{api_tokens.hashed(said)[:24]}", lambda: _by_key(said))
    try:
        session = api_tokens.session_of(said)
    except BadToken as error:
        raise unauthorized(error.code, error.message) from error
    return Credential(f"token:{session}", lambda: _by_session(session))


def enter(found: Credential, scope: Scope | None) -> Caller:
    """Let whoever it is in, where they may do this; None is for every member. ApiProblem 401 or 403."""
    try:
        who = found.find()
    except BadToken as error:
        raise unauthorized(error.code, error.message) from error
    structlog.contextvars.bind_contextvars(caller=who.name)
    g.api_caller = who
    if scope is not None and not who.may(scope):
        raise _forbidden(who, scope)
    if scope in scopes.FOR_ADMINS:
        _ask_again(who)
    return who


def _ask_again(who: Caller) -> None:
    """As the pages for staff: a login that goes on needs the second factor from the last twelve hours.

    A key is a server's, which nobody sits at: it goes on, for as long as its owner has not been late.
    """
    if who.key is not None or not second_factors.counts_for(who.user):
        _refuse_overdue(who.user)
    elif not second_factors.is_good(api_tokens.proved_at(who.session), second_factors.GOOD_FOR):
        raise ApiProblem(403, NEEDED.code, NEEDED.detail)


def _by_key(text: str) -> Caller:
    key = api_keys.whose(text)
    api_keys.note_use(key)
    return Caller(key.user, f"key:{key.id}", key=key)


def _by_session(session: str) -> Caller:
    user = api_tokens.whose(session)
    return Caller(user, f"user:{user.id}", session=session)


def unauthorized(code: str, detail: str, *, challenge: str = "") -> ApiProblem:
    """401, with what to send instead."""
    told = challenge or f'{_CHALLENGE}, error="invalid_token"'
    return ApiProblem(401, code, detail, headers={"WWW-Authenticate": told})


def _refuse_overdue(user: User) -> None:
    """As the pages for staff: closed to who has not set one up in time, by keys from before, too."""
    if factors.overdue(user):
        raise ApiProblem(403, UNSET.code, UNSET.detail)


def _forbidden(who: Caller, scope: Scope) -> ApiProblem:
    if who.key is not None and scope.value not in who.key.scopes:
        return ApiProblem(403, "scope_missing", f"This API key was not given {scope.value}.")
    return ApiProblem(403, "forbidden", f"This account may not do that ({scope.value}).")
