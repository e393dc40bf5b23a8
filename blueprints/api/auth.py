"""Logging a program in, and keeping it logged in."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from flask import request
from pydantic import Field

from blueprints.api import limits
from blueprints.api.caller import UNSET, unauthorized
from blueprints.api.endpoint import PUBLIC, Area
from blueprints.api.errors import ApiProblem, Problem
from blueprints.api.shapes import Answer, Body, Moment
from domain import clock
from domain.errors import DomainError
from domain.people import accounts, factors
from domain.security import api_tokens, second_factors
from domain.security.api_tokens import BadToken, Pair
from extensions import network
from models import Role, User

area = Area("auth", "Logging in", "Tokens for a member's own program. A server takes an API key instead.")

_SECONDS = int(api_tokens.ACCESS_LIVES.total_seconds())
_TOO_MANY = 15 * 60
# How a refused login is answered: as every other way in, it tells nobody which addresses have accounts.
_REFUSED = {
    "wrong_login": 401,
    "code_needed": 401,
    "wrong_code": 401,
    "second_factor_needed": 401,
    "wrong_second_factor": 401,
    "second_factor_unset": 403,
    "password_weak": 403,
    "disabled": 403,
    "unconfirmed": 403,
    "too_many_attempts": 429,
    "too_many_codes": 429,
}
_LOGIN = (
    Problem(401, "wrong_login", "The e-mail address or the password is not right. Check both and try again."),
    Problem(
        401,
        "code_needed",
        "The password is right, but others have guessed at it: a code was mailed. Send it as `mailed_code`.",
    ),
    Problem(401, "wrong_code", "The `mailed_code` is not right, or too old. Leave it out for a new one."),
    Problem(
        401,
        "second_factor_needed",
        "This account has a second factor. Send its code as `second_factor` beside the password.",
    ),
    Problem(
        401,
        "wrong_second_factor",
        "That code of the second factor is not right. Each works once, for half a minute.",
    ),
    UNSET,
    Problem(
        403,
        "password_weak",
        "This password is too weak for an admin. Log in on the website, and choose a longer one.",
    ),
    Problem(403, "unconfirmed", "Confirm your e-mail address first: open the link that we have mailed you."),
    Problem(403, "disabled", "This account is closed."),
    Problem(429, "too_many_attempts", "Too many wrong passwords. Wait 15 minutes."),
    Problem(429, "too_many_codes", "Too many wrong codes. Wait 15 minutes."),
)
_REFRESH = (
    Problem(401, "refresh_unknown", "This refresh token is not one of ours, or is too old. Log in again."),
    Problem(401, "refresh_over", "This login has ended. Log in again."),
    Problem(401, "refresh_reused", "This refresh token was used before: the login has ended. Log in again."),
)


class Login(Body):
    """A member's address and password, as at the login page."""

    email: str = Field(max_length=254, examples=["buyer@example.org"])
    password: str = Field(max_length=2000, examples=["kassa-demo"])
    mailed_code: str | None = Field(
        default=None,
        max_length=40,
        description="Only after an answer `code_needed`: the digits that were mailed to the member.",
        examples=["12345678"],
    )
    second_factor: str | None = Field(
        default=None,
        max_length=40,
        description="Where the account has a second factor: the code of its app, or one of its sheet.",
        examples=["123456"],
    )


class RefreshToken(Body):
    """A refresh token."""

    refresh_token: str = Field(
        max_length=200, examples=["refresh_9qF3v0dSx1bYk5mWc7TzR2nLh8PjU4eA6gKiQoBwXyM"]
    )


class Tokens(Answer):
    """An access token to work with, and a refresh token to get the next pair with, once."""

    access_token: str = Field(
        description="For the header `Authorization: Bearer ...`, for ten minutes.", examples=["eyJhbGciOi..."]
    )
    token_type: Literal["Bearer"] = "Bearer"
    expires_in: int = Field(description="Seconds until the access token is over.", examples=[_SECONDS])
    refresh_token: str = Field(
        description="Use it once, at /auth/refresh. Used again later it ends the login.",
        examples=["refresh_9qF3v0dSx1bYk5mWc7TzR2nLh8PjU4eA6gKiQoBwXyM"],
    )
    login_expires_at: Moment = Field(
        description="When the password is asked for again, whatever is refreshed."
    )


class Revoked(Answer):
    """Said alike of a token that was unknown."""

    revoked: Literal[True] = True


@area.post("/auth/token", scope=PUBLIC, answers=Tokens, problems=_LOGIN)
def log_in(body: Login) -> Tokens:
    """Log in with an address and a password.

    Wrong passwords are counted together with those of the login page. After a hundred in an hour, from
    wherever, the right one is answered with 401 `code_needed`: ask the member for the code that we have
    mailed, and send all again with it. An account with a second factor is answered `second_factor_needed`
    until its code comes along as `second_factor`; each code works once. A new password, or a closed account,
    ends every token at once.
    """
    limits.count_login()
    try:
        user = accounts.authenticate(
            body.email,
            body.password,
            client_address=request.remote_addr or "",
            code=body.mailed_code,
            # A program has nothing between two requests but where it is.
            asked_in=f"program:{network(request.remote_addr or '')}",
        )
    except DomainError as error:
        raise _refused(error) from error
    if accounts.is_too_weak(user, body.password):
        raise _declared("password_weak")
    return _told(api_tokens.begin(user, request.user_agent.string, proved_at=_proved(user, body)))


@area.post("/auth/refresh", scope=PUBLIC, answers=Tokens, problems=_REFRESH)
def refresh(body: RefreshToken) -> Tokens:
    """Get the next pair of tokens.

    Each refresh token is used once. If an answer gets lost, send the same one again within ten seconds. A
    token that comes again later may have been stolen, so it ends the login.
    """
    limits.count_login()
    try:
        return _told(api_tokens.refresh(body.refresh_token))
    except BadToken as error:
        raise unauthorized(error.code, error.message) from error


@area.post("/auth/revoke", scope=PUBLIC, answers=Revoked)
def revoke(body: RefreshToken) -> Revoked:
    """Log out: end a login by one of its refresh tokens, with all of its access tokens."""
    limits.count_login()
    api_tokens.revoke(body.refresh_token)
    return Revoked()


def _proved(user: User, body: Login) -> datetime | None:
    """When the second factor was shown: now, where the account has one. ApiProblem where it is wanting."""
    if second_factors.counts_for(user):
        if body.second_factor is None:
            raise _declared("second_factor_needed")
        try:
            factors.prove(user, body.second_factor, client_address=request.remote_addr or "")
        except DomainError as error:
            if error.code == "wrong_code":
                raise _declared("wrong_second_factor") from error
            raise _refused(error) from error
        return clock.now()
    factors.begin_grace(user)
    if user.role is Role.ADMIN and factors.overdue(user):
        raise _declared("second_factor_unset")
    return None


def _declared(code: str) -> ApiProblem:
    """The refusal of this code, in the words of the document."""
    problem = next(problem for problem in _LOGIN if problem.code == code)
    return ApiProblem(problem.status, problem.code, problem.detail)


def _refused(error: DomainError) -> ApiProblem:
    status = _REFUSED.get(error.code, 400)
    more: dict[str, Any] = {"retry_after": _TOO_MANY} if status == 429 else {}
    return ApiProblem(status, error.code, error.message, **more)


def _told(pair: Pair) -> Tokens:
    return Tokens(
        access_token=pair.access,
        expires_in=_SECONDS,
        refresh_token=pair.refresh,
        login_expires_at=pair.expires_at,
    )
