"""API keys: made, listed and revoked in the account, and by a program."""

from __future__ import annotations

import re
from html import unescape

import pytest
from flask.testing import FlaskClient

from domain.security import api_keys, scopes
from domain.security.scopes import Scope
from models import Role
from tests.support import api
from tests.support.people import log_in, mails, make_member, post
from tests.support.shop import make_event, place

PAGE = "/account/api/"


def test_a_key_is_made_shown_once_and_revoked(client: FlaskClient) -> None:
    member = make_member(role=Role.DOOR)
    place(make_event(price_minor=0))
    log_in(client)
    made = post(
        client,
        f"{PAGE}keys",
        page=PAGE,
        name="Turnstile <3>",
        scope=["tickets:check-in", "wallet:read"],
        days="30",
    )
    found = re.search(r'class="api-key">([^<]+)<', made.text)
    assert found is not None
    assert made.headers["Cache-Control"] == "private, no-store"
    assert len(mails("api_key_made")) == 1
    listed = client.get(PAGE).text
    assert found[1] not in listed
    assert "Turnstile &lt;3&gt;" in listed
    assert "never used" in listed
    program = api.Api(client, found[1])
    assert program.post("/check-in", {"event": "concert", "code": "7KQ2M4XP"})["by"] == ""
    assert "last used" in client.get(PAGE).text
    [key] = api_keys.of(member)
    gone = post(client, f"{PAGE}keys/{key.public_id}/revoke", page=PAGE)
    assert gone.status_code == 303
    assert "revoked" in client.get(PAGE).text
    said = program.post("/check-in", {"event": "concert", "code": "x"}, status=401)
    assert said["code"] == "key_revoked"


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ({"name": "Server", "days": "30"}, "Choose at least one thing"),
        ({"name": " ", "scope": "wallet:read", "days": "30"}, "Give the key a name"),
        ({"name": "Server", "scope": "wallet:read", "days": "never"}, "1 to 366 days"),
        ({"name": "Server", "scope": "admin:payments", "days": "30"}, "Your account may not do all of that"),
        ({"name": "Server", "scope": "all", "days": "30"}, "There is no such permission"),
    ],
)
def test_what_a_form_is_refused_for(client: FlaskClient, typed: dict[str, str], words: str) -> None:
    member = make_member()
    log_in(client)
    answer = post(client, f"{PAGE}keys", page=PAGE, **typed)
    assert answer.status_code == 400
    assert words in answer.text
    assert api_keys.of(member) == []


def test_a_buyer_is_offered_what_a_buyer_may(client: FlaskClient) -> None:
    make_member()
    log_in(client)
    offered = set(re.findall(r'name="scope" id="[^"]+" value="([^"]+)"', client.get(PAGE).text))
    assert offered == scopes.of_role(Role.BUYER)
    assert not offered & {
        "tickets:check-in",
        "admin:payments",
        "admin:statistics",
    }
    assert "checked" not in client.get(PAGE).text


def test_anothers_key_is_not_there(client: FlaskClient) -> None:
    key, text = api_keys.make(make_member("other@example.org"), "Server", ["wallet:read"], 30)
    public_id = key.public_id
    make_member()
    log_in(client)
    assert post(client, f"{PAGE}keys/{public_id}/revoke", page=PAGE).status_code == 404
    assert api_keys.whose(text).public_id == public_id


def test_by_a_program(client: FlaskClient) -> None:
    member = make_member(role=Role.ADMIN)
    me = api.as_member(client, member)
    made = me.post(
        "/keys", {"name": "Server", "scopes": ["wallet:read", "admin:payments"], "days": 7}, status=201
    )
    assert made["key"].startswith(made["prefix"])
    assert made["scopes"] == ["admin:payments", "wallet:read"]
    [listed] = me.get("/keys")["items"]
    assert listed == {name: value for name, value in made.items() if name != "key"}
    revoked = me.post(f"/keys/{made['key_id']}/revoke")
    assert revoked["revoked_at"]
    assert me.post(f"/keys/{made['key_id']}/revoke")["revoked_at"] == revoked["revoked_at"]
    # A key makes no keys.
    key = api.as_key(client, member, *Scope)
    assert (
        key.post("/keys", {"name": "More", "scopes": ["wallet:read"]}, status=403)["code"] == "members_only"
    )
    other = api.as_member(client, make_member("other@example.org"))
    assert other.post(f"/keys/{made['key_id']}/revoke", status=404)["code"] == "no_key"


def test_the_mail_tells_of_it(client: FlaskClient) -> None:
    from domain.post import mail_kinds

    api_key = api.as_key(client, make_member(), Scope.WALLET_READ).credential
    [mail] = mails("api_key_made")
    letter = mail_kinds.compose(mail)
    assert api_key[:14] in letter.text
    assert api_key not in letter.text + letter.html
    assert "/account/api/" in unescape(letter.html)
