"""Passwords: how they are kept, and which are refused."""

from __future__ import annotations

from dataclasses import replace

from argon2 import PasswordHasher
from flask import Flask

import config
from domain.people import accounts
from domain.security import (
    one_time_links,
    passwords,
)
from extensions import db
from models import LinkPurpose, Role
from tests.support.people import PASSWORD, make_member, refusal


def test_passwords_that_are_refused(app: Flask) -> None:
    config.use(replace(config.get(), site_name="The Box Office"))
    refused = {
        "password_short": ("short", "x7Gh2k  ", "x7\u200bGh\u200b2k"),
        "password_long": ("x" * 201,),
        "password_is_address": ("Ann@Example.org", " ann@example.org"),
        "password_common": (
            *("Password123", "ababababab"),
            # Of lists that leaked, and what is made of them; this year is one of them.
            *("dragon12", "P@ssw0rd!", "letmein!!", "1qaz@WSX", "qazwsxedc", "abcdefgh1", "19871987"),
            *("Monkey123!", "dragon2026", "Qwerty2031", "1234567890123"),
            # The person's and the shop's own words.
            *("annexample1", "Ann.Example9", "kassa2026", "BoxOfficeKassa", "example-org-1"),
            # Russian and Kazakh, on either keyboard, as they sound, and with another alphabet's letters.
            *("пароль123", "йцукенгш", "ПриветМир", "ghbdtnvbh", "қазақстан1", "желтоқсан16", "zheltoqsan"),
            *("Алматы2026", "fkvfns2026", "раssword1", "Zhibek77", "жібек-77"),
            # Wide letters, accents, and what is not seen, make it no better.
            *("  password1  ", "ｐａｓｓｗｏｒｄ１", "pässwörd1", "pass\u200bword\u200b1"),
        ),
    }
    for code, typed in refused.items():
        for password in typed:
            with refusal(code):
                passwords.check(password, "ann@example.org", words=["Ann Example", "Жібек"])
    with refusal("password_common"):
        accounts.register("ann@example.org", "Password123", "Ann Example")
    assert accounts.find("ann@example.org") is None


def test_passwords_that_are_good_enough(app: Flask) -> None:
    good = ("three green bottles", "tulpe&Hafen7", "x7Gh2kLp", "корабль под дождём", "~}]%$;:{?+<")
    # The longest that is taken is weighed in no time.
    for password in (*good, "4@8({[<69&#!1|0$5+7%2" * 9):
        passwords.check(password, "ann@example.org", words=["Ann Example"])


def test_an_admin_s_password_is_longer_and_nobody_has_to_change_theirs(app: Flask) -> None:
    boss = make_member("boss@example.org", Role.ADMIN, password="x7Gh2kLp")
    accounts.authenticate("boss@example.org", "x7Gh2kLp")
    with refusal("password_short") as caught:
        accounts.change_password(boss, "x7Gh2kLp", "y8Hj3mNq")
    assert "10 characters" in caught.value.message
    token = one_time_links.make(boss, LinkPurpose.RESET).rsplit("/", 1)[1]
    with refusal("password_short"):
        accounts.reset(token, "y8Hj3mNq")
    accounts.reset(token, "y8Hj3mNqwe")
    # The demo's own, whose passwords everybody knows.
    demo = make_member("admin@example.org", Role.ADMIN, password="kassa-demo")
    accounts.change_password(demo, "kassa-demo", "kassa")
    config.use(replace(config.get(), development=False))
    with refusal("password_common"):
        accounts.change_password(demo, "kassa", "kassa-demo")


def test_a_password_kept_with_older_parameters_is_kept_anew(app: Flask) -> None:
    user = make_member()
    user.password_hash = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)
    db.session.commit()
    accounts.authenticate("ann@example.org", PASSWORD)
    assert not passwords.outdated(user.password_hash)
    assert passwords.right(user.password_hash, PASSWORD)


def test_composed_and_decomposed_letters_are_one_password(app: Flask) -> None:
    make_member(password="gar\u00e7on caf\u00e9")
    accounts.authenticate("ann@example.org", "garc\u0327on cafe\u0301")
