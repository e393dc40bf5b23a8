"""Who may: every endpoint of the API with no token, a cookie, one that is over, and a key without its scope.

The endpoints are those that the application has, so that a new one is walked too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient

from blueprints.api import wire
from blueprints.api.endpoint import Endpoint, Everybody, Members
from blueprints.visitor import API
from domain import clock
from domain.people import accounts
from domain.security import api_keys, api_tokens
from domain.security.scopes import Scope
from extensions import db
from models import Role
from tests.support import api
from tests.support.people import log_in, make_member

# Routes below /api/v1 that are no endpoints: the document, its page, and what providers ring at.
_OTHERS = {"api.openapi", "api.docs"}
_RINGS = ("payments.",)


def walked(app: Flask) -> Iterator[tuple[str, str, Endpoint]]:
    """(method, path, endpoint) of all that asks who is there; ids are of nothing."""
    known = api.endpoints()
    for rule in app.url_map.iter_rules():
        if not rule.rule.startswith(API) or rule.endpoint in _OTHERS or rule.endpoint.startswith(_RINGS):
            continue
        endpoint = known[rule.endpoint]
        if not isinstance(endpoint.who, Everybody):
            path = re.sub(r"<\w+>", "nothing_0", endpoint.rule)
            yield endpoint.method, path, endpoint


def refusals(client: FlaskClient, app: Flask, headers: dict[str, str]) -> set[tuple[int, str]]:
    """(status, code) of every endpoint's answer to a request with these headers, POSTs with a body too."""
    found = set()
    for method, path, _ in walked(app):
        answer = client.open(API + path, method=method, headers=headers, json={} if method != "GET" else None)
        said = answer.get_json()
        assert set(said) >= {"detail", "status_code", "code"}, path
        assert said["status_code"] == answer.status_code
        assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
        found.add((answer.status_code, said["code"]))
    return found


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def test_there_is_something_to_walk(app: Flask) -> None:
    assert len(list(walked(app))) >= 4


def test_no_token(client: FlaskClient, app: Flask) -> None:
    for headers in (
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic YTpi"},
        {"X-Api-Key": "kassa_x"},
    ):
        assert refusals(client, app, headers) == {(401, "unauthorized")}, headers


def test_a_cookie_is_nobody(client: FlaskClient, app: Flask) -> None:
    """So no form of another site's can do anything, and no token against that is needed."""
    make_member(role=Role.ADMIN)
    log_in(client)
    assert client.get("/account/").status_code == 200
    assert refusals(client, app, {}) == {(401, "unauthorized")}


def test_tokens_that_open_nothing(client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    member = make_member(role=Role.ADMIN)
    old, revoked, by_epoch = (api_tokens.begin(member) for _ in range(3))
    api_tokens.revoke(revoked.refresh)
    assert refusals(client, app, bearer(revoked.access)) == {(401, "token_revoked")}
    assert refusals(client, app, bearer(old.refresh)) == {(401, "token_invalid")}
    assert refusals(client, app, bearer("kassa_abcdefgh_" + "x" * 43)) == {(401, "key_unknown")}
    head, claims, _ = old.access.split(".")
    assert refusals(client, app, bearer(f"{head}.{claims}.")) == {(401, "token_invalid")}
    make_member("boss@example.org", Role.ADMIN)
    accounts.disable(member.id)
    assert refusals(client, app, bearer(by_epoch.access)) == {(401, "token_revoked")}
    moment = clock.now() + timedelta(minutes=11)
    monkeypatch.setattr(clock, "now", lambda: moment)
    assert refusals(client, app, bearer(old.access)) == {(401, "token_expired")}


def test_keys_that_open_nothing(client: FlaskClient, app: Flask) -> None:
    member = make_member(role=Role.ADMIN)
    key, text = api_keys.make(member, "Server", [scope.value for scope in Scope], 30)
    api_keys.revoke(member, key.public_id)
    assert refusals(client, app, bearer(text)) == {(401, "key_revoked")}


def test_a_key_without_the_scope(client: FlaskClient, app: Flask) -> None:
    """With every other one."""
    member = make_member(role=Role.ADMIN)
    keys = {wanted: api.as_key(client, member, *(set(Scope) - {wanted})) for wanted in Scope}
    for method, path, endpoint in walked(app):
        if isinstance(endpoint.who, Members):
            said = next(iter(keys.values())).send(method, path, None if method == "GET" else {}, status=403)
            assert said["code"] == "members_only", path
        elif isinstance(endpoint.who, Scope):
            said = keys[endpoint.who].send(method, path, None if method == "GET" else {}, status=403)
            assert said["code"] == "scope_missing", path


def test_a_key_may_no_more_than_its_owner_now(client: FlaskClient, app: Flask) -> None:
    """An admin's key after they became a buyer, and a buyer's token."""
    member = make_member(role=Role.ADMIN)
    make_member("boss@example.org", Role.ADMIN)
    key = api.as_key(client, member, *Scope)
    desk = api.as_member(client, make_member("desk@example.org", Role.DESK))
    # A change of roles ends such a key; what was given before that was so asks the role at each use.
    member.role = Role.BUYER
    db.session.commit()
    token = api.as_member(client, accounts.by_confirmed_email(member.email) or member)
    others = (Scope.ADMIN_PAYMENTS, Scope.ADMIN_REFUNDS, Scope.ADMIN_STATISTICS, Scope.TICKETS_CHECK_IN)
    for method, path, endpoint in walked(app):
        scope = endpoint.who
        if scope in others:
            for program in (key, token, desk):
                said = program.send(method, path, None if method == "GET" else {}, status=403)
                assert said["code"] == "forbidden", path


def test_what_is_anothers_is_not_there(client: FlaskClient, app: Flask) -> None:
    """Whatever id stands in the path: one of nobody's is answered as one of another's."""
    member = api.as_member(client, make_member(role=Role.ADMIN))
    for method, path, endpoint in walked(app):
        if "<" in endpoint.rule:
            answer = member.client.open(
                API + path,
                method=method,
                headers=bearer(member.credential),
                json={} if method != "GET" else None,
            )
            # A body is looked at first where there is one.
            assert answer.status_code == (400 if endpoint.body is not None else 404), path
            assert wire.read(answer.data)["code"] not in ("not_found", "server_error"), path
