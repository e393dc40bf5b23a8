"""Who may see what: every address of the site, as another organiser, a buyer and nobody.

A new address has to be placed in one of these sets, or the walk fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule

from domain.door import staff
from domain.people import accounts, desks, organisers
from models import Event, Role
from tests.support.people import log_in, make_member
from tests.support.shop import make_event, place

# Everybody may ask; what is behind a secret in the address is its own key.
PUBLIC = {
    "static",
    "bootstrap.static",
    "records.static",
    *("shop.index", "shop.event", "shop.buy", "shop.event_calendar", "shop.picture", "shop.page"),
    *("shop.find", "shop.send_links", "shop.take_place", "shop.place", "shop.confirm_place"),
    *("tournaments.index", "tournaments.tournament"),
    *("health.livez", "health.healthz", "health.metrics"),
    *("account.register_form", "account.register_account", "account.mailed", "account.confirm_form"),
    *("account.confirm", "account.login", "account.log_in", "account.logout", "account.forgot"),
    *("account.mail_reset", "account.reset_form", "account.reset"),
    *("login_steps.code_form", "login_steps.code", "login_steps.second_factor"),
    *("setup.first", "setup.take_over", "debug.provider_debug"),
}
# The API asks who is there by itself: tests/blueprints/api/test_walk.py walks it.
PUBLIC_BLUEPRINTS = ("order", "payments", "pay_page", "api")
# Only for members, each with what is theirs.
MEMBERS = ("account", "api_access", "devices", "factors", "wallet", "connections", "athletes", "tournaments")
APPLYING = ("organiser.application", "organiser.apply")
# All that a desk sees, the house's or an organiser's; beside it what every member has of their own.
DESK = {"desk.index", "desk.order", "desk.note", "desk.resend", "desk.refund"}
ADMIN = ("admin", "setup", "records", "wallets")
FINE, SENT_TO_LOGIN, NOT_FOR_YOU, NOT_THERE = 200, 303, 403, 404


@pytest.fixture
def theirs(app: Flask) -> Event:
    """A published event of the first organiser, with an order."""
    owner = make_member("owner@example.org", Role.ORGANISER)
    organisers.edit(owner, {"name": "Owner", "contact_email": "owner@example.org"})
    event = make_event("theirs", price_minor=0, organiser_id=owner.id)
    staff.make_pass(event, "Main", owner)
    place(event)
    return event


@pytest.fixture
def visitors(app: Flask) -> dict[str, FlaskClient]:
    """Browsers of another organiser, a buyer and nobody."""
    # Until there is an admin, whoever has the first link may become one.
    make_member("boss@example.org", Role.ADMIN)
    make_member("other@example.org", Role.ORGANISER)
    make_member("buyer@example.org")
    found = {"other": app.test_client(), "buyer": app.test_client(), "nobody": app.test_client()}
    for name in ("other", "buyer"):
        log_in(found[name], f"{name}@example.org")
    return found


def addresses(app: Flask, event: Event) -> Iterator[tuple[Rule, str, str]]:
    """Every rule of the site with an address of it that there is, and a method."""
    code = place(event).code
    kind_id = event.ticket_types[0].id
    known = {"slug": event.slug, "code": code, "type_id": kind_id, "pass_id": 1}
    for rule in app.url_map.iter_rules():
        # Of a choice the first is walked, as `stripe` of `<any(stripe, sumup):name>`.
        path = re.sub(r"<any\((\w+)[^)]*\):\w+>", r"\1", rule.rule)
        path = re.sub(r"<(?:[^:<>]+:)?(\w+)>", lambda match: str(known.get(match[1], 1)), path)
        for method in sorted((rule.methods or set()) & {"GET", "POST"}):
            yield rule, path, method


def expected(endpoint: str, rule: str) -> tuple[int, int, int] | None:
    """What another organiser, a buyer and nobody are answered; None where everybody may ask."""
    blueprint = endpoint.split(".")[0]
    if endpoint in PUBLIC or blueprint in PUBLIC_BLUEPRINTS or "<token>" in rule and blueprint == "door":
        return None
    if endpoint in APPLYING or blueprint in MEMBERS:
        return FINE, FINE, SENT_TO_LOGIN
    if endpoint in DESK:
        return NOT_FOR_YOU, NOT_FOR_YOU, SENT_TO_LOGIN
    if blueprint == "listing":
        return NOT_THERE, NOT_THERE, SENT_TO_LOGIN
    if blueprint == "organiser":
        return (NOT_THERE if "<slug>" in rule else FINE), NOT_FOR_YOU, SENT_TO_LOGIN
    if blueprint == "door":
        return (NOT_THERE if "<slug>" in rule else FINE), NOT_FOR_YOU, SENT_TO_LOGIN
    if blueprint.startswith(ADMIN):
        return NOT_FOR_YOU, NOT_FOR_YOU, SENT_TO_LOGIN
    raise AssertionError(f"{endpoint} ({rule}) is new: say in this test who may see it.")


def ask(browser: FlaskClient, method: str, path: str) -> int:
    """The status of a request; a form comes with its token, so that only the permission decides."""
    if method == "GET":
        return browser.get(path).status_code
    token = re.search(r'name="csrf_token" value="([^"]+)"', browser.get("/tickets/find").text)
    assert token is not None
    return browser.post(path, data={"csrf_token": token[1]}).status_code


def test_every_address_as_another_organiser_a_buyer_and_nobody(
    app: Flask, theirs: Event, visitors: dict[str, FlaskClient]
) -> None:
    walked, wrong = 0, []
    for rule, path, method in list(addresses(app, theirs)):
        wanted = expected(rule.endpoint, rule.rule)
        if wanted is None:
            continue
        for (name, browser), status in zip(visitors.items(), wanted, strict=True):
            got = ask(browser, method, path)
            walked += 1
            # Whoever may be there is refused by the form's own words at most, or led on.
            fine = got in (200, 303, 302, 400, 404) if status == FINE else got == status
            if not fine and not (status == SENT_TO_LOGIN and got in (302, 401)):
                wrong.append(f"{method} {path} as {name}: {got}, not {status}")
    assert not wrong, "\n".join(wrong)
    assert walked > 200


def test_every_address_as_a_desk(app: Flask, theirs: Event, visitors: dict[str, FlaskClient]) -> None:
    """The house's, and one of another organiser: what is on the list, and what every member has; no more."""
    make_member("house@example.org", Role.DESK)
    make_member("helper@example.org")
    other = accounts.find("other@example.org")
    assert other is not None
    desks.give(other, "helper@example.org")
    browsers = {name: app.test_client() for name in ("house", "helper")}
    for name, browser in browsers.items():
        log_in(browser, f"{name}@example.org")
    seen, wrong = set(), []
    for rule, path, method in list(addresses(app, theirs)):
        blueprint = rule.endpoint.split(".")[0]
        # What every member has is walked above; and a helper is a buyer anywhere but at the desk.
        if (
            expected(rule.endpoint, rule.rule) is None
            or rule.endpoint in APPLYING
            or blueprint in (*MEMBERS, "static")
        ):
            continue
        for name in ("house", "helper") if blueprint == "desk" else ("house",):
            got = ask(browsers[name], method, path)
            # The order in the address is of an event that the helper's organiser has nothing to do with.
            there = rule.endpoint in DESK and (name == "house" or rule.endpoint == "desk.index")
            if got not in ((200, 303) if there else (NOT_FOR_YOU, NOT_THERE)):
                wrong.append(f"{method} {path} as {name}: {got}")
            seen |= {rule.endpoint} if there else set()
    assert not wrong, "\n".join(wrong)
    assert seen == DESK


def test_strangers_are_led_to_the_login(app: Flask, theirs: Event, visitors: dict[str, FlaskClient]) -> None:
    for rule, path, method in list(addresses(app, theirs)):
        if rule.endpoint.startswith("organiser.") and method == "GET":
            answer = visitors["nobody"].get(path)
            assert answer.location == f"/account/login?next={path}", path
            assert "organisers" in visitors["buyer"].get(path).text or rule.endpoint in APPLYING


def test_what_is_anothers_is_not_there_under_an_own_address_either(
    app: Flask, theirs: Event, visitors: dict[str, FlaskClient]
) -> None:
    """An order or a ticket type of another's event does not open under one's own event."""
    other = accounts.find("other@example.org")
    assert other is not None
    make_event("mine", organiser_id=other.id)
    order = place(theirs)
    browser = visitors["other"]
    assert browser.get("/organiser/events/mine").status_code == 200
    assert browser.get(f"/organiser/events/mine/orders/{order.code}").status_code == 404
    assert browser.get(f"/organiser/events/mine/types/{theirs.ticket_types[0].id}").status_code == 404
    for do in ("resend", "refund", "withdraw"):
        ask(browser, "POST", f"/organiser/events/mine/orders/{order.code}/{do}")
    assert order.timeline[-1].what == "fulfilled"
