"""The audit log: what is noted, by whose hand, what is not, and that no change is left out.

Every other test is one of it, too: tests/support/audited.py watches what they write.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

import config
from domain import acting, audit
from domain.office import settings_seen
from domain.people import accounts
from extensions import db
from models import AuditArea, AuditEntry, Deed, Event, Role, TicketType
from tests.support import api, audited
from tests.support.people import PASSWORD, log_in, mails, make_member, post
from tests.support.shop import make_event

EVENT = {
    "title": "Winter Gala",
    "timezone": "Europe/Jersey",
    "starts_at": "2027-01-10T19:30",
    "ends_at": "2027-01-10T23:00",
    "currency": "EUR",
    "state": "draft",
}
TYPE = {"name": "Adult", "price": "12.50", "capacity": "40", "per_order_limit": "6", "position": "0"}


@pytest.fixture
def boss(app: Flask) -> FlaskClient:
    make_member("boss@example.org", Role.ADMIN)
    browser = app.test_client()
    log_in(browser, "boss@example.org")
    return browser


def newest(number: int = 1) -> list[AuditEntry]:
    """The newest entries, the last one first."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(number)
    return list(db.session.scalars(query.execution_options(populate_existing=True)))


def test_who_changed_what_from_what_to_what(
    app: Flask, boss: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event, its price, a text and a role, through Flask-Admin's pages; and how they are found."""
    boss_id, ann = accounts.find("boss@example.org").id, make_member()  # type: ignore[union-attr]
    ann_id = ann.id
    post(boss, "/admin/records/events/new/", **EVENT)
    event = db.session.query(Event).one()
    [made] = newest()
    assert (made.by, made.door, made.actor_id) == ("member", "admin", boss_id)
    assert (made.area, made.deed, made.subject, made.label) == ("event", "made", "event", "Winter Gala")
    assert ["title", None, "Winter Gala"] in made.changes
    post(boss, "/admin/records/ticket-types/new/", event_id=str(event.id), **TYPE)
    kind = db.session.query(TicketType).one()
    changed = TYPE | {"price": "15", "capacity": "50"}
    post(boss, f"/admin/records/ticket-types/edit/?id={kind.id}", event_id=str(event.id), **changed)
    price, capacity = sorted(newest(2), key=lambda entry: entry.area, reverse=True)
    assert price.changes == [["price_minor", "€12.50", "€15.00"]] and price.label == "Adult, Winter Gala"
    assert capacity.changes == [["capacity", 40, 50]] and capacity.area == "event"
    assert boss.get("/admin/records/pages/").status_code == 200
    post(boss, "/admin/records/pages/edit/?id=terms", title="Our terms", body="Be kind.")
    [terms] = newest()
    assert (terms.area, terms.label) == ("text", "/terms")
    assert terms.changes[0] == ["title", "Terms of sale", "Our terms"] and terms.changes[1][2] == "Be kind."
    post(boss, f"/admin/records/users/edit/?id={ann_id}", role="admin")
    [role] = newest()
    assert (role.area, role.about_id, role.changes) == ("role", ann_id, [["role", "buyer", "admin"]])
    assert [mail.to for mail in mails("new_admin")] == ["boss@example.org"]
    assert mails("new_admin")[0].context["by"] == "boss@example.org"
    noted = db.session.query(AuditEntry).count()
    post(boss, f"/admin/records/ticket-types/edit/?id={kind.id}", event_id=str(event.id), **changed)
    assert (
        "The event must end"
        in post(
            boss, f"/admin/records/events/edit/?id={event.id}", **EVENT | {"ends_at": "2027-01-09T19:30"}
        ).text
    )
    assert db.session.query(AuditEntry).count() == noted, "what was refused, or changed nothing, is no change"
    for words, seen, unseen in (
        ("winter gala price", "€15.00", "Be kind."),
        ("kind", "Be kind.", "€15.00"),
        ("ann@example.org", "→ admin", "Be kind."),
        ("15.00", "€15.00", "Be kind."),
        ("zebra:of & this'", "No entry matches", "€15.00"),
    ):
        page = boss.get("/admin/audit", query_string={"q": words}).text
        assert seen in page and unseen not in page, words
    page = boss.get("/admin/audit?area=text").text
    assert "Be kind." in page and "€15.00" not in page
    assert boss.post("/admin/audit").status_code in (400, 405)
    # What is rare is found behind the newest, and nobody removes or changes an entry, whatever they send.
    monkeypatch.setattr(audit, "_RECENT", 1)
    assert "€15.00" in boss.get("/admin/audit", query_string={"q": "winter gala price"}).text
    for statement in (
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "UPDATE audit_log SET actor_id = NULL WHERE actor_id IS NOT NULL",
        "UPDATE audit_log SET label = 'Another'",
        """UPDATE audit_log SET changes = '[["role", "…", "x"]]' WHERE changes = '[]'""",
        """UPDATE audit_log SET changes = '[["title", null, "Summer Gala"]]' WHERE label = 'Winter Gala'""",
    ):
        with pytest.raises(DBAPIError, match="entries of the audit log are never"):
            audit.note(AuditArea.KEY, Deed.MADE, "admin's link", 1)
            db.session.execute(text(statement))
        db.session.rollback()
    typed = {"old_password": PASSWORD, "password": "seven purple bottles"}
    post(boss, "/account/password", page="/account/", **typed)
    [password] = newest()
    assert (password.subject, password.changes) == ("password", [["password", audit.HIDDEN, audit.HIDDEN]])


def test_keys_jobs_and_commands_are_told_apart_and_secrets_are_not_there(
    app: Flask, client: FlaskClient, boss: FlaskClient
) -> None:
    member = make_member("owner@example.org", Role.ORGANISER)
    log_in(client, "owner@example.org")
    profile = {"name": "The Barn", "phone": "01534 12345", "contact_email": "barn@example.org"}
    post(client, "/organiser/profile", **profile)
    made = newest()[0]
    assert (made.subject, made.about_id, made.door) == ("organiser", member.id, "organiser")
    post(client, "/organiser/profile", **profile | {"phone": "01534 99999", "name": "The Old Barn"})
    told = {entry.area: entry.changes for entry in newest(2)}
    assert told[AuditArea.TEXT] == [["name", "The Barn", "The Old Barn"]]
    assert told[AuditArea.ROLE] == [["phone", audit.HIDDEN, audit.HIDDEN]]
    program = api.as_member(client, member)
    key = program.send("POST", "/keys", {"name": "Shop", "scopes": ["wallet:read"], "days": 30})
    [made] = newest()
    assert (made.by, made.door, made.subject, made.area) == ("member", "api", "key", "key")
    program.post(f"/keys/{key['key_id']}/revoke")
    assert newest()[0].changes[0][0] == "revoked_at"
    with acting.as_job("check_invariants"):
        accounts.change_role(member.id, Role.BUYER)
    assert (newest()[0].by, newest()[0].door) == ("job", "check_invariants")
    told_link = app.test_cli_runner().invoke(args=["users", "admin", "eve@example.org"]).output
    link, made = newest(2)
    assert (link.by, link.subject) == ("command", "admin's link")
    assert (made.by, made.changes) == ("command", [["role", None, "admin"]])
    assert made.actor_name
    assert {mail.to for mail in mails("new_admin")} == {"boss@example.org"}
    rows = "\n".join(db.session.scalars(text("SELECT a::text FROM audit_log a")))
    secrets = (told_link.strip().rsplit("/", 1)[1], key["key"], "argon2", "99999", "barn@example.org")
    assert [secret for secret in secrets if secret in rows] == []
    assert len(db.session.query(AuditEntry).all()) == rows.count("\n") + 1


def test_settings_of_the_host_are_compared_at_each_start(app: Flask) -> None:
    assert settings_seen.compare() == 0, "the first start has nothing to compare with"
    known = config.get()
    config.use(replace(known, site_name="The Barn", mail_password="hunter2", books_kept_years=7))
    assert settings_seen.compare() == 3 and settings_seen.compare() == 0
    told = {entry.subject_id: entry.changes[0][1:] for entry in newest(3)}
    assert told["site_name"] == ["Kassa", "The Barn"] and told["books_kept_years"] == ["10", "7"]
    assert told["mail_password"] == [audit.HIDDEN, audit.HIDDEN]
    kept = "\n".join(db.session.scalars(text("SELECT s::text FROM settings_seen s")))
    secrets = ("hunter2", known.secret_key, known.stripe_secret_key, known.database_url)
    assert [secret for secret in secrets if secret in kept] == []
    config.use(replace(config.get(), secret_key="another one of at least as many letters"))
    assert settings_seen.compare() == 1 and newest()[0].subject_id == "secret_key"
    assert settings_seen.compare() == 0


# --- Nothing is left out --------------------------------------------------------------------------------


# Every address that changes something, by what is kept of it. A new one has to be placed, or the test fails.
# The log has what these do: each is held to it by whatever test sends its form (tests/support/audited.py).
LOGGED = (
    *(f"records_{name}." for name in ("events", "types", "users", "agents", "pages", "passes")),
    *(
        "admin.open_restored",
        "admin.person_",
        "admin.house_account",
        "admin.decide_organiser",
        "admin_listing.",
        "listing.",
        "connections.",
    ),
    *("organiser.new_", "organiser.edit_", "organiser.delete_", "organiser.duplicate", "organiser.cancel"),
    *("organiser.apply", "organiser.profile", "organiser.desk_", "organiser.line"),
    *("door.make_pass", "door.revoke_pass"),
    *("factors.finish", "factors.add_passkey", "factors.remove_passkey"),
    *("api_access.make_key", "api_access.revoke_key", "api.make_key", "api.revoke_key"),
)
# An order's timeline, a payment's, the ledger or the mail's row says who did these, and why.
HISTORY = (
    *(
        "admin.approve",
        "admin.attach",
        "admin.cancel",
        "admin.confirm_",
        "admin.decide",
        "admin.extend",
        "admin.read_",
        "admin.send_back",
        "admin.write_down_lost",
    ),
    *("admin.recheck", "admin.record_", "admin.ref", "admin.requeue", "admin.resend", "admin.resolve"),
    *(
        "admin.retry_mail",
        "admin.drop_mail",
        "admin.ring",
        "admin.stop_polling",
        "admin.tell_",
        "admin.test_mail",
    ),
    *("admin.withdraw_told", "wallets.adjust", "organiser.guests", "organiser.refund", "organiser.resend"),
    *(
        "organiser.withdraw",
        "desk.",
        "api.record_refund",
        "api.refund_payment",
        "api.cancel_payment",
        "setup.",
    ),
)
# What members and buyers do with what is their own, and what providers and doors ring at.
OWN = (
    *("login_steps.", "devices.", "factors.begin", "factors.try_app", "factors.new_codes", "factors.prove"),
    *("account.", "api_access.end_programs", "athletes.", "door.", "order.", "shop.", "tournaments."),
    *("wallet.", "payments.", "api.add_athlete", "api.change_athlete", "api.check_in", "api.enter"),
    *("api.give_consent", "api.initiate", "api.log_in", "api.refresh", "api.revoke", "api.ring"),
    *("api.use_agent", "api.withdraw_participant"),
)


def test_every_address_that_changes_something_is_placed(app: Flask) -> None:
    changing = {
        rule.endpoint
        for rule in app.url_map.iter_rules()
        if (rule.methods or set()) & {"POST", "PUT", "PATCH", "DELETE"}
    }
    assert len(changing) > 100
    new = sorted(name for name in changing if not name.startswith((*LOGGED, *HISTORY, *OWN)))
    assert not new, f"Does the audit log have what these change? Place them in this test: {new}"


def test_a_change_without_an_entry_is_seen(app: Flask) -> None:
    """The watch itself: a statement that goes round the session, committed by Kassa's own code."""
    event = make_event()
    forgetful = compile(
        "def close(db, text, slug):\n"
        "    db.session.execute(text('UPDATE events SET title=:t WHERE slug = :s'), {'t': 'X', 's': slug})\n"
        "    db.session.commit()\n",
        f"{audited.DOMAIN}/forgetful.py",
        "exec",
    )
    names: dict[str, Any] = {}
    exec(forgetful, names)
    names["close"](db, text, event.slug)
    assert len(audited.silent) == 1 and "forgetful.py:3 committed UPDATE events" in audited.silent[0]
    audited.silent.clear()
