"""Sessions after their beginning: proven again, signed, left open, ended by an admin."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from itsdangerous import Signer, URLSafeTimedSerializer
from werkzeug.test import TestResponse

from domain import clock
from domain.security import api_tokens, devices, logins, passwords
from extensions import db
from models import AuditEntry, Role
from tests.support.factors import PROVE
from tests.support.people import PASSWORD, log_in, make_member, post

PAGE = "/account/devices/"
COOKIES = ("session", "remember_token")


def remembered(app: Flask, email: str = "ann@example.org") -> FlaskClient:
    client = app.test_client()
    form = {"email": email, "password": PASSWORD, "remember": "yes"}
    assert post(client, "/account/login", **form).status_code == 303
    return client


def copied(client: FlaskClient) -> dict[str, str]:
    """What somebody takes who has this browser in their hands for a moment."""
    found = {name: client.get_cookie(name) for name in COOKIES}
    return {name: cookie.value for name, cookie in found.items() if cookie is not None}


def opens(app: Flask, cookies: dict[str, str]) -> set[str]:
    """Which of these cookies opens the account by itself."""
    found = set()
    for name, value in cookies.items():
        thief = app.test_client()
        thief.set_cookie(name, value)
        found |= {name} if thief.get("/account/").status_code == 200 else set()
    return found


def carried(page: TestResponse) -> dict[str, str]:
    """What a page sends on, but for its token."""
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
    return {name: value for name, value in fields.items() if name != "csrf_token"}


def test_a_browser_that_was_left_open_ends_no_other_login(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a second factor the password is asked again, and copies of the cookies end with that."""
    user = make_member()
    there = app.test_client()
    log_in(there)
    other = logins.of(user)[0].id
    client = remembered(app)
    api_tokens.begin(user, "till/2.0")
    real = clock.now
    monkeypatch.setattr(clock, "now", lambda: real() + timedelta(minutes=6))
    program, device = api_tokens.of(user)[0].public_id, devices.of(user)[0].id
    paths = [f"{PAGE}programs/{program}/end", f"{PAGE}known/{device}/forget", "/account/api/programs/end"]
    for path in (*paths, f"{PAGE}others/end"):
        assert "Type it again" in post(client, path, page=PAGE).text, path
    asked = post(client, f"{PAGE}{other}/end", page=PAGE)
    assert (len(logins.of(user)), len(api_tokens.of(user)), len(devices.of(user))) == (2, 1, 2)
    wrong = post(client, PROVE, page=PAGE, **carried(asked), second_factor_password="guess")
    assert wrong.status_code == 400 and "not right" in wrong.text
    before = copied(client)
    assert opens(app, before) == set(COOKIES)
    done = post(client, PROVE, page=PAGE, **carried(wrong), second_factor_password=PASSWORD)
    assert (done.status_code, done.location) == (307, f"{PAGE}{other}/end")
    assert opens(app, before) == set(), "what was copied before opens nothing any more"
    assert opens(app, copied(client)) == set(COOKIES)
    assert client.get("/account/").status_code == 200
    # For five minutes, and for whoever has just logged in.
    assert post(client, f"{PAGE}{other}/end", page=PAGE).status_code == 303
    assert there.get("/account/").status_code == 303
    log_in(there)
    assert post(there, f"{PAGE}others/end", page=PAGE).status_code == 303
    assert (client.get("/account/").status_code, len(logins.of(user))) == (303, 1)


def test_an_admin_ends_every_login_of_somebody(app: Flask) -> None:
    ann = make_member()
    make_member("boss@example.org", Role.ADMIN)
    client, boss = remembered(app), app.test_client()
    program = api_tokens.begin(ann, "till/2.0")
    cookies = copied(client)
    log_in(boss, "boss@example.org")
    edit = f"/admin/records/users/edit/?id={ann.id}"
    assert "Log out everywhere" in boss.get(edit).text
    post(boss, edit, role="buyer")
    assert opens(app, cookies) == set(COOKIES)
    post(boss, edit, role="buyer", out="y")
    assert opens(app, cookies) == set()
    with pytest.raises(api_tokens.BadToken):
        api_tokens.refresh(program.refresh)
    assert db.session.query(AuditEntry).filter_by(subject="every login", about_id=ann.id).count() == 1
    # Nothing else changed.
    assert log_in(client).location == "/account/"


def test_password_fields_are_masked_and_take_what_a_manager_pastes(app: Flask) -> None:
    make_member()
    client, fields = app.test_client(), []
    pages = [client.get(f"/account/{page}").text for page in ("login", "register")]
    log_in(client)
    pages += [client.get(f"/account/{page}").text for page in ("password", "data")]
    for page in pages:
        fields += re.findall(r'<input[^>]*name="[a-z_]*password"[^>]*>', page)
        assert "paste" not in page
    assert len(fields) == 6
    for field in fields:
        assert 'type="password"' in field and "value=" not in field
        # What is too long is refused in words, and not cut on its way.
        assert int(re.findall(r'maxlength="(\d+)"', field)[0]) > passwords.MAX_LENGTH
        assert re.findall(r'autocomplete="([^"]+)"', field)[0] in ("current-password", "new-password")


def signer(app: Flask, digest: Any) -> URLSafeTimedSerializer:
    """Flask's own, with another hash."""
    how = SecureCookieSessionInterface()
    return URLSafeTimedSerializer(
        str(app.secret_key),
        salt=how.salt,
        serializer=how.serializer,
        signer_kwargs={"key_derivation": how.key_derivation, "digest_method": digest},
    )


def test_cookies_are_signed_with_sha_256_and_those_of_before_are_read(app: Flask) -> None:
    make_member()
    client = app.test_client()
    log_in(client)
    client.get(PAGE)
    said = signer(app, hashlib.sha256).loads(copied(client)["session"])
    # Of the version before: a session, and the token of a form that is still open in some browser.
    by_sha1 = {"digest_method": hashlib.sha1}
    forms = URLSafeTimedSerializer(str(app.secret_key), salt="wtf-csrf-token", signer_kwargs=by_sha1)
    old = app.test_client()
    old.set_cookie("session", str(signer(app, hashlib.sha1).dumps(said)))
    assert old.get("/account/").status_code == 200
    token = forms.dumps(said["csrf_token"])
    assert old.post("/account/logout", data={"csrf_token": token}).location == "/"
    assert Signer("x").sign("a") == Signer("x", digest_method=hashlib.sha256).sign("a")
