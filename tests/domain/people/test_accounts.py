"""Accounts that there are: new passwords, roles, and who is an admin."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flask import Flask

import config
from domain import clock
from domain.errors import DomainError
from domain.people import accounts
from domain.security import (
    logins,
)
from models import Role
from tests.support.people import PASSWORD, later, mails, make_member, refusal, token_in
from tests.support.threads import at_once


@pytest.fixture
def in_production(app: Flask) -> Flask:
    """Production, where ADMIN_EMAIL is set and nobody is an admin."""
    config.use(replace(config.get(), development=False, admin_email="boss@example.org"))
    return app


def test_a_reset_sets_the_password_and_ends_other_sessions(app: Flask) -> None:
    user = make_member()
    cookie = logins.begin(user)
    accounts.request_reset("ANN@example.org")
    accounts.reset(token_in("reset_password"), "a new password")
    assert logins.whose(cookie) is None
    accounts.authenticate("ann@example.org", "a new password")
    with refusal("wrong_login"):
        accounts.authenticate("ann@example.org", PASSWORD)
    assert [mail.to for mail in mails("password_changed")] == ["ann@example.org"]


def test_a_refused_password_leaves_the_link_good(app: Flask) -> None:
    make_member()
    accounts.request_reset("ann@example.org")
    with refusal("password_short"):
        accounts.reset(token_in("reset_password"), "short")
    accounts.reset(token_in("reset_password"), "a new password")


def test_a_newer_reset_link_takes_the_place_of_older_ones(app: Flask) -> None:
    make_member()
    accounts.request_reset("ann@example.org")
    older = token_in("reset_password")
    accounts.request_reset("ann@example.org")
    assert len(mails("reset_password")) == 2
    with refusal("link_used"):
        accounts.reset(older, "a new password")
    accounts.reset(token_in("reset_password"), "a new password")


def test_an_unknown_address_gets_no_mail_and_no_other_answer(app: Flask) -> None:
    accounts.request_reset("nobody@example.org")
    assert not mails("reset_password")


def test_changing_a_password_needs_the_old_one_and_voids_links(app: Flask) -> None:
    user = make_member()
    accounts.request_reset("ann@example.org")
    link = token_in("reset_password")
    with refusal("wrong_password"):
        accounts.change_password(user, "wrong password", "a new password")
    cookie = logins.begin(user)
    accounts.change_password(user, PASSWORD, "a new password")
    assert logins.whose(cookie) is None
    assert len(mails("password_changed")) == 1
    with refusal("link_used"):
        accounts.reset(link, "yet another one")


def test_a_taken_address_is_not_made_again(app: Flask) -> None:
    make_member()
    with refusal("address_taken"):
        make_member("Ann@example.org")


def test_the_last_admin_stays(app: Flask) -> None:
    first = make_member("one@example.org", Role.ADMIN)
    with refusal("last_admin"):
        accounts.change_role(first.id, Role.BUYER)
    with refusal("last_admin"):
        accounts.disable(first.id)
    second = make_member("two@example.org", Role.ADMIN)
    accounts.change_role(first.id, Role.DOOR)
    assert first.role is Role.DOOR
    with refusal("last_admin"):
        accounts.disable(second.id)


def test_two_admins_cannot_both_demote_each_other(app: Flask) -> None:
    ids = [make_member(f"{n}@example.org", Role.ADMIN).id for n in range(2)]
    done = at_once(app, 2, lambda n: accounts.change_role(ids[n], Role.BUYER))
    assert sorted(isinstance(result, DomainError) for result in done) == [False, True]


def test_the_first_admin_gets_one_link_however_many_processes_start(in_production: Flask) -> None:
    printed = at_once(in_production, 5, lambda _: accounts.ensure_first_admin())
    given = [link for link in printed if link is not None]
    assert len(given) == 1
    assert isinstance(given[0], str)
    assert accounts.ensure_first_admin() is None
    boss = accounts.reset(given[0].rsplit("/", 1)[1], "the boss's password")
    assert (boss.email, boss.role) == ("boss@example.org", Role.ADMIN)
    assert boss.confirmed_at
    assert not mails("password_changed")
    assert accounts.ensure_first_admin() is None


def test_an_unused_first_link_is_followed_by_another_when_it_is_too_old(
    in_production: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert accounts.ensure_first_admin()
    later(monkeypatch, days=8)
    assert accounts.ensure_first_admin()


def test_no_first_admin_where_there_is_one_or_none_is_named(in_production: Flask) -> None:
    config.use(replace(config.get(), admin_email=""))
    assert accounts.ensure_first_admin() is None
    config.use(replace(config.get(), admin_email="boss@example.org"))
    make_member("other@example.org", Role.ADMIN)
    assert accounts.ensure_first_admin() is None
    assert accounts.find("boss@example.org") is None


def test_development_has_no_first_admin(app: Flask) -> None:
    config.use(replace(config.get(), admin_email="boss@example.org"))
    assert accounts.ensure_first_admin() is None


def test_an_admin_link_promotes_who_is_there_and_voids_the_one_before(app: Flask) -> None:
    user = make_member()
    accounts.disable(user.id)
    before = accounts.admin_link("Ann@example.org")
    after = accounts.admin_link("ann@example.org")
    assert (user.role, user.is_active) == (Role.ADMIN, True)
    with refusal("link_used"):
        accounts.reset(before.rsplit("/", 1)[1], "a new password")
    assert accounts.reset(after.rsplit("/", 1)[1], "a new password") == user


def test_a_member_is_found_by_an_address_only_when_it_is_confirmed(app: Flask) -> None:
    user = make_member(confirmed=False)
    assert accounts.by_confirmed_email("ann@example.org") is None
    user.confirmed_at = clock.now()
    assert accounts.by_confirmed_email("Ann@Example.org") == user
