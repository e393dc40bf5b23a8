"""One normal form of an address: what it is, and wherever one is typed, kept, compared or counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

import config
from domain import addresses, clock
from domain.errors import DomainError
from domain.ledger import agents
from domain.orders import managing
from domain.people import accounts
from domain.post import mail_requests, transport
from domain.security import passwords
from extensions import db
from models import Order, OutboxMail, Role, User
from tests.support.people import PASSWORD, log_in, make_member
from tests.support.shop import make_event, place

STRASSE = "info@xn--strae-oqa.de"
SPELLINGS = ["info@straße.de", "INFO@Straße.DE", " info@xn--strae-oqa.de ", "info@XN--STRAE-OQA.de"]
MUENCHEN = "info@xn--mnchen-3ya.de"


@pytest.mark.parametrize(
    ("typed", "kept", "shown"),
    [
        *((typed, STRASSE, "info@straße.de") for typed in SPELLINGS),
        ("Ada@Example.ORG", "ada@example.org", "ada@example.org"),
        ("info@münchen.de", MUENCHEN, "info@münchen.de"),
        ("info@mu\u0308nchen.de", MUENCHEN, "info@münchen.de"),
        ("ada@\uff45xample\uff0eorg", "ada@example.org", "ada@example.org"),
        ("ada@example\u3002org", "ada@example.org", "ada@example.org"),
        (
            "a@\u03b2\u03cc\u03bb\u03bf\u03c2.com",
            "a@xn--nxasmm1c.com",
            "a@\u03b2\u03cc\u03bb\u03bf\u03c2.com",
        ),
        ("o'brien+tickets@example.org", "o'brien+tickets@example.org", "o'brien+tickets@example.org"),
    ],
)
def test_there_is_one_form_of_an_address(typed: str, kept: str, shown: str) -> None:
    assert addresses.normal(typed) == kept
    assert addresses.normal(kept) == kept
    assert addresses.shown(kept) == shown
    assert kept in addresses.spellings(typed) and addresses.key(typed) == kept


@pytest.mark.parametrize(
    "typed",
    [
        *(blank * 600 + "ada@example.org" for blank in " \t\u00a0\u3000\u2028"),
        "ada@exam" + "\u00ad" * 600 + "ple.org",
        "ada@" + "o\u0302\u0300" * 230 + ".org",
    ],
)
def test_whatever_is_taken_for_an_address_is_counted_as_that_one(typed: str) -> None:
    try:
        taken = addresses.normal(typed)
    except DomainError:
        return
    assert addresses.key(typed) == taken


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "ada",
        "ada@localhost",
        "\uff41da@example.org",
        "jürgen@example.org",
        "ada\uff20example.org",
        "i@\u2764.la",
        "a@xn--a.org",
        "a@ex\u200bample.org",
        "a@example.org\x00",
        "a@" + "ü" * 60 + ".de",
        "ada@" + ".".join(["ü" * 30] * 6) + ".de",
        '"a b"@example.org',
        # A mail program would read it as an encoded word, so the standard library refuses it in a header.
        "=?utf-8?q?a?=@example.org",
        "a@example.org, b@example.org",
        "x" * 300 + "@example.org",
    ],
)
def test_what_no_letter_can_be_sent_to_is_refused_when_it_is_typed(typed: str) -> None:
    with pytest.raises(DomainError, match="does not look right"):
        addresses.normal(typed)


def test_whatever_is_taken_can_be_put_into_a_letter(app: Flask) -> None:
    """Every sign there is, before the @ and after it: what `normal` takes, `compose` takes."""
    taken = 0
    for sign in map(chr, range(1, 0x600)):
        for typed in (f"a{sign}b@example.org", f"ab@a{sign}b.org", f"{sign}@example.org"):
            try:
                address = addresses.normal(typed)
            except DomainError:
                continue
            taken += 1
            assert addresses.mailbox(address).addr_spec == address
    assert taken > 500


@pytest.mark.parametrize("typed", SPELLINGS)
def test_an_account_is_found_however_its_address_is_spelled(app: Flask, typed: str) -> None:
    user = accounts.create(SPELLINGS[0], PASSWORD)
    assert user.email == STRASSE
    assert accounts.find(typed) is user
    with pytest.raises(DomainError) as refused:
        accounts.create(typed, PASSWORD)
    assert refused.value.code == "address_taken"
    browser = app.test_client()
    log_in(browser, typed)
    assert "info@straße.de" in browser.get("/account/").text


def test_an_account_from_before_the_normal_form_keeps_working(app: Flask) -> None:
    user = accounts.create("old@example.org", PASSWORD)
    user.email = "info@münchen.de"
    db.session.commit()
    assert accounts.find(MUENCHEN) is accounts.find("info@münchen.de") is user
    with pytest.raises(DomainError):
        accounts.create(MUENCHEN, PASSWORD)


def test_of_two_accounts_of_one_address_the_one_that_is_typed_logs_in(app: Flask) -> None:
    old, new = accounts.create("old@example.org", PASSWORD), accounts.create(MUENCHEN, PASSWORD)
    old.email = "info@münchen.de"
    db.session.commit()
    assert accounts.find("info@münchen.de") is old
    assert accounts.find(MUENCHEN) is new


def test_guest_orders_of_any_spelling_are_the_member_s(app: Flask) -> None:
    event = make_event()
    made = [place(event, email=typed) for typed in (SPELLINGS[0], SPELLINGS[2])]
    old = place(event)
    old.email = "info@straße.de"
    db.session.commit()
    user = accounts.create(STRASSE, PASSWORD)
    assert accounts.claim_for(user) == 3
    assert {order.email for order in made} == {STRASSE}


@pytest.mark.parametrize("typed", ["info@straße.de", STRASSE])
def test_links_are_mailed_to_the_one_who_bought(app: Flask, typed: str) -> None:
    place(make_event(), email="info@straße.de")
    managing.mail_links(typed)
    mail_requests.answer_due()
    assert db.session.query(OutboxMail).filter_by(kind="order_links").one().to == STRASSE


def test_a_corrected_address_is_kept_in_its_form(app: Flask) -> None:
    order = place(make_event())
    managing.correct_email(order, "INFO@straße.de")
    assert db.session.get_one(Order, order.id).email == STRASSE
    told = [mail.to for mail in db.session.query(OutboxMail).filter_by(kind="order_received")]
    assert sorted(told) == ["ada@example.org", STRASSE]


def test_pages_show_an_address_as_people_write_it(app: Flask) -> None:
    order = place(make_event(), email="info@straße.de")
    make_member("boss@example.org", Role.ADMIN)
    boss = app.test_client()
    log_in(boss, "boss@example.org")
    for page in ("/admin/orders", f"/admin/orders/{order.code}", f"/o/{order.code}/{order.secret}"):
        text = boss.get(page).text
        assert "info@straße.de" in text and "xn--" not in text, page


def test_a_guest_list_has_each_person_once(app: Flask) -> None:
    pasted = "Ada <info@straße.de>\ninfo@xn--strae-oqa.de\nBo bo@example.org\nJü jü@example.org"
    result = agents.SERVICES["guest_list"].run(pasted)
    assert result.text.startswith("2 people, each once.")
    assert (
        "Ada <info@straße.de>" in result.text and "Jü jü@example.org" in result.text.partition("Without")[2]
    )


def test_a_password_is_not_the_address_in_any_spelling() -> None:
    for password in (STRASSE, "info@straße.de"):
        with pytest.raises(DomainError) as refused:
            passwords.check(password, STRASSE)
        assert refused.value.code == "password_is_address"


def test_settings_are_brought_into_the_form(app: Flask) -> None:
    settings = replace(
        config.get(),
        admin_email="chef@straße.de",
        support_email="Hilfe@XN--STRAE-OQA.de",
        alert_email="Alarm@Straße.de",
        mail_sender="Kasse <kasse@straße.de>",
    )
    made = addresses.settle(settings)
    assert (made.admin_email, made.support_email) == ("chef@xn--strae-oqa.de", "hilfe@straße.de")
    assert (made.alert_email, made.mail_sender) == (
        "alarm@xn--strae-oqa.de",
        "Kasse <kasse@xn--strae-oqa.de>",
    )
    config.use(made)
    letter = transport.Letter(STRASSE, "Hello", "x", "x", "<a@example.org>", clock.now())
    message = transport.compose(letter)
    assert str(message["Reply-To"]) == "hilfe@xn--strae-oqa.de"
    assert message["From"].addresses[0].addr_spec == "kasse@xn--strae-oqa.de"


def with_address(field: str, value: str) -> config.Settings:
    changed: dict[str, Any] = {field: value}
    return replace(config.get(), **changed)


@pytest.mark.parametrize("field", ["admin_email", "support_email", "alert_email", "mail_sender"])
def test_a_setting_that_is_no_address_stops_the_start(app: Flask, field: str) -> None:
    with pytest.raises(config.ConfigError, match="cannot be used"):
        addresses.settle(with_address(field, "nobody"))
    addresses.settle(with_address(field, "root@localhost"))


def test_an_admin_is_made_by_any_spelling(app: Flask) -> None:
    user = accounts.create(STRASSE, PASSWORD)
    accounts.admin_link("info@straße.de")
    assert db.session.get_one(User, user.id).role is Role.ADMIN and db.session.query(User).count() == 1


def test_no_form_lets_a_browser_rewrite_an_address() -> None:
    """Chromium sends what is typed into a field of the type email by the rules of 2003: ß as ss."""
    templates = sorted((config.ROOT / "templates").rglob("*.html"))
    assert [path.name for path in templates if 'type="email"' in path.read_text()] == []
