"""Whatever is another's: every address with an id in it, with the ids of somebody who has one of everything.

The addresses are those that the application has, pages and API, so that a new one is walked too; a new kind
of id has to be given one of the owner's here, or the walk fails.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, text
from werkzeug.routing import Rule

from blueprints.api.endpoint import Endpoint
from blueprints.visitor import API
from domain import clock
from domain.door import staff
from domain.people import desks, organisers
from domain.security import api_keys, api_tokens, devices, logins
from extensions import Base, db
from models import ApiSession, FactorKind, Login, Order, Payment, Role, SecondFactor, User
from tests.support import api
from tests.support.people import log_in, make_member
from tests.support.shop import make_event, place
from tests.support.tournaments import enter, make_athlete, make_tournament

# Whoever knows these may have what is behind them, by their nature.
SHARED = {
    # Files and pictures for everybody, and what is sold.
    *("static", "bootstrap.static", "shop.picture", "shop.page", "wallet.agent", "wallet.use_agent"),
    *("shop.event", "shop.buy", "shop.event_calendar", "shop.take_place"),
    *("tournaments.tournament", "tournaments.form", "tournaments.enter"),
    *("api.get_tournament", "api.list_categories"),
    # The code that pays: its name is the secret. A ring says nothing that is believed.
    *("order.qr_of", "payments.webhook", "api.ring"),
    # A provider's name is no id; what is connected is the visitor's own.
    *("connections.begin", "connections.leave", "connections.done", "connections.end"),
}
# For admins, whatever their ids: walked in tests/blueprints/organiser/test_walk.py.
STAFFS = ("admin", "setup", "records", "wallets")
# They lead back with words whatever they were asked; that nothing was done, the database says.
LEAD_BACK = {"athletes.consent", "athletes.withdraw", "devices.forget", "organiser.desk_end"}
# What the intruder's own visit writes.
OWN = {"logins", "devices", "api_sessions", "api_keys", "heartbeats", "audit_log"}


@pytest.fixture
def theirs(app: Flask) -> dict[str, str]:
    """The ids of all that one organiser, who also enters athletes, has; by their names in addresses."""
    ann = make_member("ann@example.org", Role.ORGANISER)
    organisers.edit(ann, {"name": "Ann", "contact_email": "ann@example.org"})
    event = make_event("anns", price_minor=0, organiser_id=ann.id)
    tournament = make_tournament("anns-open", organiser_id=ann.id)
    door_pass, _ = staff.make_pass(event, "Main", ann)
    order = place(event, user=ann)
    athlete = make_athlete(ann)
    participant = enter(tournament.ticket_types[0], athlete)
    payment = db.session.scalars(select(Payment)).first()
    key, _ = api_keys.make(ann, "Till", ["wallet:read"], 30)
    api_tokens.begin(ann, "till/2.0")
    device = devices.dated(devices.LIVES)
    logins.begin(ann, logins.Browser("Firefox", "192.0.2.1", device))
    passkey = SecondFactor(user_id=ann.id, kind=FactorKind.PASSKEY, credential_id="x", created_at=clock.now())
    db.session.add(passkey)
    grant = desks.give(ann, "helper@example.org")
    db.session.commit()
    login = db.session.scalars(select(Login)).one()
    kind = tournament.ticket_types[0]
    assert payment is not None and login.device_id is not None and kind.category is not None
    return {
        "slug": event.slug,
        "tournament": tournament.slug,
        "code": order.code,
        "type_id": str(event.ticket_types[0].id),
        "category": str(kind.id),
        "category_id": kind.category.public_id,
        "pass_id": str(door_pass.id),
        "grant_id": str(grant.id),
        "login_id": str(login.id),
        "device_id": str(login.device_id),
        "program_id": db.session.scalars(select(ApiSession)).one().public_id,
        "passkey_id": str(passkey.id),
        "key_id": key.public_id,
        "athlete_id": athlete.public_id,
        "participant_id": participant.public_id,
        "payment_id": payment.public_id,
        "reference": payment.reference,
        "user_id": str(ann.id),
        "organiser_id": str(ann.id),
        "event_id": str(event.id),
    }


@pytest.fixture
def other(app: Flask, theirs: dict[str, str]) -> User:
    """Somebody else who may all that the owner may, for what is theirs."""
    make_member("boss@example.org", Role.ADMIN)
    bob = make_member("bob@example.org", Role.ORGANISER)
    organisers.edit(bob, {"name": "Bob", "contact_email": "bob@example.org"})
    place(make_event("bobs", price_minor=0, organiser_id=bob.id), user=bob)
    return bob


def walked(app: Flask, ids: dict[str, str], secret: str) -> Iterator[tuple[str, str, Rule]]:
    """(method, path, rule) of every address with an id in it. Secrets in addresses are another one's."""
    for rule in app.url_map.iter_rules():
        if not rule.arguments or rule.endpoint in SHARED or rule.endpoint.startswith(STAFFS):
            continue
        known = {**ids, "provider": "stripe", "secret": secret, "token": secret}
        if re.search("/(tournament|categories|entries|start-list)", rule.rule):
            known |= {"slug": ids["tournament"], "type_id": ids["category"]}
        if rule.endpoint.startswith("athletes."):
            known["public_id"] = ids["participant_id" if "entries" in rule.rule else "athlete_id"]
        path = rule.rule
        for name in rule.arguments:
            path = re.sub(rf"<(?:[^<>]+:)?{name}>", known[name], path)
        for method in sorted((rule.methods or set()) & {"GET", "POST", "PUT", "PATCH", "DELETE"}):
            yield method, path, rule


def body_of(endpoint: Endpoint, ids: dict[str, str]) -> Any:
    """A body as the document shows one, with the owner's ids in the places of ids."""
    if endpoint.body is None:
        return None
    extra = endpoint.body.model_config.get("json_schema_extra")
    made = dict(extra["examples"][0]) if isinstance(extra, dict) else {}  # type: ignore[index, arg-type]
    return made | {name: ids[name] for name in made if name in ids}


def kept() -> dict[str, list[str]]:
    """Every row of every table that the intruder's own visit does not write."""
    db.session.rollback()
    return {
        table.name: sorted(
            json.dumps(row, sort_keys=True)
            for row in db.session.scalars(text(f'SELECT to_jsonb(t) FROM "{table.name}" t'))
        )
        for table in Base.metadata.sorted_tables
        if table.name not in OWN
    }


def test_what_is_anothers_is_refused_at_every_address(
    app: Flask, theirs: dict[str, str], other: User
) -> None:
    """As another organiser, in a browser, with every id and no secret; nothing of the owner's changes."""
    browser = app.test_client()
    log_in(browser, other.email)
    token = re.search(r'name="csrf_token" value="([^"]+)"', browser.get("/tickets/find").text)
    assert token is not None
    own = db.session.scalars(select(Order).where(Order.user_id == other.id)).one()
    before, found = kept(), {}
    for method, path, rule in list(walked(app, theirs, own.secret)):
        if path.startswith(API):
            continue
        form = {"csrf_token": token[1]} if method == "POST" else None
        answer = browser.open(path, method=method, data=form)
        if not (rule.endpoint in LEAD_BACK and answer.status_code == 303):
            found[f"{method} {path}"] = answer.status_code
    assert {asked: status for asked, status in found.items() if status not in (403, 404)} == {}
    assert kept() == before
    assert len(found) > 80


def test_what_is_anothers_is_refused_over_the_api(
    client: FlaskClient, app: Flask, theirs: dict[str, str], other: User
) -> None:
    """The same for a program, with the owner's ids in the path and in the body."""
    program, known = api.as_member(client, other), api.endpoints()
    theirs["event"] = theirs["slug"]
    inside = ("api.enter", "api.initiate", "api.check_in")
    before, found = kept(), {}
    asked = [
        *walked(app, theirs, "nothing"),
        *((known[name].method, known[name].path, None) for name in inside),
    ]
    for method, path, _ in asked:
        if not path.startswith(API):
            continue
        endpoint = known[str(app.url_map.bind("localhost").match(path, method)[0])]
        answer = client.open(
            path,
            method=method,
            json=body_of(endpoint, theirs),
            headers={"Authorization": f"Bearer {program.credential}"},
        )
        found[f"{method} {path}"] = (answer.status_code, (answer.get_json() or {}).get("code"))
    assert {one: said for one, said in found.items() if said[0] not in (403, 404)} == {}
    assert kept() == before
    assert {"no_athlete", "no_participant", "no_payment", "no_key"} <= {code for _, code in found.values()}
    assert len(found) > 12


def test_the_ids_of_the_walk_are_its_owner_s(app: Flask, theirs: dict[str, str], other: User) -> None:
    """Or the walk would only show that what is not there is not there."""
    owner = app.test_client()
    log_in(owner)
    shown = {
        path: owner.get(path).status_code
        for method, path, rule in walked(app, theirs, "nothing")
        if method == "GET"
        and rule.endpoint.split(".")[0] in ("organiser", "athletes", "door", "listing")
        and "<token>" not in rule.rule
    }
    assert {path: status for path, status in shown.items() if status not in (200, 302, 303)} == {}
    assert len(shown) > 15
