"""Athletes: what is kept of them, for whom, and what is forgotten."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from flask import Flask

from domain import clock
from domain.errors import DomainError, NotFound
from domain.people import athletes
from extensions import db
from models import Athlete, Consent, User
from tests.support.shop import make_user
from tests.support.tournaments import enter, make_athlete, make_tournament

pytestmark = pytest.mark.usefixtures("app")


@pytest.fixture
def ann(app: Flask) -> User:
    return make_user("ann@example.org")


def test_a_member_has_their_own_by_name(ann: User) -> None:
    other = make_user("bob@example.org")
    zoe, ada = make_athlete(ann, "Zoë"), make_athlete(ann, "Ada")
    theirs = make_athlete(other, "Ben")
    assert athletes.of(ann) == [ada, zoe]
    for public_id in (theirs.public_id, "athlete_none", str(ada.id)):
        with pytest.raises(NotFound):
            athletes.find(ann, public_id)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": " "}, "name_missing"),
        ({"name": "Win www.prize.example"}, "name_strange"),
        ({"club": "x" * 201}, "club"),
        ({"birth_date": None}, "birth_date"),
        ({"birth_date": date(1900, 1, 1)}, "birth_date"),
        ({"birth_date": date(2999, 1, 1)}, "birth_date"),
        ({"grade": 0}, "grade"),
    ],
)
def test_what_is_no_athlete_is_refused_and_nothing_changes(
    ann: User, changes: dict[str, Any], code: str
) -> None:
    kept = make_athlete(ann)
    with pytest.raises(DomainError) as refused:
        athletes.change(kept, {"club": "Other"} | changes)
    assert refused.value.code == code
    db.session.expire_all()
    assert (kept.name, kept.club, kept.birth_date) == ("Aiko Adult", "Dojo", date(1995, 5, 31))
    with pytest.raises(DomainError):
        make_athlete(ann, **changes)
    assert athletes.of(ann) == [kept]


def test_who_was_never_entered_is_forgotten_whole(ann: User) -> None:
    child = make_athlete(ann, birth_date=(clock.now() - timedelta(days=3650)).date())
    athletes.give_consent(child, ann, athletes.consent_hash())
    db.session.commit()
    athletes.remove(child)
    assert db.session.query(Athlete).count() == 0 and db.session.query(Consent).count() == 0


def test_who_was_entered_is_kept_for_that_entry(ann: User) -> None:
    kept = make_athlete(ann, weight_g=61_500)
    enter(make_tournament(fee_minor=0).ticket_types[0], kept)
    athletes.remove(kept)
    db.session.expire_all()
    assert (kept.name, kept.weight_g) == ("Aiko Adult", None)
    assert athletes.of(ann) == []


def test_a_name_that_is_put_right_is_the_one_that_the_door_reads(ann: User) -> None:
    made = enter(make_tournament(fee_minor=0).ticket_types[0], make_athlete(ann, "Aikko Adult"))
    over = enter(make_tournament("past", fee_minor=0).ticket_types[0], made.athlete)
    event = over.ticket_type.event
    event.starts_at, event.ends_at = clock.now() - timedelta(days=2), clock.now() - timedelta(days=1)
    db.session.commit()
    athletes.change(made.athlete, {"name": "Aiko Adult"})
    db.session.expire_all()
    assert [made.order.tickets[0].holder, made.order.lines[0].holder] == ["Aiko Adult", "Aiko Adult"]
    assert over.order.tickets[0].holder == "Aikko Adult"


def test_a_consent_is_kept_once_for_each_text(ann: User) -> None:
    child = make_athlete(ann)
    for _ in range(2):
        athletes.give_consent(child, ann, athletes.consent_hash())
        db.session.commit()
    assert db.session.query(Consent).count() == 1 and athletes.consented([child.id]) == {child.id}
