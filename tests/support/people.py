"""People in tests: their accounts, their forms with the CSRF token, and the links in their mail."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from domain import clock
from domain.errors import DomainError
from domain.people import accounts
from domain.post import mail_requests
from extensions import db
from models import OutboxMail, Role, User

PASSWORD = "three green bottles"


def make_member(
    email: str = "ann@example.org",
    role: Role = Role.BUYER,
    *,
    password: str = PASSWORD,
    confirmed: bool = True,
) -> User:
    """An account with a password."""
    return accounts.create(email, password, role, "Ann Example", confirmed=confirmed)


def registered(email: str = "ann@example.org") -> User:
    """Somebody who has registered, and whose address is not confirmed yet."""
    accounts.register(email, PASSWORD, "Ann Example")
    found = accounts.find(email)
    assert found is not None
    return found


def refusal(code: str) -> pytest.RaisesExc[DomainError]:
    """A DomainError of this code, and no other, is raised inside."""
    return pytest.raises(DomainError, check=lambda error: error.code == code)


def later(monkeypatch: pytest.MonkeyPatch, **how_much: float) -> None:
    """The clock stands still, at so much later than now."""
    moment = clock.now() + timedelta(**how_much)
    monkeypatch.setattr(clock, "now", lambda: moment)


def post(client: FlaskClient, path: str, *, page: str = "", **fields: Any) -> TestResponse:
    """Send the form that the page at `page` (else at `path`) shows, as a browser does: with its token.

    The prices that the form carries are sent along.
    """
    html = client.get(page or path).text
    token = re.search(r'name="csrf_token" value="([^"]+)"', html)
    assert token is not None, f"There is no form at {page or path}."
    prices = dict(re.findall(r'<input type="hidden" name="(price[^"]*)" value="([^"]*)"', html))
    return client.post(path, data={**prices, **fields, "csrf_token": token[1]})


def log_in(client: FlaskClient, email: str = "ann@example.org", password: str = PASSWORD) -> TestResponse:
    """Log in by the form."""
    return post(client, "/account/login", page="/account/forgot", email=email, password=password)


def mails(kind: str) -> list[OutboxMail]:
    """What is owed or sent of one kind, in order; what was asked for by an address is looked at first."""
    mail_requests.answer_due()
    query = select(OutboxMail).where(OutboxMail.kind == kind).order_by(OutboxMail.id)
    return list(db.session.scalars(query.execution_options(populate_existing=True)))


def mailed_link(kind: str) -> str:
    """The path of the link in the newest mail of a kind."""
    return str(mails(kind)[-1].context["link"]).removeprefix("http://localhost")


def token_in(kind: str) -> str:
    """The token at the end of that link."""
    return mailed_link(kind).rsplit("/", 1)[1]
