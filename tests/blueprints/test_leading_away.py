"""No address of ours leads to a place that its visitor's link has chosen."""

from __future__ import annotations

import re

from flask import Flask
from werkzeug.routing import Rule

from models import Role
from tests.support.people import PASSWORD, log_in, make_member, post

AWAY = (
    *("//evil.example", "/\\evil.example", "\\\\evil.example", "////evil.example", "/\t/evil.example"),
    *("/\n/evil.example", " //evil.example", "\x01//evil.example", "https:evil.example", "http:evil.example"),
    *(
        "https:///evil.example",
        "https://evil.example",
        "http://localhost@evil.example",
        "javascript:alert(1)",
    ),
    *("http://localhost.evil.example", "evil.example", "data:text/html,x", "///\\evil.example"),
)
# Where an address says where to go on: for pages, forms, and the records' own lists.
NAMED = ("next", "url", "second_factor_onward", "return_url", "back", "onward", "redirect")
# Pages that judge such an address, each in its own way.
JUDGES = {"/account/login", "/account/second-factor/prove", "/admin/records/users/export/csv/"}
_HOME = re.compile(r"/(?![/\\])[^\\\x00-\x20]*")


def test_no_page_leads_away(app: Flask) -> None:
    """The account's and the records' pages, asked by an admin with each such name."""
    make_member("boss@example.org", Role.ADMIN)
    browser = app.test_client()
    log_in(browser, "boss@example.org")
    rules = (str(rule).replace("<export_type>", "csv") for rule in app.url_map.iter_rules() if _is_page(rule))
    pages = [path for path in rules if path.startswith(("/account/", "/admin/records/")) and "<" not in path]
    led = {}
    for number, path in enumerate(sorted(pages)):
        for target in AWAY if path in JUDGES else (AWAY[number % len(AWAY)],):
            answer = browser.get(path, query_string={**dict.fromkeys(NAMED, target), "id": "99999"})
            if answer.location is not None and not _HOME.fullmatch(answer.location):
                led[f"{path} {target!r}"] = answer.location
    assert led == {}
    assert set(pages) >= JUDGES and len(pages) > 40


def _is_page(rule: Rule) -> bool:
    return "GET" in (rule.methods or ())


def test_no_form_leads_away(app: Flask) -> None:
    make_member()
    browser = app.test_client()
    for target in AWAY[::5]:
        fields = {"email": "ann@example.org", "password": PASSWORD, "next": target}
        assert post(browser, "/account/login", page="/account/forgot", **fields).location == "/account/"
        sent = {"second_factor_password": PASSWORD, "second_factor_onward": target, "next": target}
        led = post(browser, "/account/second-factor/prove", page="/account/devices/", **sent)
        assert led.location == "/account/", repr(target)
