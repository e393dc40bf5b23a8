"""Becoming a member: an account that waits for its address, and what a guest bought before."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy import func, select

from domain.errors import DomainError
from domain.people import accounts
from extensions import db
from models import Role, User
from tests.support.people import PASSWORD, mails, make_member, refusal, registered, token_in
from tests.support.shop import make_event, place
from tests.support.threads import at_once


def test_registering_makes_an_account_that_waits_for_its_address(app: Flask) -> None:
    user = registered(" Ann@Example.ORG ")
    assert (user.email, user.role, user.confirmed_at) == ("ann@example.org", Role.BUYER, None)
    assert user.password_hash.startswith("$argon2id$")
    with refusal("unconfirmed"):
        accounts.authenticate("ann@example.org", PASSWORD)
    assert accounts.confirm(token_in("confirm_address"), PASSWORD).id == user.id
    assert accounts.authenticate("ANN@example.org", PASSWORD).id == user.id


@pytest.mark.parametrize("email", ["someone@shop.test", "someone@example.org", "o'neil+x@example.com"])
def test_addresses_that_are_good(app: Flask, email: str) -> None:
    assert registered(email).email == email


@pytest.mark.parametrize(
    "email", ["", "nobody", "a@b", "a b@example.org", "a@@example.org", "x@" + "y" * 300]
)
def test_addresses_that_are_refused_in_words(app: Flask, email: str) -> None:
    with refusal("email_invalid") as caught:
        accounts.register(email, PASSWORD, "Ann")
    assert "e-mail address" in caught.value.message


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "Go to http://evil", "see evil.com", "<b>Ann</b>"])
def test_names_that_are_refused(app: Flask, name: str) -> None:
    with pytest.raises(DomainError, match="name"):
        accounts.register("ann@example.org", PASSWORD, name)


def test_a_name_with_initials_is_a_name(app: Flask) -> None:
    accounts.register("jrr@example.org", PASSWORD, "J.R.R.\0  Tolkien")
    assert accounts.find("jrr@example.org").name == "J.R.R. Tolkien"  # type: ignore[union-attr]


def test_registering_a_known_address_changes_nothing_and_mails_its_owner(app: Flask) -> None:
    before = make_member().password_hash
    accounts.register("ANN@example.org", "another password", "Somebody Else")
    user = accounts.find("ann@example.org")
    assert user is not None
    assert (user.password_hash, user.name) == (before, "Ann Example")
    assert [mail.to for mail in mails("already_registered")] == ["ann@example.org"]
    assert not mails("confirm_address")


def test_two_who_register_one_unconfirmed_address_both_lose_to_who_reads_its_mail(app: Flask) -> None:
    registered()
    first = token_in("confirm_address")
    accounts.register("ann@example.org", "the second password", "Second")
    with refusal("link_used"):
        accounts.confirm(first, PASSWORD)
    accounts.reset(token_in("already_registered"), "the owner's own choice")
    for password in (PASSWORD, "the second password"):
        with refusal("wrong_login"):
            accounts.authenticate("ann@example.org", password)
    assert accounts.authenticate("ann@example.org", "the owner's own choice").confirmed_at


def test_one_address_registered_at_once_is_one_account(app: Flask) -> None:
    done = at_once(app, 5, lambda n: accounts.register("ann@example.org", f"{PASSWORD} {n}", "Ann"))
    assert done == [None] * 5
    assert db.session.scalar(select(func.count()).select_from(User)) == 1
    assert len(mails("confirm_address")) == 1


def test_confirming_finds_the_orders_made_as_a_guest(app: Flask) -> None:
    order = place(make_event(), email="ann@example.org")
    other = place(make_event("other"), email="bob@example.org")
    user = registered()
    assert accounts.orders_of(user).orders == []
    accounts.confirm(token_in("confirm_address"), PASSWORD)
    assert [found.id for found in accounts.orders_of(user).orders] == [order.id]
    assert other.user_id is None
    again = place(make_event("third"), email="Ann@example.org")
    accounts.authenticate("ann@example.org", PASSWORD)
    assert [found.id for found in accounts.orders_of(user).orders] == [again.id, order.id]


def test_orders_come_in_pages(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "ORDERS_PER_PAGE", 2)
    user, event = make_member(), make_event()
    placed = [place(event, user=user).id for _ in range(3)]
    first = accounts.orders_of(user)
    assert ([order.id for order in first.orders], first.older) == ([placed[2], placed[1]], placed[1])
    second = accounts.orders_of(user, first.older)
    assert ([order.id for order in second.orders], second.older) == ([placed[0]], None)
