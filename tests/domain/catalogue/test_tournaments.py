"""Tournaments and categories: whom they are for, and writing them by the rules."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from domain.catalogue import events, front_page, grades, tournaments
from domain.catalogue.tournaments import Entrant
from domain.errors import DomainError, NotFound
from extensions import db
from models import Event, EventState, Sex, Tournament, Withdrawal
from tests.support.shop import make_event, make_user, place
from tests.support.tournaments import add_category, enter, make_athlete, make_tournament

pytestmark = pytest.mark.usefixtures("app")


@pytest.mark.parametrize(
    ("born", "day", "age"),
    [
        (date(2010, 6, 1), date(2026, 5, 31), 15),
        (date(2010, 6, 1), date(2026, 6, 1), 16),
        (date(2012, 2, 29), date(2030, 2, 28), 17),
        (date(2012, 2, 29), date(2030, 3, 1), 18),
        (date(2012, 2, 29), date(2028, 2, 29), 16),
    ],
)
def test_an_age_is_whole_years(born: date, day: date, age: int) -> None:
    assert tournaments.age_on(born, day) == age


def test_the_first_day_is_the_tournament_s_own() -> None:
    """Who has their birthday on it is a year older, whatever day it is in UTC."""
    starts = datetime(2030, 7, 1, 22, 30, tzinfo=UTC)
    event = make_tournament(timezone="Asia/Tokyo", starts_at=starts, ends_at=starts + timedelta(hours=8))
    assert tournaments.first_day(event) == date(2030, 7, 2)
    kind = add_category(event, "Twelve", min_age=12, max_age=12)
    assert tournaments.why_not(kind, Entrant(date(2018, 7, 2), None, None, None)) == ""
    assert "12 years" in tournaments.why_not(kind, Entrant(date(2018, 7, 3), None, None, None))


LIMITS: dict[str, Any] = {
    "sex": Sex.FEMALE,
    "min_weight_g": 50_000,
    "max_weight_g": 55_500,
    "min_grade": -3,
    "max_grade": 2,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"sex": Sex.MALE}, "girls and women"),
        ({"sex": None}, "sex is not filled in"),
        ({"weight_g": 55_501}, "50 to 55.5 kg"),
        ({"weight_g": 50_000}, ""),
        ({"weight_g": None}, "weight is not filled in"),
        ({"grade": -4}, "3rd kyu to 2nd dan"),
        ({"grade": 3}, "3rd kyu to 2nd dan"),
        ({"grade": None}, "grade is not filled in"),
    ],
)
def test_a_limit_that_is_not_met_is_named(changes: dict[str, Any], words: str) -> None:
    kind = add_category(make_tournament(), **LIMITS)
    values: dict[str, Any] = {
        "birth_date": date(2000, 1, 1),
        "sex": Sex.FEMALE,
        "weight_g": 55_500,
        "grade": -3,
    } | changes
    problem = tournaments.why_not(kind, Entrant(**values))
    assert words in problem and bool(words) is bool(problem)


@pytest.mark.parametrize(
    ("typed", "grams"),
    [("66", 66_000), ("52.5", 52_500), ("52,5 kg", 52_500), ("", None), (" 0.5 ", 500)],
)
def test_a_weight_is_read(typed: str, grams: int | None) -> None:
    assert tournaments.grams(typed) == grams


@pytest.mark.parametrize(
    "typed", ["-1", "0", "1e3", "501", "52.5001", "heavy", "5_0", "NaN", "٥٢", "1,000.5"]
)
def test_what_is_no_weight_is_refused(typed: str) -> None:
    with pytest.raises(DomainError, match="kilograms"):
        tournaments.grams(typed)


def test_weights_and_grades_are_said() -> None:
    assert [tournaments.say_kilograms(grams) for grams in (66_000, 52_500, 100_000)] == ["66", "52.5", "100"]
    assert [grades.say(grade) for grade in (-10, -2, 1, 3)] == ["10th kyu", "2nd kyu", "1st dan", "3rd dan"]
    assert len(grades.listed()) == 20


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"min_age": 12, "max_age": 11}, "max_age"),
        ({"min_age": -1}, "min_age"),
        ({"max_age": 121}, "min_age"),
        ({"min_weight_g": 2, "max_weight_g": 1}, "max_weight"),
        ({"min_grade": 1, "max_grade": -1}, "max_grade"),
        ({"min_grade": 0}, "grade"),
        ({"max_grade": 11}, "grade"),
    ],
)
def test_limits_that_nobody_meets_are_refused(limits: dict[str, Any], code: str) -> None:
    event = make_tournament()
    with pytest.raises(DomainError) as refused:
        add_category(event, "Impossible", **limits)
    assert refused.value.code == code
    assert len(event.ticket_types) == 1


def test_a_tournament_is_changed_duplicated_and_deleted() -> None:
    event = make_tournament(own={"rules": "No biting."})
    with pytest.raises(DomainError, match="until the tournament starts"):
        tournaments.change(event, {"withdraw_until": event.starts_at + timedelta(seconds=1)}, {})
    tournaments.change(event, {"withdrawal": Withdrawal.NOTHING, "public_list": True}, {})
    add_category(event, "Minis", max_age=9)
    copy = events.duplicate_event(tournaments.find("open"))
    assert copy.is_tournament and copy.state is EventState.DRAFT and copy.tournament is not None
    assert (copy.tournament.rules, copy.tournament.withdrawal) == ("No biting.", Withdrawal.NOTHING)
    assert [kind.category.max_age for kind in copy.ticket_types if kind.category] == [None, 9]
    events.delete_event(copy)
    assert db.session.query(Tournament).count() == 1


def test_a_category_s_currency_stays_once_somebody_is_entered() -> None:
    event = make_tournament()
    kind = add_category(event, "Tenge", fee_minor=900_000, currency="KZT")
    assert kind.priced_in == "KZT"
    values = {"name": "Tenge", "price_minor": 5000, "capacity": 10}
    tournaments.change_category(kind, {}, values | {"currency": "USD"})
    with pytest.raises(DomainError, match="not a currency|XXX"):
        tournaments.change_category(kind, {}, values | {"currency": "XXX"})
    assert kind.priced_in == "USD"
    enter(kind, make_athlete(make_user()), provider="stripe")
    with pytest.raises(DomainError, match="currency stays"):
        tournaments.change_category(kind, {}, values | {"currency": "EUR"})
    tournaments.change_category(kind, {}, values | {"price_minor": 6000, "currency": "USD"})
    assert (kind.price_minor, kind.priced_in) == (6000, "USD")


def test_events_are_no_tournaments_and_the_other_way_round() -> None:
    event, tournament = make_event(), make_tournament()
    with pytest.raises(NotFound):
        tournaments.find(event.slug)
    with pytest.raises(DomainError, match="entered for an athlete"):
        place(tournament)
    assert [one.slug for one in tournaments.upcoming()] == ["open"]
    assert isinstance(tournaments.find("open"), Event)
    assert {listing.event.slug for listing in front_page.upcoming()} == {"concert", "open"}
