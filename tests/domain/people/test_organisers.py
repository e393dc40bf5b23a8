"""Becoming an organiser, and what an admin's word does to their pages and sales."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy import select

from domain.catalogue import availability, front_page
from domain.door import staff
from domain.errors import DomainError, NotFound
from domain.people import accounts, organisers
from domain.security import api_keys, api_tokens, logins
from extensions import db
from models import DoorPass, Event, EventState, Organiser, OrganiserState, Role, User
from tests.support.people import mails
from tests.support.shop import make_event, make_user, place
from tests.support.threads import at_once

PROFILE = {
    "name": "  Blue   Note ",
    "description": "Jazz on Thursdays.",
    "website": "bluenote.example.org",
    "phone": "+351 1234",
    "contact_email": "Box@BlueNote.example.org",
}


@pytest.fixture
def boss(app: Flask) -> int:
    return make_user("boss@example.org", Role.ADMIN).id


def applied(email: str = "ann@example.org") -> tuple[User, Organiser]:
    user = make_user(email)
    return user, organisers.apply(user, PROFILE)


def test_a_member_applies_and_is_approved(boss: int) -> None:
    user, organiser = applied()
    assert (organiser.state, user.role) == (OrganiserState.PENDING, Role.BUYER)
    assert (organiser.name, organiser.website) == ("Blue Note", "https://bluenote.example.org")
    assert organiser.contact_email == "box@bluenote.example.org"
    assert [mail.to for mail in mails("organiser_applied")] == ["ann@example.org"]
    assert "Blue Note" in mails("alert")[0].context["subject"]
    assert organisers.waiting() == 1
    organisers.approve(organiser.id, actor_id=boss)
    assert user.role is Role.ORGANISER
    assert (organiser.decided_by_id, organisers.waiting()) == (boss, 0)
    assert [mail.to for mail in mails("organiser_approved")] == ["ann@example.org"]


def test_a_rejection_says_why_and_one_may_apply_again(boss: int) -> None:
    user, organiser = applied()
    with pytest.raises(DomainError, match="Say why"):
        organisers.reject(organiser.id, reason=" ", actor_id=boss)
    organisers.reject(organiser.id, reason="We know nobody of that name.", actor_id=boss)
    assert mails("organiser_rejected")[0].context["reason"] == "We know nobody of that name."
    assert user.role is Role.BUYER
    again = organisers.apply(user, PROFILE | {"name": "Blue Note Club"})
    assert (again.id, again.name, again.state) == (organiser.id, "Blue Note Club", OrganiserState.PENDING)
    assert len(mails("organiser_applied")) == 2


def test_nobody_applies_twice_or_without_a_confirmed_address(app: Flask) -> None:
    user, _ = applied()
    with pytest.raises(DomainError, match="already"):
        organisers.apply(user, PROFILE)
    assert len(mails("organiser_applied")) == 1
    stranger = make_user("new@example.org")
    stranger.confirmed_at = None
    db.session.commit()
    with pytest.raises(DomainError, match="Confirm"):
        organisers.apply(stranger, PROFILE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", " "),
        ("name", "x" * 201),
        ("website", "javascript:alert(1)"),
        ("website", "https://no spaces.example.org"),
        ("website", "http://[broken"),
        ("contact_email", "nobody"),
        ("description", "nul\x00"),
    ],
)
def test_a_profile_is_checked_in_words(app: Flask, field: str, value: str) -> None:
    with pytest.raises(DomainError) as refused:
        organisers.apply(make_user(), PROFILE | {field: value})
    assert refused.value.code == field
    assert db.session.query(Organiser).count() == 0


def test_a_suspended_organisers_events_go_off_sale_and_come_back(boss: int) -> None:
    user, organiser = applied()
    organisers.approve(organiser.id, actor_id=boss)
    event = make_event(organiser_id=user.id)
    order = place(event)
    organisers.suspend(organiser.id, reason="Complaints", actor_id=boss)
    assert user.role is Role.BUYER
    db.session.expire_all()
    assert availability.selling(event).state is availability.Sale.WITHDRAWN
    assert [entry.state for entry in front_page.upcoming()] == [availability.Sale.WITHDRAWN]
    with pytest.raises(DomainError, match="not on sale"):
        place(event)
    with pytest.raises(NotFound):
        organisers.event_for(user, event.slug)
    assert order.payments[0].is_active
    organisers.approve(organiser.id, actor_id=boss)
    db.session.expire_all()
    assert availability.selling(db.session.get_one(Event, event.id)).is_open
    assert db.session.get_one(User, user.id).role is Role.ORGANISER


def ways_in(user: User, event: Event) -> tuple[DoorPass, str, str, str]:
    """A door pass, a login, a program and a key of an organiser, all of which work."""
    door_pass, _ = staff.make_pass(event, "North", user)
    cookie, pair = logins.begin(user), api_tokens.begin(user)
    _, key = api_keys.make(user, "till", ["tickets:check-in"], 30)
    db.session.commit()
    assert staff.open_pass(door_pass.token).id == door_pass.id
    assert logins.whose(cookie) is not None
    assert api_keys.whose(key).user_id == user.id
    return door_pass, cookie, pair.refresh, key


def work(door_pass: DoorPass, cookie: str, refresh: str, key: str) -> list[str]:
    """Which of them still lets somebody in."""
    db.session.expire_all()
    found = ["a login"] if logins.whose(cookie) is not None else []
    for name, use in (
        ("the pass", lambda: staff.open_pass(door_pass.token)),
        ("a program", lambda: api_tokens.refresh(refresh)),
        ("a key", lambda: api_keys.whose(key)),
    ):
        try:
            use()
            found.append(name)
        except DomainError:
            db.session.rollback()
    return found


def test_every_way_in_ends_with_a_role_and_stays_ended(boss: int) -> None:
    """Door staff of a suspended organiser went on reading names and letting people in."""
    user, organiser = applied()
    organisers.approve(organiser.id, actor_id=boss)
    event = make_event(organiser_id=user.id)
    house_pass, _ = staff.make_pass(make_event("house"), "House", None)
    for end, begin_again in (
        (
            lambda: organisers.suspend(organiser.id, reason="Complaints", actor_id=boss),
            lambda: organisers.approve(organiser.id, actor_id=boss),
        ),
        (
            lambda: accounts.change_role(user.id, Role.BUYER),
            lambda: accounts.change_role(user.id, Role.ORGANISER),
        ),
        (lambda: accounts.disable(user.id), lambda: accounts.enable(user.id)),
    ):
        ways = ways_in(db.session.get_one(User, user.id), event)
        end()
        assert work(*ways) == []
        begin_again()
        assert work(*ways) == []
    # Who becomes an admin logs in again, and keeps the rest; others' doors stay open.
    ways = ways_in(db.session.get_one(User, user.id), event)
    accounts.change_role(user.id, Role.ADMIN)
    assert work(*ways) == ["the pass", "a key"]
    assert staff.open_pass(house_pass.token).id == house_pass.id


def test_who_is_suspended_at_this_moment_makes_no_pass_and_no_key(boss: int, app: Flask) -> None:
    user, organiser = applied()
    organisers.approve(organiser.id, actor_id=boss)
    event_id, user_id, organiser_id = make_event(organiser_id=user.id).id, user.id, organiser.id
    db.session.commit()

    def one(number: int) -> None:
        member, event = db.session.get_one(User, user_id), db.session.get_one(Event, event_id)
        if number == 0:
            organisers.suspend(organiser_id, reason="Complaints", actor_id=boss)
        elif number % 2:
            staff.make_pass(event, str(number), member)
        else:
            api_keys.make(member, str(number), ["tickets:check-in"], 30)
            db.session.commit()

    at_once(app, 6, one)
    db.session.expire_all()
    assert not [door_pass for door_pass in db.session.scalars(select(DoorPass)) if not door_pass.revoked_at]
    assert not api_keys.living(db.session.get_one(User, user_id))
    # The house lets people in to an event that takes place.
    event = db.session.get_one(Event, event_id)
    own, _ = staff.make_pass(event, "The house's", db.session.get_one(User, boss))
    assert staff.open_pass(own.token).id == own.id


def test_an_admin_stays_an_admin(boss: int) -> None:
    user = db.session.get_one(User, boss)
    organiser = organisers.apply(user, PROFILE)
    organisers.approve(organiser.id, actor_id=boss)
    organisers.suspend(organiser.id, reason="A test", actor_id=boss)
    assert user.role is Role.ADMIN


def test_two_admins_decide_once(boss: int) -> None:
    _, organiser = applied()
    organisers.approve(organiser.id, actor_id=boss)
    for late in ("approve", "reject"):
        with pytest.raises(DomainError, match="Somebody was faster"):
            organisers.decide(organiser.id, late, reason="Too late", actor_id=boss)
    assert len(mails("organiser_approved")) == 1
    with pytest.raises(DomainError):
        organisers.decide(organiser.id, "delete", reason="", actor_id=boss)


def test_an_organiser_by_an_admins_word_gets_a_profile_by_filling_it_in(app: Flask) -> None:
    user = make_user(role=Role.ORGANISER)
    assert organisers.of(user) is None
    assert organisers.edit(user, PROFILE).state is OrganiserState.APPROVED
    assert organisers.edit(user, PROFILE | {"name": "Other"}).name == "Other"
    with pytest.raises(NotFound):
        organisers.edit(make_user("buyer@example.org"), PROFILE)


def test_events_are_found_for_those_who_run_them(app: Flask) -> None:
    owner, other = make_user("o@example.org", Role.ORGANISER), make_user("p@example.org", Role.ORGANISER)
    admin, buyer = make_user("a@example.org", Role.ADMIN), make_user("b@example.org")
    event = make_event(organiser_id=owner.id, state=EventState.DRAFT)
    house = make_event("house")
    assert organisers.event_for(owner, event.slug) is event
    assert organisers.event_for(admin, event.slug) is event
    for nobody, slug in ((other, event.slug), (buyer, event.slug), (owner, house.slug), (owner, "none")):
        with pytest.raises(NotFound):
            organisers.event_for(nobody, slug)
    assert organisers.events_of(owner) == [event]
    assert organisers.events_of(admin) == [house]
