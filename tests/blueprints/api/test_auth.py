"""Logging a program in over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient

import config
from domain.errors import DomainError
from domain.people import accounts
from domain.security import api_tokens, rate_limits
from models import Role
from tests.support import api
from tests.support.factors import Time, set_up
from tests.support.people import PASSWORD, log_in, mails, make_member, post

ANN = {"email": "ann@example.org", "password": PASSWORD}


@pytest.fixture
def limits() -> Iterator[None]:
    """Wrong passwords are counted, as in production."""
    before = config.get()
    config.use(replace(before, limits=True))
    yield
    config.use(before)


def test_a_login_and_its_tokens(client: FlaskClient) -> None:
    make_member()
    nobody = api.as_nobody(client)
    pair = nobody.post("/auth/token", ANN)
    assert (pair["token_type"], pair["expires_in"]) == ("Bearer", 600)
    assert nobody.last.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in nobody.last.headers
    me = api.Api(client, pair["access_token"])
    assert me.get("/keys") == {"items": []}
    following = nobody.post("/auth/refresh", {"refresh_token": pair["refresh_token"]})
    assert api.Api(client, following["access_token"]).get("/keys") == {"items": []}
    assert nobody.post("/auth/revoke", {"refresh_token": following["refresh_token"]}) == {"revoked": True}
    assert me.get("/keys", status=401)["code"] == "token_revoked"
    refused = nobody.post("/auth/refresh", {"refresh_token": following["refresh_token"]}, status=401)
    assert refused["code"] == "refresh_over"
    assert nobody.post("/auth/revoke", {"refresh_token": "refresh_unknown"}) == {"revoked": True}


def test_a_password_that_is_not_right_tells_nothing(client: FlaskClient) -> None:
    make_member()
    nobody = api.as_nobody(client)
    known = nobody.post("/auth/token", {**ANN, "password": "wrong"}, status=401)
    assert nobody.last.headers["WWW-Authenticate"]
    unknown = nobody.post("/auth/token", {**ANN, "email": "nobody@example.org"}, status=401)
    assert known == unknown
    assert known["code"] == "wrong_login"


def test_a_password_that_was_guessed_at_too_often_needs_the_mailed_code(
    client: FlaskClient, limits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits.LOGIN_EVERYWHERE, "amount", 2)
    make_member()
    nobody = api.as_nobody(client)
    for _ in range(2):
        with pytest.raises(DomainError):
            accounts.authenticate("ann@example.org", "a guess", client_address="198.51.100.7")
    assert nobody.post("/auth/token", ANN, status=401)["code"] == "code_needed"
    assert nobody.post("/auth/token", {**ANN, "mailed_code": "1"}, status=401)["code"] == "wrong_code"
    code = str(mails("login_code")[-1].context["code"])
    pair = nobody.post("/auth/token", {**ANN, "mailed_code": code})
    assert api.Api(client, pair["access_token"]).get("/keys") == {"items": []}


def test_a_second_factor_is_asked_for_here_too(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time(monkeypatch)
    ann = make_member(role=Role.ADMIN)
    factor = set_up(ann)
    nobody = api.as_nobody(client)
    assert nobody.post("/auth/token", ANN, status=401)["code"] == "second_factor_needed"
    used = {**ANN, "second_factor": factor.code}
    assert nobody.post("/auth/token", used, status=401)["code"] == "wrong_second_factor"
    # Whoever does not know the password learns nothing of it.
    time.move(seconds=30)
    guess = {**ANN, "password": "a guess", "second_factor": factor.code}
    assert nobody.post("/auth/token", guess, status=401)["code"] == "wrong_login"
    pair = nobody.post("/auth/token", {**ANN, "second_factor": factor.code})
    assert api.Api(client, pair["access_token"]).get("/keys") == {"items": []}
    again = {**ANN, "second_factor": factor.code}
    assert nobody.post("/auth/token", again, status=401)["code"] == "wrong_second_factor"
    # An admin whose grace is over sets it up on the website first.
    config.use(replace(config.get(), development=False))
    make_member("late@example.org", Role.ADMIN)
    login = {**ANN, "email": "late@example.org"}
    assert nobody.post("/auth/token", login)["token_type"] == "Bearer"
    time.move(days=15)
    assert nobody.post("/auth/token", login, status=403)["code"] == "second_factor_unset"


def test_wrong_passwords_are_counted_with_the_login_pages(client: FlaskClient, limits: None) -> None:
    make_member()
    nobody = api.as_nobody(client)
    for number in range(10):
        if number % 2:
            assert log_in(client, password="wrong").status_code == 400
        else:
            nobody.post("/auth/token", {**ANN, "password": "wrong"}, status=401)
    said = nobody.post("/auth/token", ANN, status=429)
    assert said["code"] == "too_many_attempts"
    assert nobody.last.headers["Retry-After"] == "900"
    assert log_in(client).status_code == 429


def test_closed_and_unconfirmed_accounts(client: FlaskClient) -> None:
    make_member("new@example.org", confirmed=False)
    closed = make_member("closed@example.org", Role.BUYER)
    accounts.disable(closed.id)
    nobody = api.as_nobody(client)
    said = nobody.post("/auth/token", {**ANN, "email": "new@example.org"}, status=403)
    assert said["code"] == "unconfirmed"
    assert len(mails("confirm_address")) == 1
    assert (
        nobody.post("/auth/token", {**ANN, "email": "closed@example.org"}, status=403)["code"] == "disabled"
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "email is missing. password is missing."),
        ({"email": 1, "password": "x"}, "email must be a text."),
        ({**ANN, "code": "x"}, "code is no field here."),
        ({**ANN, "email": "x" * 255}, "email must have at most 254 characters."),
        ([], "The body must be an object."),
        ("null", "The body must be an object."),
    ],
)
def test_what_is_wrong_in_a_body(client: FlaskClient, body: object, words: str) -> None:
    said = api.as_nobody(client).post("/auth/token", body, status=400)
    assert said == {"detail": words, "status_code": 400, "code": "invalid"}


def test_the_account_page_shows_programs_and_ends_them(client: FlaskClient, app: Flask) -> None:
    member = make_member()
    pair = api_tokens.begin(member, "curl/8.5")
    log_in(client)
    page = client.get("/account/api/").text
    assert "curl/8.5" in page
    answer = post(client, "/account/api/programs/end", page="/account/api/")
    assert answer.status_code == 303
    assert "curl/8.5" not in client.get("/account/api/").text
    assert api.Api(client, pair.access).get("/keys", status=401)["code"] == "token_revoked"
