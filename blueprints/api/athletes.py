"""A member's own athletes, and a guardian's consent for those who are minors."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, WithJsonSchema

from blueprints.api.caller import caller
from blueprints.api.endpoint import Area
from blueprints.api.errors import Problem
from blueprints.api.shapes import Amount, Answer, Body, Choice, Day, Id, Moment, example
from domain.catalogue import grades, tournaments
from domain.people import athletes
from domain.security.scopes import Scope
from models import Athlete, Sex

area = Area(
    "athletes", "Athletes", "Whom one enters: oneself, or one’s children. Nobody else sees them here."
)

# Written as a number, with no more decimals than it has.
Kilograms = Annotated[
    Decimal,
    PlainSerializer(lambda value: value, return_type=Decimal),
    WithJsonSchema({"type": "number", "examples": [44.5]}, mode="serialization"),
]
# As a number or a text, as amounts are; the domain refuses a text that says none or too many.
Weight = Annotated[
    Amount,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": 500, "multipleOf": 0.001},
                {"type": "string", "pattern": r"^(0|[1-9][0-9]{0,2})(\.[0-9]{1,3})?$"},
            ],
            "description": "In kilograms, to the gram.",
            "examples": [44.5, "44.5"],
        },
        mode="validation",
    ),
]
Grade = Annotated[
    int,
    WithJsonSchema(
        {"type": "integer", "minimum": grades.LOWEST, "maximum": grades.HIGHEST, "not": {"const": 0}},
        mode="validation",
    ),
]


class NewAthlete(Body):
    """An athlete. What is left out is not known."""

    name: str = Field(min_length=1, max_length=200, description="As it stands on the start list.")
    birth_date: Day
    sex: Choice[Sex] | None = None
    club: str = Field("", max_length=200)
    weight_kg: Weight | None = Field(None, description="Forgotten after the tournament.")
    grade: Grade | None = Field(None, description="-10 is the 10th kyu, -1 the 1st kyu, 1 the 1st dan.")

    model_config = example(
        {
            "name": "Aliya Serik",
            "birth_date": "2012-05-31",
            "sex": "female",
            "club": "Alau",
            "weight_kg": 44.5,
            "grade": -3,
        }
    )


class AthleteShape(Answer):
    """An athlete of the caller’s."""

    athlete_id: Id
    name: str
    birth_date: Day
    sex: Sex | None
    club: str
    weight_kg: Kilograms | None
    grade: int | None
    consent_given: bool = Field(description="Whether a guardian has agreed to the text as it is now.")
    created_at: Moment

    model_config = example(
        {
            "athlete_id": "athlete_9sX2bL0qW7tYv4mKc1Rd",
            "name": "Aliya Serik",
            "birth_date": "2012-05-31",
            "sex": "female",
            "club": "Alau",
            "weight_kg": 44.5,
            "grade": -3,
            "consent_given": True,
            "created_at": "2026-01-10T08:00:00Z",
        }
    )


class AthleteList(Answer):
    """The caller’s athletes, by name; at most 200."""

    items: list[AthleteShape]


class ConsentText(Answer):
    """What a guardian agrees to."""

    text: str
    text_hash: str = Field(description="Sent back with the consent, so that nobody agrees to another text.")


class GiveConsent(Body):
    """A guardian’s word that a minor may take part."""

    text_hash: str = Field(min_length=64, max_length=64)

    model_config = example({"text_hash": "9f" * 32})


NO_ATHLETE = Problem(404, "no_athlete", "There is no such athlete.")
CONSENT_CHANGED = Problem(409, "consent_changed", "The text of the consent has changed.", lasting=False)
_WRONG = (
    Problem(400, "name_missing", "Type your name: it is on the start list."),
    Problem(400, "name_strange", "That does not look like a name. Type it without web addresses."),
    Problem(400, "name_too_long", "That name is too long. Use at most 200 characters."),
    Problem(400, "birth_date", "Type the date of birth, such as 2012-05-31."),
    Problem(400, "weight", "Type a weight in kilograms, such as 66 or 52.5."),
    Problem(400, "grade", "Choose a grade from the list."),
)


@area.get("/athletes", scope=Scope.ATHLETES_READ, answers=AthleteList)
def list_athletes() -> AthleteList:
    """List one’s athletes."""
    found = athletes.of(caller().user)
    agreed = athletes.consented([one.id for one in found])
    return AthleteList(items=[_shape(one, one.id in agreed) for one in found])


@area.post(
    "/athletes",
    scope=Scope.ATHLETES_WRITE,
    answers={201: AthleteShape},
    problems=(
        *_WRONG,
        Problem(
            409,
            "too_many",
            f"An account keeps at most {athletes.MOST} athletes. Remove one first.",
            lasting=False,
        ),
    ),
)
def add_athlete(body: NewAthlete) -> tuple[AthleteShape, int]:
    """Add an athlete."""
    return _shape(athletes.add(caller().user, _values(body)), agreed=False), 201


@area.get("/athletes/<athlete_id>", scope=Scope.ATHLETES_READ, answers=AthleteShape, problems=(NO_ATHLETE,))
def get_athlete(athlete_id: str) -> AthleteShape:
    """One of one’s athletes."""
    return _known(athletes.find(caller().user, athlete_id))


@area.put(
    "/athletes/<athlete_id>",
    scope=Scope.ATHLETES_WRITE,
    answers=AthleteShape,
    problems=(NO_ATHLETE, *_WRONG),
)
def change_athlete(athlete_id: str, body: NewAthlete) -> AthleteShape:
    """Change an athlete. Entries keep what they were made with."""
    return _known(athletes.change(athletes.find(caller().user, athlete_id), _values(body)))


@area.get("/consent", scope=Scope.ATHLETES_READ, answers=ConsentText)
def get_consent() -> ConsentText:
    """The text that a guardian of a minor agrees to, as it is now."""
    return ConsentText(text=athletes.consent_text(), text_hash=athletes.consent_hash())


@area.post(
    "/athletes/<athlete_id>/consent",
    scope=Scope.ATHLETES_WRITE,
    answers=AthleteShape,
    problems=(
        NO_ATHLETE,
        CONSENT_CHANGED,
    ),
)
def give_consent(athlete_id: str, body: GiveConsent) -> AthleteShape:
    """Agree, as a guardian, that a minor takes part. Who, when and which text is kept."""
    member = caller().user
    return _known(athletes.agree(athletes.find(member, athlete_id), member, body.text_hash))


def _values(body: NewAthlete) -> dict[str, Any]:
    grams = tournaments.grams(str(body.weight_kg)) if body.weight_kg is not None else None
    own = {name: getattr(body, name) for name in ("name", "birth_date", "sex", "club", "grade")}
    return own | {"weight_g": grams}


def _known(athlete: Athlete) -> AthleteShape:
    return _shape(athlete, athlete.id in athletes.consented([athlete.id]))


def _shape(athlete: Athlete, agreed: bool) -> AthleteShape:
    weight = athlete.weight_g
    return AthleteShape(
        athlete_id=athlete.public_id,
        name=athlete.name,
        birth_date=athlete.birth_date,
        sex=athlete.sex,
        club=athlete.club,
        weight_kg=Decimal(tournaments.say_kilograms(weight)) if weight is not None else None,
        grade=athlete.grade,
        consent_given=agreed,
        created_at=athlete.created_at,
    )
